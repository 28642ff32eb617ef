"""What is measured, and the values of one run."""

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Measure:
    """A quantity; `unit` is said behind its values."""

    name: str
    title: str
    unit: str
    more_is_better: bool
    judged: bool = True  # False: told, without a ratio

    def ratios(self, ours: "Series", peer: "Series") -> "Series":
        """How many times better ours is, repetition by repetition, so that the machine's noise cancels."""
        pairs = zip(ours.values, peer.values, strict=True)
        return Series([_times(a, b) if self.more_is_better else _times(b, a) for a, b in pairs])


def _times(value: float, other: float) -> float:
    return value / other if other else float("inf")


@dataclass(frozen=True)
class Series:
    """One value a repetition."""

    values: list[float]

    @property
    def median(self) -> float:
        """The figure that is told."""
        return median(self.values)

    @property
    def low(self) -> float:
        """The least."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The most."""
        return max(self.values)


@dataclass(frozen=True)
class Goal:
    """What is to be reached: a bound on our median, or, with `peer`, on how many times better than it we are."""

    measure: str
    bound: float
    peer: str | None = None


@dataclass(frozen=True)
class Result:
    """A workload on a model: by target and measure the values."""

    workload: str
    model: str
    series: dict[str, dict[str, Series]]
