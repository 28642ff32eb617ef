"""The thread that owns MLX: it loads, generates and frees, and sleeps when there is nothing to do."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from app.services.catalog import ModelFolder
from app.services.engine.cache.conversation_owners import ConversationOwners
from app.services.engine.cache.disk_thread import disk
from app.services.engine.limits import EngineLimits
from app.services.engine.model import blas
from app.services.engine.model.open_files import limit_untouched
from app.services.engine.scheduler.fair_share import FairShare
from app.services.engine.scheduler.meter import Meter
from app.services.engine.scheduler.running_generation import Outbox, RunningGeneration
from app.services.engine.speculative.draft_config import DraftConfig
from app.services.errors import AppError, LoadFailed, ServerError, Unavailable, UnprocessableBody
from app.services.generation import EmbeddingRequest, GenerationRequest, Started

if TYPE_CHECKING:  # they import MLX, which takes seconds and belongs on the thread
    from app.services.engine.loaded_model import LoadedModel
    from app.services.engine.prompt import Prompt
    from app.services.engine.scheduler.scheduler import Scheduler

log = structlog.get_logger()

Command = Callable[[], None]
P = ParamSpec("P")
T = TypeVar("T")
_DONE = object()
_MOST_EMBEDDED = 2**20  # tokens of one request that become vectors
_FEW = 16  # texts of one request that are tokenized in one go


class MLXEngine:
    """Start it once; its methods are for the event loop, what begins with _on_ runs on its thread."""

    def __init__(self, limits: EngineLimits, draft: DraftConfig | None = None) -> None:
        self.back_end = "unknown"
        self.meter = Meter()
        self._limits = limits
        self._draft = draft
        self._claim: IO[bytes] | None = None  # of the store's folder, held while this process lives
        self._commands: SimpleQueue[Command] = SimpleQueue()
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

    async def load(self, folder: ModelFolder, progress: Callable[[float], None]) -> "LoadedModel":
        """Load a model beside what is loaded; whoever does not want it any more cancels this.

        Raises LoadFailed. `progress` is called on the engine thread, 0 to 1.
        """
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[LoadedModel] = loop.create_future()
        self._awaited_loads.add(loaded)
        self._commands.put(partial(self._on_load, folder, progress, _Promise(loop, loaded, self._unwanted)))
        try:
            return await loaded
        except asyncio.CancelledError:
            if loaded.done() and not loaded.cancelled() and loaded.exception() is None:
                self._unwanted(loaded.result())  # it came just as nobody wanted it any more
            raise
        finally:
            self._awaited_loads.discard(loaded)

    def give_up_loads(self, error: AppError) -> None:
        """Tell those who wait for a model that it will not come."""
        for load in self._awaited_loads:
            if not load.done():
                load.set_exception(error)

    def _unwanted(self, model: "LoadedModel") -> None:
        self._commands.put(partial(self._on_unload, model.scheduler, True, None))

    async def unload(self, model: "LoadedModel", *, now: bool = False) -> None:
        """Take a model out. Its running answers are finished first unless `now`, which ends them with an error."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._commands.put(partial(self._on_unload, model.scheduler, now, _Promise(loop, done)))
        await done

    async def prepare(self, model: "LoadedModel", request: GenerationRequest) -> "Prompt":
        """Render and tokenize off the event loop. Raises InvalidRequest or PromptTooLong."""
        return await self.off_loop(model.prepare, request)

    async def off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what a model's prompt builder can do on the thread of prompts, which is its only one."""
        return await asyncio.get_running_loop().run_in_executor(self._prompts, partial(work, *args, **kwargs))

    async def written(self, work: Callable[[], T]) -> T:
        """Do what writes arrays to the disk on the one thread for that. Raises what it raises."""
        return await asyncio.wrap_future(disk.call(work))

    async def between_steps(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something short with a runner on the engine thread. Raises what it raises of AppError."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._commands.put(partial(self._on_work, partial(work, *args, **kwargs), _Promise(loop, done)))
        return await done

    def submit(self, model: "LoadedModel", prompt: "Prompt", request: GenerationRequest) -> list[RunningGeneration]:
        """Queue a prepared request. Returns the ends from which the events of its answers are read."""
        facts = model.facts
        started = Started(facts.id, len(prompt.tokens), prompt.text, facts.context_length, facts.defaults)
        generations = [RunningGeneration(self._cancel, self._close_reasoning) for _ in range(request.answers)]
        for generation in generations:
            generation.put(started)
        self._commands.put(partial(self._on_submit, model, prompt, request, generations))
        return generations

    async def embed(self, model: "LoadedModel", request: EmbeddingRequest) -> RunningGeneration:
        """Queue texts that become vectors. Raises InvalidRequest or PromptTooLong."""
        generation = RunningGeneration(self._cancel)
        model.check_dimensions(request)
        _refuse_many(model.prompts.fewest_tokens([part for parts in request.inputs for part in parts]))
        inputs: list[list[int]] = []
        for start in range(0, len(request.inputs), _FEW):  # so that other prompts come in between
            inputs += await self.off_loop(model.inputs, request.inputs[start : start + _FEW])
            _refuse_many(sum(map(len, inputs)))
        embedding = await self.off_loop(model.embedding, request, inputs, generation)
        self._commands.put(partial(self._queue, model, partial(model.scheduler.embed, embedding), [generation]))
        return generation

    def _cancel(self, generation: RunningGeneration) -> None:
        self._commands.put(partial(self._on_cancel, generation))

    def _close_reasoning(self, generation: RunningGeneration) -> None:
        self._commands.put(partial(self._on_close_reasoning, generation))

    # On the engine thread.

    def _run(self) -> None:
        self._import()
        while not self._stopped:
            self._obey()
            self._loads = [load for load in self._loads if next(load, _DONE) is not _DONE]
            if (scheduler := self._turns.next(self._runners)) is not None:
                self._step(scheduler)
            self._free_retired()
            self.meter.running = sum(scheduler.running for scheduler in self._runners)
            self.meter.waiting = sum(scheduler.waiting for scheduler in self._runners)
            self._outbox.send()
        for scheduler in self._runners:
            scheduler.fail(Unavailable("The server is shutting down", code="shutting_down"))
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

    def _obey(self) -> None:
        busy = bool(self._loads) or any(scheduler.busy for scheduler in self._runners)
        try:
            while True:
                self._do(self._commands.get(block=not busy))
                busy = True
        except Empty:
            return

    def _do(self, command: Command) -> None:
        try:
            command()
        except Exception:  # the thread outlives whatever a command runs into
            log.exception("engine command failed")

    def _step(self, scheduler: "Scheduler") -> None:
        self._at_work, self._step_began = scheduler, time.monotonic()
        try:
            if scheduler.busy:
                scheduler.step()
        except Exception:
            log.exception("engine step failed")
            scheduler.fail(ServerError("The engine failed while computing this answer", code="engine_error"))
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

    def _on_load(self, folder: ModelFolder, progress: Callable[[float], None], promise: "_Promise") -> None:
        if self._unusable is not None:
            promise.refuse(self._unusable)
        else:
            self._loads.append(self._loading(folder, progress, promise))

    def _loading(self, folder: ModelFolder, progress: Callable[[float], None], promise: "_Promise") -> Iterator[None]:
        from app.services.engine.loaded_model import assemble
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
                if not promise.wanted:
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
            promise.keep(loaded)
        except AppError as error:
            promise.refuse(error)
        except Exception:
            log.exception("load failed", folder=folder.path.name)
            promise.refuse(LoadFailed(f"{folder.path.name}: the model could not be loaded; the log says more"))

    def _on_unload(self, scheduler: "Scheduler", now: bool, promise: "_Promise | None") -> None:
        scheduler.retired = True
        if now:
            scheduler.fail(Unavailable("The model was unloaded while it answered", code="model_unloaded"))
        self._free_retired()
        if promise is not None:
            promise.keep(None)

    def _on_submit(
        self, model: "LoadedModel", prompt: "Prompt", request: GenerationRequest, generations: list[RunningGeneration]
    ) -> None:
        self._queue(model, lambda: model.scheduler.submit(model.rows(prompt, request, generations)), generations)

    def _queue(self, model: "LoadedModel", queue: Callable[[], None], generations: list[RunningGeneration]) -> None:
        error: AppError = Unavailable("The model was unloaded", code="model_unloaded")
        if not model.scheduler.retired:
            try:
                queue()
            except Exception:
                log.exception("request could not be queued")
                error = ServerError("The engine failed before it began this answer", code="engine_error")
            else:
                return
        for generation in generations:
            self._outbox.put(generation, [error])

    def _on_cancel(self, generation: RunningGeneration) -> None:
        for scheduler in self._runners:
            scheduler.cancel(generation)

    def _on_close_reasoning(self, generation: RunningGeneration) -> None:
        for scheduler in self._runners:
            scheduler.close_reasoning(generation)

    def _on_work(self, work: Callable[[], object], promise: "_Promise") -> None:
        try:
            promise.keep(work())
        except AppError as error:
            promise.refuse(error)
        except Exception:
            log.exception("engine command failed")
            promise.refuse(ServerError())

    def _on_stop(self) -> None:
        self._stopped = True


class _Promise:
    """A future of the event loop, to be settled from another thread; what comes too late goes to `unwanted`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[Any]",
        unwanted: Callable[[Any], None] = lambda value: None,
    ) -> None:
        self._loop = loop
        self._future = future
        self._unwanted = unwanted

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits."""
        return not self._future.done()

    def keep(self, value: object) -> None:
        self._loop.call_soon_threadsafe(self._keep, value)

    def _keep(self, value: object) -> None:
        if self.wanted:
            self._future.set_result(value)
        else:
            self._unwanted(value)

    def refuse(self, error: Exception) -> None:
        self._loop.call_soon_threadsafe(lambda: self._future.set_exception(error) if self.wanted else None)


def _refuse_many(tokens: int) -> None:
    if tokens > _MOST_EMBEDDED:
        raise UnprocessableBody(
            f"input: more than {_MOST_EMBEDDED} tokens in one request; send fewer at a time", param="input"
        )
