"""What other threads hand to the engine thread, and how its answers come back to their event loops."""

import asyncio
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

import structlog

from app.services.errors import AppError, ServerError

log = structlog.get_logger()

Command = Callable[[], None]
P = ParamSpec("P")
T = TypeVar("T")


class Reply:
    """Settles a future of an event loop from the engine thread; a result that nobody awaits goes to `discard`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[Any]",
        discard: Callable[[Any], None] = lambda result: None,
    ) -> None:
        self._loop = loop
        self._future = future
        self._discard = discard

    @property
    def is_awaited(self) -> bool:
        """Whether somebody still waits for it."""
        return not self._future.done()

    def send(self, result: object) -> None:
        """Give the result."""
        self._loop.call_soon_threadsafe(self._settle, result)

    def fail(self, error: Exception) -> None:
        """Have the one who waits get an error."""
        self._loop.call_soon_threadsafe(lambda: self._future.set_exception(error) if self.is_awaited else None)

    def _settle(self, result: object) -> None:
        if self.is_awaited:
            self._future.set_result(result)
        else:
            self._discard(result)


class CommandQueue:
    """Commands for the engine thread, which runs them between its steps."""

    def __init__(self, on_failure: Callable[[Exception], object] = lambda error: None) -> None:
        """`on_failure` is called with what a command raises that is no AppError."""
        self._on_failure = on_failure
        self._commands: SimpleQueue[Command] = SimpleQueue()

    def put(self, command: Command) -> None:
        """Have a command run. On any thread."""
        self._commands.put(command)

    async def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have something short run, and give its result. Raises AppError as it does; what else it raises is logged."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        self.put(partial(self._reply, partial(work, *args, **kwargs), Reply(loop, result)))
        return await result

    def run(self, *, wait: bool) -> None:
        """Run the commands that have come, on the engine thread; with `wait` sleep until there is one."""
        try:
            while True:
                self._run(self._commands.get(block=wait))
                wait = False
        except Empty:
            return

    def _run(self, command: Command) -> None:
        try:
            command()
        except Exception as error:  # the thread outlives whatever a command runs into
            self._note(error)

    def _reply(self, work: Callable[[], object], reply: Reply) -> None:
        try:
            reply.send(work())
        except AppError as error:
            reply.fail(error)
        except Exception as error:
            self._note(error)
            reply.fail(ServerError())

    def _note(self, error: Exception) -> None:
        log.exception("engine command failed")
        self._on_failure(error)
