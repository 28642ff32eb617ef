"""Loads models on the engine thread, a slice at a time, so that loaded models go on answering meanwhile."""

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, TypeVar

import structlog

from app.services import heap
from app.services.engine.cache.conversation_owners import ConversationOwners
from app.services.engine.limits import EngineLimits
from app.services.engine.model import blas, row_products
from app.services.engine.model.open_files import limit_untouched
from app.services.engine.model.unrun_packages import defer_transformers
from app.services.engine.scheduler.commands import Reply
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.errors import AppError, LoadFailed
from app.services.facts import DeviceFacts
from app.services.gguf.cache import GGUFCache
from app.services.model_folder import ModelFolder

if TYPE_CHECKING:  # it imports MLX, which takes seconds and belongs on the engine thread
    from app.services.engine.encoders.loaded_encoder import LoadedEncoder
    from app.services.engine.group.group import Group
    from app.services.engine.loaded_model import LoadedModel
    from app.services.engine.speculative.loading import Parts

log = structlog.get_logger()

# Of the weights: the tables of grammars that take no more are made ahead. Of a small model with a large vocabulary they
# would take as much memory as a fifth of the weights, so there they are made for the first request that needs them.
_SMALL_TABLES = 0.05
_END = object()

Read = TypeVar("Read")


class MLXLoader:
    """Any number of loads take turns. Lives on the engine thread, where it is the first to import MLX."""

    def __init__(
        self,
        limits: EngineLimits,
        draft: DraftConfig | None,
        *,
        outbox: Outbox,
        meter: Meter,
        on_load: Callable[["LoadedModel | LoadedEncoder"], None],
        on_lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.back_end = "unknown"
        self.device: DeviceFacts | None = None
        self._limits = limits
        self._draft = draft
        self._cache = GGUFCache(limits.gguf_folder, limits.gguf_bytes)
        self._outbox = outbox
        self._meter = meter
        self._on_load = on_load
        self._conversation_owners = ConversationOwners()
        self._store_lock: IO[bytes] | None = None  # of the prefix store's folder, while this process lives
        self._loads: list[Iterator[None]] = []
        self._import_error: LoadFailed | None = None  # why MLX cannot be used
        self._on_lost = on_lost  # called once the machines of a group are no more one, on any thread
        self.group: Group | None = None  # the machines of the model, where there are several

    @property
    def busy(self) -> bool:
        """Whether a model is being loaded."""
        return bool(self._loads)

    def import_mlx(self) -> None:
        """Import MLX and take the prefix store. If that fails, every load is refused with the reason."""
        try:
            self._import_mlx()
        except Exception as error:  # a wheel for another system, say: the server answers and says so
            log.exception("MLX cannot be used")
            self._import_error = LoadFailed(f"MLX cannot be used on this machine: {str(error)[:300]}")

    def load(self, folder: ModelFolder, progress: Callable[[float], None], reply: Reply) -> None:
        """Begin to load a model. The reply gets it, or a LoadFailed; when nobody awaits it any more the load ends."""
        if self._import_error is not None:
            reply.fail(self._import_error)
        else:
            self._loads.append(self._load(folder, progress, reply))

    def cache_bytes(self, config: Mapping[str, Any], tokens: int) -> int:
        """Give the bytes of a row's cache, of a model that is not loaded. Raises LoadFailed."""
        if self._import_error is not None:
            raise self._import_error
        from app.services.engine.model.loading import dtype
        from app.services.engine.model.text_models import footprint_of

        try:
            return footprint_of(config, dtype(), self._limits.kv_bits).bytes(tokens)
        except Exception as error:  # whatever a model's code makes of strange numbers
            raise LoadFailed(f"The configuration of the model cannot be used: {type(error).__name__}") from error

    def step(self) -> None:
        """Read one more slice of each model that is being loaded."""
        self._loads = [load for load in self._loads if next(load, _END) is not _END]

    def close(self) -> None:
        """Leave the prefix store to other processes, and let other machines go."""
        self._end_group()
        if self._store_lock is not None:
            self._store_lock.close()

    def _note_free(self, free_bytes: Sequence[int]) -> None:
        """Note the free memory of the other machines. On any thread."""
        self._meter.machines_free = free_bytes

    def _end_group(self) -> None:
        if self.group is not None:
            self.group.close()

    def _import_mlx(self) -> None:
        began = time.perf_counter()
        library = blas.preload(self._limits.blas)
        defer_transformers()
        with limit_untouched(), heap.permanent():
            from app.services.engine import assembly  # noqa: F401 - a load needs it
            from app.services.engine.model import loading

        self._lock_store()
        loading.prepare()
        self.back_end, self.device = loading.back_end(), loading.device()
        if library == blas.REFERENCE and self.back_end == "cpu":
            log.warning("no fast BLAS: prompts are computed about 20 times slower", advice=blas.ADVICE)
        elif self.back_end == "cpu" and not row_products.is_compiled():
            log.warning("no compiled products of few rows: single answers take about twice as long")
        log.info("engine ready", back_end=self.back_end, blas=library, seconds=round(time.perf_counter() - began, 2))

    def _lock_store(self) -> None:
        from app.services.engine.cache.prefix_store import lock

        folder = self._limits.store_folder if self._limits.store_bytes else None
        self._store_lock = lock(folder) if folder is not None else None
        if folder is not None and self._store_lock is None:
            log.warning("prompts are not kept on disk", reason="another server keeps its own there, or nobody may")
            self._limits = replace(self._limits, store_folder=None)

    def _load(self, folder: ModelFolder, progress: Callable[[float], None], reply: Reply) -> Iterator[None]:
        try:
            self._refuse_in_group(folder)
            load = self._load_encoder if folder.is_encoder else self._load_model
            model = yield from load(folder, progress, reply)
            if model is None:
                return
            self._on_load(model)
            progress(1.0)
            reply.send(model)
        except AppError as error:
            reply.fail(error)
        except Exception:
            log.exception("load failed", folder=folder.path.name)
            reply.fail(LoadFailed(f"{folder.path.name}: the model could not be loaded; the log says more"))

    def _refuse_in_group(self, folder: ModelFolder) -> None:
        """Raise LoadFailed for a model that several machines cannot serve together."""
        if self._limits.group is None:
            return
        what = {"an encoder": folder.is_encoder, "a model that sees images": folder.sees, "a GGUF file": folder.is_gguf}
        for kind, is_it in what.items():
            if is_it:
                raise LoadFailed(f"{folder.id} is {kind}, which cannot be served by several machines")

    def _load_model(
        self, folder: ModelFolder, progress: Callable[[float], None], reply: Reply
    ) -> Generator[None, None, "LoadedModel | None"]:
        from app.services.engine.speculative.loading import load

        split, self.group = None, None
        if self._limits.group is not None:
            from app.services.engine.group.group import Group

            self.group = Group(self._limits.group, self._on_lost, self._note_free, self._limits.blas)
            split = self.group.split
        try:
            parts = yield from _read(
                load(folder, self._draft, self._cache, self._limits.mmproj, split), progress, reply
            )
            if parts is None:
                self._end_group()
                return None
            with parts.files:
                if self.group is not None:
                    yield from _waited(self.group.wait_ready(parts.model))
                return self._assemble(parts)
        except BaseException:
            self._end_group()
            raise

    def _load_encoder(
        self, folder: ModelFolder, progress: Callable[[float], None], reply: Reply
    ) -> Generator[None, None, "LoadedEncoder | None"]:
        from app.services.engine.assembly import assemble_encoder
        from app.services.engine.encoders.loading import load

        model = yield from _read(load(folder), progress, reply)
        if model is None:
            return None
        encoder = assemble_encoder(folder, model, limits=self._limits, outbox=self._outbox, meter=self._meter)
        encoder.warm_up()
        return encoder

    def _assemble(self, parts: "Parts") -> "LoadedModel":
        from app.services.engine.assembly import assemble
        from app.services.engine.model.language_model import LanguageModel
        from app.services.engine.model.loading import weights

        group = self.group
        model = assemble(
            parts.files,
            LanguageModel(parts.model) if group is None else group.lead(parts.model),
            parts.tokenizer,
            parts.draft,
            parts.vision,
            limits=self._limits,
            outbox=self._outbox,
            conversation_owners=self._conversation_owners,
            meter=self._meter,
            memory_budget=None if group is None else group.budget(self._limits.max_memory),
        )
        model.warm_up()
        weight_bytes = sum(array.nbytes for array in weights(parts.model).values())
        if model.grammars.table_bytes <= _SMALL_TABLES * weight_bytes:
            threading.Thread(target=model.grammars.warm_up, name="grammar", daemon=True).start()
        return model


def _waited(steps: Generator[float, None, None]) -> Iterator[None]:
    """Take steps of which nobody needs the progress."""
    for _ in steps:
        yield


def _read(
    slices: Generator[float, None, Read], progress: Callable[[float], None], reply: Reply
) -> Generator[None, None, Read | None]:
    """Read a model a slice at a time, and give what was read; None once nobody awaits it."""
    from app.services.engine.model.loading import release

    while True:
        try:
            progress(next(slices))
        except StopIteration as end:
            result: Read = end.value
            return result
        yield
        if not reply.is_awaited:
            slices.close()
            release()
            return None
