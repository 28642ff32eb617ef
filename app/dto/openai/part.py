"""Parts of messages, as OpenAI's dialects have them: texts, and what is none."""

from collections.abc import Iterable, Sequence

from app.dto.shared.base import Typed
from app.dto.shared.readable import MEDIA, left_out, media_in, read
from app.services.errors import InvalidRequest


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


def lines(parts: Sequence[Part], where: str, *, of_user: bool) -> str:
    """Give what parts say, a line each; one of another kind that says nothing has none. Raises as `to_text` does."""
    texts = (part.to_text(f"{where}.{index}", of_user=of_user) for index, part in enumerate(parts))
    return "\n".join(text for part, text in zip(parts, texts, strict=True) if text or part.is_ours)
