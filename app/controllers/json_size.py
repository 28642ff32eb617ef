"""How much a JSON text holds, told from its bytes as they come, before an object is made of any of it."""

from itertools import accumulate

from app.services.errors import TooDeep, TooManyValues

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # how a bracket changes the nesting, as a signed byte
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))
_BLANKS = b" \t\n\r"
_BEFORE_VALUES = (b"[", b"{", b",", b":")  # one for every value, but for the first in a list and the outermost
_MARKS = 16  # bytes outside of strings to a value, at most: what is more are numbers that take long to read


class JsonSize:
    """Counts values and nesting. Of what is no JSON it is right up to the first mistake, where a decoder stops too."""

    def __init__(self, most_values: int, most_nesting: int) -> None:
        self.values = 0  # names of fields too
        self._most_values = most_values
        self._most_nesting = most_nesting
        self._marks = 0  # bytes outside of strings, and quotation marks
        self._nesting = 0
        self._in_string = False
        self._backslash = b""  # one at the end of what came, whose other half is still to come

    def feed(self, data: bytes) -> None:
        """Take in the next bytes; 64 KiB take some milliseconds. Raises UnprocessableBody for too much of anything."""
        pieces = self._without_escapes(data).split(b'"')
        bare = b"".join(pieces[self._in_string :: 2]).translate(None, _BLANKS)
        self._in_string ^= len(pieces) % 2 == 0
        self.values += sum(map(bare.count, _BEFORE_VALUES))
        self._marks += len(bare) + len(pieces) - 1
        self._nest(bare.translate(_STEPS, _NO_BRACKETS))
        if self.values > self._most_values:
            raise TooManyValues(f"The body has more than {self._most_values} values; --max-values raises the limit")
        if self._marks > _MARKS * self._most_values:
            raise TooManyValues(
                f"The body has more than {_MARKS * self._most_values} bytes of numbers and brackets; --max-values "
                "raises the limit"
            )

    def _without_escapes(self, data: bytes) -> bytes:
        """Take out backslashes with what they escape, so that a quotation mark begins or ends a string."""
        data = self._backslash + data
        odd = (len(data) - len(data.rstrip(b"\\"))) % 2
        self._backslash = b"\\" * odd
        if b"\\" not in data:
            return data
        return data[: len(data) - odd].replace(b"\\\\", b"").replace(b'\\"', b"")

    def _nest(self, steps: bytes) -> None:
        levels = list(accumulate(memoryview(steps).cast("b"), initial=self._nesting))
        self._nesting = levels[-1]
        if max(levels) > self._most_nesting:
            raise TooDeep(f"The body nests deeper than {self._most_nesting} levels")
