"""Settings of the draft model."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DraftConfig:
    """Which draft model to load, and how to use it."""

    model: str  # a folder or a repo id
    max_draft_tokens: int  # at once
    strict: bool  # refuse a draft model with another vocabulary, rather than go without one
    context_length: int | None = None  # tokens; None is the draft model's own
