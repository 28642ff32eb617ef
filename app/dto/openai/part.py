"""Parts of messages, as OpenAI's dialects have them: texts, and what is none."""

from collections.abc import Iterable, Sequence

from app.dto.shared.base import Typed
from app.dto.shared.readable import MEDIA, image_detail, image_source, left_out, media_in, read
from app.services.errors import InvalidRequest
from app.services.generation import Image

_DETAILS = ("auto", "low", "high", "original")


class Part(Typed):
    """A part of a message, one of several kinds; of one of another kind what is text is read."""

    @property
    def left_out(self) -> Iterable[str]:
        """What of a part of another kind is no text."""
        whole = {"type": self.type} | self.fields
        return tuple(media_in(whole)) if read(whole) else (self.type,)

    def to_text(self, where: str, *, of_user: bool) -> str:
        """Give what it says. Raises InvalidRequest for images and their kin among the user's own words."""
        raise NotImplementedError

    def to_piece(self, where: str, *, of_user: bool) -> str | Image:
        """Give what it says or shows. Raises InvalidRequest for other media among the user's own words."""
        source = None if self.is_ours else image_source({"type": self.type} | self.fields)
        if source is None:
            return self.to_text(where, of_user=of_user)
        if (detail := image_detail(self.fields)) not in _DETAILS:
            raise InvalidRequest(f"detail: one of {', '.join(_DETAILS)}", param=where)
        return Image(source, where, is_small=detail == "low", is_required=of_user)

    def foreign_text(self, where: str, *, of_user: bool) -> str:
        """Read a part of another kind. Raises InvalidRequest for images and their kin among the user's own words."""
        if of_user and self.type in MEDIA:
            raise InvalidRequest(f"This model reads text only, it cannot take {MEDIA[self.type]}", param=where)
        return left_out(self.type) if self.type in MEDIA else read(self.fields)


def shows_media(parts: object) -> bool:
    """Whether they are pictures or their kin and nothing else: behind a tool's result they are what it gave.

    Clients put them there for servers that take none in a result.
    """
    return isinstance(parts, list) and bool(parts) and all(not part.is_ours and part.type in MEDIA for part in parts)


def pieces(parts: Sequence[Part], where: str, *, of_user: bool) -> list[str | Image]:
    """Give what parts say and show; one of another kind that says nothing is left out. Raises as `to_piece` does."""
    each = (part.to_piece(f"{where}.{index}", of_user=of_user) for index, part in enumerate(parts))
    return [piece for part, piece in zip(parts, each, strict=True) if piece or part.is_ours]


def lines(parts: Sequence[Part], where: str, *, of_user: bool) -> str:
    """Give what parts say, a line each; one of another kind that says nothing has none. Raises as `to_text` does."""
    texts = (part.to_text(f"{where}.{index}", of_user=of_user) for index, part in enumerate(parts))
    return "\n".join(text for part, text in zip(parts, texts, strict=True) if text or part.is_ours)
