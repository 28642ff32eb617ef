"""Bodies that come compressed, as Content-Encoding says: inflated piece by piece, never more than may be."""

import zlib
from collections.abc import AsyncIterator, Iterator

from app.services.errors import BodyTooLarge, CorruptEncoding, UnsupportedEncoding

_PIECE = 2**16
_MOST_LAYERS = 3
_GZIP, _ZLIB, _RAW = 31, 15, -15  # what zlib calls wbits


def inflate(pieces: AsyncIterator[bytes], header: str, most_bytes: int) -> AsyncIterator[bytes]:
    """Undo the encodings that a Content-Encoding header names, the last one first.

    Raises UnsupportedEncoding for what is not gzip or deflate, UnprocessableBody for what is broken, and BodyTooLarge
    as soon as more than `most_bytes` come out.
    """
    names = [name for part in header.split(",") if (name := part.strip().lower()) not in {"", "identity"}]
    for name in names:
        if name not in {"gzip", "x-gzip", "deflate"}:
            raise UnsupportedEncoding(name)
    if len(names) > _MOST_LAYERS:
        raise UnsupportedEncoding(", ".join(names))
    for name in reversed(names):
        pieces = _undo(pieces, name, most_bytes)
    return pieces


async def _undo(pieces: AsyncIterator[bytes], name: str, most_bytes: int) -> AsyncIterator[bytes]:
    inflater = _Inflater(name)
    total = 0
    async for piece in pieces:
        for data in inflater.feed(piece):
            total += len(data)
            if total > most_bytes:
                raise BodyTooLarge(most_bytes)
            yield data
    inflater.finish()


class _Inflater:
    """One layer of compression."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._head = b""  # two bytes tell what deflate is: zlib's, by the standard, or raw, as some send it
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give what comes out, in pieces. Raises UnprocessableBody."""
        if self._stream is None:
            self._head += data
            if len(self._head) < 2:
                return
            data, self._head = self._head, b""
            self._stream = zlib.decompressobj(self._kind(data))
        more = True
        while more:
            if self._stream.eof:
                raise self._broken("there is more behind its end")
            try:
                piece = self._stream.decompress(data, _PIECE)
            except zlib.error:
                raise self._broken("it cannot be inflated") from None
            data = self._stream.unconsumed_tail or self._stream.unused_data
            more = bool(data) or (len(piece) == _PIECE and not self._stream.eof)
            if piece:
                yield piece

    def finish(self) -> None:
        """Raise UnprocessableBody for what ends too early."""
        if self._head or (self._stream is not None and not self._stream.eof):
            raise self._broken("it ends too early")

    def _kind(self, head: bytes) -> int:
        if self._name != "deflate":
            return _GZIP
        return _ZLIB if head[0] & 15 == 8 and (head[0] * 256 + head[1]) % 31 == 0 else _RAW

    def _broken(self, why: str) -> CorruptEncoding:
        return CorruptEncoding(f"The body is not the {self._name} that its Content-Encoding says: {why}")
