"""How a model of several stands at a moment, in plain values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.services.facts import ModelFacts

Status = Literal["unloaded", "loading", "loaded", "unloading", "failed"]


@dataclass(frozen=True, slots=True)
class ModelState:
    """For lists and for those who listen."""

    id: str
    path: Path
    created: int  # Unix seconds
    status: Status
    progress: float = 0.0  # of a load, 0 to 1
    error: str | None = None  # why the last load failed
    facts: ModelFacts | None = None  # of one that is loaded
    source: Literal["models_dir"] | None = None  # None of the only model

    @classmethod
    def of(cls, facts: ModelFacts) -> "ModelState":
        """Describe the only model, which is loaded."""
        return cls(facts.id, facts.path, facts.created, "loaded", facts=facts)
