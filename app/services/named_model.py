"""One model at a time, and another in its place when a request names it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from app.services.errors import (
    AppError,
    LoadFailed,
    ModelNotLoaded,
    ModelUnloaded,
    NothingLoaded,
    QueueFull,
    ShuttingDown,
)
from app.services.served_model import ServedModel
from app.services.session import Session
from app.services.single_model import SingleModel
from app.services.tiles import lookup
from app.services.tiles.daemon import Daemon
from app.services.turn import Turn

log = structlog.get_logger()


class NamedModel(SingleModel):
    """A `SingleModel` whose requests get the model that they name, and that which is loaded where they name none.

    Models take turns in the order in which they were first asked for. A turn begins once nobody uses the model before:
    no answer is interrupted, and who comes while others wait for their turn waits behind them. Its methods are for the
    event loop.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._daemon = Daemon(self._settings.daemon_url)
        self._turns: deque[Turn] = deque()  # the first is under way
        self._turns_task: asyncio.Task[None] | None = None
        self._closing: AppError | None = None

    def find(self, name: str | None = None) -> ServedModel:
        """Give the model, if it is the one that is named, or the one beside it. Raises AppError."""
        name = self._settings.presets.model(name)
        served = super().find(name)
        if not self._answers_to(name):
            raise ModelNotLoaded
        return served

    @asynccontextmanager
    async def using(self, name: str | None, *, autoload: bool = True) -> AsyncIterator[ServedModel]:
        """Hold a model for as long as this lasts; it is loaded first, if need be and allowed. Raises AppError."""
        self._require_work()
        name = self._settings.presets.model(name)
        if self._is_beside(name):
            yield self.find(name)
            return
        served = self._hold(name) or await self._wait(name, autoload=autoload)
        try:
            yield served
        finally:
            served.release()

    def must_load(self, name: str | None) -> bool:
        """Whether a request for this model waits for its turn."""
        name = self._settings.presets.model(name)
        return not self._is_beside(name) and (bool(self._turns) or not self._answers_to(name))

    def refuse_autoload(self, name: str | None) -> None:
        """Raise ModelNotLoaded if a request for this model would load it."""
        if not self._answers_to(self._settings.presets.model(name)):
            raise ModelNotLoaded

    def close(self, error: AppError) -> None:
        """Load nothing any more; those who wait get the error."""
        self._closing = error
        for turn in self._turns:
            turn.fail(error)
        if self._turns_task is not None:
            self._turns_task.cancel()

    def _is_beside(self, name: str | None) -> bool:
        """Whether a request names the model of --embedding-model."""
        return self._beside is not None and self._beside.answers_to(name)

    def _answers_to(self, name: str | None) -> bool:
        if self._is_beside(name):
            return True
        served = self._served
        if served is None:
            return False
        return not name or name in served.names or (self.session is not None and name == self.session.model)

    def _hold(self, name: str | None) -> ServedModel | None:
        """Hold the model, if it is the right one and nobody waits for another."""
        served = self._served
        if served is None or self._turns or not self._answers_to(name):
            return None
        served.hold()
        return served

    async def _wait(self, name: str | None, *, autoload: bool) -> ServedModel:
        session, path = await self._locate(name, autoload=autoload)
        if self._closing is not None:
            raise ShuttingDown
        served = self._served
        if served is not None and served.facts.path == path and name:
            served.names.add(name)
            if (same := self._hold(name)) is not None:
                return same
        if (waiting := sum(map(len, self._turns))) >= self._settings.max_queue:
            raise QueueFull(waiting)
        return await self._turn(session, path).wait()

    async def _locate(self, name: str | None, *, autoload: bool) -> tuple[Session, Path]:
        """Give the session and the folder of a model. Raises AppError."""
        if not self._answers_to(name):
            if not name:
                self._require_no_load()
                raise NothingLoaded
            if not autoload:
                raise ModelNotLoaded
            folder = await asyncio.to_thread(lookup.find, name, self._daemon)
            return self._session_for(name, folder.path), folder.path
        served = self._served
        assert served is not None
        last = self.session or Session(served.facts.id)
        return replace(last, model_cache_path=last.model_cache_path or str(served.facts.path)), served.facts.path

    def _session_for(self, name: str, path: Path) -> Session:
        """Give the session of a model that a request names, which is otherwise the last one."""
        settings = self._settings
        memory, prompt = settings.bootstrap_memory_path or "", settings.bootstrap_system_prompt or ""
        last = self.session or Session(name, memory_path=memory, system_prompt=prompt)
        return replace(last, model=name, model_cache_path=str(path))

    def _turn(self, session: Session, path: Path) -> Turn:
        """Give the turn of a model, a new one at the end unless it has one."""
        turn = next((turn for turn in self._turns if turn.path == path), None)
        if turn is None:
            turn = Turn(session, path)
            self._turns.append(turn)
        if self._turns_task is None:
            self._turns_task = asyncio.create_task(self._take_turns())
        return turn

    async def _take_turns(self) -> None:
        try:
            while self._turns:
                turn = self._turns[0]
                try:
                    turn.serve(await self._take(turn))
                except AppError as error:
                    turn.fail(error)
                except Exception:
                    log.exception("load failed", model=turn.session.model)
                    turn.fail(LoadFailed(f"{turn.session.model}: the model could not be loaded; the log says more"))
                self._turns.popleft()
        finally:
            self._turns_task = None

    async def _take(self, turn: Turn) -> ServedModel:
        """Load the model of a turn once the one before is idle. Raises AppError."""
        async with self._one_at_a_time:
            pass  # a load that is under way may be of this model
        while (served := self._served) is not None and served.facts.path != turn.path and served.busy:
            await self._wait_idle(served, turn)
            if turn.abandoned.is_set():
                raise ModelNotLoaded  # nobody hears it
        if served is None or served.facts.path != turn.path:
            await self._start_session(turn.session)
        if self._served is None:
            raise ModelUnloaded
        return self._served

    async def _wait_idle(self, served: ServedModel, turn: Turn) -> None:
        """Wait until a model is idle, or nobody needs its place any more. Answers that nobody reads end at once."""
        served.need_readers(ModelUnloaded())
        ends = [asyncio.ensure_future(served.wait_idle()), asyncio.ensure_future(turn.abandoned.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
            if turn.abandoned.is_set():
                served.need_readers(None)
