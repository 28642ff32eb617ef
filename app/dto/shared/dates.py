"""Dates as RFC 3339 writes them, in UTC."""

import time
from datetime import UTC, datetime, timedelta


def date(seconds: float) -> str:
    """Give the date of a Unix time, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def from_now(seconds: float = 0.0) -> str:
    """Give the date in so many seconds, to the microsecond."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
