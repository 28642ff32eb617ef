"""Conversations that grow, as people and agents have them."""

from statistics import median

from benchmarks import names
from benchmarks.measure import Measure
from benchmarks.prompts import assistant, fresh, log_book, manual, observed, user
from benchmarks.reply import Message, Reply, require_length, wall
from benchmarks.target import Target
from benchmarks.workload import AS_THEY_COME, EVERYBODY, WITH_BLAS, WITH_LLAMA, Scale, Values, Workload

FIRST = Measure("first_ttft", "TTFT, nothing cached", "ms", False)
LATER = Measure("later_ttft", "TTFT of the turns after it", "ms", False)
PROMPT = Measure("prompt_tokens", "first prompt", "tok", False, judged=False)
CACHED = Measure("cached_share", "cached, of the later prompts", "%", True, judged=False)
WHOLE = Measure("whole_seconds", "the whole conversation", "s", False)

MEASURES = (FIRST, LATER, WHOLE, PROMPT, CACHED)
_ANSWER = 16  # tokens
_OBSERVED = 100  # tokens


def chat(scale: Scale) -> Workload:
    """A person asks again and again about one long text."""

    async def run(target: Target) -> Values:
        conversation, replies = [log_book(target.model.tokenizer, scale.history)], []
        for turn in range(scale.turns):
            conversation.append(user(f"Question {turn}: what comes next?"))
            replies.append(await target.chat(conversation, _ANSWER))
            conversation.append(assistant(replies[-1].text))
        return _values(replies)

    models = {names.DEMO: EVERYBODY, names.LARGER: WITH_BLAS, names.REAL: WITH_LLAMA}
    return Workload("chat", f"growing chat of {scale.turns} turns", MEASURES, models, run)


def agent(scale: Scale, *, edited: bool) -> Workload:
    """A long system prompt, then step after step; `edited`: the first message says something new each time."""

    async def run(target: Target) -> Values:
        known = target.model.tokenizer
        rules, [task] = manual(known, scale.history), fresh("Do what the rules say.")
        steps: list[Message] = []
        replies = []
        for step in range(scale.steps):
            now = user(f"Step {step}. {task['content']}") if edited else task
            replies.append(await target.chat([rules, now, *steps], _ANSWER))
            steps += [assistant(replies[-1].text), observed(known, _OBSERVED, step)]
        return _values(replies)

    name, title = ("agent-edited", "edited history") if edited else ("agent", "append-only")
    models = {names.DEMO: AS_THEY_COME}
    return Workload(name, f"agent of {scale.steps} steps, {title}", MEASURES, models, run)


def _values(replies: list[Reply]) -> Values:
    require_length(replies, _ANSWER)
    first, *later = replies
    return {
        FIRST.name: 1000 * first.time_to_first_token,
        LATER.name: 1000 * median(reply.time_to_first_token for reply in later),
        WHOLE.name: wall(replies),
        PROMPT.name: first.prompt_tokens,
        CACHED.name: 100 * median(reply.cached_tokens / reply.prompt_tokens for reply in later),
    }
