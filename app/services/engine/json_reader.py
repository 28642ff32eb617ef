"""A JSON object read as it comes: where it ends, and where it stops being one."""

import re
from collections.abc import Callable

import regex

_SPACE = " \t\n\r"
_LITERALS = {"t": "rue", "f": "alse", "n": "ull"}
_CLOSERS = {"{": "}", "[": "]"}
_PLAIN = re.compile(r'[^"\\\x00-\x1f]+')
_NUMBER = regex.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_HEX = frozenset("0123456789abcdefABCDEF")
_DEEPEST = 128  # containers in each other; readers of JSON give up somewhere above that


class ObjectReader:
    """Takes text as long as it can still become a JSON object (RFC 8259). `over`: it is one; `broken`: it never will.

    Each step takes the next place of a text and gives the place after what it took.
    """

    def __init__(self) -> None:
        self.over = False
        self.broken = False
        self._step: Callable[[str, int], int] = self._begin
        self._closers: list[str] = []
        self._is_key = False
        self._rest = ""  # of a literal, or the number so far
        self._hex = 0  # digits that a \\u still needs

    def feed(self, text: str) -> int:
        """Take in text and say how many of its characters belong to the object."""
        place = 0
        while place < len(text) and not (self.over or self.broken):
            place = self._step(text, place)
        return place

    def _break(self, place: int) -> int:
        self.broken = True
        return place

    def _begin(self, text: str, place: int) -> int:
        return self._open("{", place) if text[place] == "{" else self._break(place)

    def _open(self, bracket: str, place: int) -> int:
        if len(self._closers) == _DEEPEST:
            return self._break(place)
        self._closers.append(_CLOSERS[bracket])
        self._step = self._first_key if bracket == "{" else self._first_item
        return place + 1

    def _close(self, place: int) -> int:
        self._closers.pop()
        self.over = not self._closers
        self._step = self._after
        return place + 1

    def _first_key(self, text: str, place: int) -> int:
        return self._close(place) if text[place] == "}" else self._key(text, place)

    def _first_item(self, text: str, place: int) -> int:
        return self._close(place) if text[place] == "]" else self._value(text, place)

    def _key(self, text: str, place: int) -> int:
        if text[place] in _SPACE:
            return place + 1
        return self._quote(place, is_key=True) if text[place] == '"' else self._break(place)

    def _colon(self, text: str, place: int) -> int:
        if text[place] == ":":
            self._step = self._value
        elif text[place] not in _SPACE:
            return self._break(place)
        return place + 1

    def _value(self, text: str, place: int) -> int:
        character = text[place]
        if character in _SPACE:
            return place + 1
        if character == '"':
            return self._quote(place, is_key=False)
        if character in _CLOSERS:
            return self._open(character, place)
        if character in _LITERALS:
            self._rest, self._step = _LITERALS[character], self._literal
            return place + 1
        if _NUMBER.fullmatch(character, partial=True):
            self._rest, self._step = character, self._number
            return place + 1
        return self._break(place)

    def _after(self, text: str, place: int) -> int:
        character = text[place]
        if character == self._closers[-1]:
            return self._close(place)
        if character == ",":
            self._step = self._key if self._closers[-1] == "}" else self._value
        elif character not in _SPACE:
            return self._break(place)
        return place + 1

    def _literal(self, text: str, place: int) -> int:
        if text[place] != self._rest[0]:
            return self._break(place)
        self._rest = self._rest[1:]
        if not self._rest:
            self._step = self._after
        return place + 1

    def _number(self, text: str, place: int) -> int:
        longer = self._rest + text[place]
        if _NUMBER.fullmatch(longer, partial=True):
            self._rest = longer
            return place + 1
        if not _NUMBER.fullmatch(self._rest):
            return self._break(place)
        self._step = self._after
        return place

    def _quote(self, place: int, *, is_key: bool) -> int:
        self._is_key, self._step = is_key, self._string
        return place + 1

    def _string(self, text: str, place: int) -> int:
        if plain := _PLAIN.match(text, place):
            return plain.end()
        if text[place] == "\\":
            self._step = self._escape
        elif text[place] == '"':
            self._step = self._colon if self._is_key else self._after
        else:
            return self._break(place)
        return place + 1

    def _escape(self, text: str, place: int) -> int:
        if text[place] == "u":
            self._hex, self._step = 4, self._unicode
        elif text[place] in '"\\/bfnrt':
            self._step = self._string
        else:
            return self._break(place)
        return place + 1

    def _unicode(self, text: str, place: int) -> int:
        if text[place] not in _HEX:
            return self._break(place)
        self._hex -= 1
        if not self._hex:
            self._step = self._string
        return place + 1
