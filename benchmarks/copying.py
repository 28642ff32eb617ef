"""Answers that copy from their prompt, as an edited file does, beside answers of the same length that copy nothing."""

import secrets

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.prompts import assistant, user
from benchmarks.reply import Message, require_length
from benchmarks.target import More, Target
from benchmarks.workload import NOTHING_COPIED, OURS_ALONE, Scale, Values, Workload

_LINES = 60  # of the file; some of them stand in the answer already, so that it is clear what it goes on with
_BEGUN = 5
_CONTINUED: More = {"continue_final_message": True, "add_generation_prompt": False}
_SAMPLED: More = {"temperature": 0.7, "seed": 1}


def copying(scale: Scale) -> Workload:
    """A file that is written again, at temperature 0 and 0.7, and as many tokens that are no copy."""

    async def run(target: Target) -> Values:
        kinds: dict[str, More] = {"copy_rate": {}, "sampled_copy_rate": _SAMPLED, "other_rate": NOTHING_COPIED}
        values = {}
        for key, more in kinds.items():
            reply = await target.chat(_edit(), 2 * scale.tokens, {**_CONTINUED, **more})
            require_length([reply], 2 * scale.tokens)
            values[key] = reply.decode_tokens_per_second
        return values

    measures = (
        Measure("copy_rate", "a file written again", "tok/s", True),
        Measure("sampled_copy_rate", "the same at temperature 0.7", "tok/s", True),
        Measure("other_rate", "text that copies nothing", "tok/s", True),
    )
    return Workload("copying", "answers that copy from their prompt", measures, {names.REAL: OURS_ALONE}, run)


def _edit() -> list[Message]:
    lines = [f"    total_{number} = price_{number * 7 % 31} * {number * 37 % 97} + tax" for number in range(_LINES)]
    file = "\n".join([f"def sum_{secrets.token_hex(4)}(prices, tax):", *lines])
    begin = file.partition(f"price_{_BEGUN * 7 % 31}")[0].rstrip()  # within a line: templates may trim the end of one
    return [user(f"{file}\n\nWrite this file again, with another name for the last total."), assistant(begin)]
