"""Texts, patterns and JSON as parts of a grammar (Lark, as llguidance reads it)."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from app.services.engine.output.tool_call_notations import Piece

# JSON as chat templates show it. With free white space a model at a high temperature could fill its budget with that.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


def json_rule(schema: Mapping[str, Any]) -> str:
    """Write the rule of JSON that matches a schema."""
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"


class Literals:
    """Writes texts as literals of a grammar, and the control tokens in them as tokens."""

    empty = '""'

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        longest_first = sorted(special, key=len, reverse=True)
        self._control_tokens = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def tokens(self, text: str, tokenize: Callable[[str], list[int]]) -> Iterator[int]:
        """Yield the tokens of a text, in which control tokens are what they are."""
        position = 0
        for match in self._control_tokens.finditer(text):
            yield from tokenize(text[position : match.start()])
            yield self._special[match[0]]
            position = match.end()
        yield from tokenize(text[position:])

    def of(self, text: str) -> str:
        """Write a text."""
        return " ".join(self._literals(text))

    def of_pieces(self, pieces: Iterable[Piece]) -> str:
        """Write pieces of text and patterns."""
        return " ".join(self.of(piece) if isinstance(piece, str) else f"/{piece.pattern}/" for piece in pieces)

    def at_token(self, text: str) -> tuple[str, str]:
        """Split a text before its first control token; without one, all of it comes before."""
        token = self._control_tokens.search(text)
        return (text, "") if token is None else (text[: token.start()], text[token.start() :])

    def until(self, rule: str, closer: str, *, character: str = r"(.|\n)", lengths: str = "*") -> tuple[list[str], str]:
        """Write rules of a text that ends where its closer is first complete: the rules, and what to write for both.

        `character` and `lengths` are a pattern and how often it may come. Control tokens are no text, so that one ends
        it by itself. Where the closer has one further behind, what comes before it may stand in the text too, but for
        a text of limited length, in which the closer's first character is left out.
        """
        before, rest = self.at_token(closer)
        name, text = rule.upper(), f"/{character}{lengths}/"
        if not before:
            return [f"{rule}: {text}"], f"{rule} {self.of(rest)}"
        if rest and lengths != "*":
            return [f"{rule}: /[^{re.escape(before[0])}]{lengths}/"], f"{rule} {self.of(closer)}"
        rules = [f"{rule}[lazy]: {name} {self.of(before)}", f"{name}: {text}"]
        return rules, f"{rule}+ {self.of(rest)}" if rest else rule

    def _literals(self, text: str) -> Iterator[str]:
        position = 0
        for match in self._control_tokens.finditer(text):
            yield from _lines(text[position : match.start()])
            yield f"<[{self._special[match[0]]}]>"
            position = match.end()
        yield from _lines(text[position:])


def _lines(text: str) -> Iterator[str]:
    """Yield line breaks apart: after one either of two texts may come, which is one literal where both begin with it.

    The grammar library takes a literal that goes on for the longer one, even if it cannot end.
    """
    yield from (json.dumps(part) for part in re.split("(\n+)", text) if part)
