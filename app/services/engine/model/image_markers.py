"""Stands in for images in the text of messages, until a chat template has put it where they belong in the prompt."""

import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace

from app.services.generation import GenerationRequest, Image, Message

_SECRET = secrets.token_hex(8)  # so that no text of a client's is taken for an image
_ANY_SECRET = "0" * len(_SECRET)
STAND_IN = f"<words {_SECRET}>"  # for words of a client's that read like an image
_MARKER = re.compile(rf"(<image {_SECRET} [0-9a-f]+>)")


def marker(digest: bytes) -> str:
    """Give what stands for an image. The same image has the same, so a conversation that goes on begins alike."""
    return f"<image {_SECRET} {digest.hex()}>"


def lasting(text: str) -> str:
    """Give a text as it would be after any start, as long as it is: for what is written down of it."""
    return text.replace(_SECRET, _ANY_SECRET)


def split(text: str) -> list[str]:
    """Split a text so that each marker stands alone; no part is empty."""
    return [part for part in _MARKER.split(text) if part]


def digest_of(part: str) -> bytes | None:
    """Give the digest of the image that a part of a text stands for; None for text."""
    return bytes.fromhex(part[:-1].rpartition(" ")[2]) if _MARKER.fullmatch(part) else None


def replaced(text: str, by: Callable[[bytes], str]) -> str:
    """Put something in the place of each marker, by its digest."""
    parts = ((part, digest_of(part)) for part in split(text))
    return "".join(part if digest is None else by(digest) for part, digest in parts)


def with_markers(request: GenerationRequest, digests: Iterable[bytes]) -> GenerationRequest:
    """Put markers into the text of messages and prompt for their images, whose digests come in the same order.

    Texts that follow each other are lines; around an image nothing is added.
    """
    markers = map(marker, digests)

    def text(message: Message) -> str:
        content, follows_text = "", False
        for part in message.parts:
            if isinstance(part, str):
                content += "\n" * follows_text + part
            else:
                content += next(markers)
            follows_text = isinstance(part, str)
        return content

    messages = (replace(each, content=text(each), parts=()) if each.images else each for each in request.messages)
    changed = replace(request, messages=tuple(messages))
    if request.prompt is None:
        return changed
    return replace(changed, prompt=tuple(next(markers) if isinstance(part, Image) else part for part in request.prompt))
