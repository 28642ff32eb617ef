"""Parts of messages, as OpenAI's dialects have them: texts, and what is none."""

from collections.abc import Iterable

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

    def foreign_text(self, where: str, *, of_user: bool) -> str:
        """Read a part of another kind. Raises InvalidRequest for images and their kin among the user's own words."""
        if of_user and self.type in MEDIA:
            raise InvalidRequest(f"This model reads text only, it cannot take {MEDIA[self.type]}", param=where)
        return left_out(self.type) if self.type in MEDIA else read(self.fields)
