"""Grammars of tool calls in the format of the model's family: for answers that must call a tool, or may."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.output.tool_call_formats import CallFormat, Piece
from app.services.errors import CallsNotEnforceable, InvalidRequest
from app.services.generation import Constraint, GenerationRequest
from app.services.json_schema.enforcement import enforced_tools, enforcement, parameters_of

# JSON as chat templates show it. With free white space a model at a high temperature could fill its budget with that.
JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}

_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class AllowedTool:
    """A tool that may be called, and the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


def allowed_tools(request: GenerationRequest, form: CallFormat | None) -> list[AllowedTool]:
    """Give the tools whose calls a grammar has to enforce; none where no grammar is needed.

    Raises InvalidRequest where this model's calls cannot be enforced.
    """
    choice = request.tool_choice
    if not request.tools or choice.mode == "none":
        return []
    if choice.mode == "auto" and not (choice.strict or choice.names or request.constraint is not None):
        return []
    if form is None:
        raise _calls_not_enforceable(request)
    strict = [tool["function"]["name"] for tool in enforced_tools(request.tools, choice)]
    return [
        AllowedTool(
            tool["function"]["name"], _arguments_schema(tool) if tool["function"]["name"] in strict else _ANY_OBJECT
        )
        for tool in request.tools
        if not choice.names or tool["function"]["name"] in choice.names
    ]


def tool_call_grammar(
    tools: Sequence[AllowedTool], form: CallFormat, request: GenerationRequest, special: Mapping[str, int]
) -> Constraint:
    """Write the grammar (Lark, as llguidance reads it). `special` are the control tokens, by their text."""
    choice = request.tool_choice
    literals = Literals(special)
    rules = ["%llguidance {}", *_start_rules(form, request, literals)]
    calls = "call"
    if choice.parallel and form.between is not None:
        calls = f"call ({literals.of(form.between)} call)*"
    rules += [
        f"region: {literals.of(form.start)} rest",
        f"rest: {literals.of(form.opens)} {calls} {literals.of(form.closes + form.end)}",
        f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}",
    ]
    for index, tool in enumerate(tools):
        before, after = literals.of_pieces(form.before(tool.name)), literals.of_pieces(form.after)
        rules += [f"call_{index}: {before} with_{index} {after}", f"with_{index}: {json_rule(tool.schema)}"]
    return Constraint("lark", "\n".join(rules), choice.param)


def answer_schema(constraint: Constraint) -> Mapping[str, Any]:
    """Give the part of a constraint's schema that can be enforced. Raises InvalidRequest where none can be."""
    result = enforcement(constraint.text)
    if result.error is not None:
        raise not_enforceable(constraint, result.error)
    return result.schema if isinstance(result.schema, dict) else {}


def not_enforceable(constraint: Constraint, reason: str) -> InvalidRequest:
    """Make the error for a constraint, with the reason in a line."""
    line = (reason.strip().splitlines() or ["it cannot be compiled"])[0][:300]
    return InvalidRequest(f"{constraint.param} cannot be enforced: {line}", param=constraint.param)


def json_rule(schema: Mapping[str, Any]) -> str:
    """Write the rule of JSON that matches a schema."""
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"


class Literals:
    """Writes texts as literals of a grammar, and the control tokens in them as tokens."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = special
        longest_first = sorted(special, key=len, reverse=True)
        self._control_tokens = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def of(self, text: str) -> str:
        """Write a text."""
        return " ".join(self._literals(text))

    def of_pieces(self, pieces: Iterable[Piece]) -> str:
        """Write pieces of text and patterns."""
        return " ".join(self.of(piece) if isinstance(piece, str) else f"/{piece.pattern}/" for piece in pieces)

    def starts_with_token(self, text: str) -> bool:
        """Whether a text begins with a control token."""
        return self._control_tokens.match(text) is not None

    def _literals(self, text: str) -> Iterator[str]:
        position = 0
        for match in self._control_tokens.finditer(text):
            if text[position : match.start()]:
                yield json.dumps(text[position : match.start()])
            yield f"<[{self._special[match[0]]}]>"
            position = match.end()
        if text[position:]:
            yield json.dumps(text[position:])


def _start_rules(form: CallFormat, request: GenerationRequest, literals: Literals) -> Iterator[str]:
    """Yield the rules that say where in an answer calls may stand."""
    repeats = request.tool_choice.parallel and form.gap is not None
    regions = f"region ({literals.of(form.gap or '')} region)*" if repeats else "region"
    if request.tool_choice.mode == "required":
        yield f"start: {regions}"
    elif request.constraint is not None:
        yield f"start: {regions} | answer"
        yield f"answer: {json_rule(answer_schema(request.constraint))}"
    elif literals.starts_with_token(form.start):
        yield f"start: text? (region text?){'*' if repeats else '?'}"
        yield r"text: /(.|\n)+/"
    else:  # the start marker is plain text: the call begins where it is first complete
        yield f"start: (lead rest){'*' if repeats else '?'} TEXT"
        yield f"lead[lazy]: TEXT {literals.of(form.start)}"
        yield r"TEXT: /(.|\n)*/"


def _arguments_schema(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = enforcement(parameters_of(tool), arguments=True).schema
    return schema if isinstance(schema, dict) else _ANY_OBJECT


def _calls_not_enforceable(request: GenerationRequest) -> InvalidRequest:
    if request.constraint is not None:
        param = request.constraint.param
        return InvalidRequest(
            f"{param} and tools exclude each other with this model: its calls are no JSON", param=param
        )
    return CallsNotEnforceable(request.tool_choice.param)
