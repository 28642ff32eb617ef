"""The thread that owns MLX: it loads, generates and frees, and sleeps when there is nothing to do."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from app.services.engine.encoders.encoder_handle import EncoderHandle
from app.services.engine.limits import EngineLimits
from app.services.engine.mlx_loader import MLXLoader
from app.services.engine.model_handle import ModelHandle
from app.services.engine.scheduler.commands import CommandQueue, Reply
from app.services.engine.scheduler.fair_share import FairShare
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.model_scheduler import ModelScheduler
from app.services.engine.scheduler.running_generation import Outbox
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.errors import AppError, EngineFailed, GroupLost, ModelUnloaded, ShuttingDown
from app.services.facts import DeviceFacts, GroupFacts
from app.services.inference import Engine, EngineModel
from app.services.model_folder import ModelFolder

if TYPE_CHECKING:  # they import MLX, which takes seconds and belongs on the engine thread
    from app.services.engine.encoders.loaded_encoder import LoadedEncoder
    from app.services.engine.loaded_model import LoadedModel

log = structlog.get_logger()


class MLXEngine(Engine):
    """Computes with MLX on one thread, where models take turns step by step, and prepares prompts on another."""

    def __init__(
        self,
        limits: EngineLimits,
        draft: DraftConfig | None = None,
        on_lost: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """`on_lost` is called, on any thread, with the reason once machines serve a model together no more."""
        self._meter = Meter()
        self._commands = CommandQueue(self._failure)
        self._outbox = Outbox()
        self._loader = MLXLoader(
            limits, draft, outbox=self._outbox, meter=self._meter, on_load=self._add, on_lost=on_lost
        )
        self._awaited_loads: set[asyncio.Future[LoadedModel | LoadedEncoder]] = set()  # on the event loop
        self._schedulers: list[ModelScheduler] = []  # one for each loaded model
        self._fair_share = FairShare()
        self._is_stopping = False
        self._step_began: float | None = None  # seconds on the monotonic clock; None between steps
        self._stepping: ModelScheduler | None = None  # whose step is under way
        self._usual_step = 0.0  # seconds, of the longest steps lately
        self._prompts = ThreadPoolExecutor(1, thread_name_prefix="prompt")
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def back_end(self) -> str:
        """Where MLX computes: metal, cuda or cpu; unknown until it is imported."""
        return self._loader.back_end

    @property
    def device(self) -> DeviceFacts | None:
        """The GPU that MLX computes with; None on the CPU, and until MLX is imported."""
        return self._loader.device

    @property
    def group(self) -> GroupFacts | None:
        """The machines that serve the model together; None where it is this one alone, and before its load."""
        group = self._loader.group
        return group.facts() if group is not None else None

    @property
    def meter(self) -> Meter:
        """What all models count."""
        return self._meter

    def start(self) -> None:
        """Start the thread; it imports MLX while the server already listens."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its current step, with what answers left written to the disk.

        Answers under way get an error. This waits a second for an import, a load or a step that hangs, which leave
        nothing behind, and else up to ten seconds.
        """
        self._commands.put(self._stop)
        self._thread.join(timeout=10 if self._schedulers and not self.stuck_for() else 1)
        if self._thread.is_alive():
            for scheduler in list(self._schedulers):
                scheduler.flush()
        self._prompts.shutdown(wait=False, cancel_futures=True)

    def stuck_for(self) -> float:
        """Seconds that the step under way has taken, if that is over ten times what it may take; 0 while all is well.

        It may take what steps took lately, or what this much work takes at the rate that was measured.
        """
        began, scheduler = self._step_began, self._stepping
        if began is None or scheduler is None:
            return 0.0
        elapsed = time.monotonic() - began
        return elapsed if elapsed > 10 * max(self._usual_step, scheduler.expected) else 0.0

    async def load(self, folder: ModelFolder, progress: Callable[[float], None]) -> EngineModel:
        """Load a model beside those that are loaded. Raises LoadFailed; cancelling this gives the load up.

        `progress` is called with 0 to 1, on the engine thread.
        """
        loop = asyncio.get_running_loop()
        load: asyncio.Future[LoadedModel | LoadedEncoder] = loop.create_future()
        self._awaited_loads.add(load)
        self._commands.put(partial(self._loader.load, folder, progress, Reply(loop, load, self._discard)))
        try:
            model = await load
        except asyncio.CancelledError:
            if load.done() and not load.cancelled() and load.exception() is None:
                self._discard(load.result())  # it came in the moment in which this was cancelled
            raise
        finally:
            self._awaited_loads.discard(load)
        handle: Callable[..., EngineModel] = EncoderHandle if folder.is_encoder else ModelHandle
        unload = partial(self._unload, model.scheduler)
        return handle(model, commands=self._commands, prompts=self._prompts, outbox=self._outbox, unload=unload)

    async def cache_bytes(self, config: Mapping[str, Any], tokens: int) -> int:
        """Give the bytes that admission counts for a row of so many tokens, of the model of a config.json.

        Raises LoadFailed.
        """
        return await self._commands.call(self._loader.cache_bytes, config, tokens)

    def give_up_loads(self, error: AppError) -> None:
        """Have those who wait for a load get an error."""
        for load in self._awaited_loads:
            if not load.done():
                load.set_exception(error)

    def _discard(self, model: "LoadedModel | LoadedEncoder") -> None:
        self._commands.put(partial(self._unload, model.scheduler, True))

    # On the engine thread.

    def _run(self) -> None:
        self._loader.import_mlx()
        while not self._is_stopping:
            self._commands.run(wait=not self._busy)
            self._loader.step()
            if (scheduler := self._fair_share.next(self._schedulers)) is not None:
                self._step(scheduler)
            self._free_retired()
            self._count()
            self._outbox.send()
        self._close()

    @property
    def _busy(self) -> bool:
        return self._loader.busy or any(scheduler.busy for scheduler in self._schedulers)

    def _step(self, scheduler: ModelScheduler) -> None:
        self._stepping, self._step_began = scheduler, time.monotonic()
        try:
            scheduler.step(alone=sum(other.busy for other in self._schedulers) == 1)
        except Exception as error:
            if not isinstance(error, GroupLost):
                log.exception("engine step failed")
            scheduler.fail(self._failure(error))
        seconds = time.monotonic() - self._step_began
        self._step_began = self._stepping = None
        self._usual_step = max(seconds, 0.99 * self._usual_step)
        self._fair_share.add_time(scheduler, seconds)

    def _failure(self, error: Exception) -> AppError:
        """Give the error for those who wait; with other machines, which are out of step now, nothing goes on."""
        return self._loader.group.fail(error) if self._loader.group is not None else EngineFailed()

    def _count(self) -> None:
        self._meter.running = sum(scheduler.running for scheduler in self._schedulers)
        self._meter.waiting = sum(scheduler.waiting for scheduler in self._schedulers)

    def _add(self, model: "LoadedModel | LoadedEncoder") -> None:
        self._schedulers.append(model.scheduler)

    def _unload(self, scheduler: ModelScheduler, now: bool) -> None:
        """Have a scheduler take no more requests and be freed once it is idle; with `now`, end its answers first."""
        scheduler.retired = True
        if now:
            scheduler.fail(ModelUnloaded())
        self._free_retired()

    def _free_retired(self) -> None:
        for scheduler in [scheduler for scheduler in self._schedulers if scheduler.retired and not scheduler.busy]:
            self._free(scheduler)

    def _free(self, scheduler: ModelScheduler) -> None:
        from app.services.engine.model.loading import memory, release

        self._schedulers.remove(scheduler)
        scheduler.free()
        release()
        self._meter.memory = memory()

    def _stop(self) -> None:
        self._is_stopping = True

    def _close(self) -> None:
        for scheduler in self._schedulers:
            scheduler.fail(ShuttingDown())
        self._outbox.send()
        for scheduler in self._schedulers:
            scheduler.free()
        self._loader.close()
