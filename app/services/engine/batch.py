"""The rows that are being decoded together."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, cast

import mlx.core as mx

from app.services.engine.prefix_cache import Layers
from app.services.engine.row import Row
from app.services.engine.sampling import Sampler


class Batch:
    """Continuous batching over mlx-lm's batch caches: rows join and leave between steps.

    A row enters with its cache and its first token and gets one token a step. The step that follows is launched
    before this one's tokens are read, so that the device never waits for Python. A row that is alone runs on its own
    cache, without the padding mask of a batch.
    """

    def __init__(self, model: Any, vocabulary: int) -> None:
        self.rows: list[Row] = []
        self._model = model
        self._vocabulary = vocabulary
        self._layers: Layers = []
        self._merged = False
        self._sampler: Sampler | None = None
        self._last: mx.array | None = None  # (rows,) tokens drawn but not fed yet
        self._fresh = 0  # rows at the end whose token in `_last` has been handed out

    def __len__(self) -> int:
        return len(self.rows)

    def join(self, rows: Sequence[Row]) -> None:
        """Take in rows that have a first token. Their caches are copied into the batch's."""
        if not rows:
            return
        first = mx.array([row.answer[-1] for row in rows], dtype=mx.uint32)
        caches = [row.give_layers() for row in rows]
        if not self.rows and len(rows) == 1:
            self._layers, self._merged = caches[0], False
        else:
            self._merge(caches)
        self._last = first if self._last is None else mx.concatenate([self._last, first])
        self._fresh += len(rows)
        self.rows.extend(rows)
        self._sampler = None

    def step(self) -> list[tuple[Row, int]]:
        """Feed the drawn tokens, launch the draw of the next, and give each row's token (rows that joined since the
        last step have had theirs)."""
        if self._last is None:
            return []
        fed = self._last
        logits = self._model(fed[:, None], cache=self._layers)[:, -1, :]
        self._last = self._drawn(logits, fed)
        mx.async_eval(self._last)
        seen = len(self.rows) - self._fresh
        self._fresh = 0
        tokens = cast("list[int]", fed.tolist())
        return list(zip(self.rows[:seen], tokens[:seen], strict=True))

    def leave(self, rows: Collection[Row], *, keep_layers: bool = True) -> None:
        """Let rows go, handing each its cache back: it then holds the prompt and every token that was given."""
        gone = set(rows)
        keep = [place for place, row in enumerate(self.rows) if row not in gone]
        if keep_layers:
            for place, row in enumerate(self.rows):
                if row in gone:
                    row.layers = self._extract(place)
        self._fresh = sum(1 for place in keep if place >= len(self.rows) - self._fresh)
        self.rows = [self.rows[place] for place in keep]
        self._sampler = None
        if not keep:
            self._layers, self._merged, self._last = [], False, None
            return
        assert self._last is not None
        self._last = self._last[mx.array(keep)]
        if self._merged:
            self._shrink(keep)

    def _drawn(self, logits: mx.array, fed: mx.array) -> mx.array:
        if self._sampler is None:
            # What is fed now was counted by nobody yet: the sampler takes it from `fed`.
            answers = [row.answer[: row.fed] for row in self.rows]
            positions = [row.fed + 1 for row in self.rows]
            self._sampler = Sampler([row.choice for row in self.rows], answers, positions, self._vocabulary)
        drawn = self._sampler(logits, fed).astype(mx.uint32)
        for row in self.rows:
            row.fed += 1
        return drawn

    def _merge(self, caches: list[Layers]) -> None:
        if self.rows and not self._merged:
            caches = [self._layers, *caches]
        merged = [type(layer).merge([cache[depth] for cache in caches]) for depth, layer in enumerate(caches[0])]
        if self._merged:
            for layer, other in zip(self._layers, merged, strict=True):
                layer.extend(other)
        else:
            self._layers, self._merged = merged, True

    def _shrink(self, keep: list[int]) -> None:
        if len(keep) == 1:
            self._layers, self._merged = self._extract(keep[0]), False
            return
        for layer in self._layers:
            layer.filter(keep)

    def _extract(self, place: int) -> Layers:
        if not self._merged:
            return self._layers
        layers = [layer.extract(place) for layer in self._layers]
        mx.eval([layer.state for layer in layers])  # lazily, they would keep the whole batch alive
        return layers


def first_token(row: Row, logits: mx.array, vocabulary: int) -> int:
    """Draw the first token of a row from the logits (1, vocabulary) of its prompt."""
    drawn = Sampler([row.choice], [[]], [0], vocabulary)(logits, None)
    return cast("int", drawn.item())


def batchable(layers: Iterable[Any]) -> bool:
    """Whether mlx-lm can batch rows with these caches."""
    return all(hasattr(layer, "merge") for layer in layers)
