"""Starting, and doing nothing: what a server costs before anybody asks it anything."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.measure import Goal, Measure, Result, Series
from benchmarks.model import Model
from benchmarks.server import OURS, PEER, Recipe, Server

NAME, MODEL = "start", "tiny"
TITLE = "start, then idle"
HEALTH = Measure("health_seconds", "start to /health", "s", False)
READY = Measure("ready_seconds", "start to first answer", "s", False)
IDLE = Measure("idle_cpu_percent", "idle CPU, of a core", "%", False)
MEMORY = Measure("resident_memory", "resident memory, idle", "MiB", False)
MEASURES = (HEALTH, READY, IDLE, MEMORY)
GOALS = (Goal(HEALTH.name, 2.0), Goal(IDLE.name, 0.5), Goal(MEMORY.name, 1.0, PEER.name))


async def measure(model: Model, home: Path, repeat: int, idle_seconds: float) -> Result:
    """Start both servers in turn, leave both alone for a while, end them; `repeat` times."""
    rounds = [await _round(model, home, turn, idle_seconds) for turn in range(repeat)]
    series = {
        recipe.name: {kind.name: Series([values[recipe.name][kind.name] for values in rounds]) for kind in MEASURES}
        for recipe in (OURS, PEER)
    }
    return Result(NAME, model.name, series)


async def _round(model: Model, home: Path, turn: int, idle_seconds: float) -> dict[str, dict[str, float]]:
    recipes = [OURS, PEER] if turn % 2 == 0 else [PEER, OURS]
    values: dict[str, dict[str, float]] = {}
    servers: list[Server] = []
    async with AsyncExitStack() as stack:
        for recipe in recipes:
            server = await _started(recipe, model, home, values)
            stack.push_async_callback(server.stop)
            servers.append(server)
        await asyncio.sleep(min(3.0, idle_seconds))  # what follows the first answer is not idling
        before = [_cpu_seconds(server.process) for server in servers]
        await asyncio.sleep(idle_seconds)
        for server, spent in zip(servers, before, strict=True):
            values[server.name][IDLE.name] = 100 * (_cpu_seconds(server.process) - spent) / idle_seconds
            values[server.name][MEMORY.name] = sum(_resident(process) for process in _family(server.process))
    return values


async def _started(recipe: Recipe, model: Model, home: Path, values: dict[str, dict[str, float]]) -> Server:
    server = Server(recipe, model, home)
    try:
        values[server.name] = {HEALTH.name: await server.health(), READY.name: await server.ready()}
    except BaseException:
        await server.stop()
        raise
    return server


def _family(process: Any) -> list[Any]:
    return [process, *process.children(recursive=True)]


def _cpu_seconds(process: Any) -> float:
    return sum(float(each.cpu_times().user + each.cpu_times().system) for each in _family(process))


def _resident(process: Any) -> float:
    return float(process.memory_info().rss) / 2**20
