"""How a model stands at a moment, in plain values."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Literal

from app.services.facts import ModelFacts


class Status(Enum):
    """What becomes of a model, from one load to the next."""

    UNLOADED = auto()
    FAILED = auto()  # it is not loaded: the last load failed
    QUEUED = auto()  # it waits for its turn to be loaded, and for memory
    LOADING = auto()  # its weights are being read
    LOADED = auto()  # it takes requests
    EVICTING = auto()  # it takes no more requests, and is unloaded once it is idle if its memory is still needed then
    UNLOADING = auto()  # it takes no more requests, and is unloaded once it is idle, or its answers had their time
    DOWNLOADING = auto()  # its files are not all there yet


NEXT = {
    Status.UNLOADED: {Status.QUEUED},
    Status.FAILED: {Status.QUEUED},
    Status.QUEUED: {Status.LOADING, Status.UNLOADED, Status.FAILED},
    Status.LOADING: {Status.LOADED, Status.UNLOADED, Status.FAILED},
    Status.LOADED: {Status.EVICTING, Status.UNLOADING},
    Status.EVICTING: {Status.LOADED, Status.UNLOADING, Status.UNLOADED},
    Status.UNLOADING: {Status.UNLOADED},
}  # by status, those that may follow it
IN_MEMORY = {Status.LOADED, Status.EVICTING, Status.UNLOADING}


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How much of a file is downloaded."""

    done: int  # bytes
    total: int


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
    files: Mapping[str, FileProgress] = field(default_factory=dict)  # of one that is downloaded, by path
    aliases: tuple[str, ...] = ()  # other names that requests may use
    can_remove: bool = False  # it was downloaded, so it may be deleted

    @classmethod
    def of(cls, facts: ModelFacts) -> "ModelState":
        """Describe the only model, which is loaded."""
        return cls(facts.id, facts.path, facts.created, Status.LOADED, facts=facts)


@dataclass(frozen=True, slots=True)
class Loading:
    """The load under way of the only model."""

    model: str  # its id
    start: float = field(default_factory=time.monotonic)  # seconds
    progress: float = 0.0  # 0 to 1

    def seconds_left(self) -> int:
        """Whole seconds until it is over, as far as can be told from the progress: 1 to 60."""
        elapsed = time.monotonic() - self.start
        return max(1, min(60, round(elapsed / self.progress - elapsed if self.progress > 0.1 else elapsed)))
