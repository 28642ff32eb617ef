"""A conversation that goes on after the server was restarted."""

import tempfile
from pathlib import Path

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.prompts import assistant, log_book, user
from benchmarks.server import Server, another
from benchmarks.target import Target
from benchmarks.workload import OURS_ALONE, SERVERS, Scale, Values, Workload, server_of

COLD = Measure("cold_ttft", "TTFT before, nothing cached", "ms", False)
WARM = Measure("warm_ttft", "TTFT of the next turn, after", "ms", False)
CACHED = Measure("cached_share", "cached, after", "%", True, judged=False)

_ANSWER = 16  # tokens
_WARM_UP = 200  # tokens


def restart(scale: Scale) -> Workload:
    """Ask, end the server, start it with what it kept, ask on."""

    async def run(target: Target) -> Values:
        server = server_of(target)
        conversation = [log_book(target.model.tokenizer, scale.history), user("What comes next?")]
        with tempfile.TemporaryDirectory() as home:
            async with another(server, Path(home)) as first:
                await _warm_up(first)
                cold = await first.chat(conversation, _ANSWER)
            conversation += [assistant(cold.text), user("And then?")]
            async with another(server, Path(home)) as second:
                await _warm_up(second)
                warm = await second.chat(conversation, _ANSWER)
        return {
            COLD.name: 1000 * cold.time_to_first_token,
            WARM.name: 1000 * warm.time_to_first_token,
            CACHED.name: 100 * warm.cached_tokens / warm.prompt_tokens,
        }

    models = {names.DEMO: SERVERS, names.LARGER: OURS_ALONE}
    return Workload("restart", "a conversation over a restart", (COLD, WARM, CACHED), models, run)


async def _warm_up(server: Server) -> None:
    await server.ready()
    await server.chat([log_book(server.model.tokenizer, _WARM_UP), user("Ready?")], 2)
