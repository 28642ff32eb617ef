"""The vocabularies that llama.cpp tests its own tokenizers with: all of their texts become the same tokens here.

TILES_TEST_VOCABULARIES names their folder, models of llama.cpp's sources. Beside each file are texts and their tokens,
as the models' own tokenizers have them.
"""

import json
import os
from pathlib import Path

import pytest

from app.services.engine.model.loading import read_tokenizer
from app.services.engine.output.detokenizer import detokenizer_factory
from app.services.errors import LoadFailed
from app.services.gguf.file import read_any
from app.services.gguf.tokenizer import write

FOLDER = Path(os.environ.get("TILES_TEST_VOCABULARIES") or "/nowhere")
PATHS = sorted(FOLDER.glob("ggml-vocab-*.gguf.inp"))
REFUSED = {"bert-bge": "'bert'"}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PATHS, reason="TILES_TEST_VOCABULARIES names no folder")]


def name(path: Path) -> str:
    return path.name.removeprefix("ggml-vocab-").removesuffix(".gguf.inp")


@pytest.mark.parametrize("path", [path for path in PATHS if name(path) not in REFUSED], ids=name)
def test_the_texts_of_a_vocabulary_become_the_same_tokens(path: Path, tmp_path: Path) -> None:
    write(read_any(path.with_suffix("")), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    tokenizer = read_tokenizer(tmp_path, json.loads((tmp_path / "generation_config.json").read_bytes())["eos_token_id"])
    make_detokenizer = detokenizer_factory(tokenizer, ())
    texts = path.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    results = path.with_suffix(".out").read_text().splitlines()
    if texts[-1] == "\n" or not texts[-1]:  # most files end with a separator
        texts.pop()
    assert len(texts) == len(results) > 40
    for text, line in zip(texts, results, strict=True):
        tokens = [int(token) for token in line.split()]
        assert tokenizer.encode(text, add_special_tokens=False) == tokens
        detokenizer = make_detokenizer()
        assert "".join(map(detokenizer.feed, tokens)) + detokenizer.finish() == text


@pytest.mark.parametrize("path", [path for path in PATHS if name(path) in REFUSED], ids=name)
def test_a_kind_that_no_language_model_has_is_refused_by_name(path: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=REFUSED[name(path)]):
        write(read_any(path.with_suffix("")), tmp_path)
