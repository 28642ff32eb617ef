"""Many connections on which nothing happens: what they cost, and what those notice who do ask."""

import asyncio
from statistics import median

from benchmarks import client, names
from benchmarks.measure import Measure
from benchmarks.processes import cpu_seconds, resident
from benchmarks.prompts import fresh
from benchmarks.server import Server, another
from benchmarks.target import Target
from benchmarks.workload import SERVERS, Scale, Values, Workload, server_of

ALONE = Measure("ttft_alone", "TTFT without them", "ms", False)
BESIDE = Measure("ttft_beside", "TTFT beside them", "ms", False)
CPU = Measure("cpu_percent", "CPU, of a core", "%", False)
MEMORY = Measure("memory", "memory for all of them", "MiB", False)
OPEN = Measure("still_open", "of which the server kept", "", True, judged=False)
MEASURES = (ALONE, BESIDE, CPU, MEMORY, OPEN)

_QUESTIONS = 9


def connections(scale: Scale) -> Workload:
    """Half of them have asked for /health and keep their connection, half have not said anything yet."""

    async def run(target: Target) -> Values:
        async with another(server_of(target)) as server:
            await server.ready()
            alone, before = await _first_token(server), resident(server.process)
            idle = [await _idle(server, silent=number % 2 == 0) for number in range(scale.connections)]
            try:
                beside = await _first_token(server)
                spent = cpu_seconds(server.process)
                await asyncio.sleep(scale.idle_seconds / 2)
                spent = cpu_seconds(server.process) - spent
                grown = resident(server.process) - before
                kept = sum(not one.closed.done() for one in idle)
            finally:
                for one in idle:
                    one.close()
        return {
            ALONE.name: alone,
            BESIDE.name: beside,
            CPU.name: 100 * spent / (scale.idle_seconds / 2),
            MEMORY.name: grown,
            OPEN.name: kept,
        }

    title = f"{scale.connections} idle connections"
    return Workload("connections", title, MEASURES, {names.DEMO: SERVERS}, run)


async def _idle(server: Server, *, silent: bool) -> client.Exchange:
    if silent:
        return await client.silent(server.port)
    asked = await client.opened(server.port, "GET", "/health", keep=True)
    await asked.heard(1)
    return asked


async def _first_token(server: Server) -> float:
    replies = [await server.chat(fresh("Hello"), 2) for _ in range(_QUESTIONS)]
    return 1000 * median(reply.time_to_first_token for reply in replies)
