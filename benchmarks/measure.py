"""What is measured, and the values of one run."""

from dataclasses import dataclass, field
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
        """How many times better ours is, round by round."""
        return ours.over(peer) if self.more_is_better else peer.over(ours)


@dataclass(frozen=True)
class Series:
    """One value a round."""

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

    def over(self, other: "Series") -> "Series":
        """Divide round by round, so that what slowed both in one round cancels; as far as both go."""
        pairs = zip(self.values, other.values, strict=False)
        return Series([a / b if b else float("inf") for a, b in pairs])


@dataclass
class Result:
    """A workload on a model: by target and measure the values, and why a target has none or fewer."""

    workload: str
    title: str
    model: str
    series: dict[str, dict[str, Series]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def take(self, target: str, values: dict[str, float]) -> None:
        """Add what a round has shown."""
        measured = self.series.setdefault(target, {})
        for name, value in values.items():
            measured.setdefault(name, Series([])).values.append(value)

    @property
    def rounds(self) -> int:
        """How many it has values of."""
        return max((len(each.values) for of_target in self.series.values() for each in of_target.values()), default=0)

    def get(self, target: str, measure: str) -> Series | None:
        """Give a target's values, None where there are none."""
        return self.series.get(target, {}).get(measure)
