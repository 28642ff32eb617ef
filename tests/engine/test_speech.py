"""Text to events: whatever the pieces a text comes in, what is said of it is the same."""

import importlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.engine.speech import Markup, Said, Speech
from app.services.generation import ToolCall

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "parameters": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}},
        },
    }
]
PLAIN = Markup(None, None, None, None, (), {}, None, None)


def markup(parser: str | None = None, think: tuple[str, str] | None = ("<think>", "</think>"), **more: Any) -> Markup:
    module = importlib.import_module(f"mlx_lm.tool_parsers.{parser}") if parser else None
    facts = {
        "think_start": think[0] if think else None,
        "think_end": think[1] if think else None,
        "tool_start": module.tool_call_start if module else None,
        "tool_end": module.tool_call_end if module else None,
        "structural": (),
        "transitions": {},
        "initial": None,
        "parse_call": module.parse_tool_call if module else None,
    }
    return Markup(**(facts | more))


JSON = markup("json_tools")
CALL = '<tool_call>\n{"name": "add", "arguments": {"a": "x", "b": 2}}\n</tool_call>'
# One well-formed call in each format that mlx-lm can parse.
CALLS = {
    "json_tools": CALL,
    "mistral": '[TOOL_CALLS]add[ARGS]{"a": "x", "b": 2}',
    "qwen3_coder": "<tool_call>\n<function=add>\n<parameter=a>\nx\n</parameter>\n<parameter=b>\n2\n</parameter>\n"
    "</function>\n</tool_call>",
    "glm47": "<tool_call>add<arg_key>a</arg_key><arg_value>x</arg_value><arg_key>b</arg_key><arg_value>2</arg_value>"
    "</tool_call>",
    "kimi_k2": "<|tool_calls_section_begin|><|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>"
    '{"a": "x", "b": 2}<|tool_call_end|><|tool_calls_section_end|>',
    "longcat": "<longcat_tool_call>add\n<longcat_arg_key>a</longcat_arg_key>\n"
    "<longcat_arg_value>x</longcat_arg_value>\n<longcat_arg_key>b</longcat_arg_key>\n<longcat_arg_value>2</longcat_arg_value>\n</longcat_tool_call>",
    "pythonic": '<|tool_call_start|>[add(a="x", b=2)]<|tool_call_end|>',
}


def merged(events: list[Said | ToolCall]) -> list[Any]:
    """Events without the seams between pieces and without the random ids of calls."""
    whole: list[Any] = []
    for event in events:
        if isinstance(event, ToolCall):
            whole.append((event.index, event.name, json.loads(event.arguments)))
        elif whole and isinstance(whole[-1], list) and whole[-1][1] == event.reasoning:
            whole[-1][0] += event.text
        else:
            whole.append([event.text, event.reasoning])
    return whole


def speak(pieces: list[str], facts: Markup, **options: Any) -> tuple[list[Any], str | None]:
    speech = Speech(facts, **options)
    events = [event for piece in pieces for event in speech.feed(piece)] + speech.finish()
    return merged(events), speech.stopped


def split(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[begin:end] for begin, end in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 200), max_size=12)
# Texts of whole and broken marks, of calls, and of plain pieces that look a little like marks.
PIECES = st.sampled_from(
    ["<think>", "</think>", "<tool_call>", "</tool_call>", CALL, "<", "</t", "<think", "a", "b", "ab", " ", "\n", "é🙂"]
)
TEXTS = st.lists(PIECES, max_size=10).map("".join)


@given(
    TEXTS,
    CUTS,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.lists(st.sampled_from(["ab", "b ", "<t", "é"]), max_size=2),
)
def test_any_split_of_a_text_says_the_same(
    text: str, cuts: list[int], thinking: bool, reasoning: bool, tools: bool, stop: list[str]
) -> None:
    options: dict[str, Any] = {
        "thinking": thinking,
        "split_reasoning": reasoning,
        "tools": TOOLS if tools else [],
        "stop": stop,
    }
    whole = speak([text], JSON, **options)
    assert speak(split(text, cuts), JSON, **options) == whole
    assert speak(list(text), JSON, **options) == whole


@pytest.mark.parametrize("parser", CALLS)
def test_every_format_of_calls_is_parsed_whatever_the_split(parser: str) -> None:
    text = f"Well. {CALLS[parser]}"
    expected = ([["Well. ", False], (0, "add", {"a": "x", "b": 2})], None)
    for size in (1, 2, 3, 7, 1000):
        pieces = [text[place : place + size] for place in range(0, len(text), size)]
        assert speak(pieces, markup(parser), tools=TOOLS) == expected


@pytest.mark.parametrize("parser", CALLS)
def test_without_tools_a_call_stays_text(parser: str) -> None:
    text = f"Well. {CALLS[parser]}"
    assert speak(list(text), markup(parser)) == ([[text, False]], None)


@pytest.mark.parametrize("parser", [parser for parser in CALLS if parser != "mistral"])
def test_a_call_that_is_never_closed_becomes_text(parser: str) -> None:
    facts = markup(parser)
    text = CALLS[parser].removesuffix(facts.tool_end or "")
    assert speak(list(f"Well. {text}"), facts, tools=TOOLS) == ([[f"Well. {text}", False]], None)


def test_a_call_that_does_not_parse_becomes_text_and_the_answer_goes_on() -> None:
    text = "One <tool_call>{broken</tool_call> two"
    assert speak(list(text), JSON, tools=TOOLS) == ([[text, False]], None)


@pytest.mark.parametrize("call", ["{}", "[]", "3", '{"name": ""}', '{"name": 3}', '{"arguments": {}}', "null", '["a"]'])
def test_json_that_is_no_call_becomes_text(call: str) -> None:
    text = f"<tool_call>{call}</tool_call>"
    said, _ = speak(list(text), JSON, tools=TOOLS)
    assert said == [[text, False]]


def test_calls_are_numbered_and_their_arguments_are_json_text() -> None:
    speech = Speech(JSON, tools=TOOLS)
    events = [event for event in speech.feed(CALL + CALL) if isinstance(event, ToolCall)]
    assert [event.index for event in events] == [0, 1]
    assert [json.loads(event.arguments) for event in events] == [{"a": "x", "b": 2}] * 2
    assert events[0].id != events[1].id


def test_a_call_that_fails_beside_a_good_one_takes_no_number() -> None:
    facts = markup("json_tools")
    broken = '<tool_call>[{"name": "add"}, {"name": 3}]</tool_call>'
    said, _ = speak([broken + CALL], facts, tools=TOOLS)
    assert said == [[broken, False], (0, "add", {"a": "x", "b": 2})]


def test_a_call_in_the_middle_of_reasoning_is_a_call() -> None:
    said, _ = speak(list(f"<think>I add.{CALL} Done"), JSON, tools=TOOLS)
    assert said == [["I add.", True], (0, "add", {"a": "x", "b": 2}), ["Done", False]]


@pytest.mark.parametrize("think", [("<think>", "</think>"), ("<|channel>thought", "<channel|>")])
def test_reasoning_is_split_off_without_the_blank_around_it(think: tuple[str, str]) -> None:
    facts = markup(think=think)
    text = f"{think[0]}\nWell, \nwell.\n{think[1]}\n\n Hello there\n"
    assert speak(list(text), facts) == ([["Well, \nwell.\n", True], ["Hello there\n", False]], None)


def test_a_prompt_that_ends_in_reasoning_begins_with_it() -> None:
    assert speak(list("\nHm.</think>\nHi"), JSON, thinking=True) == ([["Hm.", True], ["Hi", False]], None)


def test_reasoning_and_its_tags_stay_in_the_text_where_that_is_asked() -> None:
    text = "<think>\nHm.</think>\nHi"
    assert speak(list(text), JSON, split_reasoning=False) == ([[text, False]], None)


def test_the_markers_of_a_structure_are_not_shown() -> None:
    facts = markup(think=None, structural=("<|a|>", "<|b|>"))
    assert speak(list("<|a|>Hi<|b|>"), facts) == ([["Hi", False]], None)


# Stop strings.

LETTERS = st.text("abc", max_size=24)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4)


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The reference: the match that is whole first, the longest of those that end at the same place."""
    found = [(text.index(stop) + len(stop), text.index(stop), stop) for stop in stops if stop in text]
    if not found:
        return text, None
    _, begin, stop = min(found)
    return text[:begin], stop


@given(LETTERS, STOPS, CUTS)
def test_stop_strings_cut_at_the_match_that_is_whole_first(text: str, stops: list[str], cuts: list[int]) -> None:
    said, stopped = speak(split(text, cuts), PLAIN, stop=stops)
    expected, stop = cut(text, stops)
    assert ("".join(piece for piece, _ in said), stopped) == (expected, stop)


@given(LETTERS, STOPS)
def test_nothing_is_said_that_a_stop_string_would_take_back(text: str, stops: list[str]) -> None:
    speech, said = Speech(PLAIN, stop=stops), ""
    for letter in text:
        said += "".join(event.text for event in speech.feed(letter) if isinstance(event, Said))
        assert cut(text, stops)[0].startswith(said)


@given(
    TEXTS,
    st.lists(st.sampled_from(["ab", "add", "<t", "call>", '"b": 2', "b", "é"]), min_size=1, max_size=3),
    st.booleans(),
)
def test_no_part_of_the_answer_holds_a_stop_string(text: str, stops: list[str], thinking: bool) -> None:
    said, _ = speak(list(text), JSON, stop=stops, tools=TOOLS, thinking=thinking)
    for event in said:
        if isinstance(event, list):
            assert not any(stop in event[0] for stop in stops)


def test_a_stop_string_that_looks_like_a_mark_wins_over_it() -> None:
    assert speak(list("a</think>b"), JSON, stop=["</think>"], thinking=True) == ([["a", True]], "</think>")


def test_a_call_stays_whole_when_it_holds_a_stop_string() -> None:
    said, stopped = speak(list(f"{CALL} end"), JSON, stop=['"b"', "end"], tools=TOOLS)
    assert said == [(0, "add", {"a": "x", "b": 2})]
    assert stopped == "end"


def test_nothing_follows_a_stop_string() -> None:
    speech = Speech(PLAIN, stop=["x"])
    assert [event for event in speech.feed("axb") if isinstance(event, Said)] == [Said("a")]
    assert speech.stopped == "x"
    assert speech.feed("more") == []
    assert speech.finish() == []


def test_a_thought_that_is_gone_on_with_keeps_its_first_blank() -> None:
    fresh = Speech(JSON, thinking=True).feed("\n so it is</think>")
    assert fresh == [Said("so it is", reasoning=True)]
    continued = Speech(JSON, thinking=True, continued=True).feed(" so it is</think>")
    assert continued == [Said(" so it is", reasoning=True)]
