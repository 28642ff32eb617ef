"""Starting, and doing nothing: what a server costs before anybody asks it anything."""

import asyncio

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.processes import cpu_seconds, resident
from benchmarks.server import another
from benchmarks.target import Target
from benchmarks.workload import SERVERS, Scale, Values, Workload, server_of

HEALTH = Measure("health_seconds", "start to /health", "s", False)
READY = Measure("ready_seconds", "start to first answer", "s", False)
IDLE = Measure("idle_cpu_percent", "idle CPU, of a core", "%", False)
MEMORY = Measure("resident_memory", "resident memory, idle", "MiB", False)

_AFTERWARDS = 2.0  # seconds: what follows the first answer is not idling


def start(scale: Scale) -> Workload:
    """A server of its own, started and left alone for a while."""

    async def run(target: Target) -> Values:
        async with another(server_of(target)) as server:
            health, ready = await server.health(), await server.ready()
            await asyncio.sleep(min(_AFTERWARDS, scale.idle_seconds))
            before = cpu_seconds(server.process)
            await asyncio.sleep(scale.idle_seconds)
            idle = 100 * (cpu_seconds(server.process) - before) / scale.idle_seconds
            memory = resident(server.process)
        return {HEALTH.name: health, READY.name: ready, IDLE.name: idle, MEMORY.name: memory}

    models = {names.DEMO: SERVERS, names.REAL: (names.OURS, names.PEER_WITH_BLAS, names.LLAMA_SERVER)}
    return Workload("start", "start, then idle", (HEALTH, READY, IDLE, MEMORY), models, run)
