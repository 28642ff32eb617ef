"""What a client of memory mode asks."""

from dataclasses import dataclass

from app.services.generation import GenerationRequest

DEFAULT_MAX_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """One step of a user turn: its first, or a relay with code to run."""

    message: str  # by the user
    reply: str  # the last that was shown to the user
    begins: bool
    code: str
    generation: GenerationRequest  # without messages: they are the server's
