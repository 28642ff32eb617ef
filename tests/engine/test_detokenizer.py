"""Token ids to text: the same as the tokenizer's own for every kind of tokenizer, never half a character."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.engine.output.detokenizer import Detokenizer, detokenizer_factory
from app.services.engine.output.token_bytes import TokenBytes
from app.services.engine.sampling.plain_tokenizer import plain_tokenizer
from tests.engine import tokenizers

fixtures_stay = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
IDS = st.lists(st.integers(0, 767), max_size=40)
Steps = st.SearchStrategy[list[int]]  # of one or more tokens that belong together
MARKERS = ("<think>", "</think>", "<tool_call>", "</tool_call>")


@pytest.fixture(scope="module")
def make(tokenizer: Any) -> Any:
    return detokenizer_factory(tokenizer, MARKERS)


@pytest.fixture(scope="module", params=tokenizers.KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Any:
    """A tokenizer of each kind."""
    return tokenizers.make(request.param, tmp_path_factory.mktemp("kind"), tokenizer)


@pytest.fixture(scope="module")
def start(kind: Any) -> Callable[..., Detokenizer]:
    """A function that starts a text of a tokenizer of each kind."""
    return detokenizer_factory(kind, ())


@pytest.fixture(scope="module")
def vocabulary(kind: Any) -> TokenBytes:
    return TokenBytes(kind)


@pytest.fixture(scope="module")
def steps(kind: Any) -> Steps:
    """Any tokens; where a token is a byte, all bytes of a character.

    Where some bytes in a row are no text, tokenizers gives up the others too. Nobody can know that in a stream.
    """
    numbers = dict(kind.get_vocab())
    others = st.sampled_from(sorted(n for text, n in numbers.items() if not re.fullmatch("<0x..>", text)))
    steps = others.map(lambda token: [token])
    if "<0x0A>" in numbers:
        character = st.sampled_from("\n 日ü🙂~")
        steps |= character.map(lambda text: [numbers[f"<0x{byte:02X}>"] for byte in text.encode()])
    return steps


def drawn(data: Any, steps: Steps, **size: int) -> list[int]:
    return [token for step in data.draw(st.lists(steps, max_size=30, **size)) for token in step]


def stream(detokenizer: Detokenizer, ids: list[int]) -> str:
    return "".join(detokenizer.feed(token) for token in ids) + detokenizer.finish()


def whole(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


@fixtures_stay
@given(data=st.data())
def test_a_stream_is_what_the_tokenizer_decodes(
    kind: Any, start: Callable[..., Detokenizer], steps: Steps, data: Any
) -> None:
    ids = drawn(data, steps)
    assert stream(start(), ids) == whole(kind, ids)


@fixtures_stay
@given(data=st.data())
def test_whole_or_by_token_control_tokens_too(kind: Any, vocabulary: TokenBytes, data: Any) -> None:
    ids = data.draw(st.lists(st.integers(0, len(kind) - 1), max_size=30))
    assert stream(Detokenizer(vocabulary, frozenset()), ids) == vocabulary.decode(ids)


@fixtures_stay
@given(data=st.data())
def test_a_continued_text_keeps_the_space_that_it_goes_on_with(
    kind: Any, start: Callable[..., Detokenizer], steps: Steps, data: Any
) -> None:
    before, ids = drawn(data, steps, min_size=1), drawn(data, steps)
    text = whole(kind, before)
    if not text:
        return  # nothing but control tokens
    if text.endswith("\ufffd"):  # half a character of a byte-level token
        return
    assert text + stream(start(continues=True), ids) == whole(kind, before + ids)


@fixtures_stay
@given(text=st.text(max_size=40))
def test_what_was_tokenized_comes_in_whole_characters(kind: Any, start: Callable[..., Detokenizer], text: str) -> None:
    detokenizer = start()
    pieces = [detokenizer.feed(token) for token in kind.encode(text, add_special_tokens=False)]
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text
    detokenizer.finish()


@pytest.mark.parametrize("settings", [{}, {"tokenizer_class": "LlamaTokenizer"}])
def test_a_model_file_is_decoded_as_sentencepiece_does(tmp_path: Path, settings: dict[str, str]) -> None:
    tokenizer = tokenizers.model_file(tmp_path, **settings)
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    make = detokenizer_factory(tokenizer, ())

    @given(ids=st.lists(st.integers(3, own.get_piece_size() - 1), max_size=30))
    def check(ids: list[int]) -> None:
        assert stream(make(continues=True), ids) == own.decode([own.piece_to_id("a"), *ids])[1:]

    check()


def test_text_is_neither_doubled_nor_lost(kind: Any, start: Callable[..., Detokenizer]) -> None:
    if whole(kind, kind.encode("🧪", add_special_tokens=False)).strip() != "🧪":
        return  # not every text can be written in its tokens
    for text in ("größer 你好", "👩‍👩‍👧 🙂🙂", "a:\n    b\n\n c"):
        ids = kind.encode(text, add_special_tokens=False)
        assert stream(start(), ids) == whole(kind, ids)
        assert text in stream(start(continues=True), ids)


def test_a_grammar_knows_the_same_bytes(kind: Any, vocabulary: TokenBytes) -> None:
    if type(kind.backend_tokenizer.decoder).__name__ == "WordPiece" or kind.backend_tokenizer.decoder is None:
        return  # llguidance reads no such vocabulary
    tables = plain_tokenizer(kind, len(kind), [0])
    for token in range(len(kind)):
        if token not in kind.added_tokens_decoder and vocabulary[token] != b"\xff":  # which llguidance hides
            assert tables.decode_bytes([token]) == vocabulary[token], kind.convert_ids_to_tokens(token)


def test_broken_characters_are_replaced_byte_by_byte(tmp_path: Path) -> None:
    tokenizer = tokenizers.make("Llama 2", tmp_path, None)
    ids = tokenizer.convert_tokens_to_ids(["<0xE6>", "<0x97>", "a", "<0x41>", "<0xFF>", "<0xE6>"])
    assert stream(detokenizer_factory(tokenizer, ())(), ids) == "\ufffd\ufffdaA\ufffd\ufffd"


@fixtures_stay
@given(ids=IDS)
def test_it_is_what_the_tokenizer_decodes(make: Any, tokenizer: Any, ids: list[int]) -> None:
    assert stream(make(), ids) == tokenizer.decode(ids, skip_special_tokens=True)


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


def test_ids_past_the_vocabulary_say_nothing(kind: Any, start: Callable[..., Detokenizer]) -> None:
    detokenizer = start()
    assert [detokenizer.feed(token) for token in (-1, len(kind), len(kind) + 10, 10**9)] == ["", "", "", ""]


def test_two_answers_do_not_share_a_state(make: Any, tokenizer: Any) -> None:
    one, other = make(), make()
    first, *_ = tokenizer.encode("🙂", add_special_tokens=False)
    one.feed(first)
    assert other.feed(tokenizer.encode("a", add_special_tokens=False)[0]) == "a"
    assert other.finish() == ""
