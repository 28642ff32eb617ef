"""Loads and unloads the models of a router: one load at a time, and as many models as there is memory for."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from app.services import catalog, free_memory
from app.services.active_generations import ActiveGenerations
from app.services.errors import AppError, LoadCancelled, LoadFailed, ModelUnloaded
from app.services.inference import Engine
from app.services.model_folder import ModelFolder
from app.services.model_state import Status
from app.services.presets import Preset
from app.services.routed_model import RoutedModel
from app.services.served_model import GRACE_PERIOD, ServedModel
from app.settings import Settings

log = structlog.get_logger()


class ModelLoader:
    """Its methods are for the event loop.

    Models load one after the other, in the order in which they were requested. Before one loads, the least recently
    used of the others are unloaded until there is memory for it. One that answers is never interrupted: when all do,
    the first that becomes idle is unloaded, and so that one does, the least recently used takes no more requests.
    """

    def __init__(
        self,
        models: Mapping[str, RoutedModel],
        settings: Settings,
        engine: Engine,
        active: ActiveGenerations,
        on_progress: Callable[[str, float], None],
        system_prompt: Callable[[str], str],
    ) -> None:
        self.closed = False
        self._models = models  # by id; all of the router
        self._settings = settings
        self._engine = engine
        self._active = active
        self._on_progress = on_progress  # called with a model's id and 0 to 1
        self._system_prompt = system_prompt  # of a model, by its id
        self._one_load_at_a_time = asyncio.Lock()

    def ensure_loading(self, model: RoutedModel) -> None:
        """Begin to load a model, unless it is loaded or loading. One that is being unloaded is loaded after that."""
        if model.is_unloaded and not model.is_replaced and not self.closed:
            task = model.begin_load(partial(self._load, model))
            task.add_done_callback(partial(self._end_cancelled_load, model))

    def unload(self, model: RoutedModel) -> "asyncio.Task[None]":
        """Begin to unload a model that is loaded. Its answers may take a while longer, if they are read."""
        if model.status is not Status.UNLOADING:
            model.unload(partial(self._unload, model), GRACE_PERIOD)
        assert model.task is not None
        return model.task

    def close(self, error: AppError) -> None:
        """Load nothing any more; those who wait get the error."""
        self.closed = True
        for model in self._models.values():
            model.close(error)

    async def _load(self, model: RoutedModel) -> None:
        try:
            folder = await asyncio.to_thread(catalog.inspect, model.path, model.id)
            async with self._one_load_at_a_time:
                await self._make_room(folder)
                served = await self._read(model, folder)
        except asyncio.CancelledError:
            self._give_up(model, LoadCancelled())
        except LoadFailed as error:
            log.warning("load failed", model=model.id, error=error.message)
            self._give_up(model, error)
        except Exception:
            log.exception("load failed", model=model.id)
            self._give_up(model, LoadFailed(f"{model.id}: the model could not be loaded; the log says more"))
        else:
            log.info("model loaded", model=model.id, type=served.facts.model_type)
            model.loaded(served)
            if not served.busy:
                self._mark_idle(model, served)

    def _end_cancelled_load(self, model: RoutedModel, task: "asyncio.Task[None]") -> None:
        """Clean up after a task that was cancelled before its first step, which it cannot do itself."""
        if model.task is task:
            self._give_up(model, LoadCancelled())

    def _give_up(self, model: RoutedModel, error: AppError) -> None:
        self._on_progress(model.id, 1.0)
        model.load_failed(error)

    async def _read(self, model: RoutedModel, folder: ModelFolder) -> ServedModel:
        loop = asyncio.get_running_loop()

        def progress(read: float) -> None:
            loop.call_soon_threadsafe(self._note_progress, model, read)

        model.note_progress(0.0)
        self._on_progress(model.id, 0.0)
        loaded = await self._engine.load(self._settings.presets.limited(folder), progress)
        prompt = partial(self._system_prompt, model.id)
        served = ServedModel(
            loaded, self._settings, self._active, prompt, on_idle=lambda: self._mark_idle(model, served)
        )
        return served

    def _note_progress(self, model: RoutedModel, read: float) -> None:
        if model.status is Status.LOADING:
            self._on_progress(model.id, read)
            model.note_progress(read)

    async def _make_room(self, folder: ModelFolder) -> None:
        """Unload others until a model may be loaded beside those that are left."""
        while others := [model for model in self._models.values() if model.served is not None]:
            if len(others) < self._settings.max_models and free_memory.fits(folder, self._engine.back_end):
                return
            if not (movable := [model for model in others if not self._preset(model).pinned]):
                raise LoadFailed(f"{folder.id}: all models in memory are pinned, and there is no room beside them")
            await self._evict_one(movable)

    def _preset(self, model: RoutedModel) -> Preset:
        return self._settings.presets.of_load(model.id)

    async def _evict_one(self, loaded: Sequence[RoutedModel]) -> None:
        """Wait until a model is unloaded. If another becomes idle first, the next call takes that one."""
        model = min(loaded, key=_eviction_order)
        if model.status is Status.LOADED:
            model.evict(partial(self._unload, model))
        unloading = model.task
        assert unloading is not None
        others = [
            asyncio.ensure_future(other.served.wait_idle()) for other in loaded if other.served and other is not model
        ]
        try:
            await asyncio.wait({unloading, *others}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for idle in others:
                idle.cancel()
            is_busy = model.served is not None and model.served.busy
            stays = is_busy and model.status is Status.EVICTING
            if stays:
                unloading.cancel()  # its memory is not needed any more
        if stays or not is_busy:
            await asyncio.wait({unloading})

    async def _unload(self, model: RoutedModel) -> None:
        """Let a model finish its answers, if they are read, and unload it. To cancel this keeps a model if it can."""
        served = model.served
        assert served is not None
        served.need_readers(ModelUnloaded())
        ends = [asyncio.ensure_future(served.wait_idle()), asyncio.ensure_future(model.grace_over.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if model.status is Status.EVICTING:
                served.need_readers(None)
                model.keep()
            raise
        finally:
            for end in ends:
                end.cancel()
        served.fail_all(ModelUnloaded())
        await served.model.unload(now=True)
        log.info("model unloaded", model=model.id)
        model.unloaded()
        if model.is_wanted:  # by those who came meanwhile
            self.ensure_loading(model)

    def _mark_idle(self, model: RoutedModel, served: ServedModel) -> None:
        if model.served is served:  # a reader may take the end of its answer after another load
            model.mark_idle(self._idle_seconds(model), partial(self._unload_idle, model))

    def _idle_seconds(self, model: RoutedModel) -> float:
        """Seconds without a request after which a model is unloaded; 0 is never."""
        preset = self._preset(model)
        if preset.pinned:
            return 0.0
        own = preset.sleep_idle_seconds
        return self._settings.sleep_idle_seconds if own is None else own

    def _unload_idle(self, model: RoutedModel) -> None:
        if model.ready is not None and not model.ready.busy:
            log.info("model idle", model=model.id, seconds=self._idle_seconds(model))
            self.unload(model)


def _eviction_order(model: RoutedModel) -> tuple[bool, bool, float]:
    """First those that are idle, of these those that are unloaded anyway, then the least recently used."""
    assert model.served is not None
    return model.served.busy, model.status is Status.LOADED, model.last_used
