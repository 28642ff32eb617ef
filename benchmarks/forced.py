"""Answers of which a grammar leaves much, all or nothing to the model, and free ones of the same length."""

from typing import Any

from benchmarks import names
from benchmarks.errors import BenchmarkError
from benchmarks.measure import Measure
from benchmarks.prompts import fresh
from benchmarks.reply import require_length, wall
from benchmarks.target import More, Target
from benchmarks.workload import NOTHING_COPIED, OURS_ALONE, REPEATS, Scale, Values, Workload

_MANY = 4
_NAMES = [f"{what}_of_the_customer_as_in_the_contract" for what in ("name", "street", "city", "country", "phone")]
_NAMES += [f"{what}_of_the_order_as_in_the_last_invoice" for what in ("number", "day", "month", "price", "currency")]
_OBJECT = {
    "type": "object",
    "properties": {name: {"type": "integer", "minimum": 0, "maximum": 9} for name in _NAMES},
    "required": _NAMES,
    "additionalProperties": False,
}
_TEXT = "There is nothing to choose in this answer, from its first word to its last one, which is far from here. " * 4
_NO_THOUGHTS: More = {"chat_template_kwargs": {"enable_thinking": False}}  # a random model may begin some
_FORM = {"type": "json_schema", "json_schema": {"name": "order", "schema": _OBJECT}}
OBJECT: More = {"response_format": _FORM, **_NO_THOUGHTS}
TEXT: More = {"choice": [_TEXT], **_NO_THOUGHTS}
ANYTHING: More = {"regex": "(?s:.*)", **NOTHING_COPIED}

_TITLES = {
    "plain_rate": "free, one stream",
    "anything_rate": "free under a grammar that allows everything",
    "object_rate": "an object of ten required properties",
    "text_rate": "a text without any choice",
    f"plain_rate_{_MANY}": f"free, {_MANY} streams",
    f"object_rate_{_MANY}": f"{_MANY} such objects at once",
}


def forced(scale: Scale) -> Workload:
    """Answers of about one length, by how much of them a grammar forces."""

    async def run(target: Target) -> Values:
        values = {}
        for count, suffix in ((1, ""), (_MANY, f"_{_MANY}")):
            values[f"object_rate{suffix}"], tokens = await _rate(target, count, 1000, OBJECT)
            values[f"plain_rate{suffix}"], _ = await _rate(target, count, tokens, NOTHING_COPIED, exactly=True)
        values["anything_rate"], _ = await _rate(target, 1, tokens, ANYTHING, exactly=True)
        values["text_rate"], _ = await _rate(target, 1, 1000, TEXT)
        return values

    measures = tuple(Measure(key, title, "tok/s", True) for key, title in _TITLES.items())
    models = {names.DEMO: OURS_ALONE, names.LARGER: OURS_ALONE}
    return Workload("forced", "answers that a grammar forces", measures, models, run, REPEATS)


async def _rate(target: Target, count: int, most: int, more: More, *, exactly: bool = False) -> tuple[float, int]:
    """Give the tokens a second of some answers at once, and how many tokens one of them has."""
    conversations: list[Any] = [fresh(f"fill in the form of order {number * 29}") for number in range(count)]
    replies = await target.chats(conversations, most, count, more)
    lengths = [reply.completion_tokens for reply in replies]
    if exactly:
        require_length(replies, most)
    elif max(lengths) == most:
        raise BenchmarkError("an answer did not end as its grammar has it")
    return sum(lengths) / wall(replies), max(lengths)
