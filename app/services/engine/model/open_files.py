"""How many files this process may open, which is not mlx-lm's to decide."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_untouched() -> Iterator[None]:
    """Let mlx-lm be imported without its change of the limit.

    It sets 2048 of 4096: that fails where the system allows fewer, and takes away for good what it allows more.
    """
    change = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        yield
    finally:
        resource.setrlimit = change
