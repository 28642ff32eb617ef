"""The tables of grammars, of tokenizers of every kind: what is added to them is never text."""

import json
from typing import Any

import numpy as np
import pytest
from llguidance import LLMatcher, grammar_from
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from app.services.engine.sampling.plain_tokenizer import plain_tokenizer

ADDED = ("<think>", "<|end|>", "[INST]", "  ")


def byte_level() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def byte_fallback(kind: str) -> Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    pieces += ["ab", "▁▁"]
    if kind == "bpe":
        vocabulary = {piece: index for index, piece in enumerate(pieces)}
        merges = [("a", "b"), ("▁", "▁")]
        model: Any = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    else:
        model = models.Unigram([(piece, -1.0 - index / 999) for index, piece in enumerate(pieces)], 0, True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


TOKENIZERS = {
    "byte level": byte_level,
    "byte fallback": lambda: byte_fallback("bpe"),
    "unigram": lambda: byte_fallback("unigram"),
}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("merged", [(), ("ab", "▁▁")])
def test_a_literal_is_spelled_without_added_tokens(kind: str, merged: tuple[str, ...]) -> None:
    made = TOKENIZERS[kind]()
    made.add_tokens([AddedToken(text, special=text == "<|end|>", normalized=False) for text in (*ADDED, *merged)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    added = {tokenizer.convert_tokens_to_ids(text) for text in (*ADDED, "<unk>", "<s>", "</s>")}
    width = len(tokenizer) + 8  # logits may be wider than the vocabulary
    tables = plain_tokenizer(tokenizer, width, [end])
    for text in ("a <think> ab", "x<|end|>y", "[INST]  z  ", "</s>", "<unk>é"):
        matcher = LLMatcher(tables, grammar_from("choice", json.dumps([text])), log_level=0)
        tokens: list[int] = []
        while not matcher.is_stopped():
            allowed = np.flatnonzero(
                np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
            )
            token = int(allowed[-1])
            assert matcher.consume_token(token), matcher.get_error()
            tokens.append(token)
        tokens = [token for token in tokens if token != end]
        assert not added.intersection(tokens)
        assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == text
