"""Prompts that go past the chat template, in every form that OpenAI's and llama.cpp's clients send."""

from typing import Any

from pydantic import Field

from app.dto.base import Body, Limits
from app.services.errors import InvalidRequest, UnprocessableBody


class PromptObject(Body):
    """A prompt as llama.cpp's multimodal clients write it; this server takes the text."""

    prompt_string: str
    multimodal_data: list[Any] = Field(default_factory=list, description="has to be empty")


Part = str | int | PromptObject
Prompt = str | PromptObject | list[Part | list[Part]]


def prompts(given: Prompt, limits: Limits, *, answers: int = 1) -> list[tuple[str | int, ...]]:
    """Take apart what was given: a list with a number in it is one prompt, every other list is several.

    Raises InvalidRequest for media, UnprocessableBody for no prompt or too many, each with so many answers.
    """
    several = apart(given, "prompt")
    if len(several) * answers > limits.choices:
        raise UnprocessableBody(f"prompt: more than {limits.choices} answers to one request", param="prompt")
    return several


def apart(given: Prompt, param: str) -> list[tuple[str | int, ...]]:
    """Take apart what was given for a parameter, without a limit. Raises as `prompts` does."""
    if not isinstance(given, list) or any(isinstance(item, int) for item in given):
        several: list[Any] = [given]
    else:
        several = given
    if not several:
        raise UnprocessableBody(f"{param}: there is none in the list", param=param)
    return [parts(one, param) for one in several]


def parts(given: Part | list[Part | list[Part]], param: str = "prompt") -> tuple[str | int, ...]:
    """Give the texts and token ids of one prompt. Raises as `prompts` does, and for lists in it."""
    return tuple(_part(item, param) for item in (given if isinstance(given, list) else [given]))


def _part(item: Part | list[Part], param: str) -> str | int:
    if isinstance(item, list):
        raise UnprocessableBody(f"{param}: a list of token ids cannot hold a list", param=param)
    if not isinstance(item, PromptObject):
        return item
    if item.multimodal_data:
        raise InvalidRequest(f"This model reads text only, so {param} cannot have multimodal_data", param=param)
    return item.prompt_string
