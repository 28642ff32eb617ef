"""Answers in harmony to parts: channels, calls, headers; the same whatever the pieces they come in."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.engine.output import harmony
from app.services.engine.output.message_parser import MessageParser
from app.services.generation import ToolCall
from tests.engine.harmony_answers import (
    ARGUMENTS,
    CALL_BEHIND_CHANNEL,
    CALL_BEHIND_ROLE,
    THOUGHT,
    marked,
    parse_messages,
)
from tests.engine.parsing import TOOLS, split

ADDED = (0, "add", ARGUMENTS)
FINAL = "<|channel|>final<|message|>"
NEXT = "<|end|><|start|>assistant"
SHAPES: dict[str, tuple[str, list[Any]]] = {
    "answer": (f"{FINAL}Hello!<|return|>", [["Hello!", False]]),
    "reasoning": (f"{THOUGHT}{FINAL}Hello!", [["They greet.", True], ["Hello!", False]]),
    "reasoning twice": (f"{THOUGHT}{THOUGHT}{FINAL}Hi", [["They greet.\n\nThey greet.", True], ["Hi", False]]),
    "reasoning only": ("<|channel|>analysis<|message|>Hm<|end|>", [["Hm", True]]),
    "call behind the channel": (f"{THOUGHT}{CALL_BEHIND_CHANNEL}<|call|>", [["They greet.", True], ADDED]),
    "call behind the role": (f"{THOUGHT}{CALL_BEHIND_ROLE}<|call|>", [["They greet.", True], ADDED]),
    "call at once": (CALL_BEHIND_ROLE, [ADDED]),
    "call in the channel of reasoning": (CALL_BEHIND_CHANNEL.replace("commentary", "analysis"), [ADDED]),
    "call without a type": ("<|channel|>commentary to=functions.add<|message|>{}", [(0, "add", "{}")]),
    "call without functions": ("<|channel|>commentary to=add<|message|>{}", [(0, "add", "{}")]),
    "call of no tool": ("<|channel|>commentary to=functions.sub<|message|>{}", [(0, "sub", "{}")]),
    "call without arguments": ("<|channel|>commentary to=functions.add json<|message|><|call|>", [(0, "add", "{}")]),
    "call with a tail": (CALL_BEHIND_ROLE + "}\n oh<|call|>", [ADDED]),
    "no object": ("<|channel|>commentary to=functions.add<|message|> Add!<|end|>", [["Add!", False]]),
    "two calls": (
        f"{CALL_BEHIND_CHANNEL}{NEXT}{CALL_BEHIND_ROLE}<|call|>",
        [ADDED, (1, "add", ARGUMENTS)],
    ),
    "preamble and call": (
        f"{THOUGHT}<|channel|>commentary<|message|>I add.{NEXT}{CALL_BEHIND_ROLE}<|call|>",
        [["They greet.", True], ["I add.", False], ADDED],
    ),
    "preamble and answer": (
        f"<|channel|>commentary<|message|>One moment.{NEXT}{FINAL}Hi",
        [["One moment.\n\nHi", False]],
    ),
    "preamble to the user": ("<|channel|>commentary to=user<|message|>I add.<|end|>", [["I add.", False]]),
    "stray channel": (f"<|channel|>commentary to=assistant{THOUGHT}{FINAL}Hi", [["They greet.", True], ["Hi", False]]),
    "typed answer": ("<|channel|>final <|constrain|>json<|message|>{}<|return|>", [["{}", False]]),
    "spaces": ("<|channel|> final <|message|>\n Hi", [["Hi", False]]),
    "no channel": ("<|message|>Hi", [["Hi", False]]),
    "no header": ("Hello there", [["Hello there", False]]),
    "no header after the first": (
        f"{THOUGHT}\n\nHello there<|return|>",
        [["They greet.", True], ["Hello there", False]],
    ),
    "no header at all after the first": (f"{THOUGHT}Hello<|return|>", [["They greet.", True], ["Hello", False]]),
    "role before the channel": (f"assistant{FINAL}Hi", [["Hi", False]]),
    "no start": (f"{THOUGHT.replace('<|start|>assistant', '')}{FINAL}Hi", [["They greet.", True], ["Hi", False]]),
    "no end": (f"<|channel|>analysis<|message|>Hm{FINAL}Hi", [["Hm", True], ["Hi", False]]),
    "no end, with start": (
        f"<|channel|>analysis<|message|>Hm<|start|>assistant{FINAL}Hi",
        [["Hm", True], ["Hi", False]],
    ),
    "another role": (f"{FINAL}Hi<|end|><|start|>user<|message|>And?{NEXT}{FINAL}Well", [["Hi\n\nWell", False]]),
    "a result made up": (
        f"{CALL_BEHIND_ROLE}<|call|><|start|>functions.add to=assistant<|channel|>commentary<|message|>3<|end|>",
        [ADDED],
    ),
    "doubled markers": (f"{FINAL}<|message|>Hi<|constrain|> you<|end|><|end|><|return|>", [["Hi you", False]]),
    "empty messages": (f"<|channel|>analysis<|message|>{NEXT}{FINAL}", []),
}
CUTS = st.lists(st.integers(0, 300), max_size=12)


@pytest.mark.parametrize("shape", SHAPES)
def test_channels_are_told_apart(shape: str) -> None:
    text, expected = SHAPES[shape]
    assert parse_messages([marked(text)], tools=TOOLS) == (expected, None)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_split_of_an_answer_gives_the_same_parts(shape: str) -> None:
    text, expected = marked(SHAPES[shape][0]), SHAPES[shape][1]
    assert parse_messages(list(text), tools=TOOLS)[0] == expected
    for cut in range(len(text)):
        assert parse_messages([text[:cut], text[cut:]], tools=TOOLS)[0] == expected


PIECES = st.sampled_from(
    [
        *map(harmony.control, harmony.TOKENS),
        *("analysis", "final", "commentary", " to=functions.add", "assistant", "user", " json", ARGUMENTS, "{"),
        *("ab", "b ", "<|end|>", "\n", "é🙂", marked(THOUGHT), marked(FINAL)),
    ]
)


@given(
    st.lists(PIECES, max_size=14).map("".join),
    CUTS,
    st.fixed_dictionaries(
        {
            "tools": st.sampled_from([[], TOOLS]),
            "stop": st.lists(st.sampled_from(["ab", "b ", "<|e", "é", "final"]), max_size=2),
            "thinking": st.booleans(),
            "continues": st.booleans(),
            "split_reasoning": st.booleans(),
            "one_call": st.booleans(),
            "raw": st.sampled_from([False, False, True]),
            "ended": st.booleans(),
        }
    ),
)
def test_any_split_of_any_text_gives_the_same_parts(text: str, cuts: list[int], options: dict[str, Any]) -> None:
    whole = parse_messages([text], **options)
    assert parse_messages(split(text, cuts), **options) == whole
    assert parse_messages(list(text), **options) == whole
    assert not any(harmony.CONTROL in str(part) for part in whole[0])


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_that_is_cut_off_is_the_beginning_of_the_whole(shape: str) -> None:
    text, expected = marked(SHAPES[shape][0]), SHAPES[shape][1]
    whole = {kind: "".join(part[0] for part in expected if part[1:] == [kind]) for kind in (True, False)}
    calls = [part for part in expected if isinstance(part, tuple)]
    for cut in range(len(text)):
        parts, _ = parse_messages([text[:cut]], tools=TOOLS, ended=False)
        for kind, all_of_it in whole.items():
            assert all_of_it.startswith("".join(part[0] for part in parts if part[1:] == [kind]))
        found = [part for part in parts if isinstance(part, tuple)]
        for part, call in zip(found, calls, strict=False):
            assert part[:2] == call[:2]
            assert call[2].startswith(part[2])
        assert len(found) <= len(calls)


def test_a_call_comes_as_it_is_written() -> None:
    parser = MessageParser(tools=TOOLS)
    before, text = marked(CALL_BEHIND_CHANNEL).split("{", 1)
    assert parser.feed(before) == []
    (call,) = [part for part in parser.feed("{") if isinstance(part, ToolCall)]
    assert (call.name, call.arguments, parser.complete_calls) == ("add", "", 0)
    assert sum(bool(parser.feed(letter)) for letter in text) > len(text) // 2
    assert (parser.complete_calls, parser.in_answer, parser.in_reasoning) == (1, False, False)


def test_a_call_that_is_cut_off_is_not_complete() -> None:
    for cut in range(len(marked(CALL_BEHIND_CHANNEL))):
        parser = MessageParser(tools=TOOLS)
        parser.feed(marked(CALL_BEHIND_CHANNEL)[:cut])
        parser.finish()
        assert parser.complete_calls == 0


def test_after_the_only_call_nothing_comes() -> None:
    text = marked(f"{CALL_BEHIND_CHANNEL}{NEXT}{CALL_BEHIND_ROLE}")
    assert parse_messages([text], tools=TOOLS, one_call=True) == ([ADDED], None)


def test_without_tools_a_call_is_text() -> None:
    assert parse_messages([marked(CALL_BEHIND_CHANNEL)]) == ([[ARGUMENTS, False]], None)


def test_what_is_only_spelled_like_a_control_token_is_text() -> None:
    quote = "Write <|channel|>final<|message|>Hi<|end|><|start|>assistant, then <|call|>."
    for shape in ("analysis", "final"):
        text = marked(f"<|channel|>{shape}<|message|>") + quote
        assert parse_messages(list(text)) == ([[quote, shape == "analysis"]], None)


@pytest.mark.parametrize("stop", ["greet", "final", "<|", "commentary", "add", "é"])
def test_stop_strings_count_in_what_is_said_alone(stop: str) -> None:
    text = marked(f"{THOUGHT}<|channel|>commentary<|message|>I sum.{NEXT}{CALL_BEHIND_CHANNEL}<|call|>")
    expected = [["They greet.", True], ["I sum.", False], ADDED]
    assert parse_messages(list(text), tools=TOOLS, stop=[stop]) == (expected, None)
    assert parse_messages([marked(f"{THOUGHT}{FINAL}Oh, final greeting"), " add"], stop=["l g"])[0][1:] == [
        ["Oh, fina", False]
    ]


def test_reasoning_stays_in_the_text_where_that_is_asked() -> None:
    text = "<|channel|>analysis<|message|>They greet.<|end|>Hello!"
    for pieces in ([marked(f"{THOUGHT}{FINAL}Hello!")], list(marked(f"{THOUGHT}{FINAL}Hello!"))):
        assert parse_messages(pieces, split_reasoning=False) == ([[text, False]], None)
        assert parse_messages(pieces, split_reasoning=False, stop=["greet"]) == (
            [["<|channel|>analysis<|message|>They ", False]],
            "greet",
        )
    call = marked(THOUGHT + CALL_BEHIND_ROLE)
    assert parse_messages([call], split_reasoning=False, tools=TOOLS)[0] == [[text[:-6], False], ADDED]


def test_raw_text_stays_as_it_is() -> None:
    text = f"{THOUGHT}{CALL_BEHIND_ROLE}<|call|>"
    assert parse_messages(list(marked(text)), raw=True) == ([[text, False]], None)


def test_a_prompt_that_ends_within_a_message_begins_with_it() -> None:
    assert parse_messages([marked(f" lo<|end|><|start|>assistant{FINAL}You")], continues=True)[0] == [
        [" lo\n\nYou", False]
    ]
    assert parse_messages([marked(f" mm{NEXT}{FINAL}Hi")], thinking=True, continues=True)[0] == [
        [" mm", True],
        ["Hi", False],
    ]
    assert parse_messages([marked(f"\nmm{NEXT}{FINAL}Hi")], thinking=True)[0] == [["mm", True], ["Hi", False]]
