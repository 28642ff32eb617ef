"""An object read as it comes, beside what the json module thinks of the whole."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.json_reader import ObjectReader

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=6), VALUES, max_size=4)
WAYS: list[dict[str, Any]] = [{}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}]
WRITTEN = st.builds(lambda value, way: json.dumps(value, **way), OBJECTS, st.sampled_from(WAYS))


@settings(max_examples=60, deadline=None)
@given(WRITTEN, st.text(max_size=5))
def test_an_object_is_over_at_its_last_brace(text: str, after: str) -> None:
    reader = ObjectReader()
    assert reader.feed(text + after) == len(text)
    assert reader.over
    reader = ObjectReader()
    for character in text[:-1]:
        assert reader.feed(character) == 1
        assert not (reader.over or reader.broken)


@settings(max_examples=60, deadline=None)
@given(WRITTEN, st.data())
def test_the_pieces_change_nothing(text: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(text)))
    text = text[:place] + data.draw(st.sampled_from(["", "x", '"', "}", "]", ",", "0", "\n", "\\", "-"])) + text[place:]
    whole, single = ObjectReader(), ObjectReader()
    taken = whole.feed(text)
    assert taken == sum(single.feed(character) for character in text)
    assert (whole.over, whole.broken) == (single.over, single.broken)
    if whole.over:
        assert isinstance(json.loads(text[:taken]), dict)
    if whole.broken and text.startswith("{"):
        with pytest.raises(ValueError):
            json.loads(text)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("[1]", 0),
        ('"a"', 0),
        ("{a: 1}", 1),
        ("{'a': 1}", 1),
        ('{"a" 1}', 5),
        ('{"a": tru}', 9),
        ('{"a": 01}', 7),
        ('{"a": 1.}', 8),
        ('{"a": +1}', 6),
        ('{"a": NaN}', 6),
        ('{"a": 1,}', 8),
        ('{"a": [1,]}', 9),
        ('{"a": [1}', 8),
        ('{"a": "\n"}', 7),
        ('{"a": "\\x"}', 8),
        ('{"a": "\\u12g4"}', 11),
        ("{,}", 1),
    ],
)
def test_what_is_no_json_breaks_where_it_stops_being_it(text: str, taken: int) -> None:
    reader = ObjectReader()
    assert reader.feed(text) == taken
    assert reader.broken
    assert reader.feed("}") == 0


def test_what_is_too_deep_for_other_readers_breaks() -> None:
    reader = ObjectReader()
    reader.feed('{"a":' + "[" * 200)
    assert reader.broken
