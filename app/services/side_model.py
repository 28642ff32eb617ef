"""The model that makes vectors or ranks documents beside the one that answers (`--embedding-model`)."""

import asyncio
from collections.abc import Callable

import structlog

from app.services import catalog
from app.services.active_generations import ActiveGenerations
from app.services.errors import AppError, LoadFailed, ModelLoading
from app.services.inference import Engine
from app.services.model_folder import ModelFolder, Task
from app.services.model_state import Loading, ModelState
from app.services.served_model import ServedModel
from app.settings import Settings

log = structlog.get_logger()


class SideModel:
    """Loaded once, at the start, and never replaced. On the event loop."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        engine: Engine,
        active: ActiveGenerations,
        on_progress: Callable[[str, float], None],
    ) -> None:
        self._name = name  # as the settings have it: an id or a path
        self._settings = settings
        self._engine = engine
        self._active = active
        self._on_progress = on_progress
        self._loading = Loading(name)
        self._folder: ModelFolder | None = None
        self._served: ServedModel | None = None
        self._error: AppError | None = None  # why it could not be loaded

    @property
    def id(self) -> str:
        """What requests call it."""
        return self._folder.id if self._folder else self._name

    def answers_to(self, name: str | None) -> bool:
        """Whether a request names it."""
        return name in {self.id, self._name}

    def does(self, task: Task) -> bool:
        """Whether a request of a kind that names no model is for it."""
        if self._folder is None or not self._folder.is_encoder:
            return task == "embedding"
        return self._folder.task == task

    async def load(self) -> None:
        """Load it. What goes wrong is kept for those who ask for it."""
        try:
            self._folder = folder = await asyncio.to_thread(catalog.resolve, self._name)
            model = await self._engine.load(folder, lambda progress: self._on_progress(folder.id, progress))
        except AppError as error:
            log.warning("load failed", source="embedding-model", error=error.message)
            self._error = LoadFailed(f"The embedding model: {error.message}")
            return
        self._served = ServedModel(model, self._settings, self._active, lambda: "")
        log.info("model loaded", model=folder.id, type=folder.model_type, task=folder.task)

    def get(self) -> ServedModel:
        """Give the model. Raises ModelLoading or LoadFailed while it cannot answer."""
        if self._error is not None:
            raise self._error
        if self._served is None:
            raise ModelLoading(retry_after=self._loading.seconds_left())
        return self._served

    def states(self) -> list[ModelState]:
        """Describe it, if it is loaded."""
        return [ModelState.of(self._served.facts)] if self._served else []
