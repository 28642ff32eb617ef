"""Grammars of answers that consist of messages with headers: which messages may come, and what is in the last."""

from collections.abc import Mapping, Sequence

from app.services.engine.output.harmony import ANALYSIS, CHANNEL, CONSTRAIN, FINAL, MESSAGE, NEXT
from app.services.engine.sampling.literals import Literals, json_rule
from app.services.engine.sampling.tool_call_grammar import AllowedTool, answer_schema
from app.services.generation import Constraint, GenerationRequest

_PREAMBLE = f"{CHANNEL}commentary{MESSAGE}"
_JSON_TYPES = (" json", f" {CONSTRAIN}json", f"{CONSTRAIN}json")  # as models name the type of a message's content


def message_grammar(
    tools: Sequence[AllowedTool], request: GenerationRequest, special: Mapping[str, int], *, in_message: bool
) -> Constraint:
    """Write the grammar (Lark) of an answer that calls one of these tools, or none, as the request wants it.

    `special` are the control tokens, by their text. `in_message`: the prompt ends within a message.
    """
    literals = Literals(special)
    is_required = request.tool_choice.mode == "required"
    constraint = None if is_required else request.constraint
    last = [f"call_{index}" for index in range(len(tools))]
    rules: list[str] = []
    for index, tool in enumerate(tools):
        # The recipient stands behind the channel or behind the role.
        heads = (f"{CHANNEL}commentary to=functions.{tool.name}", f" to=functions.{tool.name}{CHANNEL}commentary")
        head = f"({' | '.join(map(literals.of, heads))}) type? {literals.of(MESSAGE)}"
        rules += [f"call_{index}: {head} with_{index}", f"with_{index}: {json_rule(tool.schema)}"]
    if constraint is not None:
        last.append("final")
        rules += [f"final: {_json_head(literals)} answer", f"answer: {json_rule(answer_schema(constraint))}"]
    elif not is_required:
        last.append("final")
        rules.append(f"final: {literals.of(FINAL)} text?")
    rules.append(f"last: {' | '.join(last)}")
    is_free = constraint is None
    turn = _turn(literals, request, in_message=in_message, may_stay=is_free and not is_required, preambles=is_free)
    return Constraint("lark", "\n".join([*turn, *rules]), request.tool_choice.param)


def begun_message_grammar(tools: Sequence[AllowedTool], literals: Literals) -> Constraint:
    """Write the grammar of what follows `to=functions.` in a header: one of these tools, and its arguments."""
    rules = ["%llguidance {}", f"start: {' | '.join(f'call_{index}' for index in range(len(tools)))}", _type(literals)]
    for index, tool in enumerate(tools):
        channel = literals.of(f"{CHANNEL}commentary")  # where it does not come before the recipient
        rules.append(f"call_{index}: {literals.of(tool.name)} ({channel})? type? {literals.of(MESSAGE)} with_{index}")
        rules.append(f"with_{index}: {json_rule(tool.schema)}")
    return Constraint("lark", "\n".join(rules), "tools")


def header_grammar(request: GenerationRequest, special: Mapping[str, int], *, in_message: bool) -> Constraint:
    """Write the grammar of what comes before the text that a constraint binds: reasoning, and the last header."""
    literals = Literals(special)
    rules = _turn(literals, request, in_message=in_message, may_stay=False, preambles=False)
    return Constraint("lark", "\n".join([*rules, f"last: {_json_head(literals)}"]), request.tool_choice.param)


def _turn(
    literals: Literals, request: GenerationRequest, *, in_message: bool, may_stay: bool, preambles: bool
) -> list[str]:
    """Write the rules of all but the last message; `may_stay`: the one that the prompt ends in may be the last."""
    others = [f"{literals.of(_PREAMBLE)} text? next"] if preambles else []
    if request.template_kwargs.get("enable_thinking") is not False:
        others.append(f"{literals.of(ANALYSIS)} text? next")
    start = ("text? (next turn)?" if may_stay else "text? next turn") if in_message else "turn"
    return [
        "%llguidance {}",
        f"start: {start}",
        f"turn: ({' | '.join(others)})* last" if others else "turn: last",
        f"next: {literals.of(NEXT)}",
        _type(literals),
        r"text: /(.|\n)+/",
    ]


def _type(literals: Literals) -> str:
    return f"type: {' | '.join(map(literals.of, _JSON_TYPES))}"


def _json_head(literals: Literals) -> str:
    return f"{literals.of(f'{CHANNEL}final')} type? {literals.of(MESSAGE)}"
