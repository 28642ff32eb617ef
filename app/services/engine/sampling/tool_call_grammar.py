"""Grammars of tool calls in the format of the model's family: for answers that must call a tool, or may."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.output.tool_call_notations import CallNotation
from app.services.engine.sampling.argument_grammar import argument_rules
from app.services.engine.sampling.literals import Literals, json_rule
from app.services.errors import CallsNotEnforceable, InvalidRequest
from app.services.generation import Constraint, GenerationRequest
from app.services.json_schema.enforcement import enforced_tools, enforcement, parameters_of

_ANY_OBJECT = {"type": "object"}


@dataclass(frozen=True, slots=True)
class AllowedTool:
    """A tool that may be called, and the JSON schema of its arguments."""

    name: str
    schema: Mapping[str, Any]


def allowed_tools(request: GenerationRequest, form: CallNotation | None) -> list[AllowedTool]:
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
    tools: Sequence[AllowedTool], form: CallNotation, request: GenerationRequest, special: Mapping[str, int]
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
        rules.append(f"call_{index}: {before} with_{index} {after}")
        rules += argument_rules(f"with_{index}", tool.schema, form.arguments, literals)
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


def _start_rules(form: CallNotation, request: GenerationRequest, literals: Literals) -> Iterator[str]:
    """Yield the rules that say where in an answer calls may stand."""
    repeats = request.tool_choice.parallel and form.gap is not None
    regions = f"region ({literals.of(form.gap or '')} region)*" if repeats else "region"
    if request.tool_choice.mode == "required":
        yield f"start: {regions}"
    elif request.constraint is not None:
        yield f"start: {regions} | answer"
        yield f"answer: {json_rule(answer_schema(request.constraint))}"
    else:
        yield from _free_start(form, literals, repeats=repeats)


def _free_start(form: CallNotation, literals: Literals, *, repeats: bool) -> Iterator[str]:
    """Yield the rules of an answer that may call: a call begins where its start marker is first complete."""
    before, rest = literals.at_token(form.start)
    if not before:  # a control token is no text
        yield f"start: text? (region text?){'*' if repeats else '?'}"
        yield r"text: /(.|\n)+/"
        return
    lead = f"lead {literals.of(rest)} rest"
    if not rest:
        yield f"start: ({lead}){'*' if repeats else '?'} TEXT"
    else:  # what comes before the control token may be text as well
        yield f"start: (lead | {lead})* TEXT" if repeats else f"start: lead* ({lead})? TEXT"
    yield f"lead[lazy]: TEXT {literals.of(before)}"
    yield r"TEXT: /(.|\n)*/"


def _arguments_schema(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = enforcement(parameters_of(tool), arguments=True).schema
    return schema if isinstance(schema, dict) else _ANY_OBJECT


def _calls_not_enforceable(request: GenerationRequest) -> InvalidRequest:
    if request.constraint is not None:
        param = request.constraint.param
        return InvalidRequest(
            f"{param} and tools exclude each other with this model: how it writes calls is not known", param=param
        )
    return CallsNotEnforceable(request.tool_choice.param)
