"""All workloads, in the order in which they are measured and told."""

from benchmarks import names
from benchmarks.connections import connections
from benchmarks.conversations import agent, chat
from benchmarks.copying import copying
from benchmarks.features import json_schema, logprobs
from benchmarks.forced import forced
from benchmarks.group import group
from benchmarks.helpers import helpers
from benchmarks.long_prompt import long_prompt
from benchmarks.restart import restart
from benchmarks.start import start
from benchmarks.throughput import one_stream, short, streams
from benchmarks.workload import AS_THEY_COME, EVERYBODY, FULL, WITH_LLAMA, Scale, Workload


def catalogue(scale: Scale) -> tuple[Workload, ...]:
    """Give the workloads at a scale."""
    return (
        one_stream(scale),
        streams(scale, 4, {names.DEMO: AS_THEY_COME}),
        streams(scale, 8, {names.REAL: WITH_LLAMA}),
        streams(scale, 16, {names.DEMO: AS_THEY_COME}),
        streams(scale, 32, {names.DEMO: EVERYBODY, names.LARGER: AS_THEY_COME}),
        short(scale),
        chat(scale),
        agent(scale, edited=False),
        agent(scale, edited=True),
        helpers(scale),
        long_prompt(scale),
        json_schema(scale),
        forced(scale),
        copying(scale),
        logprobs(scale),
        restart(scale),
        connections(scale),
        group(scale),
        start(scale),
    )


WORKLOADS = {workload.name: workload for workload in catalogue(FULL)}
