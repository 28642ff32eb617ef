"""Prompts that go past the chat template, in every form that OpenAI's and llama.cpp's clients send."""

from itertools import zip_longest
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from app.dto.openai.chat_message import ContentPart
from app.dto.shared.base import Body, RequestLimits
from app.services.errors import InvalidRequest, UnprocessableBody
from app.services.generation import Image
from app.services.media_marker import MEDIA_MARKER

_MOST = 4096  # prompts in one request, whatever the settings say


class PromptObject(Body):
    """A prompt as llama.cpp's multimodal clients write it."""

    prompt_string: str | None = Field(
        default=None, description="the text, with the `media_marker` of `/props` where an image belongs"
    )
    content: str | list[ContentPart] | None = Field(
        default=None, description="the text, or a list of text parts, instead of prompt_string"
    )
    multimodal_data: list[str] = Field(
        default_factory=list, description="the images in base64, as many as there are markers, in their order"
    )

    @model_validator(mode="after")
    def _one_text(self) -> "PromptObject":
        if (self.prompt_string is None) == (self.content is None):
            raise ValueError("an object needs 'prompt_string' or 'content'")
        return self

    def pieces(self, param: str) -> list[str | Image]:
        """Give the texts and images. Raises InvalidRequest for other media, and for more or fewer images than markers.

        In a text without images a marker is text.
        """
        if isinstance(self.content, list):
            return [part.to_piece(f"{param}.content.{n}", of_user=True) for n, part in enumerate(self.content)]
        text = self.prompt_string or self.content or ""
        if not self.multimodal_data:
            return [text]
        texts, param = text.split(MEDIA_MARKER), f"{param}.multimodal_data"
        if len(texts) - 1 != len(self.multimodal_data):
            counts = f"the text has {len(texts) - 1} markers, but there are {len(self.multimodal_data)} images"
            raise InvalidRequest(f"{param}: {counts}", param=param)
        images = [Image(data, f"{param}.{number}") for number, data in enumerate(self.multimodal_data)]
        return [piece for pair in zip_longest(texts, images) for piece in pair if piece]


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


Pieces = tuple[str | int | Image, ...]  # of one prompt


def prompts(value: Prompt, limits: RequestLimits, *, answers: int = 1) -> list[Pieces]:
    """Take apart what was given: a list with a number in it is one prompt, every other list is several.

    Raises InvalidRequest for media other than images, UnprocessableBody for no prompt or too many, each with so many
    answers.
    """
    return split_prompts(value, "prompt", limits.choices // answers, f"{limits.choices} answers to one request")


def split_prompts(value: Prompt, param: str, most: int, words: str) -> list[Pieces]:
    """Take apart what was given for a parameter; `words` say what more than the most are. Raises as `prompts` does."""
    if not isinstance(value, list) or any(isinstance(item, int) for item in value):
        values: list[Any] = [value]
    else:
        values = value
    if not values:
        raise UnprocessableBody(f"{param}: there is none in the list", param=param)
    if len(values) > most:
        raise UnprocessableBody(f"{param}: more than {words}", param=param)
    if values is not value:
        return [_pieces(value, param)]
    return [_pieces(item, f"{param}.{number}") for number, item in enumerate(values)]


def _pieces(value: PromptPart | list[PromptPart | list[PromptPart]], param: str) -> Pieces:
    """Give the texts, token ids and images of one prompt. Raises as `prompts` does, and for lists in it."""
    items = value if isinstance(value, list) else [value]
    pieces: list[str | int | Image] = []
    for item in items:
        if isinstance(item, list):
            raise UnprocessableBody(f"{param}: a list of token ids cannot hold a list", param=param)
        if isinstance(item, PromptObject):
            pieces += item.pieces(param)
        else:
            pieces.append(item)
    return tuple(pieces)
