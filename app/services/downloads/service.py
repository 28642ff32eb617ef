"""The downloads of a server: one at a time, each followed on /models/sse; and models that are removed again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from app.services import hub
from app.services.downloads import client, transfer
from app.services.downloads.client import Match
from app.services.downloads.download import Download
from app.services.downloads.plan import split
from app.services.downloads.removal import Removal
from app.services.errors import (
    AppError,
    DeletionNotConfirmed,
    DownloadFailed,
    DownloadsForbidden,
    ModelInUse,
    QueueFull,
)
from app.services.model_events import DownloadChange, DownloadKind, ModelChange, ModelEvents
from app.services.model_state import FileProgress, ModelState, Status
from app.services.models import Models
from app.settings import Settings

log = structlog.get_logger()
T = TypeVar("T")

_MAX_QUEUED = 16
_MAX_FAILED = 8  # that are still shown
_SECONDS = 0.5  # between two events of progress
_HUB_SECONDS = 30.0  # for an answer of the hub
_AT_REST = {Status.UNLOADED, Status.FAILED}


class Downloads:
    """Its methods are for the event loop. All raise DownloadsForbidden where models may not be changed through HTTP."""

    def __init__(
        self, settings: Settings, models: Models, events: ModelEvents, on_change: Callable[[], Awaitable[object]]
    ) -> None:
        self.cache = settings.models_dir or hub.hugging_face_cache()  # hub folder that models come into
        self._settings = settings
        self._models = models
        self._events = events
        self._on_change = on_change  # called when there are other models than before
        self.all: list[Download] = []  # under way, waiting, or failed lately
        self._hub_threads = ThreadPoolExecutor(2, "hub")
        self._one_at_a_time = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """End all downloads with the server; what is there of them stays."""
        try:
            yield
        finally:
            for download in self.all:
                if download.task is not None:
                    download.task.cancel()

    @property
    def refusal(self) -> str | None:
        """Why models may not be changed through HTTP: --no-downloads, or anybody could send requests."""
        if self._settings.no_downloads:
            return "This server was started with --no-downloads"
        if self._settings.beyond_loopback and not self._settings.api_key:
            return "Beyond this machine, models are downloaded and deleted only with --api-key"
        return None

    def require_allowed(self) -> None:
        """Raise DownloadsForbidden where models may not be changed through HTTP."""
        if (refusal := self.refusal) is not None:
            raise DownloadsForbidden(refusal)

    def among(self, states: list[ModelState]) -> list[ModelState]:
        """Put what is downloaded among the models, in the place of what there is of it."""
        rows = [*self.without(states), *(_state(one, self.cache) for one in self._active)]
        return sorted(rows, key=lambda state: state.id)

    def without(self, states: list[ModelState]) -> list[ModelState]:
        """Leave out what there is of models that are downloaded."""
        hidden = {name for one in self._active for name in (*one.names, one.plan.repo, one.plan.model)}
        return [state for state in states if state.id not in hidden]

    @property
    def _active(self) -> list[Download]:
        return [download for download in self.all if download.status != "failed"]

    async def search(self, text: str, limit: int) -> list[Match]:
        """Look for models on the hub. Raises DownloadFailed."""
        self.require_allowed()
        return await self._ask_hub(client.search, text, limit)

    async def begin(self, name: str) -> str:
        """Begin to download a model, once it is clear that this can be done. Gives the id that it will have.

        Raises InvalidRequest, ModelNotFound, DownloadForbidden, DownloadFailed or DiskFull.
        """
        self.require_allowed()
        repo, quant = split(name)
        name = f"{repo}:{quant}" if quant else repo
        if (download := self._find(name)) is not None and not download.is_over:
            return download.plan.model
        plan = await self._ask_hub(client.look_up, name)
        await asyncio.to_thread(transfer.check_disk, plan, self.cache)
        for other in self._active:
            if other.plan.model == plan.model and not other.is_over:  # by another name, or of a request meanwhile
                other.names.append(name)
                return plan.model
        if (waiting := sum(not one.is_over for one in self.all)) >= _MAX_QUEUED:
            raise QueueFull(waiting)
        self.all = [one for one in self.all if one.plan.model != plan.model]
        download = Download(name, plan, self.cache)
        self.all.append(download)
        download.task = asyncio.create_task(self._run(download))
        log.info("download begins", model=plan.model, bytes=plan.total)
        return plan.model

    async def cancel(self, name: str) -> bool:
        """Stop a download; what is there of it stays, so that it can go on later. False if there is none."""
        download = self._find(name)
        if download is None or download.task is None or download.is_over:
            return False
        self.require_allowed()
        download.task.cancel()
        await asyncio.wait({download.task})
        return True

    async def remove(self, name: str, *, body: str | None, header: str | None) -> None:
        """Delete a model of the folder that downloads come into. A download under way is only stopped.

        Raises DeletionNotConfirmed unless its name came twice, ModelNotFound for what was not downloaded, ModelInUse.
        """
        self.require_allowed()
        is_confirmed = name == body == header
        if (download := self._find(name)) is not None:
            await self.cancel(name)
            self._forget(download)
        if not is_confirmed:
            if download is None:
                raise DeletionNotConfirmed
            return
        if download is not None:
            await asyncio.to_thread(download.plan.forget, self.cache)
        removal = await asyncio.to_thread(Removal, name, self.cache)
        await self._require_unused(name, removal)
        try:
            size = await asyncio.to_thread(removal.run)
        except OSError as error:
            raise DownloadFailed(f"{name} could not be deleted: {error.strerror}") from error
        log.info("model deleted", model=name, bytes=size)
        await self._on_change()
        state = ModelState(name, self.cache, 0, Status.UNLOADED)
        self._events.publish(ModelChange("model_goes", state))

    async def _require_unused(self, name: str, removal: Removal) -> None:
        """Raise ModelInUse for a model that is loaded, or whose repo is being downloaded."""
        for state in await self._models.states():
            if state.status not in _AT_REST and removal.takes(state.path):
                raise ModelInUse(f"{state.id} is loaded: unload it first")
        for other in (self._settings.draft_model, self._settings.embedding_model):
            if other is not None and other.partition(":")[0] == name.partition(":")[0]:
                raise ModelInUse(f"{other} is the model of --draft-model or --embedding-model")
        for download in self._active:
            if download.plan.repo == name.partition(":")[0]:
                raise ModelInUse(f"{download.plan.model} is being downloaded: stop that first")

    async def _ask_hub(self, question: Callable[..., T], *details: object) -> T:
        """Ask on one of a few threads of their own: a hub that is slow holds up nothing else."""
        answer = asyncio.get_running_loop().run_in_executor(self._hub_threads, partial(question, *details))
        try:
            return await asyncio.wait_for(answer, _HUB_SECONDS)
        except TimeoutError:
            raise DownloadFailed(f"The hub has not answered for {_HUB_SECONDS:.0f} s") from None

    def _find(self, name: str) -> Download | None:
        return next((one for one in self.all if name in one.names), None)

    def _forget(self, download: Download) -> None:
        self.all = [one for one in self.all if one is not download]

    async def _run(self, download: Download) -> None:
        try:
            await download.look()
            async with self._one_at_a_time:
                download.status = "downloading"
                await self._fetch(download)
        except asyncio.CancelledError:
            self._fail(download, DownloadFailed("The download was stopped. The same again continues it."))
            self._forget(download)
        except AppError as error:
            self._fail(download, error)
        except Exception:
            log.exception("download failed", model=download.plan.model)
            self._fail(download, DownloadFailed("The download failed; the log says more"))
        else:
            log.info("download finished", model=download.plan.model)
            self._forget(download)
            await self._on_change()
            self._publish(download, "download_finished")

    async def _fetch(self, download: Download) -> None:
        fetching = asyncio.create_task(download.fetch())
        try:
            while not fetching.done():
                self._publish(download, "download_progress")
                await asyncio.wait({fetching}, timeout=_SECONDS)
                await download.look()
            self._publish(download, "download_progress")
            await fetching
        finally:
            fetching.cancel()
            with suppress(asyncio.CancelledError, AppError):
                await fetching

    def _fail(self, download: Download, error: AppError) -> None:
        log.warning("download failed", model=download.plan.model, error=error.message)
        download.status, download.error = "failed", error.message
        self._publish(download, "download_failed")
        failed = [one for one in self.all if one.status == "failed"]
        self.all = [one for one in self.all if one not in failed[:-_MAX_FAILED]]

    def _publish(self, download: Download, kind: DownloadKind) -> None:
        for name in download.names:
            self._events.publish(DownloadChange(kind, name, _progress(download), download.error))


def _progress(download: Download) -> dict[str, FileProgress]:
    return {file.path: FileProgress(download.present.get(file.path, 0), file.size) for file in download.plan.files}


def _state(download: Download, cache: Path) -> ModelState:
    state = ModelState(download.names[0], download.plan.entry(cache), 0, Status.DOWNLOADING, source="models_dir")
    return replace(state, files=_progress(download))
