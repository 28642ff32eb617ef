"""What is asked. Each text begins with a nonce, so that no prefix cache knows it unless it is meant to."""

import itertools
import secrets

from tokenizers import Tokenizer

from benchmarks.reply import Message


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
    text = f"{secrets.token_hex(4)} You keep a log."
    for number in itertools.count():
        if len(tokenizer.encode(text).ids) >= tokens:
            break
        text += f" Item {number}: value {number * number % 97}."
    return {"role": "system", "content": text}
