"""How many tokens, and how many answers, come in a second."""

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.prompts import fresh
from benchmarks.reply import Reply, require_length, wall
from benchmarks.target import Target
from benchmarks.workload import AS_THEY_COME, EVERYBODY, REPEATS, WITH_LLAMA, Scale, Values, Workload

RATE = Measure("tokens_per_second", "tokens/s", "tok/s", True)
DECODE = Measure("decode_tokens_per_second", "after the first token", "tok/s", True)
ENGINE = Measure("engine_tokens_per_second", "counted in the engine", "tok/s", True)
REQUESTS = Measure("requests_per_second", "requests/s", "req/s", True)

_AT_ONCE = 16  # short requests


def one_stream(scale: Scale) -> Workload:
    """An answer that has the machine for itself."""

    async def run(target: Target) -> Values:
        reply = await target.chat(fresh("tell me a story about a lighthouse"), scale.tokens)
        require_length([reply], scale.tokens)
        return {RATE.name: reply.tokens_per_second, DECODE.name: reply.decode_tokens_per_second}

    models = {names.DEMO: EVERYBODY, names.LARGER: EVERYBODY, names.REAL: WITH_LLAMA}
    return Workload("one-stream", f"one stream of {scale.tokens} tokens", (RATE, DECODE), models, run, REPEATS)


def streams(scale: Scale, count: int, targets: dict[str, tuple[str, ...]]) -> Workload:
    """Answers side by side."""

    async def run(target: Target) -> Values:
        conversations = [fresh(f"write about the number {number * 37}") for number in range(count)]
        replies = await target.chats(conversations, scale.stream_tokens, count)
        require_length(replies, scale.stream_tokens)
        tokens = scale.stream_tokens * count
        return {RATE.name: tokens / wall(replies), **_in_engine(replies, tokens)}

    title = f"{count} streams of {scale.stream_tokens} tokens"
    return Workload(f"streams-{count}", title, (RATE, ENGINE), targets, run)


def short(scale: Scale) -> Workload:
    """Many answers of a token each."""

    async def run(target: Target) -> Values:
        count = scale.short if target.model.name == names.DEMO else scale.short // 6 or 1
        replies = await target.chats([fresh(f"{number}?") for number in range(count)], 1, _AT_ONCE)
        require_length(replies, 1)
        return {REQUESTS.name: len(replies) / wall(replies)}

    models = {names.DEMO: EVERYBODY, names.LARGER: AS_THEY_COME}
    return Workload("short", f"answers of 1 token, {_AT_ONCE} at once", (REQUESTS,), models, run, REPEATS)


def _in_engine(replies: list[Reply], tokens: int) -> Values:
    """From the first request that the engine took to the last token of all, on its own clock, if it tells."""
    seconds = [reply.engine_seconds for reply in replies if reply.engine_seconds]
    return {ENGINE.name: tokens / max(seconds)} if len(seconds) == len(replies) else {}
