"""Whether two tokenizers mean the same by a token."""

from collections.abc import Iterable
from typing import Any

SAMPLE = "Zoë says 你好 🙂, and:\n\n    if x != 42:  # twice"


def difference(tokenizer: Any, draft: Any, end_tokens: Iterable[int]) -> str | None:
    """Say why the draft's tokens are not the tokenizer's, None where they are. Either may have more at its end."""
    ours, theirs = _texts(tokenizer), _texts(draft)
    for token in sorted(ours.keys() & theirs.keys()):
        if ours[token] != theirs[token]:
            return f"token {token} is {theirs[token]!r} in its vocabulary and {ours[token]!r} in the model's"
    for token in sorted(end_tokens):
        if token not in theirs:
            return f"its vocabulary ends before {token}, the model's end token {ours.get(token)!r}"
    if _split(tokenizer) != _split(draft):
        return "it splits the same text into other tokens"
    return None


def _texts(tokenizer: Any) -> dict[int, str]:
    return {int(token): text for text, token in tokenizer.get_vocab().items()}


def _split(tokenizer: Any) -> list[int]:
    return list(tokenizer.encode(SAMPLE, add_special_tokens=False))
