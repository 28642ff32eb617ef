"""Ollama's answer to a single prompt."""

from dataclasses import replace
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType
from pydantic import Field

import app.services.generation as gen
from app.dto.ollama.answer import OllamaAnswer, OllamaStream, empty_head, head, numbers, scores, tagged
from app.dto.ollama.request import OllamaGenerating
from app.dto.shared import parameters
from app.dto.shared.base import RequestLimits
from app.dto.shared.readable import to_images, with_parts


class OllamaGenerateRequest(OllamaGenerating):
    """A prompt to answer. Without one the model is loaded, or unloaded where `keep_alive` is 0."""

    registry = parameters.OLLAMA_GENERATE

    prompt: str = Field(default="", examples=["Hello!"])
    suffix: str = ""
    system: str = ""
    raw: bool = False
    images: list[Any] = Field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to answer."""
        return not (self.prompt or self.suffix or self.images)

    def to_generation(self, limits: RequestLimits) -> gen.GenerationRequest:
        """Translate to the engine's vocabulary. Raises InvalidRequest for what cannot be done.

        A raw prompt, and one with a suffix, goes past the chat template; any other is the user's message.
        """
        request, images = self.common(limits), to_images(self.images, "images")
        if self.raw or self.suffix:
            return replace(request, prompt=(*images, self.prompt), suffix=self.suffix or None, split_reasoning=False)
        system = [gen.Message("system", self.system)] if self.system else []
        message = with_parts(gen.Message("user", self.prompt), [*images, self.prompt])
        return replace(request, messages=(*system, message))


class OllamaGenerateChunk(OllamaAnswer, kw_only=True):
    """A piece of the answer; the last is empty, and has the numbers."""

    response: Annotated[str, Meta(description="new text of the answer")]
    thinking: Annotated[str | UnsetType, Meta(description="new reasoning of the model")] = UNSET


class OllamaGenerateAnswer(OllamaAnswer, kw_only=True):
    """The whole answer."""

    response: Annotated[str, Meta(description="text of the answer")]
    thinking: Annotated[str | UnsetType, Meta(description="reasoning of the model")] = UNSET

    @classmethod
    def of(cls, answer: gen.Completion) -> "OllamaGenerateAnswer":
        """Build it from a whole answer."""
        assert answer.finished is not None
        return cls(
            response=answer.text,
            thinking=answer.reasoning or UNSET,
            logprobs=scores(answer.logprobs),
            **head(tagged(answer.model), done=True) | numbers(answer.finished),
        )

    @classmethod
    def empty(cls, model: str, *, unloaded: bool) -> "OllamaGenerateAnswer":
        """Say that a model was loaded or unloaded."""
        return cls(response="", **empty_head(model, unloaded=unloaded))


class OllamaGenerateStream(OllamaStream):
    """Translates events to the lines of an answer to a prompt."""

    def piece(
        self, *, text: str = "", thinking: str | UnsetType = UNSET, call: gen.ToolCall | None = None, **more: Any
    ) -> OllamaGenerateChunk:
        """Build a line; without tools there is no call."""
        return OllamaGenerateChunk(response=text, thinking=thinking, **self.head() | more)
