"""What a JSON schema and log-probabilities cost beside the plain answer."""

from collections.abc import Mapping
from typing import Any

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.prompts import fresh
from benchmarks.reply import require_length, wall
from benchmarks.server import NOTHING
from benchmarks.target import More, Target
from benchmarks.workload import OURS_ALONE, REPEATS, SERVERS, Scale, Values, Workload

_MANY = 8
# An answer to it does not end before it has to.
_PEOPLE = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "tall": {"type": "boolean"}},
        "required": ["name", "age", "tall"],
        "additionalProperties": False,
    },
}
SCHEMA: More = {
    "response_format": {"type": "json_schema", "json_schema": {"name": "people", "strict": True, "schema": _PEOPLE}}
}
LOGPROBS: More = {"logprobs": True, "top_logprobs": 5}


def json_schema(scale: Scale) -> Workload:
    """Answers that have to be JSON of a certain shape."""
    models = {names.DEMO: OURS_ALONE, names.LARGER: OURS_ALONE}
    return _compared(scale, "json-schema", "JSON schema, on and off", "schema", SCHEMA, models)


def logprobs(scale: Scale) -> Workload:
    """Answers whose tokens come with their five likeliest alternatives."""
    models = {names.DEMO: SERVERS, names.LARGER: OURS_ALONE}
    return _compared(scale, "logprobs", "logprobs with 5 alternatives, on and off", "logprobs", LOGPROBS, models)


def _compared(
    scale: Scale, name: str, title: str, word: str, more: More, targets: Mapping[str, tuple[str, ...]]
) -> Workload:
    async def run(target: Target) -> Values:
        return {
            "plain_rate": await _rate(target, 1, scale.tokens, NOTHING),
            f"{word}_rate": await _rate(target, 1, scale.tokens, more),
            "plain_rate_8": await _rate(target, _MANY, scale.stream_tokens, NOTHING),
            f"{word}_rate_8": await _rate(target, _MANY, scale.stream_tokens, more),
        }

    titles = {
        "plain_rate": "one stream, off",
        f"{word}_rate": "one stream, on",
        "plain_rate_8": f"{_MANY} streams, off",
        f"{word}_rate_8": f"{_MANY} streams, on",
    }
    measures = tuple(Measure(key, told, "tok/s", True) for key, told in titles.items())
    return Workload(name, title, measures, targets, run, REPEATS)


async def _rate(target: Target, count: int, tokens: int, more: More) -> float:
    conversations: list[Any] = [fresh(f"list the people of house {number * 29}") for number in range(count)]
    replies = await target.chats(conversations, tokens, count, more)
    require_length(replies, tokens)
    return tokens * count / wall(replies)
