"""One model by two processes of this machine, beside one: what it costs that they compute together."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.prompts import fresh, manual
from benchmarks.reply import require_length
from benchmarks.server import Recipe, Server
from benchmarks.target import Target
from benchmarks.workload import NOTHING_COPIED, OURS_ALONE, Scale, Values, Workload, server_of

_HERE = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"]}
_PROMPT = 600  # tokens

RATE = Measure("tokens_per_second", "two processes, tokens/s", "tok/s", True, judged=False)
ALONE = Measure("alone_tokens_per_second", "one process, tokens/s", "tok/s", True, judged=False)
TTFT = Measure("ttft", f"two processes, TTFT behind {_PROMPT} tokens", "ms", False, judged=False)
ALONE_TTFT = Measure("alone_ttft", f"one process, TTFT behind {_PROMPT} tokens", "ms", False, judged=False)


def group(scale: Scale) -> Workload:
    """A server of its own with a share of every layer in each of two processes, then one with all in one."""

    async def run(target: Target) -> Values:
        server = server_of(target)
        with tempfile.TemporaryDirectory() as folder:
            hosts = Path(folder) / "hosts.json"
            hosts.write_text(json.dumps([_HERE, _HERE]))
            recipe = replace(server.recipe, environment={**server.recipe.environment, "OPENBLAS_NUM_THREADS": "1"})
            flags = ["--hostfile", str(hosts), "--sharding", "tensor"]
            shared = replace(recipe, command=lambda path, port: [*recipe.command(path, port), *flags])
            rate, ttft = await _measure(shared, server, scale)
            alone, alone_ttft = await _measure(recipe, server, scale)
        return {RATE.name: rate, ALONE.name: alone, TTFT.name: ttft, ALONE_TTFT.name: alone_ttft}

    measures = (RATE, ALONE, TTFT, ALONE_TTFT)
    title = f"{scale.tokens} tokens by two processes, as tensors"
    return Workload("group", title, measures, {names.DEMO: OURS_ALONE, names.LARGER: OURS_ALONE}, run)


async def _measure(recipe: Recipe, server: Server, scale: Scale) -> tuple[float, float]:
    """Give tokens a second behind the first one, and the milliseconds until the first one of a longer prompt."""
    with tempfile.TemporaryDirectory() as home:
        one = Server(recipe, server.model, Path(home))
        try:
            await one.ready()
            answer = await one.chat(fresh("tell me a story about a lighthouse"), scale.tokens, NOTHING_COPIED)
            rules = manual(server.model.tokenizer, _PROMPT)
            long = await one.chat([rules, *fresh("Do what the rules say.")], 1)
        finally:
            await one.stop()
    require_length([answer], scale.tokens)
    return answer.decode_tokens_per_second, 1000 * long.time_to_first_token
