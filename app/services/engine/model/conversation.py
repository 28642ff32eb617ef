"""Conversations in any order of roles, said in the order that a chat template takes."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from app.services.engine.output.tool_call_formats import nine_character_id
from app.services.generation import Message, ToolCall

# What may stand in a conversation: calls are a turn of the assistant that has some.
Turn = Literal["start", "system", "user", "assistant", "calls", "result"]

NO_RESULT = "No result."
NO_ANSWER = "No answer."
_TURNS: tuple[Turn, ...] = ("system", "user", "assistant", "calls", "result")
EVERY_ORDER = frozenset[tuple[Turn, Turn]]((before, after) for before in ("start", *_TURNS) for after in _TURNS)
_STRICT_ORDER = frozenset[tuple[Turn, Turn]]({("start", "user"), ("user", "assistant"), ("assistant", "user")})


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a chat template takes. What it refuses, or leaves out of the prompt, it does not take."""

    order: frozenset[tuple[Turn, Turn]] = EVERY_ORDER  # which turn may follow which
    calls: bool = True  # calls of the assistant
    results: bool = True  # messages of tools
    parallel_calls: bool = True  # several calls in a turn
    stray_results: bool = True  # results with the id of no call
    late_results: bool = True  # results that do not stand directly behind their calls
    text_content: bool = True  # else content is a list of parts, as templates of models that see want it
    any_call_id: bool = True  # else only those of nine letters and digits, as Mistral's templates do
    argument_objects: bool = True  # else arguments are JSON text
    text_beside_calls: bool = True  # words and calls in one turn of the assistant
    thoughts_beside_text_and_calls: bool = True
    empty_answers: bool = True  # turns of the assistant in which nothing is said
    system_alone: bool = True  # conversations in which only the system speaks
    no_user: bool = True  # conversations in which the user says nothing


# What every template takes that answers a user at all.
STRICT = Capabilities(order=_STRICT_ORDER, calls=False, results=False, empty_answers=False, no_user=False)


def fit(
    messages: Iterable[Message],
    capabilities: Capabilities,
    write_calls: Callable[[Sequence[ToolCall]], str],
    *,
    continues: bool = False,
) -> tuple[Message, ...]:
    """Say a conversation as a template takes it; what it takes stays as it is.

    What is said of a message depends on those before it alone, so that a prompt that goes on keeps its beginning: a
    system message that may not stand where it does becomes a part of the user's turn there, turns of one role become
    one, and where a turn is missing an empty one stands. `write_calls` spells calls for a template that has no words
    for them. `continues` leaves the last message, which is gone on with, as it is.
    """
    if not capabilities.any_call_id:
        messages = map(_with_nine, messages)
    if capabilities.calls and not capabilities.text_beside_calls:
        messages = (part for message in messages for part in _text_before_calls(message))
    if capabilities.calls:
        messages = _results_beside_calls(tuple(messages), capabilities)
    else:
        messages = (_with_calls_in_text(message, write_calls) for message in messages)
    turns = _Turns(capabilities)
    for message in messages:
        turns.add(message)
    return turns.all(continues=continues)


class _Turns:
    """The turns so far; `add` puts a message behind them, by whatever way the template takes."""

    def __init__(self, capabilities: Capabilities) -> None:
        self._capabilities = capabilities
        self._turns: list[list[Message]] = []  # the messages that become one
        self._open: list[str] = []  # ids of calls without a result
        self._takes_more = False  # the last turn is the user's by what was folded into it, and waits for his words

    def add(self, message: Message) -> None:
        match message.role:
            case "system":
                self._system(message)
            case "user":
                self._user(message, joins=self._takes_more)
            case "assistant":
                self._assistant(message)
            case "tool":
                self._result(message)

    def all(self, *, continues: bool) -> tuple[Message, ...]:
        turns = [self._spelled(_one(messages)) for messages in self._turns]
        kinds = {_kind(turn) for turn in turns}
        may_do_without = self._capabilities.system_alone if kinds == {"system"} else self._capabilities.no_user
        if not kinds or ("user" not in kinds and not may_do_without):
            leading = next((place for place, turn in enumerate(turns) if turn.role != "system"), len(turns))
            turns.insert(leading, Message("user"))
        if not self._capabilities.empty_answers:
            last = len(turns) - continues
            turns[:last] = [_with_answer(turn) for turn in turns[:last]]
        return tuple(turns)

    def _spelled(self, turn: Message) -> Message:
        crowded = turn.reasoning and turn.content and turn.tool_calls
        if crowded and not self._capabilities.thoughts_beside_text_and_calls:
            return replace(turn, reasoning=f"{turn.reasoning}\n\n{turn.content}", content="")
        return turn

    @property
    def _last(self) -> Turn:
        return _kind(self._turns[-1][-1]) if self._turns else "start"

    def _takes(self, turn: Turn) -> bool:
        return (self._last, turn) in self._capabilities.order

    def _append(self, message: Message) -> None:
        self._turns.append([])
        self._join(message)

    def _join(self, message: Message) -> None:
        self._turns[-1].append(message)
        self._takes_more = False
        if message.role == "assistant":
            self._open = [call.id for call in message.tool_calls]

    def _system(self, message: Message) -> None:
        if self._takes("system"):
            self._append(message)
        elif self._last == "system":
            self._join(message)
        elif message.content:
            own = self._last == "user" and not self._takes_more
            self._user(Message("user", message.content), joins=True)
            self._takes_more = not own

    def _user(self, message: Message, *, joins: bool = False) -> None:
        if self._last == "user" and (joins or not self._takes("user")):
            self._join(message)
            return
        if not self._takes("user") and self._last == "calls":
            self._close_calls()
        if not self._takes("user"):
            self._append(Message("assistant"))
        self._append(message)

    def _assistant(self, message: Message) -> None:
        kind = _kind(message)
        if not self._takes(kind) and self._last == "calls":
            self._close_calls()
        if self._takes(kind):
            self._append(message)
        elif self._last == "assistant" and (kind == "assistant" or self._capabilities.text_beside_calls):
            self._join(message)
        else:
            self._user(Message("user"))
            self._append(message)

    def _result(self, message: Message) -> None:
        if not message.tool_call_id and self._open:
            message = replace(message, tool_call_id=self._open[0])
        if not self._capabilities.results:
            self._result_text(message)
        elif message.tool_call_id in self._open:
            self._open.remove(message.tool_call_id)
            self._append(message)
        elif self._takes("result") and (self._capabilities.stray_results or not self._open):
            del self._open[:1]  # by its place it is the result of that one
            self._append(message)
        elif self._open and self._last in {"calls", "result"}:  # ids that do not fit, in the order of the calls
            self._append(replace(message, tool_call_id=self._open.pop(0)))
        else:
            self._result_text(message)

    def _result_text(self, message: Message) -> None:
        """Tell the result of a tool as Qwen's and Hermes' templates do, in the user's turn."""
        self._user(Message("user", f"<tool_response>\n{message.content}\n</tool_response>"), joins=True)

    def _close_calls(self) -> None:
        for identity in self._open:
            self._append(Message("tool", NO_RESULT, tool_call_id=identity))
        self._open = []


def _kind(message: Message) -> Turn:
    if message.role == "tool":
        return "result"
    return "calls" if message.tool_calls else message.role


def _with_answer(turn: Message) -> Message:
    return replace(turn, content=NO_ANSWER) if _kind(turn) == "assistant" and not turn.content.strip() else turn


def _one(messages: Sequence[Message]) -> Message:
    first, *more = messages
    if not more:
        return first
    return replace(
        first,
        content="\n\n".join(message.content for message in messages if message.content),
        reasoning="\n\n".join(message.reasoning for message in messages if message.reasoning) or None,
        tool_calls=tuple(call for message in messages for call in message.tool_calls),
    )


def _with_nine(message: Message) -> Message:
    """Give calls ids of nine letters and digits, a call and its result the same one, and the same one every time."""
    calls = tuple(replace(call, id=nine_character_id(call.id)) for call in message.tool_calls)
    result = message.tool_call_id
    return replace(message, tool_calls=calls, tool_call_id=None if result is None else nine_character_id(result))


def _text_before_calls(message: Message) -> Iterator[Message]:
    """Give words a turn of their own before that of the calls: templates that look for calls first leave them out."""
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
    """Put results directly behind their calls where they may not come later, one by one where calls are single.

    Nothing is looked for behind what the assistant says next.
    """
    places = _Results(messages)
    moved: set[int] = set()
    for place, message in enumerate(messages):
        if place in moved:
            continue
        single = len(message.tool_calls) > 1 and not capabilities.parallel_calls
        results = {at: call for call in message.tool_calls if (at := places.take(place, call.id)) is not None}
        ends = max(results, default=place)
        if not single and _may_stand(messages[place : ends + 1], capabilities):
            yield message
            continue
        moved |= results.keys()
        if single:
            yield from _singly(message, {at: messages[at] for at in sorted(results)}, results)
        else:
            yield message
            yield from (messages[at] for at in sorted(results))


def _may_stand(messages: Sequence[Message], capabilities: Capabilities) -> bool:
    """Whether a turn with calls and what stands between it and its last result may stay as they are."""
    kinds = [_kind(message) for message in messages]
    between = [pair for pair in pairwise(kinds) if pair[1] != "result"]
    return not between or (capabilities.late_results and capabilities.order.issuperset(between))


def _singly(message: Message, results: Mapping[int, Message], calls: Mapping[int, ToolCall]) -> Iterator[Message]:
    """Give each call a turn of its own, those with results first."""
    waiting = [call for call in message.tool_calls if call not in calls.values()]
    alone = replace(message, tool_calls=())
    for call, result in [*((calls[at], results[at]) for at in results), *((call, None) for call in waiting)]:
        yield replace(alone, tool_calls=(call,))
        alone = Message("assistant")
        if result is not None:
            yield result


class _Results:
    """Where the results of calls stand, by stretches between two texts of the assistant."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._stretches: list[int] = []
        self._places: dict[tuple[int, str], deque[int]] = defaultdict(deque)
        stretch = 0
        for place, message in enumerate(messages):
            stretch += _kind(message) == "assistant"
            self._stretches.append(stretch)
            if message.role == "tool":
                self._places[stretch, message.tool_call_id or ""].append(place)

    def take(self, place: int, identity: str) -> int | None:
        """Give the next result of a call that is made at a place, once."""
        waiting = self._places[self._stretches[place], identity]
        while waiting and waiting[0] < place:
            waiting.popleft()
        return waiting.popleft() if waiting else None
