"""Adapts a conversation, with roles in any order, to the order of turns that a chat template accepts."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from app.services.engine.output.tool_call_formats import nine_character_id
from app.services.generation import Message, ToolCall

# The turns of a conversation. "calls" is a turn of the assistant with tool calls, "result" a message of role tool.
Turn = Literal["start", "system", "user", "assistant", "calls", "result"]

NO_RESULT = "No result."
NO_ANSWER = "No answer."
_TURNS: tuple[Turn, ...] = ("system", "user", "assistant", "calls", "result")
EVERY_ORDER = frozenset[tuple[Turn, Turn]]((before, after) for before in ("start", *_TURNS) for after in _TURNS)
_STRICT_ORDER = frozenset[tuple[Turn, Turn]]({("start", "user"), ("user", "assistant"), ("assistant", "user")})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a chat template accepts: what it neither refuses nor leaves out of the prompt."""

    order: frozenset[tuple[Turn, Turn]] = EVERY_ORDER  # which turn may follow which
    calls: bool = True  # tool calls of the assistant
    results: bool = True  # messages of role tool
    parallel_calls: bool = True  # several calls in a turn
    stray_results: bool = True  # results whose id no call has
    late_results: bool = True  # results that do not follow their calls directly
    text_content: bool = True  # else content is a list of parts, as in templates of vision models
    any_call_id: bool = True  # else only ids of nine letters and digits, as in Mistral's templates
    argument_objects: bool = True  # else arguments are JSON text
    text_beside_calls: bool = True  # text and calls in one turn of the assistant
    reasoning_beside_text_and_calls: bool = True
    empty_answers: bool = True  # turns of the assistant without text
    system_alone: bool = True  # conversations of system messages alone
    no_user: bool = True  # conversations without a message of the user's


# What every template accepts that renders a question at all.
STRICT = Capabilities(order=_STRICT_ORDER, calls=False, results=False, empty_answers=False, no_user=False)


def adapt_messages(
    messages: Iterable[Message],
    capabilities: Capabilities,
    write_calls: Callable[[Sequence[ToolCall]], str],
    *,
    continues: bool = False,
) -> tuple[Message, ...]:
    """Change messages to what a template accepts, and no more than that.

    How a message is changed depends only on those before it, so that a longer conversation has the same prompt prefix.
    A system message that may not be where it is becomes a part of the user's turn there, turns of the same role are
    merged, and an empty turn is added where one is missing. `write_calls` writes calls as text for a template that has
    none. `continues`: the last message is to be continued and stays as it is.
    """
    if not capabilities.any_call_id:
        messages = map(_with_nine_character_ids, messages)
    if capabilities.calls and not capabilities.text_beside_calls:
        messages = (part for message in messages for part in _text_before_calls(message))
    if capabilities.calls:
        messages = _results_beside_calls(tuple(messages), capabilities)
    else:
        messages = (_with_calls_in_text(message, write_calls) for message in messages)
    turns = _TurnBuilder(capabilities)
    for message in messages:
        turns.add(message)
    return turns.build(continues=continues)


class _TurnBuilder:
    """Builds the turns of a conversation, message by message, in an order that the template accepts."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._turns: list[list[Message]] = []  # the messages of each turn, to be merged
        self._open_calls: list[str] = []  # ids of calls without a result
        self._awaits_user = False  # the last turn is the user's, but has no message of the user's yet

    def add(self, message: Message) -> None:
        match message.role:
            case "system":
                self._add_system(message)
            case "user":
                self._add_user(message, joins=self._awaits_user)
            case "assistant":
                self._add_assistant(message)
            case "tool":
                self._add_result(message)

    def build(self, *, continues: bool) -> tuple[Message, ...]:
        turns = [self._move_text(_merge(messages)) for messages in self._turns]
        kinds = {_kind(turn) for turn in turns}
        user_is_optional = self._capabilities.system_alone if kinds == {"system"} else self._capabilities.no_user
        if not kinds or ("user" not in kinds and not user_is_optional):
            first = next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))
            turns.insert(first, Message("user"))
        if not self._capabilities.empty_answers:
            last = len(turns) - continues
            turns[:last] = [_with_answer(turn) for turn in turns[:last]]
        return tuple(turns)

    def _move_text(self, turn: Message) -> Message:
        """Make text a part of the reasoning where the template does not take both beside calls."""
        has_all = turn.reasoning and turn.content and turn.tool_calls
        if has_all and not self._capabilities.reasoning_beside_text_and_calls:
            return replace(turn, reasoning=f"{turn.reasoning}\n\n{turn.content}", content="")
        return turn

    @property
    def _last(self) -> Turn:
        return _kind(self._turns[-1][-1]) if self._turns else "start"

    def _accepts(self, turn: Turn) -> bool:
        return (self._last, turn) in self._capabilities.order

    def _append(self, message: Message) -> None:
        self._turns.append([])
        self._join(message)

    def _join(self, message: Message) -> None:
        self._turns[-1].append(message)
        self._awaits_user = False
        if message.role == "assistant":
            self._open_calls = [call.id for call in message.tool_calls]

    def _add_system(self, message: Message) -> None:
        if self._accepts("system"):
            self._append(message)
        elif self._last == "system":
            self._join(message)
        elif message.content:
            has_user = self._last == "user" and not self._awaits_user
            self._add_user(Message("user", message.content), joins=True)
            self._awaits_user = not has_user

    def _add_user(self, message: Message, *, joins: bool = False) -> None:
        if self._last == "user" and (joins or not self._accepts("user")):
            self._join(message)
            return
        if not self._accepts("user") and self._last == "calls":
            self._add_missing_results()
        if not self._accepts("user"):
            self._append(Message("assistant"))
        self._append(message)

    def _add_assistant(self, message: Message) -> None:
        kind = _kind(message)
        if not self._accepts(kind) and self._last == "calls":
            self._add_missing_results()
        if self._accepts(kind):
            self._append(message)
        elif self._last == "assistant" and (kind == "assistant" or self._capabilities.text_beside_calls):
            self._join(message)
        else:
            self._add_user(Message("user"))
            self._append(message)

    def _add_result(self, message: Message) -> None:
        if not message.tool_call_id and self._open_calls:
            message = replace(message, tool_call_id=self._open_calls[0])
        if not self._capabilities.results:
            self._add_result_as_text(message)
        elif message.tool_call_id in self._open_calls:
            self._open_calls.remove(message.tool_call_id)
            self._append(message)
        elif self._accepts("result") and (self._capabilities.stray_results or not self._open_calls):
            del self._open_calls[:1]  # by position it is the result of the first of them
            self._append(message)
        elif self._open_calls and self._last in {"calls", "result"}:  # ids that do not fit, in the order of the calls
            self._append(replace(message, tool_call_id=self._open_calls.pop(0)))
        else:
            self._add_result_as_text(message)

    def _add_result_as_text(self, message: Message) -> None:
        """Write the result into the user's turn, as Qwen's and Hermes' templates do."""
        self._add_user(Message("user", f"<tool_response>\n{message.content}\n</tool_response>"), joins=True)

    def _add_missing_results(self) -> None:
        for identity in self._open_calls:
            self._append(Message("tool", NO_RESULT, tool_call_id=identity))
        self._open_calls = []


def _kind(message: Message) -> Turn:
    if message.role == "tool":
        return "result"
    return "calls" if message.tool_calls else message.role


def _with_answer(turn: Message) -> Message:
    return replace(turn, content=NO_ANSWER) if _kind(turn) == "assistant" and not turn.content.strip() else turn


def _merge(messages: Sequence[Message]) -> Message:
    first, *more = messages
    if not more:
        return first
    return replace(
        first,
        content="\n\n".join(message.content for message in messages if message.content),
        reasoning="\n\n".join(message.reasoning for message in messages if message.reasoning) or None,
        tool_calls=tuple(call for message in messages for call in message.tool_calls),
    )


def _with_nine_character_ids(message: Message) -> Message:
    """Turn the ids of calls and of their results into ids of nine letters and digits."""
    calls = tuple(replace(call, id=nine_character_id(call.id)) for call in message.tool_calls)
    result = message.tool_call_id
    return replace(message, tool_calls=calls, tool_call_id=None if result is None else nine_character_id(result))


def _text_before_calls(message: Message) -> Iterator[Message]:
    """Give text a turn of its own before that of the calls: some templates drop the text of a turn with calls."""
    if message.tool_calls and message.content.strip():
        yield replace(message, tool_calls=())
        message = Message("assistant", tool_calls=message.tool_calls)
    yield message


def _with_calls_in_text(message: Message, write_calls: Callable[[Sequence[ToolCall]], str]) -> Message:
    if not message.tool_calls:
        return message
    text = "\n".join(part for part in (message.content, write_calls(message.tool_calls)) if part)
    return replace(message, content=text, tool_calls=())


def _results_beside_calls(messages: Sequence[Message], capabilities: Capabilities) -> Iterator[Message]:
    """Move results directly behind their calls where they may not come later; split turns of several calls if need be.

    Results are looked for up to the assistant's next text.
    """
    result_index = _ResultIndex(messages)
    moved: set[int] = set()
    for index, message in enumerate(messages):
        if index in moved:
            continue
        splits = len(message.tool_calls) > 1 and not capabilities.parallel_calls
        results = {at: call for call in message.tool_calls if (at := result_index.take(index, call.id)) is not None}
        last = max(results, default=index)
        if not splits and _fits(messages[index : last + 1], capabilities):
            yield message
            continue
        moved |= results.keys()
        if splits:
            yield from _split_calls(message, {at: messages[at] for at in sorted(results)}, results)
        else:
            yield message
            yield from (messages[at] for at in sorted(results))


def _fits(messages: Sequence[Message], capabilities: Capabilities) -> bool:
    """Whether the template accepts these messages, from a turn with calls to the last of their results."""
    kinds = [_kind(message) for message in messages]
    between = [pair for pair in pairwise(kinds) if pair[1] != "result"]
    return not between or (capabilities.late_results and capabilities.order.issuperset(between))


def _split_calls(message: Message, results: Mapping[int, Message], calls: Mapping[int, ToolCall]) -> Iterator[Message]:
    """Give each call a turn of its own, those with results first."""
    open_calls = [call for call in message.tool_calls if call not in calls.values()]
    turn = replace(message, tool_calls=())
    for call, result in [*((calls[at], results[at]) for at in results), *((call, None) for call in open_calls)]:
        yield replace(turn, tool_calls=(call,))
        turn = Message("assistant")
        if result is not None:
            yield result


class _ResultIndex:
    """The indices of tool results among messages, by stretches between two texts of the assistant."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._stretches: list[int] = []
        self._indices: dict[tuple[int, str], deque[int]] = defaultdict(deque)
        stretch = 0
        for index, message in enumerate(messages):
            stretch += _kind(message) == "assistant"
            self._stretches.append(stretch)
            if message.role == "tool":
                self._indices[stretch, message.tool_call_id or ""].append(index)

    def take(self, index: int, identity: str) -> int | None:
        """Give the index of the next result of a call that the message at an index makes, and remove it."""
        indices = self._indices[self._stretches[index], identity]
        while indices and indices[0] < index:
            indices.popleft()
        return indices.popleft() if indices else None
