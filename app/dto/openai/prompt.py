"""Prompts that go past the chat template, in every form that OpenAI's and llama.cpp's clients send."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from app.dto.openai.chat_message import ContentPart
from app.dto.shared.base import Body, RequestLimits
from app.services.errors import InvalidRequest, UnprocessableBody

_MOST = 4096  # prompts in one request, whatever the settings say


class PromptObject(Body):
    """A prompt as llama.cpp's multimodal clients write it; this server takes the text."""

    prompt_string: str | None = Field(default=None, description="the text")
    content: str | list[ContentPart] | None = Field(
        default=None, description="the text, or a list of text parts, instead of prompt_string"
    )
    multimodal_data: list[Any] = Field(default_factory=list, description="images and their kin; has to be empty")

    @model_validator(mode="after")
    def _one_text(self) -> "PromptObject":
        if (self.prompt_string is None) == (self.content is None):
            raise ValueError("an object needs 'prompt_string' or 'content'")
        return self

    def text(self, param: str) -> str:
        """Give the text. Raises InvalidRequest for media."""
        if self.multimodal_data:
            raise InvalidRequest(f"This model reads text only, so {param} cannot have multimodal_data", param=param)
        if isinstance(self.content, list):
            return "".join(part.to_text(param, of_user=True) for part in self.content)
        return self.prompt_string or self.content or ""


def _check_length(value: Any) -> Any:
    """Refuse at a glance what could not be looked at in time: many lists, or lists among token ids."""
    if isinstance(value, list) and len(value) > _MOST:
        kinds = set(map(type, value))
        if int not in kinds:
            raise ValueError(f"more than {_MOST} in the list")
        if list in kinds:
            raise ValueError("a list of token ids cannot hold a list")
    return value


PromptPart = str | int | PromptObject
Prompt = Annotated[str | PromptObject | list[PromptPart | list[PromptPart]], BeforeValidator(_check_length)]


def prompts(value: Prompt, limits: RequestLimits, *, answers: int = 1) -> list[tuple[str | int, ...]]:
    """Take apart what was given: a list with a number in it is one prompt, every other list is several.

    Raises InvalidRequest for media, UnprocessableBody for no prompt or too many, each with so many answers.
    """
    return split_prompts(value, "prompt", limits.choices // answers, f"{limits.choices} answers to one request")


def split_prompts(value: Prompt, param: str, most: int, words: str) -> list[tuple[str | int, ...]]:
    """Take apart what was given for a parameter; `words` say what more than the most are. Raises as `prompts` does."""
    if not isinstance(value, list) or any(isinstance(item, int) for item in value):
        values: list[Any] = [value]
    else:
        values = value
    if not values:
        raise UnprocessableBody(f"{param}: there is none in the list", param=param)
    if len(values) > most:
        raise UnprocessableBody(f"{param}: more than {words}", param=param)
    return [prompt_parts(item, param) for item in values]


def prompt_parts(
    value: PromptPart | list[PromptPart | list[PromptPart]], param: str = "prompt"
) -> tuple[str | int, ...]:
    """Give the texts and token ids of one prompt. Raises as `prompts` does, and for lists in it."""
    return tuple(_part(item, param) for item in (value if isinstance(value, list) else [value]))


def _part(item: PromptPart | list[PromptPart], param: str) -> str | int:
    if isinstance(item, list):
        raise UnprocessableBody(f"{param}: a list of token ids cannot hold a list", param=param)
    if not isinstance(item, PromptObject):
        return item
    return item.text(param)
