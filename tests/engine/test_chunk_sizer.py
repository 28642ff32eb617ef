"""How much is computed at once, on machines of any speed."""

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.engine.model import chunk_sizer
from app.services.engine.model.chunk_sizer import ChunkSizer

SECONDS = 0.5  # that a slice may take


class Machine:
    """Computes tokens at a rate, with an overhead of each call, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float, overhead: float) -> None:
        self._rate, self._overhead, self._now = rate, overhead, 0.0
        monkeypatch.setattr(chunk_sizer, "time", SimpleNamespace(perf_counter=lambda: self._now))

    def takes(self, tokens: int) -> float:
        return self._overhead + tokens / self._rate

    def compute(self, sizer: ChunkSizer, tokens: int) -> None:
        with sizer.measure(tokens):
            self._now += self.takes(tokens)


rates = st.floats(0.01, 100_000)  # tokens a second
first = st.integers(1, 100)  # tokens of the prompt that warms a model up


@given(rates, st.floats(0, 1), first)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_slice_takes_longer_than_it_may_but_the_smallest(
    monkeypatch: pytest.MonkeyPatch, rate: float, overhead: float, warm_up: int
) -> None:
    machine, sizer = Machine(monkeypatch, rate, overhead), ChunkSizer()
    machine.compute(sizer, min(warm_up, sizer.tokens(SECONDS)))
    for _ in range(30):
        tokens = sizer.tokens(SECONDS)
        assert machine.takes(tokens) <= 1.001 * max(overhead + SECONDS, machine.takes(16))
        machine.compute(sizer, tokens)


@given(rates, first)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_slice_should_take_is_known_while_it_is_computed(
    monkeypatch: pytest.MonkeyPatch, rate: float, warm_up: int
) -> None:
    machine, sizer = Machine(monkeypatch, rate, 0.0), ChunkSizer()
    machine.compute(sizer, warm_up)
    with sizer.expect(300):
        assert sizer.expected == pytest.approx(machine.takes(300))
    assert sizer.expected == 0.0


@given(rates, st.floats(0, 0.1), st.floats(0, 60))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_slow_beginning_is_soon_made_up_for(
    monkeypatch: pytest.MonkeyPatch, rate: float, overhead: float, compiling: float
) -> None:
    sizer = ChunkSizer()
    Machine(monkeypatch, 1e9, compiling).compute(sizer, 20)
    machine = Machine(monkeypatch, rate, overhead)
    for _ in range(40):
        machine.compute(sizer, sizer.tokens(SECONDS))
    fitting = (SECONDS - overhead) * rate
    assert sizer.tokens(SECONDS) >= min(2048, max(16, int(0.8 * fitting)))
