"""Who asks, so that one who asks for much does not keep the others waiting."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """A client as far as it can be told from others, and which of its connections asks."""

    who: tuple[str, ...] = ()  # key, address and program; never logged
    connection: int = 0  # port at the other end
    conversing: bool = False  # says that this is a turn of a conversation that will go on


NOBODY = Caller()
caller: ContextVar[Caller] = ContextVar("caller", default=NOBODY)  # of the request that is being handled
