"""One model by two processes of this machine, beside one: what it costs that they compute together, and far apart."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks import names, relay
from benchmarks.measure import Measure
from benchmarks.prompts import fresh, manual
from benchmarks.reply import require_length
from benchmarks.server import Recipe, Server
from benchmarks.target import Target
from benchmarks.workload import NOTHING_COPIED, OURS_ALONE, Scale, Values, Workload, server_of

_HERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}
_FAR = {"ssh": "far", "ips": ["127.0.0.1"]}
_PROMPT = 600  # tokens


def _speeds(name: str, title: str) -> tuple[Measure, Measure]:
    return (
        Measure(f"{name}tokens_per_second", f"{title}, tokens/s", "tok/s", True, judged=False),
        Measure(f"{name}ttft", f"{title}, TTFT behind {_PROMPT} tokens", "ms", False, judged=False),
    )


_TOGETHER, _ALONE = _speeds("", "two processes"), _speeds("alone_", "one process")
_APART = {
    0.0001: _speeds("near_", "two, 0.1 ms apart"),
    0.001: _speeds("far_", "two, 1 ms apart"),
}  # by seconds of a one-way trip
_MESSAGES = Measure("messages", "messages of the server's for a token", "", False, judged=False)
_MESSAGE_BYTES = Measure("message_bytes", "bytes of these", "B", False, judged=False)
_RING_BYTES = Measure("ring_bytes", "bytes over the ring for a token, both ways", "B", False, judged=False)


class _Run(NamedTuple):
    """What a server has shown: tokens a second behind the first one, and milliseconds until that of a long prompt."""

    rate: float
    ttft: float
    sent: relay.Counts  # for the first answer, through relays


def group(scale: Scale) -> Workload:
    """Servers of its own: all in one process, a share of every layer in each of two, and these two further apart."""

    async def run(target: Target) -> Values:
        server = server_of(target)
        alone = await _measure(server.recipe, server, scale)
        values = _values(_ALONE, alone) | _values(_TOGETHER, await _together(server, scale))
        for seconds, measures in _APART.items():
            apart = await _together(server, scale, seconds)
            values |= _values(measures, apart) | {
                _MESSAGES.name: apart.sent.messages / scale.tokens,
                _MESSAGE_BYTES.name: apart.sent.message_bytes / scale.tokens,
                _RING_BYTES.name: apart.sent.ring_bytes / scale.tokens,
            }
        return values

    measures = (*_TOGETHER, *_ALONE, *(one for pair in _APART.values() for one in pair))
    title = f"{scale.tokens} tokens by two processes, as tensors"
    of_model = {names.DEMO: OURS_ALONE, names.LARGER: OURS_ALONE}
    return Workload("group", title, (*measures, _MESSAGES, _MESSAGE_BYTES, _RING_BYTES), of_model, run)


def _values(measures: tuple[Measure, Measure], run: _Run) -> Values:
    rate, ttft = measures
    return {rate.name: run.rate, ttft.name: run.ttft}


async def _together(server: Server, scale: Scale, seconds: float | None = None) -> _Run:
    """Measure two processes: side by side, or with so many seconds between them."""
    with tempfile.TemporaryDirectory() as folder:
        hosts, ssh, counts = Path(folder) / "hosts.json", dict[str, str](), None
        if seconds is not None:
            ssh, counts = relay.as_ssh(Path(folder), seconds)
        hosts.write_text(json.dumps([_HERE, _HERE if seconds is None else _FAR]))
        recipe = server.recipe
        flags = ["--hostfile", str(hosts), "--sharding", "tensor"]
        shared = replace(
            recipe,
            command=lambda path, port: [*recipe.command(path, port), *flags],
            environment={**recipe.environment, "OPENBLAS_NUM_THREADS": "1", **ssh},
        )
        return await _measure(shared, server, scale, counts)


async def _measure(recipe: Recipe, server: Server, scale: Scale, counts: Path | None = None) -> _Run:
    with tempfile.TemporaryDirectory() as home:
        one = Server(recipe, server.model, Path(home))
        try:
            await one.ready()
            before = relay.read(counts)
            answer = await one.chat(fresh("tell me a story about a lighthouse"), scale.tokens, NOTHING_COPIED)
            sent = relay.read(counts).since(before)
            rules = manual(server.model.tokenizer, _PROMPT)
            long = await one.chat([rules, *fresh("Do what the rules say.")], 1)
        finally:
            await one.stop()
    require_length([answer], scale.tokens)
    return _Run(answer.decode_tokens_per_second, 1000 * long.time_to_first_token, sent)
