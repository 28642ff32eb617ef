"""The workloads: each drives a target once and gives one value a measure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

from benchmarks import in_process
from benchmarks.measure import Goal, Measure
from benchmarks.prompts import assistant, fresh, log_book, user
from benchmarks.reply import require_length, wall
from benchmarks.server import PEER
from benchmarks.target import Target

Values = dict[str, float]

RATE = Measure("tokens_per_second", "tokens/s", "tok/s", True)
DECODE = Measure("decode_tokens_per_second", "decode alone", "tok/s", True)
REQUESTS = Measure("requests_per_second", "requests/s", "req/s", True)
FIRST = Measure("first_turn_ttft", "TTFT, turn 1 (nothing cached)", "ms", False)
LATER = Measure("later_turn_ttft", "TTFT, turns 2-5", "ms", False)
PROMPT = Measure("prompt_tokens", "prompt of turn 1", "tok", False, judged=False)
CACHED = Measure("cached_share", "cached, turns 2-5", "%", True, judged=False)


@dataclass(frozen=True)
class Workload:
    """What is done, on which models, what comes out and what should."""

    name: str
    title: str
    models: tuple[str, ...]
    measures: tuple[Measure, ...]
    run: Callable[[Target], Awaitable[Values]]
    goals: dict[str, tuple[Goal, ...]]  # by model


async def _one_stream(target: Target) -> Values:
    reply = await target.chat(fresh("tell me a story about a lighthouse"), 128)
    require_length([reply], 128)
    return {RATE.name: reply.tokens_per_second, DECODE.name: reply.decode_tokens_per_second}


def _streams(count: int) -> Callable[[Target], Awaitable[Values]]:
    async def run(target: Target) -> Values:
        conversations = [fresh(f"write about the number {number * 37}") for number in range(count)]
        replies = await target.chats(conversations, 64, count)
        require_length(replies, 64)
        return {RATE.name: 64 * count / wall(replies)}

    return run


async def _short(target: Target) -> Values:
    conversations = [fresh(f"{number}?") for number in range(96)]
    replies = await target.chats(conversations, 1, 16)
    require_length(replies, 1)
    return {REQUESTS.name: len(replies) / wall(replies)}


async def _growing_chat(target: Target) -> Values:
    conversation = [log_book(target.model.tokenizer, 1080)]
    replies = []
    for turn in range(5):
        conversation.append(user(f"Question {turn}: what comes next?"))
        replies.append(await target.chat(conversation, 16))
        conversation.append(assistant(replies[-1].text))
    require_length(replies, 16)
    first, *later = replies
    return {
        FIRST.name: 1000 * first.time_to_first_token,
        LATER.name: 1000 * median(reply.time_to_first_token for reply in later),
        PROMPT.name: first.prompt_tokens,
        CACHED.name: 100 * median(reply.cached_tokens / reply.prompt_tokens for reply in later),
    }


def _many(count: int, *goals: Goal) -> Workload:
    title = f"{count} streams of 64 tokens"
    return Workload(f"streams-{count}", title, ("tiny",), (RATE,), _streams(count), {"tiny": goals})


WORKLOADS = (
    Workload(
        "one-stream",
        "one stream of 128 tokens",
        ("tiny", "25M"),
        (RATE, DECODE),
        _one_stream,
        {"tiny": (Goal(RATE.name, 0.95, in_process.NAME),), "25M": (Goal(RATE.name, 0.95, in_process.NAME),)},
    ),
    _many(4),
    _many(16),
    _many(32, Goal(RATE.name, 3.0, PEER.name)),
    Workload(
        "short",
        "answers of 1 token, 16 at once",
        ("tiny",),
        (REQUESTS,),
        _short,
        {"tiny": (Goal(REQUESTS.name, 2.5, PEER.name),)},
    ),
    Workload(
        "chat",
        "growing chat, 16 tokens a turn",
        ("tiny", "25M"),
        (FIRST, LATER, PROMPT, CACHED),
        _growing_chat,
        {"25M": (Goal(FIRST.name, 10.0, PEER.name),)},
    ),
)
