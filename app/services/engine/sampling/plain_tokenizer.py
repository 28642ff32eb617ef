"""Builds llguidance's tokenizer so that the text of a grammar never becomes an added token."""

import json
import secrets
from collections.abc import Container, Iterable
from copy import copy
from typing import Any

from llguidance import LLTokenizer


def plain_tokenizer(tokenizer: Any, vocabulary: int, end_tokens: list[int]) -> LLTokenizer:
    """Make llguidance's tokenizer from a fast one of transformers; `vocabulary` is the width of the logits.

    llguidance tokenizes the text that a grammar forces, and its mask then allows no added tokens for it. So here the
    added tokens get random names: `<think>` in a literal becomes other tokens, as when a model quotes it.
    """
    backend = copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    content = _rename_added_tokens(json.loads(backend.to_str()))
    data = json.dumps(content | {"decoder": _without_metaspace(content["decoder"])}, ensure_ascii=False)
    return LLTokenizer(data, n_vocab=vocabulary, eos_token=end_tokens)


def _rename_added_tokens(content: dict[str, Any]) -> dict[str, Any]:
    """Rename the added tokens, all but those that merges make: these are like any token of text."""
    model, prefix = content["model"], secrets.token_hex(8)
    in_merges = _in_merges(model.get("merges") or (), {token["content"] for token in content["added_tokens"]})
    added = [token for token in content["added_tokens"] if token["special"] or token["content"] not in in_merges]
    names = {token["content"]: f"<{prefix}:{token['id']}>" for token in added}
    content["added_tokens"] = [token | {"content": names[token["content"]]} for token in added]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return content


def _without_metaspace(decoder: dict[str, Any] | None) -> dict[str, Any] | None:
    """Write a decoder that puts spaces for low bars as llguidance reads it: other forms it takes for plain text."""
    decoders = (decoder or {}).get("decoders", [decoder or {}])
    low_bar = next((one["replacement"] for one in decoders if one.get("type") == "Metaspace"), None)
    if low_bar is None:
        return decoder
    replace = {"type": "Replace", "pattern": {"String": low_bar}, "content": " "}
    return {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}]}


def _in_merges(merges: Iterable[Any], added: Container[str]) -> set[str]:
    """Give the added tokens that occur in merges."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
    return {token for pair in pairs for token in (*pair, "".join(pair)) if token in added}
