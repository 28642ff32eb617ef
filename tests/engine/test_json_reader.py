"""JSON parsed as it comes, beside what the json module makes of the whole."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.output.json_reader import ObjectReader, repair

# Strings that hold what readers look for.
TEXTS = st.lists(
    st.sampled_from(
        ["a", " ", '"', "'", ",", ":", "{", "}", "[", "]", "\n", "\t", "\\", "//", "#", '": "', '"}', "é🙂"]
    ),
    max_size=8,
).map("".join)
KEYS = st.sampled_from(["a", "b c", "", '"', "it's", "x: y", "//", "k" * 150, "\\", "\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4)
WAYS: list[dict[str, Any]] = [{}, {"ensure_ascii": False}, {"indent": 1}, {"indent": 40}, {"separators": (",", ":")}]
WRITTEN = st.builds(lambda value, way: json.dumps(value, **way), OBJECTS, st.sampled_from(WAYS))
AFTER = st.sampled_from(["", "}", "}\n</tool_call>", "<|end|>", "[TOOL_CALLS]", " Well."])


def read(pieces: list[str], **options: Any) -> tuple[str, ObjectReader, str]:
    """What is written of a text, the reader, and what follows the object."""
    reader, output, rest = ObjectReader(**options), "", ""
    for piece in pieces:
        if reader.over or reader.invalid:
            rest += piece
        else:
            output += reader.feed(piece)
            rest += reader.rest
    if not (reader.over or reader.invalid):
        output += reader.finish()
        rest += reader.rest
    return output, reader, rest


@settings(max_examples=150, deadline=None)
@given(WRITTEN, AFTER)
def test_what_is_json_stays_as_it_was_written(text: str, after: str) -> None:
    for pieces in ([text + after], list(text + after)):
        for well_formed in (False, True):
            output, reader, rest = read(pieces, well_formed=well_formed)
            assert (output, rest) == (text, after)
            assert reader.over
            assert not reader.ambiguous


@settings(max_examples=100, deadline=None)
@given(WRITTEN, st.integers(0, 200))
def test_what_is_cut_is_a_prefix_of_what_it_was_to_be(text: str, cut: int) -> None:
    cut = min(cut, len(text) - 1)
    output, reader, _ = read(list(text[:cut]))
    assert text.startswith(output)
    assert not reader.over


JUNK = st.sampled_from(
    [*"\"'a:,{}[]\n\t\\/*#1=-", "true", "None", '"k": ', ", ", "//", "/*", "*/", "\\u12", '"}', "}}\n</tool_call>"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(JUNK, max_size=24).map("".join), st.lists(st.integers(0, 60), max_size=5))
def test_whatever_is_written_the_pieces_change_nothing_and_what_ends_is_an_object(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text) + 1, *(min(cut, len(text) + 1) for cut in cuts)})
    text = "{" + text
    whole, reader, rest = read([text])
    for pieces in (list(text), [text[a:b] for a, b in itertools.pairwise(places)]):
        other, again, behind = read(pieces)
        assert (other, again.over, again.ambiguous, behind) == (whole, reader.over, reader.ambiguous, rest)
    if reader.over:
        assert isinstance(json.loads(whole), dict)


@settings(max_examples=100, deadline=None)
@given(OBJECTS)
def test_strings_may_hold_raw_control_characters(value: dict[str, Any]) -> None:
    text = json.dumps({key: inner for key, inner in value.items() if key != "\n"})
    raw = text.replace("\\n", "\n").replace("\\t", "\t")
    if "\\\\" not in text and '\\n":' not in text:  # a key with a line break is not taken for one
        assert json.loads(read(list(raw))[0]) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": "1\n2\t3\r\x00\x1f"}', {"a": "1\n2\t3\r\x00\x1f"}),
        ('{"a": 1,}', {"a": 1}),
        ('{"a": [1, [2,],], }', {"a": [1, [2]]}),
        ('{"a": 1,, "b": 2}', {"a": 1, "b": 2}),
        ("{,}", {}),
        ("{'a': 'x', 'b': ['y', \"z\"]}", {"a": "x", "b": ["y", "z"]}),
        ("{'a': 'it\\'s \"so\"'}", {"a": 'it\'s "so"'}),
        ('{"a": True, "b": False, "c": None, "d": undefined}', {"a": True, "b": False, "c": None, "d": None}),
        ('{a: 1, b-c: "x", $d: y}', {"a": 1, "b-c": "x", "$d": "y"}),
        ('{"a": NaN, "b": -Infinity, "c": inf}', {"a": None, "b": None, "c": None}),
        ('{"a": +1, "b": .5, "c": 01, "d": 1., "e": -.5e3}', {"a": 1, "b": 0.5, "c": 1, "d": 1, "e": -500}),
        ('{"a": 1 // one\n, "b": 2 /* , "c": 3 */, # no\n "d": "http://x#y"}', {"a": 1, "b": 2, "d": "http://x#y"}),
        (r'{"a": "\d+\.\x \'"}', {"a": r"\d+\.\x '"}),
        (r'{"a": "\u12g4"}', {"a": r"\u12g4"}),
        ('{"a": "line \\\nbreak"}', {"a": "line \nbreak"}),
        ('{"a": "say "hi" to \'him\'", "b": 2}', {"a": "say \"hi\" to 'him'", "b": 2}),
        ("{'a': 'it's fine'}", {"a": "it's fine"}),
        ('{"a": "{"b": "c"}"}', {"a": '{"b": "c"}'}),
        ('{"a": 1 "b": "x" "c": 3\n"d": [1]}', {"a": 1, "b": "x", "c": 3, "d": [1]}),
        ('{"a" 1, "b"= 2, "c"}', {"a": 1, "b": 2, "c": None}),
        ('{"a": , "b": }', {"a": None, "b": None}),
        ('{"a": /usr/bin/ls, "b": http://x.y}', {"a": "/usr/bin/ls", "b": "http://x.y"}),
        ('{"a": tru}', {"a": "tru"}),
        ("{...}", {}),
        ('{\xa0"a":\u20031}', {"a": 1}),
    ],
)
def test_what_models_write_badly_is_repaired(text: str, value: Any) -> None:
    for pieces in ([text + "}\n</tool_call>"], list(text + "}\n</tool_call>")):
        output, reader, rest = read(pieces)
        assert (json.loads(output), reader.over, rest) == (value, True, "}\n</tool_call>")


def test_brackets_that_are_left_open_are_closed_by_those_around_them() -> None:
    for pieces in (['{"a": [1, {"b": [2}]}'], list('{"a": [1, {"b": [2}]}')):
        assert read(pieces)[0] == '{"a": [1, {"b": [2]}]}'
    assert read(['{"a": [1, {"b": 2}'])[0] == '{"a": [1, {"b": 2}'


def test_an_escape_of_half_a_character_and_a_large_number_stay() -> None:
    text = '{"a": "\\ud83d", "b": 1e999, "c": %s}' % ("9" * 5000)
    assert read(list(text))[0] == text
    deep = '{"a": ' + "[" * 3000 + "]" * 3000 + "}"
    assert read([deep])[0] == deep


@pytest.mark.parametrize("text", ["[1]", '"a"', "1", "x", " {}"])
def test_what_does_not_begin_as_an_object_is_none(text: str) -> None:
    output, reader, rest = read([text])
    assert (output, reader.invalid, rest) == ("", True, text)


@pytest.mark.parametrize(
    ("text", "output"),
    [
        (" {'a': [1,]} ", '{"a": [1]}'),
        ("[True, {}]", "[true, {}]"),
        ('{"a": "b" c"}', None),
        ('{"a": [1}', None),
        ("{...}", None),
        ('{"a": 1', None),
        ('{"a": 1} b', None),
        ("a", None),
        ("", None),
    ],
)
def test_only_what_can_be_meant_in_one_way_is_repaired(text: str, output: str | None) -> None:
    assert repair(text) == output
