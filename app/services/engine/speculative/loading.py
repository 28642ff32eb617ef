"""A model, and the small one that guesses for it: read, and looked at whether they fit."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import structlog
from mlx_lm.models.cache import RotatingKVCache, make_prompt_cache

from app.services import catalog
from app.services.catalog import ModelFolder
from app.services.engine.cache.layers import cuts, leaves
from app.services.engine.model import loading
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.engine.speculative.draft_model import DraftModel, logits_width
from app.services.engine.speculative.vocabulary import difference
from app.services.errors import LoadFailed

log = structlog.get_logger()

Steps = Generator[float, None, tuple[Any, Any, DraftModel | None]]


def load(folder: Path, drafting: DraftConfig | None) -> Steps:
    """Yield progress from 0 to 1 and return mlx-lm's model and tokenizer wrapper, with a draft model if one fits.

    Raises LoadFailed. Runs on the engine thread alone.
    """
    small = _resolve(drafting.model) if drafting else None  # before the large one is read in vain
    model, tokenizer = yield from loading.load(folder)
    if drafting is None or small is None:
        return model, tokenizer, None
    if reason := _uncut(model):
        log.warning("no draft model", model=folder.name, reason=f"{reason} of the model cannot take guesses back")
        return model, tokenizer, None
    draft, words = yield from _read(small.path)
    if reason := _uncut(draft):
        raise _refusal(small, f"{reason} cannot take guesses back")
    if (reason := difference(tokenizer, words, tokenizer.eos_token_ids)) and drafting.strict:
        raise _refusal(small, reason)
    if reason:
        log.warning("no draft model", model=folder.name, reason=reason)
        return model, tokenizer, None
    sizes = {"vocabulary": logits_width(model), "context_length": small.context_length, "most": drafting.most}
    return model, tokenizer, DraftModel(draft, **sizes)


def _resolve(model: str) -> ModelFolder:
    try:
        return catalog.resolve(model)
    except LoadFailed as error:
        raise LoadFailed(f"The draft model: {error.message}") from error


def _read(folder: Path) -> Generator[float, None, tuple[Any, Any]]:
    """Load without a progress of its own: the large one has nearly all of it."""
    steps = loading.load(folder)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            model, tokenizer = end.value
            return model, tokenizer
        yield 0.9


def _uncut(model: Any) -> str | None:
    """What of a model's cache cannot be cut to fewer tokens, None where all can."""
    for layer in make_prompt_cache(model):
        if not cuts(layer):
            sliding = any(isinstance(leaf, RotatingKVCache) for leaf in leaves([layer]))
            return "the sliding window" if sliding else "the recurrent layers"
    return None


def _refusal(draft: ModelFolder, reason: str) -> LoadFailed:
    return LoadFailed(f"{draft.id} cannot be the draft model: {reason}")
