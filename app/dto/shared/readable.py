"""The text in things that are no text, for a model that reads text only."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.services.generation import Image, Message

# By their types in all dialects.
MEDIA = {
    **dict.fromkeys(("image", "input_image", "image_url", "output_image", "image_file"), "images"),
    **dict.fromkeys(("computer_screenshot", "screenshot"), "screenshots"),
    **dict.fromkeys(("audio", "input_audio", "output_audio"), "audio"),
    **dict.fromkeys(("video", "input_video", "video_url"), "video"),
    **dict.fromkeys(("file", "input_file", "file_url"), "files"),
    "document": "documents",
}
IMAGES = frozenset({"image", "input_image", "image_url"})  # of those what a model that sees is shown
# What says who, where and when, or what only its maker can read.
_OPAQUE = {
    *("type", "id", "call_id", "tool_use_id", "status", "role", "caller", "created_by", "phase", "index"),
    *("cache_control", "citations", "annotations", "logprobs", "transformations", "signature", "fingerprint"),
    *("data", "image_url", "image_data", "file_data", "file_id", "b64_json", "media_type", "container_id"),
    *("acknowledged_safety_checks", "pending_safety_checks"),
}


def left_out(kind: str) -> str:
    """Give the sentence that replaces something the model cannot read."""
    return f"[{MEDIA.get(kind, kind.replace('_', ' ')[:64])} left out: this model reads text only]"


def image_source(part: Mapping[str, Any]) -> str | None:
    """Give the source of an image in a message, as it came: base64, or a URL. None for what is no image.

    It is empty where the image is somewhere else, such as in a file of another server.
    """
    match part:
        case {"type": "image_url" | "input_image", "image_url": str(source) | {"url": str(source)}}:
            return source
        case {"type": "image", "source": {"type": "base64", "data": str(source)} | {"type": "url", "url": str(source)}}:
            return source
        case {"type": "image_url" | "input_image" | "image"}:
            return ""
    return None


def image_detail(part: Mapping[str, Any]) -> object:
    """Give how closely an image of OpenAI's dialects is to be looked at, as it came."""
    inner = part.get("image_url")
    detail = inner.get("detail") if isinstance(inner, dict) else None
    return detail or part.get("detail") or "auto"


def to_images(sources: Iterable[object], param: str) -> list[Image]:
    """Give images of a list of base64 or URLs, each of which has its place in the request for errors."""
    return [Image(each if isinstance(each, str) else "", f"{param}.{index}") for index, each in enumerate(sources)]


def with_parts(message: Message, pieces: Sequence[str | Image]) -> Message:
    """Give a message what it says and shows, for a model that sees; text alone has been its content already."""
    if all(isinstance(piece, str) for piece in pieces):
        return message
    return replace(message, parts=tuple(pieces))


def as_text(pieces: Iterable[str | Image]) -> str:
    """Give pieces as text, a line each, for a model that reads text only."""
    return "\n".join(piece if isinstance(piece, str) else left_out("image") for piece in pieces)


def read(value: Any) -> str:
    """Give all that is text of a JSON value, empty where nothing is; a sentence stands in for images and their kin."""
    match value:
        case str():
            return value
        case bool() | int() | float():
            return json.dumps(value)
        case list():
            return "\n".join(text for text in map(read, value) if text)
        case dict():
            return _read_object(value)
    return ""


def _read_object(value: Mapping[str, Any]) -> str:
    if (document := document_text(value)) is not None:
        return document
    kind = value.get("type")
    if isinstance(kind, str) and kind in MEDIA:
        return left_out(kind)
    texts = {name: text for name in readable(value) if (text := read(value[name]))}
    if len(texts) == 1 and texts.keys() <= {"text", "content", "output", "logs", "result", "summary", "thinking"}:
        return next(iter(texts.values()))
    return "\n".join(f"{name}: {text}" for name, text in texts.items())


def readable(fields: Mapping[str, Any]) -> Iterator[str]:
    """Name the fields that say something."""
    return (name for name in fields if name not in _OPAQUE and not name.startswith("encrypted_"))


def document_text(block: Mapping[str, Any]) -> str | None:
    """Read a document of Anthropic's that is text, with its title and context. None for every other."""
    source = block.get("source")
    if block.get("type") != "document" or not isinstance(source, dict):
        return None
    match source.get("type"):
        case "text":
            text = source.get("data")
        case "content":
            text = read(source.get("content"))
        case _:
            return None
    if not isinstance(text, str):
        return None
    heads = [head for head in (block.get("title"), block.get("context")) if isinstance(head, str) and head]
    return "\n".join((*heads, text))


def media_in(value: Any) -> Iterator[str]:
    """Name the types of what is in a JSON value and left out of its text."""
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind in MEDIA and document_text(value) is None:
            yield kind
            return
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from media_in(inner)
