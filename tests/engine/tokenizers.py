"""Small tokenizers of every kind, made here: byte-level, SentencePiece with and without tokenizer.json, WordPiece."""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from app.services.engine.model.loading import read_tokenizer

TEXT = ("Hello the world", "größer über the straße", "def f(x):  return x", "the quick brown fox jumps 123", "{[(,.)]}")
BYTES = [(f"<0x{byte:02X}>", -9.0) for byte in range(256)]
WORDS = ["▁", "▁▁", "▁the", "the", "▁Hello", "größer", "▁ü", "a", ".", "▁.", "日本", "🙂", "\n", "\n▁"]
PIECES = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((word, -float(len(word))) for word in WORDS)]
LOW_BAR = decoders.Replace("▁", " ")
SPACE = decoders.Strip(" ", 1, 0)


def sentence_piece(decoder: Any, *, byte_fallback: bool = True) -> Any:
    """A tokenizer.json of the SentencePiece kind."""
    pieces = PIECES + (BYTES if byte_fallback else [])
    made = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def words(model: Any, decoder: Any) -> Any:
    """A tokenizer of whole words and parts of them."""
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if decoder is not None:
        made.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]")


def model_file(folder: Path, **tokenizer_config: Any) -> Any:
    """What is loaded from a folder with a tokenizer.model, and a tokenizer_config.json if something is said in it."""
    write_model_file(folder, {}, **tokenizer_config)
    return read_tokenizer(folder, None)


def write_model_file(folder: Path, options: dict[str, Any], **tokenizer_config: Any) -> None:
    """Write a tokenizer.model, trained with these options over those of most language models."""
    model = io.BytesIO()
    defaults: dict[str, Any] = {
        "vocab_size": 340,
        "model_type": "bpe",
        "byte_fallback": True,
        "character_coverage": 0.99,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT * 50), model_writer=model, **defaults | options
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    if tokenizer_config:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))


def make(kind: str, folder: Path, byte_level: Any) -> Any:
    """A tokenizer by its kind; `folder` may be written to."""
    parts = {"[UNK]": 0} | {
        text: number for number, text in enumerate(["the", "a", ".", ",", "##b", "##ing", "n't", "ü"], 1)
    }
    made = {
        "byte-level": lambda: byte_level,
        "Llama 2": lambda: sentence_piece(
            decoders.Sequence([LOW_BAR, decoders.ByteFallback(), decoders.Fuse(), SPACE])
        ),
        "Gemma": lambda: sentence_piece(decoders.Sequence([LOW_BAR, decoders.ByteFallback(), decoders.Fuse()])),
        "metaspace": lambda: sentence_piece(decoders.Metaspace(), byte_fallback=False),
        "metaspace with bytes": lambda: sentence_piece(
            decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
        ),
        "WordPiece": lambda: words(models.WordPiece(parts, unk_token="[UNK]"), decoders.WordPiece()),
        "no decoder": lambda: words(models.WordLevel(parts, unk_token="[UNK]"), None),
        "tokenizer.model": lambda: model_file(folder),
        "tokenizer.model of a Llama": lambda: model_file(folder, tokenizer_class="LlamaTokenizer"),
    }
    return made[kind]()


KINDS = (
    *("byte-level", "Llama 2", "Gemma", "metaspace", "metaspace with bytes", "WordPiece", "no decoder"),
    *("tokenizer.model", "tokenizer.model of a Llama"),
)
