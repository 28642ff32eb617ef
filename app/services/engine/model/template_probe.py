"""Finds out which conversations a chat template accepts, by rendering small ones when the model is loaded."""

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

# Renders messages to a prompt; None if the template refuses them.
Render = Callable[[Sequence[Message], Capabilities], str | None]

_BEFORE: dict[Turn, tuple[Turn, ...]] = {
    "start": (),
    "system": ("system",),
    "user": ("user",),
    "assistant": ("user", "assistant"),
    "calls": ("user", "calls"),
    "result": ("user", "calls", "result"),
}
_AFTER: dict[Turn, tuple[Turn, ...]] = {
    "user": ("assistant", "user"),
    "assistant": ("user",),
    "calls": ("result", "assistant", "user"),
    "result": ("assistant", "user"),
}


def probe(render: Render) -> Capabilities:
    """Find out what a template accepts. For one that renders nothing, that is everything."""
    candidates = (Capabilities(), Capabilities(text_content=False))
    capabilities = next((each for each in candidates if _accepts(render, each, _conversation("user"))), None)
    if capabilities is None:
        return Capabilities()
    capabilities = _tool_turns(render, capabilities)
    empty_answer = [*_conversation("user"), Message("assistant"), Message("user")]
    capabilities = replace(capabilities, empty_answers=_accepts(render, capabilities, empty_answer))
    capabilities = replace(capabilities, order=EVERY_ORDER - set(_refused_pairs(render, capabilities)))
    return replace(
        capabilities,
        system_alone=_accepts(render, capabilities, _conversation("system")),
        no_user=_accepts(render, capabilities, _conversation("assistant")),
    )


def _refused_pairs(render: Render, capabilities: Capabilities) -> list[tuple[Turn, Turn]]:
    pairs = sorted(pair for pair in EVERY_ORDER if _exists(pair, capabilities))
    later = [pair for pair in pairs if pair[0] not in {"start", "system"}]
    messages = _conversation(*(turn for pair in later for turn in _around(pair)))
    text = render(messages, capabilities)
    if text is not None and _in_order(text, messages):  # most templates: one conversation instead of thirty
        pairs = [pair for pair in pairs if pair not in later]
    return [pair for pair in pairs if not _accepts_pair(render, capabilities, pair)]


def _in_order(text: str, messages: Sequence[Message]) -> bool:
    position = 0
    for word in (word for message in messages for word in _words(message)):
        if (position := text.find(word, position)) < 0:
            return False
    return True


def _around(pair: tuple[Turn, Turn]) -> tuple[Turn, ...]:
    """Give the shortest conversation that has these turns in succession and ends with one of the user's."""
    before, after = pair
    if after != "system":
        return (*_BEFORE[before], after, *_AFTER[after])
    # What follows a system message is what would follow without it.
    return (*_BEFORE[before], after, *(("user",) if before in {"start", "system", "assistant"} else _AFTER[before]))


def _tool_turns(render: Render, capabilities: Capabilities) -> Capabilities:
    """Find out how calls and their results have to be passed."""
    user, call, result, *rest = _conversation("user", "calls", "result", "assistant", "user")
    candidates = [
        replace(capabilities, calls=calls, results=results, any_call_id=any_id, argument_objects=objects)
        for calls, results in ((True, True), (False, True), (False, False))
        for objects in ((True, False) if calls else (True,))
        for any_id in ((True, False) if results else (True,))
    ]
    neither = replace(capabilities, calls=False, results=False)
    capabilities = next((each for each in candidates if _accepts(render, each, [user, call, result, *rest])), neither)
    if capabilities.results:
        stray = replace(result, tool_call_id="call_of_nobody")
        capabilities = replace(capabilities, stray_results=_accepts(render, capabilities, [user, call, stray, *rest]))
    if not capabilities.calls:
        return capabilities
    late = [user, call, Message("user", "word8word"), result, *rest]
    two_calls = replace(call, tool_calls=(*call.tool_calls, _call(1, "word7word", "call_7")))
    two_results = [result, Message("tool", "word6word", tool_call_id="call_7")]
    call_with_text = replace(call, content="word5word")
    with_reasoning = replace(call_with_text, reasoning="A thought.")
    return replace(
        capabilities,
        late_results=_accepts(render, capabilities, late),
        parallel_calls=_accepts(render, capabilities, [user, two_calls, *two_results, *rest]),
        # Up to the answer: some templates take the text for reasoning, which they drop once a question follows.
        text_beside_calls=_accepts(render, capabilities, [user, call_with_text, result]),
        reasoning_beside_text_and_calls=render([user, with_reasoning, result, *rest], capabilities) is not None,
    )


def _exists(pair: tuple[Turn, Turn], capabilities: Capabilities) -> bool:
    """Whether the template has both turns; others are turned into the user's or the assistant's beforehand."""
    return (capabilities.calls or "calls" not in pair) and (capabilities.results or "result" not in pair)


def _accepts_pair(render: Render, capabilities: Capabilities, pair: tuple[Turn, Turn]) -> bool:
    messages = _conversation(*_around(pair))
    if pair[1] != "system":
        return _accepts(render, capabilities, messages)
    if not _accepts(render, capabilities, messages, in_order=len(_BEFORE[pair[0]])):
        return False
    # Templates that join it to the user's last message lose it where another message follows that.
    return (
        pair[0] != "start"
        or not capabilities.results
        or _accepts(render, capabilities, _conversation("system", *_BEFORE["result"]))
    )


def _accepts(render: Render, capabilities: Capabilities, messages: Sequence[Message], in_order: int = 0) -> bool:
    """Whether the prompt has all words, those of the message at `in_order` behind the words of the one before it."""
    text = render(messages, capabilities)
    if text is None:
        return False
    words = [_words(message) for message in messages]
    if any(word not in text for of_message in words for word in of_message):
        return False
    return not in_order or text.rindex(words[in_order - 1][-1]) < text.rindex(words[in_order][0])


def _words(message: Message) -> list[str]:
    """Give the words of a message that a prompt has to contain."""
    words = [parse_arguments(call.arguments)["word"] for call in message.tool_calls]
    return [message.content, *words] if message.content else words


def _conversation(*turns: Turn) -> list[Message]:
    """Make a conversation in which each content or argument is a word of its own."""
    messages: list[Message] = []
    numbers = count()
    open_calls: list[str] = []  # their ids
    for turn in turns:
        number = next(numbers)
        word, identity = f"word{number}word", f"call_{number}"
        match turn:
            case "calls":
                open_calls = [identity]
                messages.append(Message("assistant", tool_calls=(_call(0, word, identity),)))
            case "result":
                messages.append(Message("tool", word, tool_call_id=open_calls.pop() if open_calls else identity))
            case "system" | "user" | "assistant":
                messages.append(Message(turn, word))
    return messages


def _call(index: int, word: str, identity: str) -> ToolCall:
    return ToolCall(index, identity, "look_up", f'{{"word": "{word}"}}')
