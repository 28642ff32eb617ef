"""Compares the vocabulary of a model with that of its draft model."""

from collections.abc import Iterable
from typing import Any

SAMPLE = "Zoë says 你好 🙂, and:\n\n    if x != 42:  # twice"


def vocabulary_mismatch(tokenizer: Any, draft: Any, end_tokens: Iterable[int]) -> str | None:
    """Say why two tokenizers do not mean the same by their tokens; None where they do. Either may have more tokens."""
    texts, draft_texts = _texts(tokenizer), _texts(draft)
    for token in sorted(texts.keys() & draft_texts.keys()):
        if texts[token] != draft_texts[token]:
            return f"token {token} is {draft_texts[token]!r} in its vocabulary and {texts[token]!r} in the model's"
    for token in sorted(end_tokens):
        if token not in draft_texts:
            return f"its vocabulary ends before {token}, the model's end token {texts.get(token)!r}"
    if _encode_sample(tokenizer) != _encode_sample(draft):
        return "it splits the same text into other tokens"
    return None


def _texts(tokenizer: Any) -> dict[int, str]:
    return {int(token): text for text, token in tokenizer.get_vocab().items()}


def _encode_sample(tokenizer: Any) -> list[int]:
    return list(tokenizer.encode(SAMPLE, add_special_tokens=False))
