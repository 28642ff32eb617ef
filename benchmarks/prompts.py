"""What is asked. Each text begins with a nonce, so that no prefix cache knows it unless it is meant to."""

import itertools
import secrets
from collections.abc import Callable

from tokenizers import Tokenizer

from benchmarks.reply import Message


def system(text: str) -> Message:
    """A message that says who the model is."""
    return {"role": "system", "content": text}


def user(text: str) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """A message of the model."""
    return {"role": "assistant", "content": text}


def fresh(text: str) -> list[Message]:
    """Give a conversation of one message that nobody has seen before."""
    return [user(f"{secrets.token_hex(4)} {text}")]


def log_book(tokenizer: Tokenizer, tokens: int) -> Message:
    """A system message of about `tokens` tokens, new each time."""
    return system(_long(tokenizer, tokens, "You keep a log.", lambda n: f" Item {n}: value {n * n % 97}."))


def manual(tokenizer: Tokenizer, tokens: int) -> Message:
    """The system message of an agent, of about `tokens` tokens, new each time."""
    text = _long(tokenizer, tokens, "You are an agent.", lambda n: f"\nRule {n}: before step {n + 1}, read file {n}.")
    return system(text)


def observed(tokenizer: Tokenizer, tokens: int, step: int) -> Message:
    """What an agent is told of the result of a step, in about `tokens` tokens."""
    return user(_long(tokenizer, tokens, f"Result of step {step}:", lambda n: f"\nline {n}: {step * n % 89} ok"))


def _long(tokenizer: Tokenizer, tokens: int, begin: str, more: Callable[[int], str]) -> str:
    text = f"{secrets.token_hex(4)} {begin}"
    each = max(1, len(tokenizer.encode(more(10)).ids))
    for number in itertools.count():
        # Counting is slower than writing: it is done when the end may be near.
        if number * each >= tokens * 0.8 and len(tokenizer.encode(text).ids) >= tokens:
            return text
        text += more(number)
    raise AssertionError
