"""The KV cache of the rows of a batch."""

from collections.abc import Sequence

from app.services.engine.cache.layers import Layers, merge

_SURPLUS = 256  # columns that a batch may have beyond its longest row, or a quarter of that: each is read in each step


class BatchCache:
    """Layers of rows that join and leave. A row that is alone keeps its own, without the padding mask of a batch."""

    def __init__(self) -> None:
        self._layers: Layers | None = None  # None while there are no rows
        self.merged = False  # whether the layers are those of mlx-lm's batch caches
        self._rows = 0

    @property
    def layers(self) -> Layers:
        """The layers of all rows, of which there is one at least."""
        assert self._layers is not None
        return self._layers

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self._layers.nbytes if self._layers is not None else 0

    def join(self, rows: Sequence[Layers]) -> None:
        """Take in rows by the layers of each."""
        if len(rows) == 1 and not self._rows:
            self._layers, self.merged, self._rows = rows[0], False, 1
        else:
            self.join_merged(merge(rows), len(rows))

    def join_merged(self, layers: Layers, rows: int) -> None:
        """Take in so many rows by the batch cache that they have already."""
        if self._layers is None:
            self._layers = layers
        else:
            if not self.merged:
                self._layers = merge([self._layers])
            self._layers.extend(layers)
        self.merged = True
        self._rows += rows

    @property
    def can_trim(self) -> bool:
        """Whether all layers can be trimmed however many tokens they hold."""
        return self.layers.is_trimmable

    def trim(self, tokens: int) -> None:
        """Drop so many of the last tokens of all rows."""
        if tokens:
            self.layers.trim(tokens)

    @property
    def can_trim_rows(self) -> bool:
        """Whether rows can be trimmed one by one."""
        return self.merged and self.layers.can_trim_rows

    def trim_rows(self, tokens: list[int]) -> None:
        """Drop so many of the last tokens of each row."""
        self.layers.trim_rows(tokens)
        columns, longest = self.layers.columns
        if columns - longest > max(_SURPLUS, longest // 4):
            self._layers = merge([self.extract(row) for row in range(self._rows)])

    def keep(self, rows: list[int]) -> None:
        """Drop all rows but these, by their places."""
        if not rows:
            self._layers, self.merged = None, False
        elif len(rows) == 1:
            self._layers, self.merged = self.extract(rows[0]), False
        else:
            self.layers.filter(rows)
        self._rows = len(rows)

    def extract(self, row: int) -> Layers:
        """Give the layers of one row, by its place."""
        return self.layers.extract(row) if self.merged else self.layers
