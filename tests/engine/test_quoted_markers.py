"""Markers that are quoted, in prose, in reasoning and in values, beside those that count; in every family."""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import regex
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.services.engine.output.markup import Markup
from app.services.engine.output.tool_call_tags import TagSyntax
from tests.engine.families import FAMILIES, TWO, A, arg_key, hermes, minicpm, minimax, muse, qwen_coder
from tests.engine.parsing import ADDED, CALL, JSON, TOOLS, markup, parse, split

pytestmark = pytest.mark.slow

CUTS = st.lists(st.integers(0, 600), max_size=8)
# What an answer is made of: prose, markers that are quoted, and calls.
PIECES = st.lists(
    st.sampled_from(["Well, ", "a < b\n", "`{start}` begins one. ", "{start} x ", "`{end}` ", "</think> ", "CALL"]),
    max_size=6,
)


@cache
def markup_of(name: str) -> Markup:
    return markup(FAMILIES[name].parser, template=FAMILIES[name].template)


def text_of(name: str, pieces: list[str]) -> tuple[str, str, int]:
    """What the pieces say, what of it is no call, and how many calls there are."""
    family, calls = FAMILIES[name], markup_of(name).calls
    assert calls is not None
    parts = [piece.replace("{start}", calls.start).replace("{end}", calls.end) for piece in pieces]
    whole = "".join(family.calls[0] if piece == "CALL" else piece for piece in parts)
    in_each = family.calls[0].count(family.before) or len(parse([family.calls[0]], markup_of(name), tools=TOOLS)[0])
    return whole, "".join(piece for piece in parts if piece != "CALL"), pieces.count("CALL") * in_each


def blankless(text: str) -> str:
    return "".join(text.split())


def content(parts: list[Any]) -> str:
    return "".join(part[0] for part in parts if isinstance(part, list) and not part[1])


def reasoning(parts: list[Any]) -> str:
    return "".join(part[0] for part in parts if isinstance(part, list) and part[1])


def arguments(parts: list[Any]) -> list[Any]:
    return [json.loads(part[2]) for part in parts if isinstance(part, tuple)]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(PIECES, CUTS)
def test_quoted_markers_are_text_and_what_follows_them_is_read(name: str, pieces: list[str], cuts: list[int]) -> None:
    text, prose, count = text_of(name, ["Well. ", *pieces])
    whole = parse([text], markup_of(name), tools=TOOLS)
    assert parse(split(text, cuts), markup_of(name), tools=TOOLS) == whole
    assert parse(list(text), markup_of(name), tools=TOOLS) == whole
    parts, _ = whole
    assert len(arguments(parts)) == count
    assert blankless(content(parts)) == blankless(prose)
    if not count:
        assert parts == [[text, False]]


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40, deadline=None)
@given(PIECES, PIECES, CUTS, st.booleans())
def test_calls_within_closed_reasoning_are_reasoning(
    name: str, thought: list[str], pieces: list[str], cuts: list[int], begun: bool
) -> None:
    thought = ["So: ", *(piece for piece in thought if piece != "</think> ")]
    rehearsed, _, _ = text_of(name, thought)
    text, prose, count = text_of(name, ["Well. ", *pieces])
    text = f"{'' if begun else ' <think>'}{rehearsed}</think>{text}"
    whole = parse([text], markup_of(name), tools=TOOLS, thinking=begun)
    assert parse(split(text, cuts), markup_of(name), tools=TOOLS, thinking=begun) == whole
    assert parse(list(text), markup_of(name), tools=TOOLS, thinking=begun) == whole
    parts, _ = whole
    assert reasoning(parts) == rehearsed
    assert len(arguments(parts)) == count
    assert blankless(content(parts)) == blankless(prose)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "llama"])
@settings(max_examples=15, deadline=None)
@given(CUTS)
def test_a_call_in_reasoning_that_never_closes_is_made(name: str, cuts: list[int]) -> None:
    calls = markup_of(name).calls
    assert calls is not None
    text = f"I add, by {calls.start} that is. " + "".join(FAMILIES[name].calls)
    parts, _ = parse(split(text, cuts), markup_of(name), tools=TOOLS, thinking=True)
    assert parts[0] == [f"I add, by {calls.start} that is. ", True]
    assert arguments(parts) == [FAMILIES[name].arguments, TWO]
    assert parse(split(text, cuts), markup_of(name), tools=TOOLS, thinking=True, one_call=True)[0] == parts[:2]


# Values.

MARKED = st.lists(
    st.sampled_from(
        [
            *("</tool_call>", "<tool_call>", "</parameter>", "<parameter=x>", "</function>", "<function=add>", "\n"),
            *(
                "a",
                " ",
                "<",
                '"',
                "'",
                "}",
                "</param>",
                "</invoke>",
                "</arg_value>",
                "<arg_key>b</arg_key>",
                "</think>",
            ),
        ]
    ),
    max_size=6,
).map("".join)
TAGGED: dict[str, Callable[[dict[str, Any]], str]] = {
    "qwen3_coder": qwen_coder,
    "minimax_m2": lambda value: f"<minimax:tool_call>\n{minimax(value)}</minimax:tool_call>\n",
    "minicpm5": minicpm,
    "muse_spark": lambda value: f"<atem:function_calls>\n{muse(value)}</atem:function_calls>\n",
    "glm47": lambda value: arg_key("", value),
    "longcat": lambda value: arg_key("longcat_", value),
    "json_tools": hermes,
}


def is_ambiguous(name: str, value: str) -> bool:
    """Whether a value holds what ends it in such a way that nobody could tell."""
    calls = markup_of(name).calls
    syntax = calls.syntax if calls else None
    if not isinstance(syntax, TagSyntax):
        return False
    last = syntax.region_end or syntax.call_end
    ends = rf"{syntax.argument_end}\s*(?:(?:{syntax.call_end}\s*)?{last}|{syntax.argument})"
    return regex.search(ends, value) is not None


@pytest.mark.parametrize("name", TAGGED)
@settings(max_examples=80, deadline=None)
@given(MARKED, CUTS)
def test_values_may_hold_markers(name: str, value: str, cuts: list[int]) -> None:
    assume(not is_ambiguous(name, value))
    call = TAGGED[name]
    text = call({"a": value, "b": 2}) + call({"a": "z", "b": 3})
    parts, _ = parse(split(text, cuts), markup_of(name), tools=TOOLS)
    assert arguments(parts) == [{"a": value, "b": 2}, {"a": "z", "b": 3}]
    assert content(parts) == ""


def test_markers_that_are_quoted_in_one_call_do_not_hide_the_next() -> None:
    values = [{"a": "<tool_call>", "b": 1}, {"a": "</tool_call>", "b": 2}]
    for text in ("".join(map(qwen_coder, values)), "".join(map(qwen_coder, values[::-1])) + "Done."):
        parts, _ = parse(list(text), markup_of("qwen3_coder"), tools=TOOLS)
        assert sorted(arguments(parts), key=lambda value: value["b"]) == values


WHOLE_CALL = qwen_coder({"a": "ls", "b": 1})


@pytest.mark.parametrize(
    "value",
    [
        *("null", "None", "1", "true", "", " ", "  x  ", "1\n2\n", "\n", "\n\n", '{"b": 1}', "é🙂", "\t"),
        *(
            "</parameter>",
            "</function>",
            "</tool_call>",
            "<parameter=x>",
            "<parameter=x>1</parameter>\n",
            "<tool_call>",
        ),
        "</parameter>\n</function>\n</tool_call>",
        "echo '</parameter></function></tool_call>'",
        f"So:\n{WHOLE_CALL}and so on",
        f"{WHOLE_CALL}\n{WHOLE_CALL}",
    ],
)
def test_a_string_of_qwen_coder_stays_what_it_is(value: str) -> None:
    text = qwen_coder({"a": value, "b": 2})
    for pieces in ([text], list(text)):
        assert arguments(parse(pieces, markup_of("qwen3_coder"), tools=TOOLS)[0]) == [{"a": value, "b": 2}]


@pytest.mark.parametrize("end", ["\n</tool_call>", "", "\n</tool_call>\n<tool_call>", " "])
def test_a_call_in_tags_may_lack_its_opening_marker(end: str) -> None:
    call = "<function=add>\n<parameter=a>\nls\n</parameter>\n</function>"
    for pieces in ([f"I look.\n{call}{end}"], list(f"I look.\n{call}{end}")):
        parts, _ = parse(pieces, markup_of("qwen3_coder"), tools=TOOLS)
        assert parts[:2] == [["I look.\n", False], (0, "add", '{"a": "ls"}')]
    other = call.replace("add", "sub")
    assert parse(list(other + end), markup_of("qwen3_coder"), tools=TOOLS)[0] == [[other + end, False]]


@pytest.mark.parametrize("name", [name for name in TAGGED if name != "json_tools"])
def test_a_call_in_tags_may_be_closed_too_often_or_too_little(name: str) -> None:
    calls = markup_of(name).calls
    assert calls is not None
    assert isinstance(calls.syntax, TagSyntax)
    call, member = TAGGED[name]({"a": "x", "b": 2}).rstrip(), calls.syntax.argument_end
    ends = re.findall(r"</[^<>]*>", call)[-2:]
    for more in (ends[-1], f"\n{ends[-1]}\n{ends[-1]}", ends[-2]):
        for pieces in ([call, more, "\nDone."], list(f"{call}{more}\nDone.")):
            parts, _ = parse(pieces, markup_of(name), tools=TOOLS)
            assert arguments(parts) == [{"a": "x", "b": 2}]
            assert content(parts) == f"{more.lstrip()}\nDone."
        parts, _ = parse(list(f"{call}{more}\n{call}"), markup_of(name), tools=TOOLS)
        assert arguments(parts) == [{"a": "x", "b": 2}] * 2
    call = call.replace(member, "") if calls.syntax.region_end else call
    for pieces in ([call, "\nDone."], list(f"{call}\nDone.")):
        parts, _ = parse(pieces, markup_of(name), tools=TOOLS)
        assert arguments(parts) == [{"a": "x", "b": 2}]


def test_tags_of_qwen_coder_may_lack_their_brackets() -> None:
    text = "<tool_call>\n<function=add\n<parameter=a\nls\n</parameter>\n</function>\n</tool_call>"
    for pieces in ([text], list(text)):
        assert parse(pieces, markup_of("qwen3_coder"), tools=TOOLS)[0] == [(0, "add", '{"a": "ls"}')]


def test_other_families_may_lack_it_too() -> None:
    assert arguments(parse(list(minimax(A)), markup_of("minimax_m2"), tools=TOOLS)[0]) == [A]
    kimi = '<|tool_call_begin|>functions.add:0<|tool_call_argument_begin|>{"a": "x"}<|tool_call_end|>'
    assert arguments(parse(list(f"Well. {kimi}"), markup_of("kimi_k2"), tools=TOOLS)[0]) == [{"a": "x"}]
    other = kimi.replace("add", "sub")
    assert parse(list(other), markup_of("kimi_k2"), tools=TOOLS)[0] == [[other, False]]


# Thoughts.


@pytest.mark.parametrize(
    "text", ["BEGIN <think> END", "a `<think>b</think>` c", '{"a": "x <think> y"}', f"{CALL}<think>x"]
)
def test_reasoning_is_at_the_beginning_or_nowhere(text: str) -> None:
    for pieces in ([text], list(text)):
        parts, _ = parse(pieces, JSON)
        assert parts == [[text, False]]
        parts, _ = parse([" \n<think>T</think>", *pieces], JSON)
        assert parts == [["T", True], [text, False]]


@pytest.mark.parametrize("options", [{"may_think": False}, {"continues": True}, {"split_reasoning": False}])
def test_a_marker_at_the_beginning_is_text_where_no_reasoning_may_come(options: dict[str, Any]) -> None:
    text = "<think>T</think> A"
    for pieces in ([text], list(text)):
        assert parse(pieces, JSON, **options)[0] == [[text, False]]


def test_where_a_grammar_holds_calls_stand_at_the_beginning_or_not_at_all() -> None:
    bound: dict[str, Any] = {"tools": TOOLS, "has_grammar": True, "plain": True}
    for thought in ("", "<think>T</think>\n\n"):
        before = [["T", True]] if thought else []
        text = f'{{"a": "{CALL}"}}'
        assert parse(list(thought + text), JSON, **bound)[0] == [*before, [text, False]]
        assert parse(list(thought + CALL + CALL), JSON, **bound)[0] == [*before, ADDED, (1, *ADDED[1:])]


# Other slips.


@pytest.mark.parametrize("member", ["arguments", "parameters", "args", "input", "params"])
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('{"a": "x"}', {"a": "x"}),
        ('"{\\"a\\": \\"x\\"}"', {"a": "x"}),
        ("null", {}),
        ('""', {}),
        ("[]", {}),
        ("{}", {}),
        ("3", None),
        ("[1]", None),
        ('"x"', None),
        ("true", None),
        ("{...}", None),
    ],
)
def test_arguments_are_an_object_or_there_is_no_call(member: str, written: str, value: Any) -> None:
    text = f'<tool_call>\n{{"name": " add ", "{member}": {written}}}\n</tool_call>'
    for pieces in ([text], list(text)):
        parts, _ = parse(pieces, JSON, tools=TOOLS)
        assert arguments(parts) == ([] if value is None else [value])
        assert parts[0] == ([text, False] if value is None else (0, "add", parts[0][2]))


@pytest.mark.parametrize(
    "call",
    [
        '{"type": "function", "function": {"name": "add", "arguments": {"a": "x"}}}',
        '{"arguments": {"a": "x"}, "name": "add"}',
        "{'name': 'add', 'arguments': {'a': 'x'}}",
        '{"name": "add", "arguments": {"a": "x",},}',
        '{name: "add", arguments: {a: "x"}} // done',
        '[{"name": "add", "arguments": {"a": "x"}}]',
        '{"id": "z", "name": "add", "arguments": {"a": "x"}, "more": 1}',
    ],
)
def test_a_call_may_be_written_in_other_ways(call: str) -> None:
    for pieces in ([f"<tool_call>{call}</tool_call>"], list(f"<tool_call>{call}</tool_call>")):
        parts, _ = parse(pieces, JSON, tools=TOOLS)
        assert parts[0] == (0, "add", '{"a": "x"}')


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        ({"type": "integer"}, "3", 3),
        ({"type": "integer"}, "3.0", 3),
        ({"type": "integer"}, "many", "many"),
        ({"type": "integer"}, "9" * 5000, "9" * 5000),
        ({"type": "number"}, "2.5", 2.5),
        ({"type": "number"}, "1e999", "1e999"),
        ({"type": "number"}, "NaN", "NaN"),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "no", False),
        ({"type": ["string", "null"]}, "null", None),
        ({"type": "string"}, "null", "null"),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "7", 7),
        ({"enum": ["1", "2"]}, "1", "1"),
        ({"enum": [1, 2]}, "1", 1),
        ({"type": "array"}, "[1, 'x', None]", [1, "x", None]),
        ({"type": "object"}, '{"a": "1\n2",}', {"a": "1\n2"}),
        ({"type": "object"}, "not one", "not one"),
        (True, "x", "x"),
        ({"type": 5, "anyOf": {"a": 1}, "enum": "b"}, "x", "x"),
        ({}, '{"a": NaN}', {"a": None}),
    ],
)
def test_values_in_tags_have_the_type_of_their_schema(kind: Any, written: str, value: Any) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"properties": {"v": kind}}}}
    text = f"<tool_call>\n<function=add>\n<parameter=v>\n{written}\n</parameter>\n</function>\n</tool_call>"
    (part,) = parse(list(text), markup_of("qwen3_coder"), tools=[tool])[0]
    assert json.loads(part[2]) == {"v": value}
