"""The thread that owns MLX: it loads, generates and frees, and sleeps when there is nothing to do."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING

import structlog

from app.services.catalog import ModelFolder
from app.services.engine.cache.conversation_owners import ConversationOwners
from app.services.engine.commands import CommandQueue, Reply
from app.services.engine.limits import EngineLimits
from app.services.engine.model import blas
from app.services.engine.model.open_files import limit_untouched
from app.services.engine.model_handle import ModelHandle
from app.services.engine.scheduler.fair_share import FairShare
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.errors import AppError, EngineFailed, LoadFailed, ModelUnloaded, ShuttingDown

if TYPE_CHECKING:  # they import MLX, which takes seconds and belongs on the thread
    from app.services.engine.loaded_model import LoadedModel
    from app.services.engine.scheduler.scheduler import Scheduler

log = structlog.get_logger()

_DONE = object()


class MLXEngine:
    """Start it once; its methods are for the event loop, what begins with _on_ runs on its thread."""

    def __init__(self, limits: EngineLimits, draft: DraftConfig | None = None) -> None:
        self.back_end = "unknown"
        self.meter = Meter()
        self._limits = limits
        self._draft = draft
        self._claim: IO[bytes] | None = None  # of the store's folder, held while this process lives
        self._commands = CommandQueue()
        self._outbox = Outbox()
        self._beginnings = ConversationOwners()
        self._runners: list[Scheduler] = []
        self._turns = FairShare()
        self._loads: list[Iterator[None]] = []
        self._awaited_loads: set[asyncio.Future[LoadedModel]] = set()
        self._stopped = False
        self._unusable: LoadFailed | None = None
        self._step_began: float | None = None  # of the step under way
        self._at_work: Scheduler | None = None  # whose it is
        self._usual_step = 0.0  # seconds, of the longest steps lately
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="prompt")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread; it imports MLX while the server already listens."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step, and have written what answers left for the disk.

        Answers still running get an error. Nothing is waited for long: an import, a load and a step that hangs leave
        nothing that has to last.
        """
        self._commands.put(self._on_stop)
        self._thread.join(timeout=10 if self._runners and not self.stuck_for() else 1)
        if self._thread.is_alive():
            for scheduler in list(self._runners):
                scheduler.write_prefixes()
        self._prompts.shutdown(wait=False, cancel_futures=True)

    def stuck_for(self) -> float:
        """Seconds that the step under way has taken, if that is over ten times what it may take; 0 while all is well.

        It may take what steps took lately, or what this much work takes at the rate that was measured.
        """
        began, scheduler = self._step_began, self._at_work
        if began is None or scheduler is None:
            return 0.0
        elapsed = time.monotonic() - began
        return elapsed if elapsed > 10 * max(self._usual_step, scheduler.expected) else 0.0

    async def load(self, folder: ModelFolder, progress: Callable[[float], None]) -> ModelHandle:
        """Load a model beside what is loaded; whoever does not want it any more cancels this.

        Raises LoadFailed. `progress` is called on the engine thread, 0 to 1.
        """
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[LoadedModel] = loop.create_future()
        self._awaited_loads.add(loaded)
        self._commands.put(partial(self._on_load, folder, progress, Reply(loop, loaded, self._discard)))
        try:
            model = await loaded
        except asyncio.CancelledError:
            if loaded.done() and not loaded.cancelled() and loaded.exception() is None:
                self._discard(loaded.result())  # it came just as nobody wanted it any more
            raise
        finally:
            self._awaited_loads.discard(loaded)
        return ModelHandle(
            model,
            commands=self._commands,
            prompts=self._prompts,
            outbox=self._outbox,
            unload=partial(self._unload, model.scheduler),
        )

    def give_up_loads(self, error: AppError) -> None:
        """Tell those who wait for a model that it will not come."""
        for load in self._awaited_loads:
            if not load.done():
                load.set_exception(error)

    def _discard(self, model: "LoadedModel") -> None:
        self._commands.put(partial(self._unload, model.scheduler, True))

    # On the engine thread.

    def _run(self) -> None:
        self._import()
        while not self._stopped:
            self._commands.run(wait=not self._loads and not any(scheduler.busy for scheduler in self._runners))
            self._loads = [load for load in self._loads if next(load, _DONE) is not _DONE]
            if (scheduler := self._turns.next(self._runners)) is not None:
                self._step(scheduler)
            self._free_retired()
            self.meter.running = sum(scheduler.running for scheduler in self._runners)
            self.meter.waiting = sum(scheduler.waiting for scheduler in self._runners)
            self._outbox.send()
        for scheduler in self._runners:
            scheduler.fail(ShuttingDown())
        self._outbox.send()
        for scheduler in self._runners:
            scheduler.free()
        if self._claim is not None:
            self._claim.close()

    def _import(self) -> None:
        try:
            self._import_mlx()
        except Exception as error:  # a wheel for another system, say: the server answers and says so
            log.exception("MLX cannot be used")
            self._unusable = LoadFailed(f"MLX cannot be used on this machine: {str(error)[:300]}")

    def _import_mlx(self) -> None:
        began = time.perf_counter()
        library = blas.preload()
        with limit_untouched():
            from app.services.engine.model import loading

        self._claim_store()
        loading.prepare()
        gc.freeze()  # what is imported stays: no collection need look at it again
        self.back_end = loading.back_end()
        log.info("engine ready", back_end=self.back_end, blas=library, seconds=round(time.perf_counter() - began, 2))

    def _claim_store(self) -> None:
        from app.services.engine.cache.prefix_store import lock

        folder = self._limits.store_folder if self._limits.store_bytes else None
        if folder is not None and (claim := lock(folder)) is not None:
            self._claim = claim
        elif folder is not None:
            log.warning("prompts are not kept on disk", reason="another server keeps its own there, or nobody may")
            self._limits = replace(self._limits, store_folder=None)

    def _step(self, scheduler: "Scheduler") -> None:
        self._at_work, self._step_began = scheduler, time.monotonic()
        try:
            if scheduler.busy:
                scheduler.step(alone=sum(one.busy for one in self._runners) == 1)
        except Exception:
            log.exception("engine step failed")
            scheduler.fail(EngineFailed())
        seconds = time.monotonic() - self._step_began
        self._step_began = self._at_work = None
        self._usual_step = max(seconds, 0.99 * self._usual_step)
        self._turns.took(scheduler, seconds)

    def _free_retired(self) -> None:
        for scheduler in [scheduler for scheduler in self._runners if scheduler.retired and not scheduler.busy]:
            self._free(scheduler)

    def _free(self, scheduler: "Scheduler") -> None:
        from app.services.engine.model.loading import memory, release

        self._runners.remove(scheduler)
        scheduler.free()
        release()
        self.meter.memory = memory()

    def _on_load(self, folder: ModelFolder, progress: Callable[[float], None], reply: Reply) -> None:
        if self._unusable is not None:
            reply.fail(self._unusable)
        else:
            self._loads.append(self._loading(folder, progress, reply))

    def _loading(self, folder: ModelFolder, progress: Callable[[float], None], reply: Reply) -> Iterator[None]:
        from app.services.engine.assembly import assemble
        from app.services.engine.model.loading import release
        from app.services.engine.speculative.loading import load

        try:
            steps = load(folder.path, self._draft)
            while True:
                try:
                    progress(next(steps))
                except StopIteration as end:
                    model, tokenizer, draft = end.value
                    break
                yield
                if not reply.is_awaited:
                    steps.close()
                    release()
                    return
            loaded = assemble(folder, model, tokenizer, self._limits, self._outbox, self._beginnings, draft)
            loaded.warm_up()
            loaded.scheduler.meter = self.meter
            release()
            loaded.scheduler.admission.settle()
            self._runners.append(loaded.scheduler)
            threading.Thread(target=loaded.grammars.warm_up, name="grammar", daemon=True).start()
            progress(1.0)
            reply.send(loaded)
        except AppError as error:
            reply.fail(error)
        except Exception:
            log.exception("load failed", folder=folder.path.name)
            reply.fail(LoadFailed(f"{folder.path.name}: the model could not be loaded; the log says more"))

    def _unload(self, scheduler: "Scheduler", now: bool) -> None:
        scheduler.retired = True
        if now:
            scheduler.fail(ModelUnloaded())
        self._free_retired()

    def _on_stop(self) -> None:
        self._stopped = True
