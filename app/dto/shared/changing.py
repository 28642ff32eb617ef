"""What Claude Code writes anew with every request, and what says nothing to a model.

A prompt that has it in the middle is not the beginning of the next one, so that nothing behind it is ever in a cache.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import app.services.generation as gen

_BILLING = re.compile(r"^x-anthropic-billing-header:[^\n]*\n*", re.MULTILINE)
_COUNT = r"<total_tokens>\s*(?:\d[\d,_]*|Infinite)\s+tokens\s+left\s*</total_tokens>"
_COUNTER = re.compile(rf"\s*(?:{_COUNT}|<system-reminder>\s*{_COUNT}\s*</system-reminder>)\s*", re.ASCII)


def is_counter(text: str | None) -> bool:
    """Whether a text is the number of tokens that are left, and nothing else."""
    return text is not None and _COUNTER.fullmatch(text) is not None


def without_changing(text: str) -> str:
    """Give what a text of a system prompt says besides."""
    return "" if is_counter(text) else _BILLING.sub("", text)


def settled(messages: Sequence[gen.Message]) -> tuple[gen.Message, ...]:
    """Give a conversation without it: system messages that say nothing else are left out.

    The last one stays where the answer would then go on with the assistant's words, or with nothing.
    """
    rest = tuple(_settled(messages))
    if messages and (not rest or (rest[-1].role == "assistant") != (messages[-1].role == "assistant")):
        return (*rest, messages[-1])
    return rest


def _settled(messages: Iterable[gen.Message]) -> Iterator[gen.Message]:
    for message in messages:
        if message.role != "system" or (content := without_changing(message.content)) == message.content:
            yield message
        elif content.strip():
            yield replace(message, content=content)
