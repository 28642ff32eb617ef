"""How fast the server has been: tokens of the last minutes, read off the engine's meter while anything is computed."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.services.active_generations import ActiveGenerations
from app.services.engine.scheduler.meter import Meter

SECONDS = 2  # of each interval
INTERVALS = 150  # that are remembered

_Tokens = tuple[int, int]  # of answers and of prompts


class Activity:
    """Tokens a second by interval. It sleeps while nothing is computed. On the event loop."""

    def __init__(self, meter: Meter, active: ActiveGenerations) -> None:
        self._meter = meter
        self._active = active
        self._total: _Tokens = (0, 0)
        self._intervals: dict[int, _Tokens] = {}  # by their number since the machine's clock began

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Look at the meter at the end of each interval in which something is computed."""
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()

    def rates(self) -> list[tuple[float, float]]:
        """Give tokens a second of answers and of prompts for every interval that is over, the last one last."""
        now = _present()
        tokens = (self._intervals.get(now - back, (0, 0)) for back in range(INTERVALS, 0, -1))
        return [(answers / SECONDS, prompts / SECONDS) for answers, prompts in tokens]

    async def _watch(self) -> None:
        while True:
            await self._active.not_empty.wait()
            present = _present()
            await asyncio.sleep((present + 1) * SECONDS - time.monotonic())
            self._note(present)

    def _note(self, interval: int) -> None:
        """Count what has come since the last time for an interval, and forget what is too old."""
        before, self._total = self._total, (self._meter.drawn_tokens, self._meter.prompt_tokens)
        self._intervals[interval] = self._total[0] - before[0], self._total[1] - before[1]
        self._intervals = {
            number: tokens for number, tokens in self._intervals.items() if number > interval - INTERVALS
        }


def _present() -> int:
    return int(time.monotonic() // SECONDS)
