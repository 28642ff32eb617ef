"""Leaves tokens out of a tokenizer that a model has no embedding of: for these it would read beyond its weights."""

import json
from typing import Any

import structlog
from tokenizers import Tokenizer

log = structlog.get_logger()

_SHOWN = 5  # tokens in the log


def leave_out(tokenizer: Any, size: int, model: str) -> None:
    """Have a tokenizer of transformers read the texts of tokens from number `size` on as any text.

    Such are image tokens of models for text alone (Gemma 3), and tokens that somebody added without new embeddings.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or (fitting := without(backend, size)) is backend:
        return
    before, after = backend.get_added_tokens_decoder(), fitting.get_added_tokens_decoder()
    names = [before[number].content for number in sorted({*before} - {*after})]
    log.warning("the model has no embedding for some tokens; they are read as text", model=model, tokens=names[:_SHOWN])
    tokenizer._tokenizer = fitting


def without(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """Give a tokenizer of tokens below number `size` alone; it is the same where it has no others."""
    added = tokenizer.get_added_tokens_decoder()
    if tokenizer.get_vocab_size() <= size and max(added, default=0) < size:
        return tokenizer
    if max(tokenizer.get_vocab(with_added_tokens=False).values()) < size:
        # with the same tables: to make those of a large vocabulary anew takes seconds
        fitting = Tokenizer(tokenizer.model)
        for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            if (value := getattr(tokenizer, part)) is not None:
                setattr(fitting, part, value)
        fitting.add_tokens([added[number] for number in sorted(added) if number < size])
        return fitting
    return Tokenizer.from_str(json.dumps(_trim(json.loads(tokenizer.to_str()), size)))


def _trim(content: dict[str, Any], size: int) -> dict[str, Any]:
    model = content["model"]
    if isinstance(vocabulary := model["vocab"], list):
        model["vocab"] = vocabulary[:size]
    else:
        vocabulary = model["vocab"] = {text: number for text, number in vocabulary.items() if number < size}
    if "merges" in model:
        pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [pair for pair in pairs if vocabulary.keys() >= {*pair, "".join(pair)}]
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < size]
    return content
