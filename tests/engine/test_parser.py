"""Text to parts: whatever the pieces a text comes in, the parts are the same."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.engine.output.markup import Markup
from app.services.engine.output.parser import OutputParser
from app.services.engine.output.parts import TextPiece
from tests.engine.parsing import ADDED, CALL, JSON, TOOLS, markup, parse, split

PLAIN = Markup()
CUTS = st.lists(st.integers(0, 200), max_size=12)
# Texts of whole and broken markers, of calls, and of plain pieces that look a little like markers.
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
def test_any_split_of_a_text_gives_the_same_parts(
    text: str, cuts: list[int], thinking: bool, reasoning: bool, tools: bool, stop: list[str]
) -> None:
    options: dict[str, Any] = {
        "thinking": thinking,
        "split_reasoning": reasoning,
        "tools": TOOLS if tools else [],
        "stop": stop,
    }
    whole = parse([text], JSON, **options)
    assert parse(split(text, cuts), JSON, **options) == whole
    assert parse(list(text), JSON, **options) == whole


def test_a_call_in_the_middle_of_reasoning_is_a_call() -> None:
    parts, _ = parse(list(f"<think>I add.{CALL} Done"), JSON, tools=TOOLS)
    assert parts == [["I add.", True], ADDED, ["Done", False]]


@pytest.mark.parametrize("think", [("<think>", "</think>"), ("<|channel>thought", "<channel|>")])
def test_reasoning_is_split_off_without_the_blank_around_it(think: tuple[str, str]) -> None:
    family_markup = markup(think=think)
    text = f"{think[0]}\nWell, \nwell.\n{think[1]}\n\n Hello there\n"
    assert parse(list(text), family_markup) == ([["Well, \nwell.\n", True], ["Hello there\n", False]], None)


def test_a_prompt_that_ends_in_reasoning_begins_with_it() -> None:
    assert parse(list("\nHm.</think>\nHi"), JSON, thinking=True) == ([["Hm.", True], ["Hi", False]], None)


def test_reasoning_and_its_tags_stay_in_the_text_where_that_is_asked() -> None:
    text = "<think>\nHm.</think>\nHi"
    assert parse(list(text), JSON, split_reasoning=False) == ([[text, False]], None)


def test_the_markers_of_a_structure_are_not_shown() -> None:
    family_markup = markup(think=None, structural=("<|a|>", "<|b|>"))
    assert parse(list("<|a|>Hi<|b|>"), family_markup) == ([["Hi", False]], None)


# Stop strings.

LETTERS = st.text("abc", max_size=24)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=4)


def cut(text: str, stops: list[str]) -> tuple[str, str | None]:
    """The reference: the match that is whole first, the longest of those that end at the same place."""
    matches = [(text.index(stop) + len(stop), text.index(stop), stop) for stop in stops if stop in text]
    if not matches:
        return text, None
    _, begin, stop = min(matches)
    return text[:begin], stop


@given(LETTERS, STOPS, CUTS)
def test_stop_strings_cut_at_the_match_that_is_whole_first(text: str, stops: list[str], cuts: list[int]) -> None:
    parts, stopped = parse(split(text, cuts), PLAIN, stop=stops)
    expected, stop = cut(text, stops)
    assert ("".join(piece for piece, _ in parts), stopped) == (expected, stop)


@given(LETTERS, STOPS)
def test_nothing_is_given_out_that_a_stop_string_would_take_back(text: str, stops: list[str]) -> None:
    parser, parts = OutputParser(PLAIN, stop=stops), ""
    for letter in text:
        parts += "".join(event.text for event in parser.feed(letter) if isinstance(event, TextPiece))
        assert cut(text, stops)[0].startswith(parts)


@given(
    TEXTS,
    st.lists(st.sampled_from(["ab", "add", "<t", "call>", '"b": 2', "b", "é"]), min_size=1, max_size=3),
    st.booleans(),
)
def test_no_part_of_the_answer_holds_a_stop_string(text: str, stops: list[str], thinking: bool) -> None:
    parts, _ = parse(list(text), JSON, stop=stops, tools=TOOLS, thinking=thinking)
    for event in parts:
        if isinstance(event, list) and not event[1]:
            assert not any(stop in event[0] for stop in stops)


@pytest.mark.parametrize("stop", ["a", "</think>", "think", "\n", "<", "n"])
def test_stop_strings_count_in_the_answer_alone_and_never_cut_a_marker(stop: str) -> None:
    for pieces in (["a\nn</think>\n\n12"], list("a\nn</think>\n\n12")):
        assert parse(pieces, JSON, stop=[stop], thinking=True) == ([["a\nn", True], ["12", False]], None)
    for pieces in ([f"\n<think>a\nn</think>\n\n12{CALL}"], list(f"\n<think>a\nn</think>\n\n12{CALL}")):
        expected = [["a\nn", True], ["12", False], ADDED]
        assert parse(pieces, JSON, stop=[stop], tools=TOOLS) == (expected, None)


def test_a_call_stays_whole_when_it_holds_a_stop_string() -> None:
    parts, stopped = parse(list(f"{CALL} end"), JSON, stop=['"b"', "end"], tools=TOOLS)
    assert parts == [ADDED]
    assert stopped == "end"


def test_nothing_follows_a_stop_string() -> None:
    parser = OutputParser(PLAIN, stop=["x"])
    assert [event for event in parser.feed("axb") if isinstance(event, TextPiece)] == [TextPiece("a")]
    assert parser.stop_string == "x"
    assert parser.feed("more") == []
    assert parser.finish() == []


def test_reasoning_that_is_continued_keeps_its_first_blank() -> None:
    fresh = OutputParser(JSON, thinking=True).feed("\n so it is</think>")
    assert fresh == [TextPiece("so it is", reasoning=True)]
    continued = OutputParser(JSON, thinking=True, continues=True).feed(" so it is</think>")
    assert continued == [TextPiece(" so it is", reasoning=True)]
