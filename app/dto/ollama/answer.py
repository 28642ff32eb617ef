"""What Ollama's answers have in common: a line of JSON each, the last with where the time went, in nanoseconds."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, cast

from msgspec import UNSET, Meta, Raw, UnsetType

import app.services.generation as gen
from app.dto.ollama.request import LATEST
from app.dto.shared.base import Dialect, Reply, object_text
from app.dto.shared.dates import from_now
from app.dto.shared.errors import OllamaErrorReply
from app.dto.shared.logprobs import ContentLogprob
from app.services.errors import AppError

DoneReason = Literal["stop", "length", "load", "unload"]


def tagged(model: str) -> str:
    """Give a model's name as Ollama has it, always with a tag."""
    return model if ":" in model.rpartition("/")[2] else model + LATEST


class OllamaAnswer(Reply, kw_only=True):
    """An answer, or a piece of one; the numbers come with the last."""

    model: Annotated[str, Meta(description="name of the model, with its tag")]
    created_at: Annotated[str, Meta(description="when it was written, as RFC 3339 in UTC")]
    done: Annotated[bool, Meta(description="whether the answer is whole")]
    done_reason: Annotated[
        DoneReason | UnsetType, Meta(description="why it ended; load and unload where there was nothing to answer")
    ] = UNSET
    total_duration: Annotated[int | UnsetType, Meta(description="nanoseconds from the acceptance to the end")] = UNSET
    load_duration: Annotated[int | UnsetType, Meta(description="always 0; Ollama's field")] = UNSET
    prompt_eval_count: Annotated[int | UnsetType, Meta(description="tokens of the prompt, cached ones too")] = UNSET
    prompt_eval_duration: Annotated[
        int | UnsetType, Meta(description="nanoseconds in which the prompt was computed")
    ] = UNSET
    eval_count: Annotated[int | UnsetType, Meta(description="tokens of the answer, reasoning too")] = UNSET
    eval_duration: Annotated[int | UnsetType, Meta(description="nanoseconds in which they were computed")] = UNSET
    logprobs: Annotated[
        list[ContentLogprob] | UnsetType, Meta(description="how likely the tokens were, where that was asked for")
    ] = UNSET


def head(model: str, *, done: bool) -> dict[str, Any]:
    """Give what each answer, and each piece of one, begins with; the model is named as Ollama does."""
    return {"model": model, "created_at": from_now(), "done": done}


def empty_head(model: str, *, unloaded: bool) -> dict[str, Any]:
    """Give what an answer to nothing begins with: a model was loaded, or unloaded."""
    return head(tagged(model), done=True) | {"done_reason": "unload" if unloaded else "load"}


def numbers(finished: gen.Finished) -> dict[str, Any]:
    """Give what the last line says of an answer."""
    timings = finished.timings
    return {
        "done": True,
        "done_reason": "length" if finished.reason == "length" else "stop",
        "total_duration": _nanoseconds(timings.total_ms),
        "load_duration": 0,
        "prompt_eval_count": timings.cached_tokens + timings.prompt_tokens,
        "prompt_eval_duration": _nanoseconds(timings.prompt_ms),
        "eval_count": timings.completion_tokens,
        "eval_duration": _nanoseconds(timings.completion_ms),
    }


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


def arguments_object(call: gen.ToolCall) -> dict[str, Any]:
    """Give the arguments of a call, which are an object and stay as they were written."""
    return cast("dict[str, Any]", Raw(object_text(call.arguments).encode()))


def scores(logprobs: Iterable[gen.TokenLogprob]) -> list[ContentLogprob] | UnsetType:
    """Give how likely tokens were, or leave it out."""
    return [ContentLogprob.of(score) for score in logprobs] or UNSET


class OllamaStream(Dialect):
    """Translates events to lines; calls are told once they are whole."""

    lines = True

    def __init__(self) -> None:
        self._model = ""
        self._call: gen.ToolCall | None = None  # whose arguments are still coming

    def feed(self, event: gen.Event) -> Iterator[Reply]:
        """Give the lines for an event of the engine, in order."""
        if self._call is not None and not isinstance(event, gen.ToolArguments):
            call, self._call = self._call, None
            yield self.piece(call=call)
        match event:
            case gen.Started():
                self._model = tagged(event.model)
            case gen.Text():
                yield self.piece(text=event.text, logprobs=scores(event.logprobs))
            case gen.Reasoning():
                yield self.piece(thinking=event.text)
            case gen.ToolCall():
                self._call = event
            case gen.ToolArguments():
                assert self._call is not None
                self._call = gen.ToolCall(
                    self._call.index, self._call.id, self._call.name, self._call.arguments + event.text
                )
            case gen.Finished():
                yield self.piece(logprobs=scores(event.logprobs), **numbers(event))

    def silence(self) -> Reply:
        """Give an empty piece; there are no comments among lines of JSON."""
        return self.piece()

    def failure(self, error: AppError) -> Reply:
        """Give the line of an error."""
        return OllamaErrorReply.of(error)

    def head(self) -> dict[str, Any]:
        """Give what each line but the last begins with."""
        return head(self._model, done=False)

    def piece(
        self, *, text: str = "", thinking: str | UnsetType = UNSET, call: gen.ToolCall | None = None, **more: Any
    ) -> Reply:
        """Build a line."""
        raise NotImplementedError
