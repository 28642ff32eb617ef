"""Keeps mlx-lm from changing the process's limit of open files when it is imported."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limit_untouched() -> Iterator[None]:
    """Import mlx-lm within this context.

    It would set a soft limit of 2048 and a hard one of 4096, which fails where the system allows fewer, and cannot be
    raised again where it allows more.
    """
    change = resource.setrlimit
    resource.setrlimit = lambda *_: None
    try:
        yield
    finally:
        resource.setrlimit = change
