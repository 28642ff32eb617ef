"""Grammars of tool calls in the format of the model's family: of whole answers, and of calls that have begun."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.output.parts import CallStart
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

    def without_schema(self) -> "AllowedTool":
        """Give the same tool, whose arguments may be any."""
        return AllowedTool(self.name, _ANY_OBJECT)


def allowed_tools(request: GenerationRequest, form: CallNotation | None) -> list[AllowedTool]:
    """Give the tools of an answer that a grammar has to hold from its beginning; none where it needs no such grammar.

    Raises InvalidRequest where this model's calls cannot be enforced.
    """
    choice = request.tool_choice
    if not request.tools or choice.mode == "none":
        return []
    if choice.mode == "auto" and not (choice.strict or choice.names or request.constraint is not None):
        return []
    if form is None:
        raise _calls_not_enforceable(request)
    return _tools(request) if choice.mode == "required" or request.constraint is not None else []


def bound_tools(request: GenerationRequest, form: CallNotation | None) -> list[AllowedTool]:
    """Give the tools of an answer that is free, but for the calls in it; none where these are free too."""
    choice = request.tool_choice
    if form is None or choice.mode != "auto" or request.constraint is not None:
        return []
    return _tools(request) if request.tool_call_grammar != "off" or choice.strict or choice.names else []


def _tools(request: GenerationRequest) -> list[AllowedTool]:
    choice = request.tool_choice
    enforced = {tool["function"]["name"] for tool in enforced_tools(request.tools, choice)}
    all_enforced = request.tool_call_grammar != "off"
    return [
        AllowedTool(name, _arguments_schema(tool) if all_enforced or name in enforced else _ANY_OBJECT)
        for tool in request.tools
        if (name := tool["function"]["name"]) in choice.names or not choice.names
    ]


def tool_call_grammar(
    tools: Sequence[AllowedTool], form: CallNotation, request: GenerationRequest, special: Mapping[str, int]
) -> Constraint:
    """Write the grammar (Lark, as llguidance reads it). `special` are the control tokens, by their text."""
    literals = Literals(special)
    rules = ["%llguidance {}", *_start_rules(form, request, literals), f"region: {literals.of(form.start)} rest"]
    rules += _call_rules(tools, form, literals, parallel=request.tool_choice.parallel)
    return Constraint("lark", "\n".join(rules), request.tool_choice.param)


def begun_call_grammar(
    tools: Sequence[AllowedTool], form: CallNotation, literals: Literals, start: CallStart, *, parallel: bool
) -> Constraint:
    """Write the grammar of what follows where a call has begun: behind a marker, or with the arguments of a tool.

    Behind the marker of a region all of the region has to come. Where that is missing, the region need not be closed.
    """
    more = _more_calls(form, literals, parallel=parallel)
    closes = _closes(form, literals)
    end = f"{more} ({closes})?" if closes else more
    if start.tool:
        if not more:  # the grammars of the others are not needed
            tools = [tool for tool in tools if tool.name == start.tool]
        first = next(index for index, tool in enumerate(tools) if tool.name == start.tool)
        begin = f'start: " "? with_{first} {literals.of_pieces(form.after)} {end}'
    else:
        begin = "start: rest" if start.marker == form.start else f"start: call {end}"
    rules = ["%llguidance {}", begin, *_call_rules(tools, form, literals, parallel=parallel)]
    return Constraint("lark", "\n".join(rules), "tools")


def _call_rules(
    tools: Sequence[AllowedTool], form: CallNotation, literals: Literals, *, parallel: bool
) -> Iterator[str]:
    """Yield the rules of calls, and of the rest of a region behind its start marker."""
    more, closes = _more_calls(form, literals, parallel=parallel), _closes(form, literals)
    yield f"rest: {_optional_line(form.opens, literals)} call {more} {closes}"
    yield f"call: {' | '.join(f'call_{index}' for index in range(len(tools)))}"
    for index, tool in enumerate(tools):
        before, after = literals.of_pieces(form.before(tool.name)), literals.of_pieces(form.after)
        yield f"call_{index}: {before} with_{index} {after}"
        yield from argument_rules(f"with_{index}", tool.schema, form.arguments, literals)


def _more_calls(form: CallNotation, literals: Literals, *, parallel: bool) -> str:
    return f"({literals.of(form.between)} call)*" if parallel and form.between is not None else ""


def _closes(form: CallNotation, literals: Literals) -> str:
    return f"{_optional_line(form.closes, literals)} {literals.of(form.end)}".strip()


def _optional_line(text: str, literals: Literals) -> str:
    """Write a text, which may be left out where it is a line break alone: models of one format differ in these."""
    return f"{literals.of(text)}?" if text == "\n" else literals.of(text)


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
