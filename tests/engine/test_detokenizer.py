"""Token ids to text: the same as the tokenizer's own, never half a character."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer

from app.services.engine.output.detokenizer import ByteDetokenizer, Detokenizer, WrappedDetokenizer, detokenizer_factory

fixtures_stay = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
IDS = st.lists(st.integers(0, 767), max_size=40)
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


def wrapped(tokenizer: Any, hidden: frozenset[int]) -> Detokenizer:
    """What a vocabulary that is not byte-level gets."""
    detokenizer = NaiveStreamingDetokenizer(tokenizer)
    detokenizer.reset()
    return WrappedDetokenizer(SimpleNamespace(detokenizer=detokenizer, decode=tokenizer.decode), hidden)


@pytest.fixture(scope="module")
def make(tokenizer: Any) -> Any:
    return detokenizer_factory(tokenizer, MARKERS, len(tokenizer))


def test_the_tiny_models_vocabulary_is_read_by_bytes(make: Any) -> None:
    assert isinstance(make(), ByteDetokenizer)


@fixtures_stay
@given(ids=IDS)
def test_it_is_what_the_tokenizer_decodes(make: Any, tokenizer: Any, ids: list[int]) -> None:
    detokenizer = make()
    text = "".join(detokenizer.feed(token) for token in ids) + detokenizer.finish()
    assert text == tokenizer.decode(ids, skip_special_tokens=True)


@fixtures_stay
@given(text=st.text(max_size=40))
def test_what_was_tokenized_comes_back_whole_and_in_whole_characters(make: Any, tokenizer: Any, text: str) -> None:
    for detokenizer in (make(), wrapped(tokenizer, frozenset())):
        pieces = [detokenizer.feed(token) for token in tokenizer.encode(text, add_special_tokens=False)]
        assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text
        assert "".join(pieces) + detokenizer.finish() == tokenizer.decode(
            tokenizer.encode(text, add_special_tokens=False)
        )


def test_half_a_character_is_held_back_and_broken_only_at_the_end(make: Any, tokenizer: Any) -> None:
    ids = tokenizer.encode("🙂", add_special_tokens=False)
    assert len(ids) > 1
    detokenizer = make()
    assert [detokenizer.feed(token) for token in ids[:-1]] == [""] * (len(ids) - 1)
    assert detokenizer.finish() == "\ufffd"
    detokenizer = make()
    assert [detokenizer.feed(token) for token in ids][-1] == "🙂"
    assert detokenizer.finish() == ""


def test_control_tokens_are_hidden_and_markers_are_not(make: Any, tokenizer: Any) -> None:
    detokenizer = make()
    control = tokenizer.convert_tokens_to_ids("<|im_end|>")
    marker = tokenizer.convert_tokens_to_ids("<think>")
    assert [detokenizer.feed(control), detokenizer.feed(marker)] == ["", "<think>"]


def test_ids_past_the_vocabulary_say_nothing(make: Any) -> None:
    assert [make().feed(token) for token in (-1, 768, 10**9)] == ["", "", ""]


def test_logits_wider_than_the_vocabulary_are_no_harm(tokenizer: Any) -> None:
    detokenizer = detokenizer_factory(tokenizer, (), len(tokenizer) + 64)()
    assert detokenizer.feed(len(tokenizer) + 10) == ""


def test_two_answers_do_not_share_a_state(make: Any, tokenizer: Any) -> None:
    one, other = make(), make()
    first, *_ = tokenizer.encode("🙂", add_special_tokens=False)
    one.feed(first)
    assert other.feed(tokenizer.encode("a", add_special_tokens=False)[0]) == "a"
    assert other.finish() == ""
