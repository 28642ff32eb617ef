"""A model's tokenizer as grammars need it: no text is ever an added token."""

import json
import secrets
from collections.abc import Container, Iterable
from copy import copy
from typing import Any

from llguidance import LLTokenizer


def plain_tokenizer(tokenizer: Any, vocabulary: int, end_tokens: list[int]) -> LLTokenizer:
    """Make llguidance's tables of a fast tokenizer of transformers; `vocabulary` is the width of the logits.

    llguidance spells what a grammar forces with the tokenizer, and then does not take added tokens for text. So here
    they have names that no text has: `<think>` in a literal is spelled by other tokens, as in a model's own quotes.
    """
    backend = copy(tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    spelled = json.dumps(_renamed(json.loads(backend.to_str())), ensure_ascii=False)
    return LLTokenizer(spelled, n_vocab=vocabulary, eos_token=end_tokens)


def _renamed(content: dict[str, Any]) -> dict[str, Any]:
    """Rename the added tokens; those that pairs of others make are left to them, as any token of text."""
    model, unguessable = content["model"], secrets.token_hex(8)
    merged = _merged(model.get("merges") or (), {token["content"] for token in content["added_tokens"]})
    added = [token for token in content["added_tokens"] if token["special"] or token["content"] not in merged]
    names = {token["content"]: f"<{unguessable}:{token['id']}>" for token in added}
    content["added_tokens"] = [token | {"content": names[token["content"]]} for token in added]
    vocabulary = model.get("vocab")
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(token, token): number for token, number in vocabulary.items()}
    elif isinstance(vocabulary, list):
        model["vocab"] = [[names.get(token, token), score] for token, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return content


def _merged(merges: Iterable[Any], added: Container[str]) -> set[str]:
    """Give the added tokens that merges make or are made of."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
    return {token for pair in pairs for token in (*pair, "".join(pair)) if token in added}
