"""Loads a model and its draft model, and checks whether the two fit."""

from collections.abc import Generator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from mlx_lm.utils import load_config

from app.services import catalog
from app.services.engine.cache.layers import FORGETFUL, is_trimmable, leaves, new_layers
from app.services.engine.model import loading
from app.services.engine.model.language_model import LanguageModel
from app.services.engine.model.model_files import ModelFiles
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.engine.speculative.draft_model import DraftModel, logits_width
from app.services.engine.speculative.vocabulary import vocabulary_mismatch
from app.services.errors import LoadFailed
from app.services.gguf.cache import GGUFCache
from app.services.gguf.inspection import with_vision_part
from app.services.model_folder import ModelFolder

log = structlog.get_logger()


_CONVERSION = 0.5  # of the progress of a load: what a GGUF file takes before it is read


class Parts(NamedTuple):
    """What a model is put together from."""

    files: ModelFiles  # to be closed
    model: Any  # mlx-lm's, as are the tokenizer wrappers
    tokenizer: Any
    draft: DraftModel | None
    vision: Any = None  # a Vision, of a model that sees


def load(
    model: ModelFolder,
    config: DraftConfig | None,
    cache: GGUFCache,
    mmproj: Path | None = None,
    split: loading.Split | None = None,
) -> Generator[float, None, Parts]:
    """Yield progress from 0 to 1 and return the parts of a model, with a draft model if one fits.

    `mmproj` is the vision part of a GGUF file, and `split` leaves of the model what this machine computes of it. Raises
    LoadFailed. Runs on the engine thread alone.
    """
    if mmproj is not None:
        model = with_vision_part(model, mmproj)
    draft_folder = _resolve(config.model) if config else None  # fails before the large model is read
    with ExitStack() as opened:
        start = _CONVERSION if model.is_gguf else 0.0
        files = opened.enter_context((yield from loading.scaled(loading.open_files(model, cache), 0.0, start)))
        mlx_model, tokenizer = yield from loading.scaled(loading.load(files, split), start, 1.0)
        vision = yield from _load_vision(files, mlx_model, tokenizer)
        draft = None
        if config is not None and draft_folder is not None:
            draft = yield from _load_draft(draft_folder, config, cache, files, mlx_model, tokenizer)
        opened.pop_all()
        return Parts(files, mlx_model, tokenizer, draft, vision)


def _load_vision(files: ModelFiles, model: Any, tokenizer: Any) -> Generator[float, None, Any]:
    """Load what a model sees with, if it does; its modules are imported for those alone."""
    if problem := files.model.vision_problem:
        log.warning("the vision part is not used", model=files.model.path.name, reason=problem)
    if not files.model.sees:
        return None
    from app.services.engine.vision import loading as vision_loading

    encode = partial(tokenizer.encode, add_special_tokens=False)
    if (path := files.model.mmproj) is None:
        steps = vision_loading.load(files.folder, model, encode)
    else:
        steps = vision_loading.load_part(path, files.model.path, load_config(files.folder), model, encode)
    return (yield from loading.scaled(steps, 0.9, 1.0))


def _load_draft(
    folder: ModelFolder, config: DraftConfig, cache: GGUFCache, files: ModelFiles, model: Any, tokenizer: Any
) -> Generator[float, None, DraftModel | None]:
    name = files.model.path.name
    draft, draft_tokenizer = yield from _load_quietly(folder, cache)
    if reason := _untrimmable(draft):
        raise _refusal(folder, f"{reason} cannot take draft tokens back")
    if (reason := vocabulary_mismatch(tokenizer, draft_tokenizer, tokenizer.eos_token_ids)) and config.strict:
        raise _refusal(folder, reason)
    if reason:
        log.warning("no draft model", model=name, reason=reason)
        return None
    return DraftModel(
        LanguageModel(draft),
        vocabulary=logits_width(model),
        context_length=folder.context.limited_to(config.context_length).tokens,
        max_draft_tokens=config.max_draft_tokens,
    )


def _resolve(model: str) -> ModelFolder:
    try:
        return catalog.resolve(model)
    except LoadFailed as error:
        raise LoadFailed(f"The draft model: {error.message}") from error


def _load_quietly(folder: ModelFolder, cache: GGUFCache) -> Generator[float, None, tuple[Any, Any]]:
    """Load the draft model without progress of its own: the large one takes nearly all of the time."""
    steps = _load(folder, cache)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            model, tokenizer = end.value
            return model, tokenizer
        yield 0.9


def _load(folder: ModelFolder, cache: GGUFCache) -> loading.Step:
    with (yield from loading.open_files(folder, cache)) as files:
        return (yield from loading.load(files))


def _untrimmable(model: Any) -> str | None:
    """Say which layers of a model have a cache that cannot be trimmed; None where all can be."""
    for layer in new_layers(model).caches:
        if not is_trimmable(layer):
            sliding = any(isinstance(leaf, FORGETFUL) for leaf in leaves([layer]))
            return "the sliding window" if sliding else "the recurrent layers"
    return None


def _refusal(draft: ModelFolder, reason: str) -> LoadFailed:
    return LoadFailed(f"{draft.id} cannot be the draft model: {reason}")
