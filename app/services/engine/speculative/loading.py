"""Loads a model and its draft model, and checks whether the two fit."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import structlog
from mlx_lm.models.cache import make_prompt_cache

from app.services import catalog
from app.services.engine.cache.layers import FORGETFUL, is_trimmable, leaves
from app.services.engine.model import loading
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.engine.speculative.draft_model import DraftModel, logits_width
from app.services.engine.speculative.vocabulary import vocabulary_mismatch
from app.services.errors import LoadFailed
from app.services.model_folder import ModelFolder

log = structlog.get_logger()

Steps = Generator[float, None, tuple[Any, Any, DraftModel | None]]


def load(folder: Path, config: DraftConfig | None) -> Steps:
    """Yield progress from 0 to 1 and return mlx-lm's model and tokenizer wrapper, with a draft model if one fits.

    Raises LoadFailed. Runs on the engine thread alone.
    """
    draft_folder = _resolve(config.model) if config else None  # fails before the large model is read
    model, tokenizer = yield from loading.load(folder)
    if config is None or draft_folder is None:
        return model, tokenizer, None
    if reason := _untrimmable(model):
        log.warning("no draft model", model=folder.name, reason=f"{reason} of the model cannot take draft tokens back")
        return model, tokenizer, None
    draft, draft_tokenizer = yield from _load_quietly(draft_folder.path)
    if reason := _untrimmable(draft):
        raise _refusal(draft_folder, f"{reason} cannot take draft tokens back")
    if (reason := vocabulary_mismatch(tokenizer, draft_tokenizer, tokenizer.eos_token_ids)) and config.strict:
        raise _refusal(draft_folder, reason)
    if reason:
        log.warning("no draft model", model=folder.name, reason=reason)
        return model, tokenizer, None
    return (
        model,
        tokenizer,
        DraftModel(
            draft,
            vocabulary=logits_width(model),
            context_length=draft_folder.context.tokens,
            max_draft_tokens=config.max_draft_tokens,
        ),
    )


def _resolve(model: str) -> ModelFolder:
    try:
        return catalog.resolve(model)
    except LoadFailed as error:
        raise LoadFailed(f"The draft model: {error.message}") from error


def _load_quietly(folder: Path) -> Generator[float, None, tuple[Any, Any]]:
    """Load the draft model without progress of its own: the large one takes nearly all of the time."""
    steps = loading.load(folder)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            model, tokenizer = end.value
            return model, tokenizer
        yield 0.9


def _untrimmable(model: Any) -> str | None:
    """Say which layers of a model have a cache that cannot be trimmed; None where all can be."""
    for layer in make_prompt_cache(model):
        if not is_trimmable(layer):
            sliding = any(isinstance(leaf, FORGETFUL) for leaf in leaves([layer]))
            return "the sliding window" if sliding else "the recurrent layers"
    return None


def _refusal(draft: ModelFolder, reason: str) -> LoadFailed:
    return LoadFailed(f"{draft.id} cannot be the draft model: {reason}")
