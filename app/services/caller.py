"""Who sends a request: callers share the batch, so that none of them keeps the others waiting."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A client, as far as it can be told from others, and its connection."""

    who: tuple[str, ...] = ()  # key, address and program; never logged
    connection: int = 0  # the port at the other end
    conversing: bool = False  # the request says that it is a turn of a conversation


NOBODY = Caller()
caller: ContextVar[Caller] = ContextVar("caller", default=NOBODY)  # of the request that is being handled
arrival: ContextVar[float | None] = ContextVar("arrival", default=None)  # when it came, by time.perf_counter
