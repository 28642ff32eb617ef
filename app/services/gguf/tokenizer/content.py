"""The content of tokenizer.json for a vocabulary."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from app.services.gguf.tokenizer.pretokenizers import PRE_TOKENIZERS
from app.services.gguf.tokenizer.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Vocabulary, damaged, text

Part = dict[str, Any]
_SPACE = "▁"
_BYTE_LEVEL: Part = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def tokenizer_json(vocabulary: Vocabulary) -> Part:
    """Give what tokenizer.json holds. Raises LoadFailed for merges that lead nowhere."""
    is_byte_level = vocabulary.model == "gpt2"
    has_prefix = vocabulary.model == "llama" and vocabulary.flag("add_space_prefix", True)
    merges = _merges_of_scores(vocabulary) if vocabulary.model == "llama" else _merges(vocabulary)
    unknown = vocabulary.special("unknown")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(_added_tokens(vocabulary)),
        "normalizer": None if is_byte_level else _normalizer(has_prefix),
        "pre_tokenizer": _pre_tokenizer(vocabulary),
        "post_processor": _post_processor(vocabulary),
        "decoder": _BYTE_LEVEL if is_byte_level else _decoder(has_prefix),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None if is_byte_level or unknown is None else vocabulary.tokens[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": not is_byte_level,
            "byte_fallback": not is_byte_level,
            "ignore_merges": is_byte_level and PRE_TOKENIZERS[vocabulary.pre].ignore_merges,
            "vocab": vocabulary.ids,
            "merges": merges,
        },
    }


def _added_tokens(vocabulary: Vocabulary) -> Iterator[Part]:
    """Give the tokens that are found in a text before anything else is done to it."""
    rstrip = _tokens_that_strip(vocabulary)
    for token, kind in enumerate(vocabulary.types):
        if kind in (CONTROL, UNKNOWN, USER_DEFINED):
            content = vocabulary.tokens[token]
            flags = {"single_word": False, "lstrip": False, "rstrip": rstrip and content not in _KEEP_SPACES}
            yield {"id": token, "content": content, **flags, "normalized": False, "special": kind != USER_DEFINED}


_KEEP_SPACES = {"<unk>", "<s>", "<|endoftext|>"}


def _tokens_that_strip(vocabulary: Vocabulary) -> bool:
    """Whether spaces after a control token are dropped: Phi-3's do so, which no GGUF says but by the model's name."""
    name = text(vocabulary.metadata, "general.name").lower()
    return vocabulary.model == "llama" and ("phi-3" in name or "phi3" in name)


def _merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    ids, merges = vocabulary.ids, []
    for line in vocabulary.merges:
        index = line.find(" ", 1)
        left, right = line[:index], line[index + 1 :]
        if index < 0 or left not in ids or right not in ids or left + right not in ids:
            raise damaged(f"its tokenizer merges {line!r} into a token that it does not have")
        merges.append((left, right))
    return merges


def _merges_of_scores(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """Give every way to make a token of two others, the token with the highest score first."""
    ids, kinds = vocabulary.ids, vocabulary.types
    pairs: list[tuple[str, str]] = []
    results: list[tuple[int, int, int]] = []
    for token, content in enumerate(vocabulary.tokens):
        if len(content) < 2 or kinds[token] in (CONTROL, UNKNOWN):
            continue
        for index in range(1, len(content)):
            left = content[:index]
            if left in ids and (right := content[index:]) in ids:
                pairs.append((left, right))
                results.append((token, ids[left], ids[right]))
    if not results:
        return []
    tokens, lefts, rights = np.array(results).T
    return [pairs[index] for index in np.lexsort((rights, lefts, -vocabulary.scores[tokens]))]


def _normalizer(has_prefix: bool) -> Part:
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    return {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}] * has_prefix + [replace]}


def _decoder(has_prefix: bool) -> Part:
    """Give the decoder; mlx-lm knows these two by their exact content."""
    parts: list[Part] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {"type": "Sequence", "decoders": parts + [strip] * has_prefix}


def _pre_tokenizer(vocabulary: Vocabulary) -> Part | None:
    if vocabulary.model == "llama":
        return None
    if vocabulary.model == "gemma4":
        return _split(r"[^\n]+|[\n]+")
    expressions = PRE_TOKENIZERS[vocabulary.pre].expressions
    return {"type": "Sequence", "pretokenizers": [*map(_split, expressions), _BYTE_LEVEL]}


def _split(expression: str) -> Part:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


def adds(vocabulary: Vocabulary) -> tuple[bool, bool]:
    """Say whether a text gets a token before it, and one after it: the file's word, else llama.cpp's default."""
    default = vocabulary.model == "llama"
    if vocabulary.model == "gpt2":
        default = PRE_TOKENIZERS[vocabulary.pre].add_bos
    bos = vocabulary.model == "gemma4" or vocabulary.flag("add_bos_token", default)
    return bos, vocabulary.flag("add_eos_token", False)


def _post_processor(vocabulary: Vocabulary) -> Part | None:
    """Give what adds the tokens at the ends of a text. Raises LoadFailed where the file does not say which."""
    ends: list[str | None] = []
    for name, is_added in zip(("bos", "eos"), adds(vocabulary), strict=True):
        token = vocabulary.special(name) if is_added else None
        if is_added and token is None:
            raise damaged(f"its tokenizer adds a {name} token that the file does not name")
        ends.append(None if token is None else vocabulary.tokens[token])
    if ends == [None, None]:
        return None
    before, after = ([{"SpecialToken": {"id": end, "type_id": 0}}] if end else [] for end in ends)
    tokens = {end: {"id": end, "ids": [vocabulary.ids[end]], "tokens": [end]} for end in ends if end}
    return {
        "type": "TemplateProcessing",
        "single": [*before, {"Sequence": {"id": "A", "type_id": 0}}, *after],
        "pair": [*before, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}, *after],
        "special_tokens": tokens,
    }
