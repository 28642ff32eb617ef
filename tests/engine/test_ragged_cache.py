"""Rows of a batch that end at different columns say what each says alone, whatever is fed, dropped and moved."""

from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.engine.cache.batch_cache import BatchCache
from app.services.engine.cache.layers import copy_layers, new_layers
from app.services.facts import KVBits
from tests.engine.workshop import Workshop


@pytest.fixture(scope="module", params=[None, KVBits(8, 4)], ids=["as they are", "rounded"])
def llama(request: pytest.FixtureRequest, tiny: Path) -> Workshop:
    return Workshop("llama", tiny, kv_bits=request.param)


class Rows:
    """A batch cache, and each of its rows in a cache of its own."""

    def __init__(self, workshop: Workshop) -> None:
        self.model = workshop.model
        self.kv_bits = workshop.kv_bits
        self.longest = 300 if workshop.kv_bits else 30  # some blocks are rounded
        self.cache = BatchCache()
        self.alone: list = []
        self.fed = 0

    def tokens(self, count: int) -> list[int]:
        self.fed += count
        return [(7919 * (self.fed - index) + 101) % 700 for index in range(count)]

    def join(self, lengths: list[int]) -> None:
        joining = []
        for length in lengths:
            joining.append(new_layers(self.model, self.kv_bits))
            if length:
                self.model(mx.array([self.tokens(length)]), cache=joining[-1].caches)
        self.alone += [copy_layers(layers, 0) for layers in joining]
        self.cache.join(joining)

    def feed(self, counts: list[int]) -> None:
        """Feed each row so many tokens, padded to the longest, and compare what comes of the last of each."""
        width = max(counts)
        fed = [self.tokens(count) for count in counts]
        padded = mx.array([one + [0] * (width - len(one)) for one in fed])
        logits = self.model(padded, cache=self.cache.layers.caches)
        if self.cache.can_trim_rows:
            self.cache.trim_rows([width - count for count in counts])
        for index, layers in enumerate(self.alone):
            expected = self.model(mx.array([fed[index]]), cache=layers.caches)[0, -1]
            assert mx.allclose(logits[index, counts[index] - 1], expected, atol=0.002), index


@settings(max_examples=15, deadline=None)
@given(draw=st.data())
def test_rows_of_any_width_are_those_of_each_alone(llama: Workshop, draw: st.DataObject) -> None:
    rows = Rows(llama)
    rows.join(draw.draw(st.lists(st.integers(0, rows.longest), min_size=2, max_size=4)))
    for _ in range(draw.draw(st.integers(2, 6))):
        count = len(rows.alone)
        action = draw.draw(st.sampled_from(("one", "wide", "wide", "trim", "join", "keep", "extract")))
        if action in ("one", "wide") or count < 2:
            most = (
                1 if action == "one" or count < 2 else draw.draw(st.sampled_from((3, 12, 64 if rows.kv_bits else 300)))
            )
            rows.feed([draw.draw(st.integers(1, most)) for _ in range(count)])
        elif action == "trim":
            surplus = [draw.draw(st.integers(0, min(5, layers.caches[0].size()))) for layers in rows.alone]
            rows.cache.trim_rows(surplus)
            for layers, tokens in zip(rows.alone, surplus, strict=True):
                layers.trim(tokens)
        elif action == "join":
            rows.join([draw.draw(st.integers(1, rows.longest))])
        elif action == "keep":
            indices = draw.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=count, unique=True))
            rows.cache.keep(sorted(indices))
            rows.alone = [rows.alone[index] for index in sorted(indices)]
        else:
            index = draw.draw(st.integers(0, count - 1))
            layers, alone = rows.cache.extract(index), copy_layers(rows.alone[index], 0)
            assert layers.caches[0].size() == alone.caches[0].size()
            logits = [rows.model(mx.array([[7]]), cache=copy_layers(one, 0).caches) for one in (layers, alone)]
            assert mx.allclose(*logits, atol=0.002)
    rows.feed([1] * len(rows.alone))
