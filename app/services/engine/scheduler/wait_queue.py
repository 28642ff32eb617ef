"""The requests that wait for a place, and whose turn it is."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from app.services.caller import NOBODY, Caller
from app.services.engine.scheduler.row import Row
from app.services.engine.scheduler.running_request import RunningRequest

_PATIENCE = 32  # times that a request is passed by before nobody passes it any more
_MOST_SKIPPED = 8  # requests that are looked at in one step


class WaitQueue:
    """Places go to those who hold the fewest: callers first, then their connections, then who came first.

    What does not fit yet is passed by, but not for ever.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def put(self, row: Row) -> None:
        """Take in a request."""
        self._rows.append(row)

    def put_first(self, rows: Iterable[Row]) -> None:
        """Take in those again that had a place; they come before all others."""
        self._rows[:0] = rows

    def remove(self, row: Row) -> None:
        """Drop a request."""
        self._rows.remove(row)

    def cancel(self, request: RunningRequest) -> None:
        """Drop the row of a request; its siblings wait on."""
        self._rows = [rest for row in self._rows if (rest := row.without(request))]

    def clear(self) -> None:
        """Forget all of them."""
        self._rows.clear()

    def take(self, running: Iterable[Row], admit: Callable[[Row], bool]) -> Row | None:
        """Give the next request that is let in, None if there is none."""
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
    """What those who wait hold already."""

    def __init__(self, running: Iterable[Row]) -> None:
        callers = [_caller(row) for row in running]
        self._by_caller = Counter(one.who for one in callers)
        self._by_connection = Counter((one.who, one.connection) for one in callers)

    def key(self, row: Row) -> tuple[bool, int, int]:
        one = _caller(row)
        return (not row.failures, self._by_caller[one.who], self._by_connection[one.who, one.connection])


def _caller(row: Row) -> Caller:
    return row.generation.caller if row.generation else NOBODY
