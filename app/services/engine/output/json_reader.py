"""A streaming JSON parser for tool call arguments, which repairs what models write badly."""

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
_PARTIAL_UNICODE = re.compile(r"\\u[0-9a-fA-F]{0,3}")
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
    """Parses one JSON object as its text comes, and gives it out as valid JSON (RFC 8259).

    `over`: it is complete, and `rest` is what follows it. `invalid`: the text is no object at all.

    Valid JSON comes out unchanged. What models write beside it is repaired where it stands: control characters in
    strings, quotes of the other kind or without their backslash, unknown escapes, unquoted words, Python's literals,
    comments, commas and brackets too many or too few. So what has begun as an object becomes one wherever it ends.
    `ambiguous`: a repair may have missed what was meant.

    A step takes the position of the next character and gives the position behind what it read, or -1 to see more.
    """

    def __init__(self, opens: str = "{", *, well_formed: bool = False) -> None:
        self.over = False
        self.invalid = False
        self.ambiguous = False
        self.rest = ""
        self._opens = opens  # the brackets that it may begin with
        self.well_formed = well_formed  # nothing needs repair: the first quote closes a string
        self._pending = ""  # input that is undecided yet
        self._output: list[str] = []
        self._step: Callable[[str, int], int] = self._read_start
        self._closers: list[str] = []
        self._comma = ""  # with the blanks behind it: written when an item follows
        self._quote = '"'  # of the string that it is in
        self._is_key = False
        self._word = ""  # without quotes, so far
        self._is_text = False  # the word, which is neither a number nor a literal
        self._step_after_comment: Callable[[str, int], int] = self._read_start

    def feed(self, text: str) -> str:
        """Take in text, and give what is certain of the object now."""
        text, position = self._pending + text, 0
        while position < len(text) and not (self.over or self.invalid):
            next_position = self._step(text, position)
            if next_position < 0:
                break
            position = next_position
        self._pending = ""
        if self.over or self.invalid:
            self.rest = text[position:]
        else:
            self._pending = text[position:]
        output = "".join(self._output)
        self._output.clear()
        return output

    def finish(self) -> str:
        """Give what was held back for what might have followed it."""
        self.well_formed = True
        return "" if self.over or self.invalid else self.feed("")

    def _write(self, text: str, position: int, step: Callable[[str, int], int]) -> int:
        """Give out text; go on at a position, with a step."""
        self._output.append(text)
        self._step = step
        return position

    def _read_start(self, text: str, position: int) -> int:
        if text[position] in self._opens:
            return self._open(text, position)
        self.invalid = True
        return position

    def _open(self, text: str, position: int) -> int:
        self._closers.append(_CLOSERS[text[position]])
        return self._write(text[position], position + 1, self._read_item)

    def _close(self, closer: str, position: int) -> int:
        """Close a bracket, and those in it that were left open; one that there is not is passed over."""
        if closer not in self._closers:
            self.ambiguous = True
            return position + 1
        self._output.append(self._comma[1:])
        self._comma = ""
        while (last := self._closers.pop()) != closer:
            self.ambiguous = True
            self._output.append(last)
        self.over = not self._closers
        return self._write(closer, position + 1, self._read_separator)

    def _skip_blank_or_comment(self, text: str, position: int) -> int | None:
        """Skip what has no meaning. None where there is none of it."""
        if blank := _BLANK.match(text, position):
            if self._comma:
                self._comma += blank[0]
            else:
                self._output.append(blank[0])
            return blank.end()
        if blank := _OTHER_BLANK.match(text, position):
            return blank.end()
        if text[position] == "#" or text.startswith("//", position):
            self._step_after_comment, self._step = self._step, self._read_line_comment
            return position
        if text.startswith("/*", position):
            self._step_after_comment, self._step = self._step, self._read_block_comment
            return position + 2
        return -1 if text[position:] == "/" else None

    def _read_line_comment(self, text: str, position: int) -> int:
        end = text.find("\n", position)
        if end < 0:
            return len(text)
        self._step = self._step_after_comment
        return end

    def _read_block_comment(self, text: str, position: int) -> int:
        end = text.find("*/", position)
        if end < 0:
            end = len(text) - text.endswith("*")  # which may be the first half of what closes the comment
            return end if end > position else -1
        self._step = self._step_after_comment
        return end + 2

    def _read_item(self, text: str, position: int) -> int:
        """Read the beginning of an item, behind a bracket or a comma."""
        if (next_position := self._skip_blank_or_comment(text, position)) is not None:
            return next_position
        character = text[position]
        if character == ",":
            return position + 1
        if character in "}]":
            return self._close(character, position)
        if self._closers[-1] == "]":
            self._output.append(self._comma)
            self._comma, self._step = "", self._read_value
            return position
        if character in "\"'":
            self._output.append(self._comma)
            self._comma = ""
            return self._open_string(character, position, is_key=True)
        self._word, self._step = "", self._read_bare_key
        return position

    def _read_colon(self, text: str, position: int) -> int:
        if (next_position := self._skip_blank_or_comment(text, position)) is not None:
            return next_position
        if text[position] in ":=":
            return self._write(":", position + 1, self._read_value)
        self.ambiguous = True
        return self._write(":", position, self._read_value)

    def _read_value(self, text: str, position: int) -> int:
        if (next_position := self._skip_blank_or_comment(text, position)) is not None:
            return next_position
        character = text[position]
        if character in "\"'":
            return self._open_string(character, position, is_key=False)
        if character in _CLOSERS:
            return self._open(text, position)
        if character in ",}]":
            self.ambiguous = True
            return self._write("null", position, self._read_separator)
        self._word, self._step = "", self._read_bare_value
        return position

    def _read_separator(self, text: str, position: int) -> int:
        if (next_position := self._skip_blank_or_comment(text, position)) is not None:
            return next_position
        character = text[position]
        if character in "}]":
            return self._close(character, position)
        self._comma, self._step = ",", self._read_item
        if character == ",":
            return position + 1
        self.ambiguous = True
        return position

    def _read_bare_value(self, text: str, position: int) -> int:
        """Read a value without quotes: a number, or words to the end of the line."""
        if run := _BARE.match(text, position):
            self._word += run[0]
            return run.end()
        ends = text[position] in ",}]\n"
        if not ends and (self._is_text or not (_NUMBER.fullmatch(self._word) or self._word.lower() in _LITERALS)):
            self._is_text = True
            self._word += text[position]
            return position + 1
        word, self._is_text = self._word.rstrip(), False
        self.ambiguous = self.ambiguous or not (_OTHER_NUMBER.fullmatch(word) or word.lower() in _LITERALS)
        return self._write(_word_to_json(word), position, self._read_separator)

    def _read_bare_key(self, text: str, position: int) -> int:
        """Read a key without quotes. One without a value is dropped."""
        if run := _BARE_KEY.match(text, position):
            self._word += run[0]
            return run.end()
        word, self._word = self._word.strip(), ""
        if text[position] not in ":=":
            self.ambiguous = True
            self._step = self._read_item
            return position + 1 if text[position] == "\n" else position
        self.ambiguous = self.ambiguous or not _NAME.fullmatch(word)
        key = self._comma + json.dumps(word, ensure_ascii=False)
        self._comma = ""
        return self._write(key, position, self._read_colon)

    def _open_string(self, quote: str, position: int, *, is_key: bool) -> int:
        self._quote, self._is_key = quote, is_key
        return self._write('"', position + 1, self._read_string)

    def _read_string(self, text: str, position: int) -> int:
        if plain := _PLAIN.match(text, position):
            self._output.append(plain[0])
            return plain.end()
        character = text[position]
        if character == self._quote:
            return self._read_quote(text, position)
        if character == "\\":
            return self._read_escape(text, position)
        # A quote of the other kind, or a control character.
        piece = character if character == "'" else json.dumps(character)[1:-1]
        return self._write(piece, position + 1, self._read_string)

    def _read_quote(self, text: str, position: int) -> int:
        """Read a quote within a string. What follows it decides whether it closes the string or is a part of it."""
        if self._is_key or self.well_formed:
            return self._write('"', position + 1, self._read_colon if self._is_key else self._read_separator)
        follows = (_IN_OBJECT if self._closers[-1] == "}" else _IN_ARRAY).match(text, position + 1, partial=True)
        if follows is None:
            self.ambiguous = True
            return self._write(json.dumps(self._quote)[1:-1], position + 1, self._read_string)
        return -1 if follows.partial else self._write('"', position + 1, self._read_separator)

    def _read_escape(self, text: str, position: int) -> int:
        if escape := _ESCAPE.match(text, position):
            return self._write(escape[0], escape.end(), self._read_string)
        if position + 1 == len(text) or _PARTIAL_UNICODE.fullmatch(text, position):
            return -1
        if text[position + 1] in "'\n":  # the next step takes it as it is
            return self._write("'" if text[position + 1] == "'" else "\\n", position + 2, self._read_string)
        return self._write("\\\\", position + 1, self._read_string)


def repair(text: str) -> str | None:
    """Give an object or array as valid JSON. None for what is none, or could have been meant in more than one way."""
    reader = ObjectReader("{[")
    output = reader.feed(text.strip()) + reader.finish()
    return None if reader.ambiguous or reader.invalid or not reader.over or reader.rest else output


def _word_to_json(word: str) -> str:
    """Give an unquoted word as JSON: a literal, a number, else a string."""
    if _NUMBER.fullmatch(word):
        return word
    if literal := _LITERALS.get(word.lower()):
        return literal
    number = _OTHER_NUMBER.fullmatch(word)
    if number and (number[2] or number[3] or word.lstrip("+-").startswith("0")):
        sign, whole, part, power = number.groups()
        return f"{sign.strip('+')}{whole or 0}{f'.{part}' if part else ''}{power or ''}"
    return json.dumps(word, ensure_ascii=False)
