"""Has a chat template place images as it does with transformers, and finds in the prompt where it has put them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.model import template_probe
from app.services.engine.model.image_markers import STAND_IN, marker
from app.services.generation import Message, ToolCall

_WORDS = ("word1word", "word2word", "word3word")  # between the images of a probe
_IMAGE = marker(b"probe")
_CONTENT = f"{_WORDS[0]}{_IMAGE}{_WORDS[1]}{_IMAGE}{_IMAGE}{_WORDS[2]}"
_CALL = ToolCall(0, "call_0", "look_up", '{"word": "word"}')
_USER = (Message("user", _CONTENT),)
_TOOL = (
    Message("user", "Look"),
    Message("assistant", tool_calls=(_CALL,)),
    Message("tool", _CONTENT, tool_call_id="call_0"),
)

# Renders messages, those of a role with their images as parts of type `image`, and tools.
Render = Callable[[Sequence[Message], str, Sequence[Mapping[str, Any]]], str]


@dataclass(frozen=True, slots=True)
class ImageText:
    """What a template writes where a message has an image: the same for each."""

    text: str
    roles: frozenset[str]  # whose messages may have images

    def hidden(self, value: Any) -> Any:
        """Put something else in the place of this text wherever a client wrote it, in messages and tools."""
        if isinstance(value, str):
            return value.replace(self.text, STAND_IN)
        if isinstance(value, Mapping):
            return {self.hidden(key): self.hidden(member) for key, member in value.items()}
        return [self.hidden(member) for member in value] if isinstance(value, list | tuple) else value

    def marked(self, prompt: str, markers: Sequence[str]) -> str | None:
        """Put the markers of images where the template wrote this; None if it did so more or fewer times."""
        first, *rest = prompt.split(self.text)
        if len(rest) != len(markers):
            return None
        parts = (marker + part for marker, part in zip(markers, rest, strict=True))
        return (first + "".join(parts)).replace(STAND_IN, self.text)


def find_image_text(render: Render) -> ImageText | None:
    """Find out what a template writes for an image; None if it knows none, or writes another text for each."""
    of_user = _written(lambda: render(_USER, "user", ()))
    if of_user is None:
        return None
    of_tool = _written(lambda: render(_TOOL, "tool", (template_probe.TOOL,)))
    return ImageText(of_user, frozenset(("user", "tool") if of_tool == of_user else ("user",)))


def _written(render: Callable[[], str]) -> str | None:
    try:
        prompt = render()
    except Exception:  # a template is a program that somebody else wrote
        return None
    between, _, rest = prompt.partition(_WORDS[0])[2].partition(_WORDS[1])
    text = between.strip()  # what is around it belongs to the template
    if not text or text.isalnum() or rest.partition(_WORDS[2])[0].count(text) != 2:
        return None
    return text
