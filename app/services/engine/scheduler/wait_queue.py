"""The requests that wait for a slot of the batch, and which of them is next."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from app.services.caller import NOBODY, Caller
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_request import RunningRequest

_PATIENCE = 32  # times that a row is passed over before it has to be the next
_MOST_SKIPPED = 8  # rows that are passed over in one step


class WaitQueue:
    """Fair share: the caller with the fewest running rows is next, then the connection, then the first that came.

    A row for which there is no memory yet is passed over, but not for ever.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def put(self, row: Row) -> None:
        """Queue a row, with its siblings."""
        self._rows.append(row)

    def put_first(self, rows: Iterable[Row]) -> None:
        """Queue rows that were running; they come before all others."""
        self._rows[:0] = rows

    def remove(self, row: Row) -> None:
        """Drop a row, with its siblings."""
        self._rows.remove(row)

    def cancel(self, request: RunningRequest) -> None:
        """Drop the row of a request; its siblings wait on."""
        self._rows = [rest for row in self._rows if (rest := row.without(request))]

    def clear(self) -> None:
        """Drop all rows."""
        self._rows.clear()

    def take(self, running: Iterable[Row], admit: Callable[[Row], bool]) -> Row | None:
        """Take out the next row that `admit` agrees to; None if there is none."""
        priority = _Priority(running)
        skipped: list[Row] = []
        for row in sorted(self._rows, key=priority.key):  # equals stay in the order of their arrival
            if admit(row):
                self._rows.remove(row)
                for other in skipped:
                    other.times_passed += 1
                return row
            skipped.append(row)
            if row.times_passed >= _PATIENCE or len(skipped) == _MOST_SKIPPED:
                return None
        return None


class _Priority:
    """Orders rows by what their callers have running."""

    def __init__(self, running: Iterable[Row]) -> None:
        callers = [_caller(row) for row in running]
        self._by_caller = Counter(caller.who for caller in callers)
        self._by_connection = Counter((caller.who, caller.connection) for caller in callers)

    def key(self, row: Row) -> tuple[bool, int, int]:
        caller = _caller(row)
        return (
            not row.failures,
            self._by_caller[caller.who],
            self._by_connection[caller.who, caller.connection],
        )


def _caller(row: Row) -> Caller:
    return row.generation.caller if row.generation else NOBODY
