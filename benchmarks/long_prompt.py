"""A long prompt that arrives while others are being answered: what they notice of it."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median, quantiles

from benchmarks import names
from benchmarks.client import Exchange, said_in
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Measure
from benchmarks.prompts import fresh, log_book, user
from benchmarks.target import Target
from benchmarks.workload import OURS_ALONE, SERVERS, Scale, Values, Workload, server_of

BEFORE_P50 = Measure("p50_before", "inter-token p50 before", "ms", False)
BEFORE_P95 = Measure("p95_before", "inter-token p95 before", "ms", False)
DURING_P50 = Measure("p50_during", "inter-token p50 during", "ms", False)
DURING_P95 = Measure("p95_during", "inter-token p95 during", "ms", False)
LONGEST = Measure("longest_during", "longest silence during", "ms", False)
ALLOWED = Measure("p95_allowed", "allowed p95", "ms", False, judged=False)
FIRST = Measure("long_ttft", "TTFT of the long prompt", "ms", False)
MEASURES = (BEFORE_P50, BEFORE_P95, DURING_P50, DURING_P95, LONGEST, ALLOWED, FIRST)

_STREAMS = 8
_SETTLED, _UNDISTURBED = 16, 64  # pieces after which a stream runs, and after which it is disturbed
_ENOUGH = 3000  # tokens, so that no stream ends by itself
_FLOOR = 250.0  # ms that a token may take whatever the model


def long_prompt(scale: Scale) -> Workload:
    """Eight streams, and then somebody with a book."""

    async def run(target: Target) -> Values:
        server = server_of(target)
        book = [log_book(target.model.tokenizer, scale.long_prompt), user("What comes next?")]
        conversations = [fresh(f"write about the number {number * 41}") for number in range(_STREAMS)]
        streams = await asyncio.gather(*(server.begin(messages, _ENOUGH) for messages in conversations))
        try:
            await asyncio.gather(*(stream.heard(_UNDISTURBED) for stream in streams))
            sent = time.perf_counter()
            reply = await server.chat(book, 1)
            # A silence has lasted until the next token.
            await asyncio.gather(*(stream.heard(len(stream.pieces) + 1) for stream in streams))
        finally:
            for stream in streams:
                stream.close()
        spoken = [_moments(stream) for stream in streams]
        values = _values(spoken, sent, reply.times[0])
        return {**values, FIRST.name: 1000 * reply.time_to_first_token}

    title = f"a prompt of {scale.long_prompt:,} tokens beside {_STREAMS} streams"
    models = {names.DEMO: SERVERS, names.LARGER: OURS_ALONE}
    return Workload("long-prompt", title, MEASURES, models, run)


def _moments(stream: Exchange) -> list[float]:
    return [moment for moment, event in stream.events() if any(said_in(choice) for choice in event["choices"])]


def _values(spoken: Sequence[Sequence[float]], sent: float, over: float) -> Values:
    before = [gap for moments in spoken for gap in gaps(moments[_SETTLED:], 0.0, sent) if gap[1] <= sent]
    during = [gap for moments in spoken for gap in gaps(moments, sent, over)]
    if not before or not during:
        raise BenchmarkError("the streams said too little to tell when")
    calm = [1000 * (end - begin) for begin, end in before]
    disturbed = [1000 * (end - begin) for begin, end in during]
    return {
        BEFORE_P50.name: median(calm),
        BEFORE_P95.name: p95(calm),
        DURING_P50.name: median(disturbed),
        DURING_P95.name: p95(disturbed),
        LONGEST.name: max(disturbed),
        ALLOWED.name: max(_FLOOR, 5 * median(calm)),
    }


def gaps(moments: Sequence[float], since: float, until: float) -> Iterator[tuple[float, float]]:
    """Each silence between two moments that lies in a span of time, if only with a part of it."""
    for begin, end in pairwise(moments):
        if begin < until and end > since:
            yield begin, end


def p95(values: Sequence[float]) -> float:
    """The value that one in twenty exceeds."""
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
