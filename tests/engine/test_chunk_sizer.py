"""How much is computed at once, on machines of any speed."""

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.engine.model import chunk_sizer as pace
from app.services.engine.model.chunk_sizer import ChunkSizer

SECONDS = 0.5  # that a slice may take


class Machine:
    """Computes tokens at a rate, with an overhead of each call, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float, overhead: float) -> None:
        self._rate, self._overhead, self._now = rate, overhead, 0.0
        monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: self._now))

    def takes(self, tokens: int) -> float:
        return self._overhead + tokens / self._rate

    def compute(self, pace: ChunkSizer, tokens: int) -> None:
        with pace.measured(tokens):
            self._now += self.takes(tokens)


rates = st.floats(0.01, 100_000)  # tokens a second
first = st.integers(1, 100)  # tokens of the prompt that warms a model up


@given(rates, st.floats(0, 1), first)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_slice_takes_longer_than_it_may_but_the_smallest(
    monkeypatch: pytest.MonkeyPatch, rate: float, overhead: float, warm_up: int
) -> None:
    machine, measured = Machine(monkeypatch, rate, overhead), ChunkSizer()
    machine.compute(measured, min(warm_up, measured.tokens(SECONDS)))
    for _ in range(30):
        tokens = measured.tokens(SECONDS)
        assert machine.takes(tokens) <= 1.001 * max(overhead + SECONDS, machine.takes(16))
        machine.compute(measured, tokens)


@given(rates, first)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_slice_should_take_is_known_while_it_is_computed(
    monkeypatch: pytest.MonkeyPatch, rate: float, warm_up: int
) -> None:
    machine, measured = Machine(monkeypatch, rate, 0.0), ChunkSizer()
    machine.compute(measured, warm_up)
    with measured.expecting(300):
        assert measured.expected == pytest.approx(machine.takes(300))
    assert measured.expected == 0.0


@given(rates, st.floats(0, 0.1), st.floats(0, 60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_slow_beginning_is_soon_made_up_for(
    monkeypatch: pytest.MonkeyPatch, rate: float, overhead: float, compiling: float
) -> None:
    measured = ChunkSizer()
    Machine(monkeypatch, 1e9, compiling).compute(measured, 20)
    machine = Machine(monkeypatch, rate, overhead)
    for _ in range(40):
        machine.compute(measured, measured.tokens(SECONDS))
    fitting = (SECONDS - overhead) * rate
    assert measured.tokens(SECONDS) >= min(2048, max(16, int(0.8 * fitting)))
