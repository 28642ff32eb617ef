"""Which small model guesses for the others."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """What was asked of drafts."""

    model: str  # a folder or a repo id
    most: int  # tokens guessed at once
    strict: bool  # refuse a model of another vocabulary, rather than let it go without
