"""Grammars of calls, in the words of the model's family: an answer that has to call, or that may call but rightly."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.output.tool_call_formats import CallFormat, Piece
from app.services.errors import CallsNotEnforceable, InvalidRequest
from app.services.generation import Constraint, GenerationRequest
from app.services.json_schema.enforcement import enforced_tools, enforcement, parameters_of

# One way to write JSON, the one that templates show: a hot model could fill its whole budget with white space.
WRITTEN = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

_ANY = {"type": "object"}


@dataclass(frozen=True, slots=True)
class WantedTool:
    """A tool that may be called, and what its arguments have to be."""

    name: str
    schema: Mapping[str, Any]


def enforced(request: GenerationRequest, form: CallFormat | None) -> list[WantedTool]:
    """Tell the tools whose calls a grammar has to see to; none where no grammar is needed.

    Raises InvalidRequest where this model's calls cannot be enforced.
    """
    choice = request.tool_choice
    if not request.tools or choice.mode == "none":
        return []
    bound = request.constraint is not None
    if choice.mode == "auto" and not (choice.strict or choice.names or bound):
        return []
    if form is None:
        raise _cannot(request)
    strict = [tool["function"]["name"] for tool in enforced_tools(request.tools, choice)]
    return [
        WantedTool(tool["function"]["name"], _arguments(tool) if tool["function"]["name"] in strict else _ANY)
        for tool in request.tools
        if not choice.names or tool["function"]["name"] in choice.names
    ]


def call_grammar(
    tools: Sequence[WantedTool], form: CallFormat, request: GenerationRequest, special: Mapping[str, int]
) -> Constraint:
    """Write the grammar (Lark, as llguidance reads it). `special` are the tokens that no text can spell."""
    choice = request.tool_choice
    spell = Spelling(special)
    several = choice.parallel
    rules = ["%llguidance {}", *_start(form, request, spell, several)]
    inner = f"call ({spell(form.between)} call)*" if several and form.between is not None else "call"
    rules += [
        f"region: {spell(form.start)} rest",
        f"rest: {spell(form.opens)} {inner} {spell(form.closes + form.end)}",
        f"call: {' | '.join(f'call_{place}' for place in range(len(tools)))}",
    ]
    for place, tool in enumerate(tools):
        before, after = spell.all(form.before(tool.name)), spell.all(form.after)
        rules += [f"call_{place}: {before} with_{place} {after}", f"with_{place}: {json_rule(tool.schema)}"]
    return Constraint("lark", "\n".join(rules), choice.param)


def answer_schema(constraint: Constraint) -> Mapping[str, Any]:
    """Give the schema that an answer can be held to. Raises InvalidRequest where it can be held to nothing."""
    result = enforcement(constraint.text)
    if result.error is not None:
        raise cannot_enforce(constraint, result.error)
    return result.schema if isinstance(result.schema, dict) else {}


def cannot_enforce(constraint: Constraint, why: str) -> InvalidRequest:
    """Say what is wrong with a constraint, in a line."""
    line = (why.strip().splitlines() or ["it cannot be compiled"])[0][:300]
    return InvalidRequest(f"{constraint.param} cannot be enforced: {line}", param=constraint.param)


def json_rule(schema: Mapping[str, Any]) -> str:
    """Write the rule of JSON that matches a schema."""
    return f"%json {json.dumps({**schema, 'x-guidance': WRITTEN})}"


class Spelling:
    """Spells text for a grammar: what a token of its own says is that token."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        longest_first = sorted(special, key=len, reverse=True)
        self._parts = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def __call__(self, text: str) -> str:
        """Spell a text."""
        return " ".join(self._spelled(text))

    def all(self, pieces: Iterable[Piece]) -> str:
        """Spell pieces of text and of patterns."""
        return " ".join(self(piece) if isinstance(piece, str) else f"/{piece.pattern}/" for piece in pieces)

    def is_token(self, text: str) -> bool:
        """Whether a text begins with a token that no text can spell."""
        return self._parts.match(text) is not None

    def _spelled(self, text: str) -> Iterator[str]:
        place = 0
        for found in self._parts.finditer(text):
            if text[place : found.start()]:
                yield json.dumps(text[place : found.start()])
            yield f"<[{self._special[found[0]]}]>"
            place = found.end()
        if text[place:]:
            yield json.dumps(text[place:])


def _start(form: CallFormat, request: GenerationRequest, spell: Spelling, several: bool) -> Iterator[str]:
    """The rules of where calls may stand."""
    again = several and form.gap is not None
    regions = f"region ({spell(form.gap or '')} region)*" if again else "region"
    if request.tool_choice.mode == "required":
        yield f"start: {regions}"
    elif request.constraint is not None:
        yield f"start: {regions} | answer"
        yield f"answer: {json_rule(answer_schema(request.constraint))}"
    elif spell.is_token(form.start):
        yield f"start: text? (region text?){'*' if again else '?'}"
        yield r"text: /(.|\n)+/"
    else:  # the mark is text like any other: the call begins where it is first whole
        yield f"start: (lead rest){'*' if again else '?'} TEXT"
        yield f"lead[lazy]: TEXT {spell(form.start)}"
        yield r"TEXT: /(.|\n)*/"


def _arguments(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = enforcement(parameters_of(tool), arguments=True).schema
    return schema if isinstance(schema, dict) else _ANY


def _cannot(request: GenerationRequest) -> InvalidRequest:
    if request.constraint is not None:
        param = request.constraint.param
        return InvalidRequest(
            f"{param} and tools exclude each other with this model: its calls are no JSON", param=param
        )
    return CallsNotEnforceable(request.tool_choice.param)
