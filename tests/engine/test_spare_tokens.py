"""Tokens that a model has no embedding of: their texts are read as any text, in prompts and by grammars."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from app.services.engine.model.spare_tokens import without
from tests.conftest import Server, running
from tests.engine.test_plain_tokenizer import TOKENIZERS

SPARE = ("<image>", "<|audio|>", "[PAD]", "<extra 1>")
KNOWN = ("<think>", "<|end|>")
SCHEMA = {
    "type": "object",
    "properties": {"kind": {"enum": ["tile"]}},
    "required": ["kind"],
    "additionalProperties": False,
}
texts = st.lists(st.sampled_from([*SPARE, *KNOWN, "a", "ab", " ", "é", "x y"]), max_size=8).map("".join)


def made(kind: str, *added: str) -> Tokenizer:
    tokenizer = TOKENIZERS[kind]()
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in added])
    return tokenizer


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(spare=st.integers(0, len(SPARE)), text=texts)
def test_texts_of_tokens_that_were_added_behind_the_others_are_any_text(kind: str, spare: int, text: str) -> None:
    whole, known = made(kind, *KNOWN, *SPARE[:spare]), made(kind, *KNOWN)
    size = known.get_vocab_size()
    fitting = without(whole, size)
    ids = fitting.encode(text).ids
    assert fitting.get_added_tokens_decoder().keys() == known.get_added_tokens_decoder().keys()
    assert ids == known.encode(text).ids
    assert all(token < size for token in ids)
    assert (fitting is whole) == (spare == 0)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=30)
@given(dropped=st.integers(1, 9), text=texts)
def test_nothing_beyond_the_embeddings_is_ever_a_token(kind: str, dropped: int, text: str) -> None:
    whole = made(kind, *KNOWN, *SPARE)
    size = whole.get_vocab_size() - dropped  # of the tokens of text too, where more are left out than were added
    assert all(token < size for token in without(whole, size).encode(text).ids)


@pytest.fixture(scope="module")
def longer(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of a model whose tokenizer has more tokens than it has embeddings, as Gemma 3's of text alone."""
    home = tmp_path_factory.mktemp("longer")
    folder = Path(shutil.copytree(tiny, home / "longer"))
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    fillers = [f"<filler {number}>" for number in range(size - tokenizer.get_vocab_size())]
    tokenizer.add_special_tokens([*fillers, "<image_soft_token>"])
    assert tokenizer.token_to_id("<image_soft_token>") == size
    tokenizer.save(str(folder / "tokenizer.json"))
    with running(home, "--model", str(folder)) as server:
        yield server


def test_a_prompt_may_hold_the_text_of_such_a_token(longer: Server) -> None:
    answer = longer.client.post("/tokenize", json={"content": "a<image_soft_token>b", "parse_special": True}).json()
    assert len(answer["tokens"]) > 3
    said = [longer.chat("What is <image_soft_token>?", temperature=0, max_tokens=8).json() for _ in range(2)]
    assert said[0]["choices"] == said[1]["choices"]
    assert longer.client.post("/v1/embeddings", json={"input": "a<image_soft_token>b"}).status_code == 200


def test_a_grammar_binds_the_answers_of_such_a_model(longer: Server) -> None:
    answer = longer.client.post("/completion", json={"prompt": "a", "json_schema": SCHEMA, "n_predict": 60})
    assert json.loads(answer.json()["content"]) == {"kind": "tile"}


def test_the_log_says_which_tokens_have_no_embedding(longer: Server) -> None:
    (line,) = longer.logged("the model has no embedding for some tokens; they are read as text")
    assert line["tokens"] == ["<image_soft_token>"]
