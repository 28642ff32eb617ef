"""What a GGUF file says of its model's sizes and constants: `{architecture}.KEY`, each of which is used or refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.services.files import bad
from app.services.gguf.file import GGUFFile

_LARGEST = float(np.finfo(np.float32).max)
# Say nothing about how the model computes, or what its tensors say as well.
_WITHOUT_EFFECT = frozenset(
    ("vocab_size", "rope.scaling.finetuned", "tensor_data_layout", "context_length", "pooling_type")
)


class Hyperparameters:
    """Reads keys and remembers which, so that `finish` can refuse a file that says more than was understood."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        self._prefix = f"{file.architecture}."
        self._read = set(_WITHOUT_EFFECT)

    def get(self, key: str) -> Any:
        """Give the value of a key as it stands; None without one."""
        self._read.add(key)
        return self._file.metadata.get(self._prefix + key)

    def integer(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Give a whole number; LoadFailed if there is none and no default, or if it is less than that."""
        value = self.get(key)
        if value is None and default is not None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self._wrong(key, value, f"a whole number, {least} or more")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """Give a number; LoadFailed if there is none and no default."""
        value = self.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
            raise self._wrong(key, value, "a number")
        return shortest(value)

    def text(self, key: str) -> str | None:
        """Give a text; None without one."""
        value = self.get(key)
        if value is not None and not isinstance(value, str):
            raise self._wrong(key, value, "a text")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Give a truth value."""
        value = self.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def per_layer(self, key: str, layers: int, default: int | None = None, *, least: int = 0) -> list[int]:
        """Give a whole number for each layer, of which a file may have one for all; LoadFailed without."""
        value = self.get(key)
        if isinstance(value, np.ndarray | list):
            numbers = np.asarray(value)
            if len(value) < layers or numbers.dtype.kind not in "iu" or numbers.min(initial=least) < least:
                raise self._wrong(key, value, f"{layers} whole numbers, {least} or more")
            return [int(one) for one in value[:layers]]
        return [self.integer(key, default, least=least)] * layers

    def flags(self, key: str, layers: int) -> list[bool] | None:
        """Give a truth value for each layer; None where the file has none, or only one number."""
        value = self.get(key)
        if not isinstance(value, np.ndarray | list):
            return None
        if len(value) < layers or np.asarray(value).dtype.kind not in "biu":
            raise self._wrong(key, value, f"{layers} truth values")
        return [bool(one) for one in value[:layers]]

    def numbers(self, key: str, count: int) -> list[float]:
        """Give as many numbers as that; LoadFailed without."""
        value = self.get(key)
        if not isinstance(value, np.ndarray | list) or len(value) < count or np.asarray(value).dtype.kind not in "iuf":
            raise self._wrong(key, value, f"{count} numbers")
        return [float(one) for one in value[:count]]

    def expect(self, key: str, *values: Any) -> None:
        """Refuse any other value than these, all of which mean what mlx-lm computes anyway. A missing key is fine."""
        value = self.get(key)
        if value is not None and not any(np.array_equal(value, one) for one in values):
            raise self.refused(f"has {self._prefix}{key} = {_brief(value)}, which mlx-lm's model cannot compute")

    def finish(self) -> None:
        """Refuse what the file says beyond what was read. Raises LoadFailed."""
        keys = (key.removeprefix(self._prefix) for key in self._file.metadata if key.startswith(self._prefix))
        if unread := sorted(set(keys) - self._read):
            raise self.refused(
                f"says {', '.join(repr(self._prefix + key) for key in unread[:3])}, which is not understood here"
            )

    def refused(self, reason: str) -> Exception:
        """Make the error for a file that cannot be computed as it says."""
        return bad(self._file.path, f"{reason}; take the model in MLX's own format.")

    def _wrong(self, key: str, value: Any, kind: str) -> Exception:
        reason = "lacks" if value is None else f"has {_brief(value)} as"
        return bad(self._file.path, f"{reason} {self._prefix}{key}, which has to be {kind}. Download it again.")


def shortest(value: float) -> float:
    """Give a float32 of the file as the number that was meant: 1e-06, not 9.999999974752427e-07."""
    return float(str(np.float32(value)))


def _brief(value: Any) -> str:
    """Give a value of a file on one line, and not all of a long one."""
    text = repr(
        value[:40].tolist() if isinstance(value, np.ndarray) else value[:40] if isinstance(value, list) else value
    )
    return text if len(text) <= 40 else text[:37] + "…"


def uniform(values: Sequence[int], parameters: Hyperparameters, key: str) -> int:
    """Give the number that all layers share. Raises LoadFailed if they differ."""
    if len(set(values)) != 1:
        raise parameters.refused(f"has layers that differ in {key}, which mlx-lm's model has not")
    return values[0]
