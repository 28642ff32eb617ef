"""Patterns as JavaScript and Python write them, for an engine without look-around and back-references."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_QUANTIFIER = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_CLASS = re.compile(r"\[(?:\\.|[^\]\\])*\]|\[\](?:\\.|[^\]\\])*\]", re.DOTALL)
_LOOK = re.compile(r"\(\?<?[=!]")
_NAMED_BACK = re.compile(r"\(\?P=\w+\)")
_ONE = re.compile(r"\\[^bBAZzGkpPux0-9c]|\[(?:\\.|[^\]\\])+\]|[^\\.*+?()|\[\]{}^$]", re.DOTALL)
_WORDS = re.compile(r"\(?(?:\?:)?((?:\\[^\w\s]|[\w \-@#/:])+(?:\|(?:\\[^\w\s]|[\w \-@#/:])+)*)\)?")
_META = r"\.+*?()|[]{}^$#&-~/"
_LONGEST = 4_000  # characters of a pattern


@dataclass(slots=True)
class Translation:
    """Patterns that a text has to match, all of them. Without `exact` they let more through than the original."""

    patterns: list[str] = field(default_factory=list)
    exact: bool = True


def translate(pattern: str) -> Translation:
    """Put a pattern into words that the grammar library knows; what it cannot say is left out."""
    if len(pattern) > _LONGEST:
        return Translation(exact=False)
    try:
        return _Reader(pattern).read()
    except (_Unknown, RecursionError):
        return Translation(exact=False)


def none_of(words: Iterable[str]) -> str:
    """Write the pattern of all texts but these."""
    trie: dict[str, dict] = {}  # type: ignore[type-arg]
    for word in words:
        branch = trie
        for character in word:
            branch = branch.setdefault(character, {})
        branch[""] = {}
    return f"^{_outside(trie)}$"


def _outside(branch: dict[str, dict]) -> str:  # type: ignore[type-arg]
    following = [character for character in branch if character]
    other = f"[^{''.join(map(_in_class, following))}]" if following else r"[\s\S]"
    ways = [] if "" in branch else [""]
    ways += [rf"{other}[\s\S]*", *(re.escape(character) + _outside(branch[character]) for character in following)]
    return f"(?:{'|'.join(ways)})"


def _in_class(character: str) -> str:
    return f"\\{character}" if character in r"\]^-[&~" else character


class _Unknown(Exception):
    """No translation is known."""


class _Reader:
    """Reads one pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._position = 0
        self._result = Translation()
        self._output: list[str] = []
        self._depth = 0

    def read(self) -> Translation:
        split = _alternatives(self._text)
        while self._position < len(self._text):
            self._output.append(self._next(at_start=not split and "".join(self._output) == "^"))
        self._result.patterns.insert(0, "".join(self._output))
        return self._result

    def _next(self, *, at_start: bool) -> str:
        text, position = self._text, self._position
        if _LOOK.match(text, position):
            return self._look(at_start)
        if _NAMED_BACK.match(text, position):
            return self._loosen(_NAMED_BACK.match(text, position)[0], r"[\s\S]*")  # type: ignore[index]
        match text[position]:
            case "\\":
                return self._escape()
            case "[":
                return self._class()
            case "{":
                return self._brace()
            case "*" | "+" | "?":
                return self._repeated(text[position])
            case "}":
                return self._as("}", r"\}")
            case "(" if text.startswith("(?#", position):
                end = text.find(")", position)
                return self._as(text[position : end + 1] if end >= 0 else text[position:], "")
            case "(" if text.startswith("(?>", position):
                return self._loosen("(?>", "(?:")
        return self._as(text[position], text[position])

    def _as(self, original: str, output: str) -> str:
        self._position += len(original)
        return output

    def _loosen(self, original: str, output: str) -> str:
        self._result.exact = False
        return self._as(original, output)

    def _brace(self) -> str:
        if quantifier := _QUANTIFIER.match(self._text, self._position):
            return self._repeated(quantifier[0])
        if re.match(r"\{,[0-9]+\}", self._text[self._position :]):  # a quantifier in Python, text in JavaScript
            raise _Unknown
        return self._as("{", r"\{")

    def _repeated(self, quantifier: str) -> str:
        self._position += len(quantifier)
        if self._text.startswith("+", self._position):  # possessive: takes less than the plain one
            self._result.exact = False
            self._position += 1
        elif self._text.startswith("?", self._position):  # whether it is lazy changes no match of the whole
            self._position += 1
        return quantifier

    def _escape(self) -> str:
        after = self._text[self._position + 1 : self._position + 2]
        if not after:
            raise _Unknown
        if after in "Zz":
            return self._as("\\z", "$")
        if after == "A":
            return self._as(r"\A", "^")
        if after in "bB":
            return self._loosen(r"\b", "")
        if after in "123456789":
            number = re.match(r"\\[0-9]{1,2}", self._text[self._position :])
            return self._loosen(number[0], r"[\s\S]*")  # type: ignore[index]
        if reference := re.match(r"\\k<\w+>", self._text[self._position :]):
            return self._loosen(reference[0], r"[\s\S]*")
        return self._character()

    def _character(self) -> str:
        """An escape that means the same within a class and outside."""
        rest = self._text[self._position :]
        if pair := re.match(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})", rest):
            code = 0x10000 + (int(pair[1], 16) - 0xD800 << 10) + int(pair[2], 16) - 0xDC00
            return self._as(pair[0], rf"\x{{{code:X}}}")
        if code_point := re.match(r"\\(?:[ux]\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2}))", rest):
            return self._as(code_point[0], rf"\x{{{next(filter(None, code_point.groups()))}}}")
        if control := re.match(r"\\c([A-Za-z])", rest):
            return self._as(control[0], rf"\x{{{ord(control[1]) % 32:X}}}")
        if category := re.match(r"\\[pP]\{\^?[\w=:.&-]+\}", rest):
            return self._as(category[0], category[0])
        after = rest[1:2]
        if after == "0" and not rest[2:3].isdigit():
            return self._as(r"\0", r"\x{0}")
        if after in _META:
            return self._as(rest[:2], f"\\{after}")
        if after.isalnum():
            return self._as(rest[:2], rest[:2])
        return self._as(rest[:2], after)

    def _class(self) -> str:
        if self._text.startswith("[^]", self._position) and not _CLASS.match(self._text, self._position + 1):
            return self._as("[^]", r"[\s\S]")
        self._position += 1
        output = ["["]
        if self._text.startswith("^", self._position):
            output.append(self._as("^", "^"))
        while True:
            rest = self._text[self._position :]
            if not rest:
                raise _Unknown
            if rest[0] == "]":
                return "".join(output) + self._as("]", "]")
            if rest.startswith(r"\b"):
                output.append(self._as(r"\b", r"\x08"))
            elif rest[0] == "\\":
                output.append(self._character())
            elif posix := re.match(r"\[:\^?[a-z]+:\]", rest):
                output.append(self._as(posix[0], posix[0]))
            elif rest[:2] in ("&&", "--", "~~"):  # operators elsewhere
                output.append(self._as(rest[:2], f"\\{rest[0]}\\{rest[0]}"))
            else:
                output.append(self._as(rest[0], r"\[" if rest[0] == "[" else rest[0]))

    def _look(self, at_start: bool) -> str:
        """Look-ahead where the text begins is a pattern of its own; any other is left out."""
        opening = _LOOK.match(self._text, self._position)[0]  # type: ignore[index]
        end = _closing(self._text, self._position)
        inner = self._text[self._position + len(opening) : end]
        self._position = end + 1
        if re.match(r"[*+?{]", self._text[self._position :]):
            raise _Unknown
        conditions = None
        if at_start and "<" not in opening:
            conditions = [f"^(?:{inner})"] if opening == "(?=" else _denied(inner)
        if conditions is None:
            self._result.exact = False
        for condition in conditions or ():
            further = translate(condition)
            self._result.patterns += further.patterns
            self._result.exact &= further.exact
        return ""


def _denied(inner: str) -> list[str] | None:
    """Write what is no text that begins with `inner`, for what is simple enough."""
    anywhere = re.match(r"(?:\.\*\??|\[\\s\\S\]\*\??)", inner)
    rest = inner[anywhere.end() :] if anywhere else inner
    pieces = _ONE.findall(rest)
    whole = "".join(pieces) == rest
    if anywhere and whole and len(pieces) == 1:
        return [f"^{_complement(rest)}*$"]
    if anywhere and whole and len(pieces) == 2 and not rest.startswith("["):
        first, second = pieces
        if first == second:
            return [f"^(?:{first}?{_complement(first)})*{first}?$"]
        both = rf"[^{''.join(_in_class(_plain(piece)) for piece in pieces)}]"
        return [f"^(?:{_complement(first)}|{first}+{both})*{first}*$"] if all(map(_plain, pieces)) else None
    if not anywhere and whole and len(pieces) == 1:
        return [rf"^(?:{_complement(rest)}[\s\S]*)?$"]
    if rest == "$" and not anywhere:
        return [r"[\s\S]"]
    if not anywhere and rest.endswith("$") and (words := _WORDS.fullmatch(rest[:-1])):
        return [none_of(re.sub(r"\\(.)", r"\1", word) for word in words[1].split("|"))]
    return None


def _plain(piece: str) -> str:
    """The character that a piece stands for, nothing where it stands for several."""
    if len(piece) == 1:
        return piece
    return piece[1] if len(piece) == 2 and not piece[1].isalnum() else ""


def _complement(piece: str) -> str:
    if piece.startswith("[^"):
        return f"[{piece[2:]}"
    if piece.startswith("["):
        return f"[^{piece[1:]}"
    return f"[^{piece if len(piece) > 1 else _in_class(piece)}]"


def _closing(text: str, start: int) -> int:
    """Find the bracket that closes the one at `start`."""
    depth, index = 0, start
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text[index] == "[" and (character_class := _CLASS.match(text, index)):
            index = character_class.end() - 1
        elif text[index] == "(":
            depth += 1
        elif text[index] == ")":
            depth -= 1
            if depth == 0:
                return index
        index += 1
    raise _Unknown


def _alternatives(text: str) -> bool:
    """Whether a pattern is several, outside of any bracket."""
    depth, index = 0, 0
    while index < len(text):
        if text[index] == "\\":
            index += 1
        elif text[index] == "[" and (character_class := _CLASS.match(text, index)):
            index = character_class.end() - 1
        elif text[index] in "()":
            depth += 1 if text[index] == "(" else -1
        elif text[index] == "|" and depth == 0:
            return True
        index += 1
    return False
