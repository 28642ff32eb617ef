"""What one run of the agent's code did, for the log: functions, paths, bytes; never contents."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

_MOST_PATHS = 32
_LONGEST_PATH = 200


@dataclass(slots=True)
class Audit:
    """The account of one run."""

    calls: Counter[str] = field(default_factory=Counter)
    paths: dict[str, None] = field(default_factory=dict)  # in order
    read: int = 0  # bytes
    written: int = 0
    wrote: bool = False  # something was written or deleted

    def call(self, function: str, path: object) -> None:
        """Note a call and the path it was given."""
        self.calls[function] += 1
        if isinstance(path, str) and path and len(self.paths) < _MOST_PATHS:
            self.paths[path[:_LONGEST_PATH]] = None

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the log line."""
        return {"calls": dict(self.calls), "paths": list(self.paths), "read": self.read, "written": self.written}
