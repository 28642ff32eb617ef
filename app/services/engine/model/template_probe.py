"""What a chat template takes, found out by rendering small conversations once, when its model is loaded."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from app.services.engine.model.conversation import EVERY_ORDER, Capabilities, Turn
from app.services.engine.output.tool_call_arguments import parse_arguments
from app.services.generation import Message, ToolCall

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Looks a word up.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"type": "string", "description": "The word."}},
            "required": ["word"],
        },
    },
}

# Gives the prompt; None is a refusal.
Render = Callable[[Sequence[Message], Capabilities], str | None]

_BEFORE: dict[Turn, tuple[Turn, ...]] = {
    "start": (),
    "system": ("system",),
    "user": ("user",),
    "assistant": ("user", "assistant"),
    "calls": ("user", "calls"),
    "result": ("user", "calls", "result"),
}
_BEHIND: dict[Turn, tuple[Turn, ...]] = {
    "user": ("assistant", "user"),
    "assistant": ("user",),
    "calls": ("result", "assistant", "user"),
    "result": ("assistant", "user"),
}


def probe(render: Render) -> Capabilities:
    """Find out what a template takes. One that renders nothing is said to take everything."""
    contents = (Capabilities(), Capabilities(text_content=False))
    can = next((way for way in contents if _takes(render, way, _conversation("user"))), None)
    if can is None:
        return Capabilities()
    can = _tool_turns(render, can)
    can = replace(
        can, empty_answers=_takes(render, can, [*_conversation("user"), Message("assistant"), Message("user")])
    )
    can = replace(can, order=EVERY_ORDER - set(_refused_pairs(render, can)))
    return replace(
        can,
        system_alone=_takes(render, can, _conversation("system")),
        no_user=_takes(render, can, _conversation("assistant")),
    )


def _refused_pairs(render: Render, can: Capabilities) -> list[tuple[Turn, Turn]]:
    pairs = sorted(pair for pair in EVERY_ORDER if _can_be(pair, can))
    later = [pair for pair in pairs if pair[0] not in {"start", "system"}]
    text = render(all_of_them := _conversation(*(turn for pair in later for turn in _around(pair))), can)
    if text is not None and _in_order(text, all_of_them):  # most templates: one conversation instead of thirty
        pairs = [pair for pair in pairs if pair not in later]
    return [pair for pair in pairs if not _takes_pair(render, can, pair)]


def _in_order(text: str, messages: Sequence[Message]) -> bool:
    place = 0
    for word in (word for message in messages for word in _words(message)):
        if (place := text.find(word, place)) < 0:
            return False
    return True


def _around(pair: tuple[Turn, Turn]) -> tuple[Turn, ...]:
    """Give the shortest conversation with these turns one behind the other, up to words of the user's."""
    before, after = pair
    if after != "system":
        return (*_BEFORE[before], after, *_BEHIND[after])
    # What follows a system message is what would follow without it.
    return (*_BEFORE[before], after, *(("user",) if before in {"start", "system", "assistant"} else _BEHIND[before]))


def _tool_turns(render: Render, can: Capabilities) -> Capabilities:
    """Find out how calls and their results have to be said."""
    user, call, result, *rest = _conversation("user", "calls", "result", "assistant", "user")
    ways = [
        replace(can, calls=calls, results=results, any_call_id=any_id, argument_objects=objects)
        for calls, results in ((True, True), (False, True), (False, False))
        for objects in ((True, False) if calls else (True,))
        for any_id in ((True, False) if results else (True,))
    ]
    neither = replace(can, calls=False, results=False)
    can = next((way for way in ways if _takes(render, way, [user, call, result, *rest])), neither)
    if can.results:
        stray = replace(result, tool_call_id="call_of_nobody")
        can = replace(can, stray_results=_takes(render, can, [user, call, stray, *rest]))
    if not can.calls:
        return can
    late = [user, call, Message("user", "word8word"), result, *rest]
    both = replace(call, tool_calls=(*call.tool_calls, _call(1, "word7word", "call_7")))
    results = [result, Message("tool", "word6word", tool_call_id="call_7")]
    said = replace(call, content="word5word")
    thought = replace(said, reasoning="A thought.")
    return replace(
        can,
        late_results=_takes(render, can, late),
        parallel_calls=_takes(render, can, [user, both, *results, *rest]),
        # Up to the answer: some templates tell it as thoughts, which no template tells again behind the next question.
        text_beside_calls=_takes(render, can, [user, said, result]),
        thoughts_beside_text_and_calls=render([user, thought, result, *rest], can) is not None,
    )


def _can_be(pair: tuple[Turn, Turn], can: Capabilities) -> bool:
    """Whether these turns exist for a template; what it has no words for becomes another turn before."""
    return (can.calls or "calls" not in pair) and (can.results or "result" not in pair)


def _takes_pair(render: Render, can: Capabilities, pair: tuple[Turn, Turn]) -> bool:
    messages = _conversation(*_around(pair))
    if pair[1] != "system":
        return _takes(render, can, messages)
    if not _takes(render, can, messages, in_place=len(_BEFORE[pair[0]])):
        return False
    # Templates that say it with the user's last words lose it where those are not the last.
    return pair[0] != "start" or not can.results or _takes(render, can, _conversation("system", *_BEFORE["result"]))


def _takes(render: Render, can: Capabilities, messages: Sequence[Message], in_place: int = 0) -> bool:
    """Whether all that is said comes out, and the message at `in_place` behind the one before it."""
    text = render(messages, can)
    if text is None:
        return False
    words = [_words(message) for message in messages]
    if any(word not in text for said in words for word in said):
        return False
    return not in_place or text.rindex(words[in_place - 1][-1]) < text.rindex(words[in_place][0])


def _words(message: Message) -> list[str]:
    """What has to come out of a message."""
    called = [parse_arguments(call.arguments)["word"] for call in message.tool_calls]
    return [message.content, *called] if message.content else called


def _conversation(*turns: Turn) -> list[Message]:
    """Make a conversation in which everything that is said is a word that stands nowhere else."""
    messages: list[Message] = []
    numbers = count()
    waiting: list[str] = []  # ids of calls
    for turn in turns:
        number = next(numbers)
        word, identity = f"word{number}word", f"call_{number}"
        match turn:
            case "calls":
                waiting = [identity]
                messages.append(Message("assistant", tool_calls=(_call(0, word, identity),)))
            case "result":
                messages.append(Message("tool", word, tool_call_id=waiting.pop() if waiting else identity))
            case "system" | "user" | "assistant":
                messages.append(Message(turn, word))
    return messages


def _call(place: int, word: str, identity: str) -> ToolCall:
    return ToolCall(place, identity, "look_up", f'{{"word": "{word}"}}')
