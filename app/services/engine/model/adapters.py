"""LoRA adapters in mlx-lm's format, applied beside a model's layers so that each row of a batch has its own scales."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.nn.layers.embedding import Embedding
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.quantized import QuantizedEmbedding, QuantizedLinear
from mlx.utils import tree_unflatten

from app.services.engine.model.language_model import LanguageModel
from app.services.errors import InvalidRequest, LoadFailed
from app.services.facts import AdapterFacts

Scales = tuple[float, ...]  # one an adapter

_STATES = 2**11 - 1  # combinations of scales that the prefix cache tells apart
_TOKEN_BITS = 20  # no vocabulary is larger; with the bits of a state it makes 31


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter in memory."""

    path: Path
    strength: float  # the scale it was trained with, which a request's scale is multiplied by


class Adapters:
    """The adapters of one model, none as a rule. On the engine thread, but for `defaults` and `scales`."""

    def __init__(self, paths_and_scales: Sequence[tuple[Path, float]] = ()) -> None:
        self.entries: list[Adapter] = []
        self.defaults: Scales = tuple(scale for _, scale in paths_and_scales)  # for requests without scales
        self._paths = [path for path, _ in paths_and_scales]
        self._rows: Sequence[Scales] = ()
        self._states: dict[Scales, int] = {}

    def apply_to(self, model: LanguageModel) -> None:
        """Read the adapters and put them into the model. Raises LoadFailed for one that does not fit."""
        for path in self._paths:
            try:
                self._add(model.network, path)
            except LoadFailed:
                raise
            except Exception as error:
                raise LoadFailed(f"The adapter {path.name} cannot be read: {str(error)[:300]}") from error
        if self.entries:
            self._check_rows(model)

    def facts(self) -> list[AdapterFacts]:
        """Describe the adapters: id, path and default scale."""
        adapters = zip(self._paths, self.defaults, strict=True)
        return [AdapterFacts(number, path, scale) for number, (path, scale) in enumerate(adapters)]

    def set_defaults(self, scales_by_id: Mapping[int, float]) -> None:
        """Change the scales of later requests that name none. Raises as `scales` does."""
        self.defaults = self.scales(scales_by_id)

    def scales(self, scales_by_id: Mapping[int, float] | None) -> Scales:
        """Give a scale for every adapter: by id, 0 for the others; None: the defaults. Raises InvalidRequest."""
        if scales_by_id is None:
            return self.defaults
        for number in scales_by_id:
            if not 0 <= number < len(self._paths):
                raise InvalidRequest(f"lora: there is no adapter {number}, only {len(self._paths)}", param="lora")
        return tuple(scales_by_id.get(number, 0.0) for number in range(len(self._paths)))

    def use(self, rows: Sequence[Scales]) -> None:
        """Set the scales of each row for the next calls of the model; () is no adapter."""
        self._rows = rows

    def factor(self, number: int) -> float | mx.array:
        """Give what an adapter's update is multiplied by now: a number, (rows,) where rows differ, or 0.0 for none."""
        strength = self.entries[number].strength
        scales = [strength * row[number] if row else 0.0 for row in self._rows]
        if not scales or scales.count(scales[0]) == len(scales):
            return scales[0] if scales else 0.0
        return mx.array(scales)

    def keys(self, tokens: list[int], scales: Scales) -> list[int] | None:
        """Give the keys of tokens in the prefix cache, which differ by scales. None: they are not to be cached."""
        if not any(scales):
            return tokens
        if scales not in self._states and len(self._states) >= _STATES:
            return None
        state = self._states.setdefault(scales, len(self._states) + 1) << _TOKEN_BITS
        return [token | state for token in tokens]

    def _add(self, model: Any, path: Path) -> None:
        number = len(self.entries)
        self.entries.append(Adapter(path, _read_strength(path)))
        modules = dict(model.named_modules())
        layers = []
        for name, low, high in _read_arrays(path):
            layer = modules.get(name)
            if not isinstance(layer, _AdapterLayer):
                layer = _wrap(layer, self, f"The adapter {path.name} does not fit: {name}")
            layer.add(number, low, high, f"The adapter {path.name} does not fit: {name}")
            layers.append((name, layer))
        model.update_modules(tree_unflatten(layers))

    def _check_rows(self, model: LanguageModel) -> None:
        """Compute two rows with different scales: some architectures mix rows in a layer."""
        self.use([(1.0,) * len(self.entries), (0.0,) * len(self.entries)])
        try:
            mx.eval(model.step(model.new_layers(), mx.array([[0, 1], [0, 1]])))
        except ValueError as error:
            raise LoadFailed(f"This architecture cannot take adapters: {error}") from error
        finally:
            self.use(())


class _AdapterLayer(Module):
    """A layer with the low-rank updates of adapters beside it, computed as mlx-lm does."""

    def __init__(self, base: Any, adapters: Adapters) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.base = base
        self.updates: list[dict[str, mx.array]] = []  # of arrays, so that they count as weights
        self._numbers: list[int] = []
        self._adapters = adapters

    def add(self, number: int, low: mx.array, high: mx.array, complaint: str) -> None:
        """Add the arrays (input, rank) and (rank, output) of an adapter. Raises LoadFailed with the complaint."""
        fits = low.ndim == high.ndim == 2 and low.shape[1] == high.shape[0]
        if not fits or self.shape != (low.shape[0], high.shape[1]):
            raise LoadFailed(f"{complaint} is {self.shape}, its arrays {low.shape} and {high.shape}")
        if self.base.weight.dtype == mx.float32:  # what comes in is too, and 16 bits are slow where it is
            low, high = low.astype(mx.float32), high.astype(mx.float32)
        self.updates.append({"low": low, "high": high})
        self._numbers.append(number)

    @property
    def shape(self) -> tuple[int, int]:
        """The sizes of the layer's input and output."""
        output, packed = self.base.weight.shape
        bits = getattr(self.base, "bits", None)
        return (packed if bits is None else packed * 32 // bits), output

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.base(x)
        for update, factor in self._active_updates():
            y = y + _scale(factor, (x @ update["low"]) @ update["high"]).astype(x.dtype)
        return y

    def _active_updates(self) -> Iterator[tuple[dict[str, mx.array], float | mx.array]]:
        for number, update in zip(self._numbers, self.updates, strict=True):
            factor = self._adapters.factor(number)
            if not isinstance(factor, float) or factor:
                yield update, factor


class _AdapterEmbedding(_AdapterLayer):
    """The embedding of tokens, which may be the output layer too."""

    @property
    def shape(self) -> tuple[int, int]:
        size, vocabulary = super().shape
        return vocabulary, size

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.base(x)
        for update, factor in self._active_updates():
            y = y + _scale(factor, update["low"][x] @ update["high"]).astype(y.dtype)
        return y

    def as_linear(self, x: mx.array) -> mx.array:
        """Give logits, as a tied embedding does."""
        y: mx.array = self.base.as_linear(x)
        for update, factor in self._active_updates():
            y = y + _scale(factor, (x @ update["high"].T) @ update["low"].T).astype(x.dtype)
        return y


def _scale(factor: float | mx.array, z: mx.array) -> mx.array:
    if isinstance(factor, float):
        return factor * z
    if factor.shape[0] != z.shape[0]:
        raise ValueError("a layer does not see the rows of a batch one by one")
    return factor.astype(z.dtype).reshape(-1, *[1] * (z.ndim - 1)) * z


def _wrap(layer: Any, adapters: Adapters, complaint: str) -> _AdapterLayer:
    if isinstance(layer, Linear | QuantizedLinear):
        return _AdapterLayer(layer, adapters)
    if isinstance(layer, Embedding | QuantizedEmbedding):
        return _AdapterEmbedding(layer, adapters)
    what = (
        "is not there" if layer is None else f"is a {type(layer).__name__}, whose rows cannot have scales of their own"
    )
    raise LoadFailed(f"{complaint} {what}")


def _read_strength(path: Path) -> float:
    config_path = path / "adapter_config.json"
    if not config_path.is_file():
        raise LoadFailed(f"{path} is no adapter of mlx-lm: it has no adapter_config.json")
    config = json.loads(config_path.read_text())
    if "lora_parameters" not in config:
        raise LoadFailed(f"{path.name} is no adapter of mlx-lm: its adapter_config.json has no lora_parameters")
    if (kind := config.get("fine_tune_type", "lora")) != "lora":
        raise LoadFailed(f"The adapter {path.name} is of type {kind}; only lora can be laid over a model: fuse it")
    return float(config["lora_parameters"]["scale"])


def _read_arrays(path: Path) -> Iterator[tuple[str, mx.array, mx.array]]:
    arrays = dict(cast("dict[str, mx.array]", mx.load(str(path / "adapters.safetensors"))))
    names = sorted({name.rpartition(".")[0] for name in arrays})
    if not names:
        raise LoadFailed(f"The adapter {path.name} is empty")
    for name in names:
        low, high = arrays.pop(f"{name}.lora_a", None), arrays.pop(f"{name}.lora_b", None)
        if low is None or high is None:
            raise LoadFailed(f"The adapter {path.name} lacks lora_a or lora_b of {name}")
        yield name, low, high
    if arrays:
        raise LoadFailed(f"The adapter {path.name} has arrays that are no adapter's: {', '.join(sorted(arrays))[:200]}")
