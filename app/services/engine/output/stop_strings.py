"""Stop strings, found in text that comes in pieces."""

import re
from collections.abc import Sequence
from typing import Any

from mlx_lm.generate import TextStateMachine

_NORMAL, _STOP = "normal", "stop:"  # states; those that end the answer are each named by their stop string


class StopStrings:
    """The stop strings of a request, compiled: megabytes of them take seconds, so not on the engine thread."""

    def __init__(self, stop: Sequence[str]) -> None:
        self.machine = TextStateMachine(
            {_NORMAL: [(text, _STOP + text) for text in stop]} | {_STOP + text: [] for text in stop}
        )
        self._first = re.compile(f"[{re.escape(''.join({text[0] for text in stop}))}]")

    def may_begin(self, text: str) -> bool:
        """Whether one of them may begin in a text."""
        return self._first.search(text) is not None


class StopStringFinder:
    """Looks for the stop strings in one answer. `match` is the one that was found first."""

    def __init__(self, strings: StopStrings) -> None:
        self.match: str | None = None
        self._strings = strings
        self._state: Any = strings.machine.make_state(_NORMAL)

    def feed(self, text: str) -> str:
        """Take in text and give what comes before a stop string, without an end that may begin one."""
        _, _, _, pending = self._state
        if not pending and not self._strings.may_begin(text):
            return text
        self._state, segments = TextStateMachine.split(self._state, text)
        if len(segments) > 1:
            self.match = segments[1][0].removeprefix(_STOP)
        return str(segments[0][1])

    def flush(self) -> str:
        """Give what was held back for a stop string that did not come after all."""
        if self.match is not None:
            return ""
        self._state, rest, _ = TextStateMachine.flush(self._state)
        return str(rest)
