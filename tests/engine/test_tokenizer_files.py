"""Tokenizers as folders have them: SentencePiece's own file, and code that is never run."""

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.model import loading
from app.services.engine.model.loading import read_tokenizer
from tests import tiny_model
from tests.engine import tokenizers

CONFIGS = ({}, {"tokenizer_class": "LlamaTokenizer"}, {"tokenizer_class": "GemmaTokenizer"})
TEXTS = st.text(st.sampled_from("aHe lowrd\n  12üß日🙂.:"), max_size=30)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"model_type": "unigram", "vocab_size": 300},
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": True},
        {"normalization_rule_name": "nmt_nfkc"},
    ],
)
def test_a_model_file_splits_text_as_sentencepiece_does(
    tmp_path: Path, config: dict[str, str], options: dict[str, Any]
) -> None:
    tokenizers.write_model_file(tmp_path, options, **config)
    own = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    tokenizer = read_tokenizer(tmp_path, None)

    @settings(deadline=None)
    @given(text=TEXTS)
    def check(text: str) -> None:
        ids = own.encode(text)
        assert tokenizer.encode(text, add_special_tokens=False) == ids
        assert tokenizer.decode(ids) == own.decode(ids)

    check()


def test_a_tokenizer_json_counts_before_the_model_file(tmp_path: Path) -> None:
    tokenizers.make("Gemma", tmp_path, None).save_pretrained(tmp_path)
    before = read_tokenizer(tmp_path, None).backend_tokenizer.to_str()
    tokenizers.write_model_file(tmp_path, {}, **json.loads((tmp_path / "tokenizer_config.json").read_text()))
    assert read_tokenizer(tmp_path, None).backend_tokenizer.to_str() == before


@pytest.mark.parametrize("model_type", ["llama", "kimi_k2"])
def test_no_code_of_a_folder_is_run(tmp_path: Path, model_type: str) -> None:
    folder = tiny_model.build(tmp_path / "tiny", hidden=32, layers=1)
    code = {"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}, "tokenizer_class": "Own"}
    (folder / "tokenization_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(code))
    config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoConfig": "tokenization_own.Own"}}
    (folder / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    try:
        tokenizer = read_tokenizer(folder, None)
    except ValueError as error:
        assert "runs no code of a model folder" in loading._reason(error)
    else:
        assert tokenizer.decode(tokenizer.encode("Hello world")) == "Hello world"
    assert not (tmp_path / "ran").exists()
