"""Where the agent's code runs: Monty, a Python interpreter for untrusted code, in a process of its own for each run.

The code sees the functions it is given and nothing else: no files, network, processes or environment. The functions run
on our side, one call at a time, so that whatever the code does, it is done by them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from pydantic_monty import (
    AsyncFunctionSnapshot,
    AsyncMonty,
    AsyncMontySession,
    AsyncNameLookupSnapshot,
    CollectString,
    MontyComplete,
    MontyCrashedError,
    MontyError,
    MontyRuntimeError,
    MontySyntaxError,
    ResourceLimits,
)

from app.services.memory.outcome import MOST_SHOWN, Outcome

log = structlog.get_logger()

Call = Callable[[str, Sequence[Any], Mapping[str, Any]], Awaitable[object]]

_MOST_CODE = 256 * 1024  # characters
_MOST_PRINTED = 2**20  # bytes; what is printed is not shown to anybody

# It runs before the agent's code and keeps what it needs in defaults, because agents like to call a variable `list`.
_PRELUDE = """
_tiles_names = locals

def _tiles_shown(names, most, own, repr=repr, type=type, len=len, id=id, set=set,
                 plain=(type(None), bool, int, float, complex, str, bytes), rows=(list, tuple, set, frozenset),
                 dict=dict, Exception=Exception):
    def is_plain(value):
        waiting, seen = [value], set()
        while waiting:
            value = waiting.pop()
            kind = type(value)
            if kind in plain:
                continue
            if kind is dict:
                inner = [part for pair in value.items() for part in pair]
            elif kind in rows:
                inner = [part for part in value]
            else:
                return False
            if id(value) not in seen:
                seen.add(id(value))
                waiting.extend(inner)
        return True

    text, length = '{', 1
    for name, value in names.items():
        if name in own:
            continue
        try:
            shown = repr(value)
            if len(shown) <= most and not is_plain(value):
                shown = repr(shown)
        except Exception:
            shown = repr('<' + type(value).__name__ + ' that cannot be shown>')
        shown = ('' if length == 1 else ', ') + repr(name) + ': ' + shown
        length += len(shown)
        if len(text) < most:
            text += shown[:most]
    return [text[:most] if length >= most else text + '}', length + 1]
"""
_OWN = ("_tiles_names", "_tiles_shown")


class Sandbox:
    """Runs code, one run at a time. For one event loop."""

    def __init__(self, functions: Sequence[str], *, seconds: float = 20.0, memory: int = 64 * 2**20) -> None:
        self._functions = {name: _stub(name) for name in functions}
        self._seconds = seconds
        # The interpreter stops itself a little earlier than it is killed, so that there is time to show the variables.
        self._limits = ResourceLimits(
            max_feed_duration_secs=seconds * 0.9,
            max_memory=memory,
            max_recursion_depth=200,
            max_suspensions=20_000,
        )
        self._pool: AsyncMonty | None = None

    async def run(self, code: str, call: Call) -> Outcome:
        """Run code; its calls of the functions go to `call`. Never raises for what the code does.

        Where the interpreter ended with the code, the outcome's error says that its variables are lost.
        """
        if len(code) > _MOST_CODE:
            return Outcome(error=f"SyntaxError: code has at most {_MOST_CODE} characters")
        try:
            async with asyncio.timeout(self._seconds):
                return await self._run(code, call)
        except TimeoutError:  # the process is killed by now
            return _lost(f"TimeoutError: the code ran longer than {self._seconds:g} s")
        except MontyCrashedError:
            log.warning("the interpreter of the memory sandbox ended")
            return _lost("RuntimeError: the interpreter ended")
        except MontyError as error:
            return Outcome(error=_words(error))
        except Exception as error:  # in its words there may be some of a note
            log.error("the memory sandbox failed", kind=type(error).__name__)
            return _lost("RuntimeError: the interpreter failed")

    async def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            await self._pool.__aexit__(None, None, None)
            self._pool = None

    async def _run(self, code: str, call: Call) -> Outcome:
        pool = await self._started()
        async with pool.checkout(
            limits=self._limits, os_policy={"sleep": "zero"}, assert_message_annotations=False
        ) as session:
            await session.feed_run(_PRELUDE)
            try:
                await self._feed(session, code, call)
            except (MontyRuntimeError, MontySyntaxError) as error:
                return await self._shown(session, _words(error))
            return await self._shown(session, None)

    async def _started(self) -> AsyncMonty:
        if self._pool is None:
            # A worker serves one run, so that no run finds what another left in its memory.
            pool = AsyncMonty(min_processes=0, max_processes=1, max_checkouts_per_worker=1)
            self._pool = await pool.__aenter__()
        return self._pool

    async def _feed(self, session: AsyncMontySession, code: str, call: Call) -> None:
        snapshot = await session.feed_start(code, print_callback=CollectString(_MOST_PRINTED))
        while not isinstance(snapshot, MontyComplete):
            if isinstance(snapshot, AsyncNameLookupSnapshot):
                function = self._functions.get(snapshot.variable_name)
                snapshot = await (snapshot.resume(value=function) if function else snapshot.resume())
            elif not isinstance(snapshot, AsyncFunctionSnapshot):
                snapshot = await snapshot.resume_auto()
            elif snapshot.is_os_function:
                snapshot = await snapshot.resume_not_handled()
            else:
                snapshot = await self._answer(snapshot, call)

    async def _answer(self, snapshot: AsyncFunctionSnapshot, call: Call) -> Any:
        name = str(snapshot.function_name)
        if name not in self._functions:
            return await snapshot.resume({"exception": NameError(f"name '{name}' is not defined")})
        try:
            value = await call(name, snapshot.args, snapshot.kwargs)
        except (OSError, ValueError, TypeError) as error:
            return await snapshot.resume({"exception": error})
        except Exception:
            log.exception("a memory function failed", function=name)
            return await snapshot.resume({"exception": RuntimeError(f"{name} failed")})
        return await snapshot.resume({"return_value": value})

    async def _shown(self, session: AsyncMontySession, error: str | None) -> Outcome:
        """Have the variables shown in the sandbox: their repr may be any length and is cut there."""
        try:
            shown = await session.feed_run(f"_tiles_shown(_tiles_names(), {MOST_SHOWN}, {_OWN})")
        except MontyError as late:
            return Outcome(error=error or f"the variables cannot be shown: {_words(late)}")
        except RuntimeError:  # the worker had to be ended: it took memory in larger pieces than it can count
            return _lost(error or "RuntimeError: the interpreter ended")
        match shown:
            case [str() as text, int() as length] if len(text) <= MOST_SHOWN + 1:
                return Outcome(text, length, error)
        return Outcome(error=error or "the variables cannot be shown")


def _lost(error: str) -> Outcome:
    return Outcome(error=f"{error}; the variables are lost")


def _words(error: MontyError) -> str:
    if isinstance(error, MontySyntaxError) and (frames := error.traceback()):
        return f"{error.display('type-msg')} (line {frames[-1].line})"
    if isinstance(error, MontyRuntimeError | MontySyntaxError):
        return error.display("type-msg")
    return str(error)


def _stub(name: str) -> Callable[[], None]:
    """Make what stands for a function of ours in the sandbox, where only its name counts."""

    def stub() -> None: ...

    stub.__name__ = name
    return stub
