"""Texts that begin alike have the very tokens that each has by itself, and what they begin with is tokenized once."""

from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.engine.model.prefix_tokenizer import PrefixTokenizer
from tests.engine import tokenizers

WORDS = (*tokenizers.TEXT, *tokenizers.WORDS, "1234567", "   ", "\n\n", "\n---\n", "…", "e\u0301", "ab" * 7, "-" * 9)
ENDS = st.lists(st.sampled_from(WORDS) | st.text(max_size=12), max_size=8).map("".join)


@pytest.fixture(scope="module", params=tokenizers.KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Any:
    """A tokenizer of each kind."""
    return tokenizers.make(request.param, tmp_path_factory.mktemp("kind"), tokenizer)


def encode(kind: Any, text: str, *, special: bool = False) -> list[int]:
    return list(kind.encode(text, add_special_tokens=special))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.lists(st.sampled_from(WORDS) | st.text(max_size=8), min_size=1, max_size=12).map("".join).filter(bool),
    st.lists(ENDS, min_size=2, max_size=4),
    st.booleans(),
)
def test_texts_that_begin_alike_have_their_own_tokens(kind: Any, piece: str, ends: list[str], special: bool) -> None:
    shared = piece * (2600 // len(piece))
    tokenize = PrefixTokenizer(partial(encode, kind, special=special), partial(encode, kind))
    expected = {end: encode(kind, shared + end, special=special) for end in ends}
    for end in (*ends, *ends[::-1]):
        assert tokenize(shared + end) == expected[end]


@pytest.mark.parametrize("run", ["7", "a", " ", "-", "\n", "\u0301", "本", "🙂"])
def test_a_run_that_reaches_to_where_texts_part_counts_as_a_whole(kind: Any, run: str) -> None:
    tokenize = PrefixTokenizer(partial(encode, kind), partial(encode, kind))
    for length in (2600, 2601, 2603, 2602):
        for text in (run * length, f"the quick {run * length}", f"{run * length} brown fox"):
            assert tokenize(text) == encode(kind, text)


def test_what_texts_begin_with_is_tokenized_once(tokenizer: Any) -> None:
    lengths: list[int] = []

    def count(text: str) -> list[int]:
        lengths.append(len(text))
        return encode(tokenizer, text)

    tokenize = PrefixTokenizer(count, count)
    shared = " ".join(f"{number} tiles of the floor" for number in range(800))
    for question in range(50):
        tokenize(f"{shared}\n\nIs {question} more than {question * 7 % 11}?")
    assert sum(lengths) < len(shared) + 50 * 2 * 700
