"""A JSON object read as it comes, and written as JSON where a model writes it badly."""

import json
import re
from collections.abc import Callable

import regex

_BLANK = re.compile(r"[ \t\n\r]+")
_OTHER_BLANK = re.compile(r"\s+")
_CLOSERS = {"{": "}", "[": "]"}
_PLAIN = re.compile(r"[^\"'\\\x00-\x1f]+")
_BARE = re.compile(r"[^,}\]\s/#]+")  # what a value without quotes is made of
_BARE_KEY = re.compile(r"[^,}\]\n:=]+")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_OTHER_NUMBER = re.compile(r"([+-]?)0*([0-9]*)(?:\.([0-9]*))?([eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[\w$-]+")
_ESCAPE = re.compile(r"\\(?:[\"\\/bfnrt]|u[0-9a-fA-F]{4})")
_BEGUN_UNICODE = re.compile(r"\\u[0-9a-fA-F]{0,3}")
_LITERALS = {"true": "true", "false": "false", "null": "null", "none": "null", "undefined": "null", "nil": "null"}
_LITERALS |= {f"{sign}{word}": "null" for sign in ("", "+", "-") for word in ("nan", "inf", "infinity")}

# Whether a quote within a value can close it: by what follows. Runs of blanks, of closers and of letters are looked at
# so far only; longer ones are taken for what they look like.
_COLON = r"\s{0,20}+(?:\:|\s)"
_CHARACTER = r"(?:[^\"'\\\n]|\\.|{})"
_KEY = "|".join(
    rf"{quote}(?:{inner}{{0,100}}+{quote}{_COLON}|{inner}{{101}})"
    for quote, inner in (('"', _CHARACTER.format("'")), ("'", _CHARACTER.format('"')))
)
_KEY = rf"(?:{_KEY}|[A-Za-z_$][\w$-]{{0,100}}+(?:{_COLON}|[\w$-]))"
_CLOSED = rf"""[}}\]](?:\s{{0,20}}[}}\]]){{0,8}}+(?:\s{{0,20}}(?:[^\s"'\\:]|{_KEY})|\s{{21}})"""
_IN_OBJECT = regex.compile(
    rf"\s{{0,200}}(?:{_CLOSED}|,\s{{0,200}}(?:{_KEY}|[}}\]/#,]|\s{{201}})|{_KEY}|/[/*]|\#)|\s{{201}}"
)
_IN_ARRAY = regex.compile(rf"\s{{0,200}}(?:{_CLOSED}|,|/[/*]|\#)|\s{{201}}")


class ObjectReader:
    """Takes text as long as it belongs to an object, and gives it as JSON (RFC 8259). `over`: it is whole, and `rest`
    is what follows it; `broken`: it is no object at all.

    What is JSON is given as it was written. What models write beside it is mended where it stands: control characters
    in strings, quotes of the other kind or without their backslash, escapes that there are not, words without quotes,
    literals of Python's, comments, commas and brackets too many or too few. So what has begun as an object becomes one
    whenever it ends. `wild`: something was mended that may have been meant otherwise.

    Each step takes the next place of the text and gives the place after what it took, or -1 if it has to see more.
    """

    def __init__(self, opens: str = "{", *, well_formed: bool = False) -> None:
        self.over = False
        self.broken = False
        self.wild = False
        self.rest = ""
        self._opens = opens  # the brackets that it may begin with
        self._well_formed = well_formed  # nothing has to be mended: the first quote closes a string
        self._held = ""  # cannot be told yet
        self._written: list[str] = []
        self._step: Callable[[str, int], int] = self._begin
        self._closers: list[str] = []
        self._comma = ""  # with the blanks behind it: written when an item follows
        self._quote = '"'  # of the string that it is in
        self._is_key = False
        self._word = ""  # without quotes, so far
        self._is_text = False  # the word, which is neither a number nor a literal
        self._between: Callable[[str, int], int] = self._begin  # to go on with behind a comment

    def feed(self, text: str) -> str:
        """Take in text, and give what is certain of the object now."""
        text, place = self._held + text, 0
        while place < len(text) and not (self.over or self.broken):
            after = self._step(text, place)
            if after < 0:
                break
            place = after
        self._held = ""
        if self.over or self.broken:
            self.rest = text[place:]
        else:
            self._held = text[place:]
        written = "".join(self._written)
        self._written.clear()
        return written

    def finish(self) -> str:
        """Give what was held back for what might have followed it."""
        self._well_formed = True
        return "" if self.over or self.broken else self.feed("")

    def _write(self, text: str, place: int, step: Callable[[str, int], int]) -> int:
        """Write, go on at a place, with a step."""
        self._written.append(text)
        self._step = step
        return place

    def _begin(self, text: str, place: int) -> int:
        if text[place] in self._opens:
            return self._open(text, place)
        self.broken = True
        return place

    def _open(self, text: str, place: int) -> int:
        self._closers.append(_CLOSERS[text[place]])
        return self._write(text[place], place + 1, self._item)

    def _close(self, closer: str, place: int) -> int:
        """Close a bracket, and those in it that were left open; one that there is not is passed over."""
        if closer not in self._closers:
            self.wild = True
            return place + 1
        self._written.append(self._comma[1:])
        self._comma = ""
        while (last := self._closers.pop()) != closer:
            self.wild = True
            self._written.append(last)
        self.over = not self._closers
        return self._write(closer, place + 1, self._after)

    def _blank_or_comment(self, text: str, place: int) -> int | None:
        """Take what says nothing. None where something is said."""
        if blank := _BLANK.match(text, place):
            if self._comma:
                self._comma += blank[0]
            else:
                self._written.append(blank[0])
            return blank.end()
        if blank := _OTHER_BLANK.match(text, place):
            return blank.end()
        if text[place] == "#" or text.startswith("//", place):
            self._between, self._step = self._step, self._line_comment
            return place
        if text.startswith("/*", place):
            self._between, self._step = self._step, self._block_comment
            return place + 2
        return -1 if text[place:] == "/" else None

    def _line_comment(self, text: str, place: int) -> int:
        end = text.find("\n", place)
        if end < 0:
            return len(text)
        self._step = self._between
        return end

    def _block_comment(self, text: str, place: int) -> int:
        end = text.find("*/", place)
        if end < 0:
            seen = len(text) - text.endswith("*")
            return seen if seen > place else -1
        self._step = self._between
        return end + 2

    def _item(self, text: str, place: int) -> int:
        """What stands in a bracket: behind it, or behind a comma."""
        if (after := self._blank_or_comment(text, place)) is not None:
            return after
        character = text[place]
        if character == ",":
            return place + 1
        if character in "}]":
            return self._close(character, place)
        if self._closers[-1] == "]":
            self._written.append(self._comma)
            self._comma, self._step = "", self._value
            return place
        if character in "\"'":
            self._written.append(self._comma)
            self._comma = ""
            return self._open_string(character, place, is_key=True)
        self._word, self._step = "", self._bare_key
        return place

    def _colon(self, text: str, place: int) -> int:
        if (after := self._blank_or_comment(text, place)) is not None:
            return after
        if text[place] in ":=":
            return self._write(":", place + 1, self._value)
        self.wild = True
        return self._write(":", place, self._value)

    def _value(self, text: str, place: int) -> int:
        if (after := self._blank_or_comment(text, place)) is not None:
            return after
        character = text[place]
        if character in "\"'":
            return self._open_string(character, place, is_key=False)
        if character in _CLOSERS:
            return self._open(text, place)
        if character in ",}]":
            self.wild = True
            return self._write("null", place, self._after)
        self._word, self._step = "", self._bare
        return place

    def _after(self, text: str, place: int) -> int:
        if (after := self._blank_or_comment(text, place)) is not None:
            return after
        character = text[place]
        if character in "}]":
            return self._close(character, place)
        self._comma, self._step = ",", self._item
        if character == ",":
            return place + 1
        self.wild = True
        return place

    def _bare(self, text: str, place: int) -> int:
        """A value without quotes: a number, or words to the end of the line."""
        if run := _BARE.match(text, place):
            self._word += run[0]
            return run.end()
        ends = text[place] in ",}]\n"
        if not ends and (self._is_text or not (_NUMBER.fullmatch(self._word) or self._word.lower() in _LITERALS)):
            self._is_text = True
            self._word += text[place]
            return place + 1
        word, self._is_text = self._word.rstrip(), False
        self.wild = self.wild or not (_OTHER_NUMBER.fullmatch(word) or word.lower() in _LITERALS)
        return self._write(_spelled(word), place, self._after)

    def _bare_key(self, text: str, place: int) -> int:
        """A key without quotes. One without a value is none."""
        if run := _BARE_KEY.match(text, place):
            self._word += run[0]
            return run.end()
        word, self._word = self._word.strip(), ""
        if text[place] not in ":=":
            self.wild = True
            self._step = self._item
            return place + 1 if text[place] == "\n" else place
        self.wild = self.wild or not _NAME.fullmatch(word)
        written = self._comma + json.dumps(word, ensure_ascii=False)
        self._comma = ""
        return self._write(written, place, self._colon)

    def _open_string(self, quote: str, place: int, *, is_key: bool) -> int:
        self._quote, self._is_key = quote, is_key
        return self._write('"', place + 1, self._string)

    def _string(self, text: str, place: int) -> int:
        if plain := _PLAIN.match(text, place):
            self._written.append(plain[0])
            return plain.end()
        character = text[place]
        if character == self._quote:
            return self._end_quote(text, place)
        if character == "\\":
            return self._escape(text, place)
        # A quote of the other kind, or a control character.
        return self._write(character if character == "'" else json.dumps(character)[1:-1], place + 1, self._string)

    def _end_quote(self, text: str, place: int) -> int:
        """A quote that cannot close its string, by what follows, is a part of it."""
        if self._is_key or self._well_formed:
            return self._write('"', place + 1, self._colon if self._is_key else self._after)
        follows = (_IN_OBJECT if self._closers[-1] == "}" else _IN_ARRAY).match(text, place + 1, partial=True)
        if follows is None:
            self.wild = True
            return self._write(json.dumps(self._quote)[1:-1], place + 1, self._string)
        return -1 if follows.partial else self._write('"', place + 1, self._after)

    def _escape(self, text: str, place: int) -> int:
        if whole := _ESCAPE.match(text, place):
            return self._write(whole[0], whole.end(), self._string)
        if place + 1 == len(text) or _BEGUN_UNICODE.fullmatch(text, place):
            return -1
        if text[place + 1] in "'\n":  # the next step takes it as it is
            return self._write("'" if text[place + 1] == "'" else "\\n", place + 2, self._string)
        return self._write("\\\\", place + 1, self._string)


def repaired(text: str) -> str | None:
    """Give a whole object or array as JSON. None for what is none, or could have been meant in more than one way."""
    reader = ObjectReader("{[")
    written = reader.feed(text.strip()) + reader.finish()
    return None if reader.wild or reader.broken or not reader.over or reader.rest else written


def _spelled(word: str) -> str:
    """Spell a word without quotes: a literal, a number, else a string."""
    if _NUMBER.fullmatch(word):
        return word
    if literal := _LITERALS.get(word.lower()):
        return literal
    number = _OTHER_NUMBER.fullmatch(word)
    if number and (number[2] or number[3] or word.lstrip("+-").startswith("0")):
        sign, whole, part, power = number.groups()
        return f"{sign.strip('+')}{whole or 0}{f'.{part}' if part else ''}{power or ''}"
    return json.dumps(word, ensure_ascii=False)
