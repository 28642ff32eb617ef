"""Several requests with one system prompt, as the helpers of an agent send them: all at once."""

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.prompts import fresh, manual
from benchmarks.reply import require_length
from benchmarks.target import Target
from benchmarks.workload import OURS_ALONE, Scale, Values, Workload

_HELPERS = 8

ONE = Measure("one_ttft", "TTFT of one", "ms", False)
LAST = Measure("last_ttft", f"until the last of {_HELPERS} has its first token", "ms", False)
CACHED = Measure("cached_share", f"cached, of the prompts of the {_HELPERS}", "%", True, judged=False)


def helpers(scale: Scale) -> Workload:
    """One request with a long system prompt; then some with another one, each with a task of its own."""

    async def run(target: Target) -> Values:
        known = target.model.tokenizer
        alone = await target.chat([manual(known, scale.long_prompt), *fresh("Do what the rules say.")], 1)
        rules = manual(known, scale.long_prompt)
        tasks = [fresh(f"Do step {number} of what the rules say.") for number in range(_HELPERS)]
        replies = await target.chats([[rules, *task] for task in tasks], 1, _HELPERS)
        require_length([alone, *replies], 1)
        sent = min(reply.sent for reply in replies)
        return {
            ONE.name: 1000 * alone.time_to_first_token,
            LAST.name: 1000 * (max(reply.times[0] for reply in replies) - sent),
            CACHED.name: 100 * sum(one.cached_tokens for one in replies) / sum(one.prompt_tokens for one in replies),
        }

    title = f"{_HELPERS} requests at once with one system prompt of {scale.long_prompt:,} tokens"
    models = {names.DEMO: OURS_ALONE, names.LARGER: OURS_ALONE}
    return Workload("helpers", title, (ONE, LAST, CACHED), models, run)
