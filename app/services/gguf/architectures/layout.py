"""Which tensor of a GGUF file becomes which parameters of mlx-lm's model, and with which change."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from app.services.files import bad
from app.services.gguf.file import GGUFFile, Tensor

_ONE_EXPERT = re.compile(r"blk\.\d+\.ffn_(gate|up|down)\.\d+\.weight")
_FLOAT32 = ("e_score_correction_bias", "expert_bias", ".A_log")
# Of float32 arrays, or of packed ones where the parameter may be quantized: rows come first in all of their arrays.
Change = Callable[..., Any]


def as_is(rows: Any) -> Any:
    """Change nothing."""
    return rows


@dataclass(frozen=True)
class Parameter:
    """A parameter of mlx-lm's model. Its value is `change` of its tensors, widened or packed."""

    name: str  # "model.layers.0.self_attn.q_proj.weight"
    tensors: tuple[Tensor, ...]
    change: Change = as_is
    is_dense: bool = False  # mlx-lm has no quantized layer there, or the change needs plain numbers

    @property
    def is_float32(self) -> bool:
        """Whether mlx-lm leaves it float32 in models that compute in another type, as `cast_predicate` of theirs says.

        With any other float32 parameter, a norm's say, all that follows would be computed in float32.
        """
        return self.name.endswith(_FLOAT32)


@dataclass(frozen=True)
class Target:
    """Where a tensor goes."""

    name: str
    change: Change = as_is
    is_dense: bool = False
    partners: tuple[str, ...] = ()  # names of the tensors that `change` takes after this one


@dataclass(frozen=True)
class Entry:
    """One tensor that a model has."""

    targets: tuple[Target, ...]  # none: it is of no use to mlx-lm, or a partner of another
    is_optional: bool = False

    def required(self) -> "Entry":
        """Give the same of a tensor that has to be there."""
        return Entry(self.targets)


Layout = dict[str, Entry]  # by name in the file


def entry(name: str, change: Change = as_is, *, is_dense: bool = False, is_optional: bool = False) -> Entry:
    """Make the entry of a tensor that becomes one parameter."""
    return Entry((Target(name, change, is_dense),), is_optional)


def weights(prefix: str, target: str, names: Mapping[str, str], *, biases: bool = False) -> Layout:
    """Make the entries of matrices and norms that only change their name, with biases where the model may have them."""
    layout = {f"{prefix}{name}.weight": entry(f"{target}{to}.weight") for name, to in names.items()}
    if biases:
        layout |= {
            f"{prefix}{name}.bias": entry(f"{target}{to}.bias", is_dense=True, is_optional=True)
            for name, to in names.items()
        }
    return layout


def norms(prefix: str, target: str, names: Mapping[str, str], change: Change = as_is) -> Layout:
    """Make the entries of normalization weights."""
    return {
        f"{prefix}{name}.weight": entry(f"{target}{to}.weight", change, is_dense=True) for name, to in names.items()
    }


IGNORED = Entry((), is_optional=True)


def parameters(file: GGUFFile, layout: Layout) -> Iterator[Parameter]:
    """Give all parameters of a model. Raises LoadFailed for tensors that it should have, or should not."""
    if any(_ONE_EXPERT.fullmatch(name) for name in file.tensors):
        raise bad(file.path, "has a tensor for each expert, as before April 2024; take a newer file of this model.")
    if missing := [name for name, one in layout.items() if not one.is_optional and name not in file.tensors]:
        raise bad(file.path, f"lacks the tensor {missing[0]!r}{_more(missing)}. Download it again.")
    if unknown := [name for name in file.tensors if name not in layout]:
        reason = f"has the tensor {unknown[0]!r}{_more(unknown)}, which a model of architecture {file.architecture!r}"
        raise bad(file.path, f"{reason} has not here; take the model in MLX's own format.")
    for name, one in layout.items():
        if (tensor := file.tensors.get(name)) is not None:
            for target in one.targets:
                sources = (tensor, *(file.tensors[partner] for partner in target.partners))
                change = target.change if target.change is as_is else _explained(file, tensor, target.change)
                yield Parameter(target.name, sources, change, target.is_dense)


def _explained(file: GGUFFile, tensor: Tensor, change: Change) -> Change:
    """Let a change say which tensor has a shape that it cannot have."""

    def run(*arrays: Any) -> Any:
        try:
            return change(*arrays)
        except (ValueError, IndexError) as error:
            raise wrong_shape(file, tensor) from error

    return run


def wrong_shape(file: GGUFFile, tensor: Tensor) -> Exception:
    """Make the error for a tensor that has another shape than the metadata of its file say."""
    shape = " by ".join(map(str, tensor.shape))
    return bad(
        file.path, f"has the tensor {tensor.name!r} of {shape}, which does not fit its metadata. Download it again."
    )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def each_array(packed: Any, change: Callable[..., np.ndarray], *others: Any) -> Any:
    """Apply a change of rows to an array, or to each of the arrays of a packed one; with `others`, to those of each."""
    if isinstance(packed, np.ndarray):
        return change(packed, *others)
    changed = {
        name: change(getattr(packed, name), *(getattr(other, name) for other in others))
        for name in ("weight", "scales", "biases")
        if getattr(packed, name) is not None
    }
    return packed._replace(**changed)


def joined(file: GGUFFile, name: str, parts: Mapping[str, int], *, is_dense: bool = False) -> Entry:
    """Make the entry of a tensor of which parameters have some rows each: their names, and how many, in order.

    A stack of experts is cut in each expert. Raises LoadFailed if the tensor has other rows than these.
    """
    tensor = file.tensors[name]
    axis = -1 if is_dense else -2
    if len(tensor.shape) < -axis or tensor.shape[axis] != sum(parts.values()):
        raise wrong_shape(file, tensor)
    ends = list(accumulate(parts.values()))
    cuts = zip(parts, (0, *ends), ends, strict=False)
    change = part if is_dense else rows
    return Entry(tuple(Target(target, change(start, stop), is_dense) for target, start, stop in cuts))


def part(start: int, stop: int) -> Change:
    """Give a change that takes some numbers of a bias."""
    return lambda bias: bias[start:stop]


def rows(start: int, stop: int) -> Change:
    """Give a change that takes some rows: of a matrix, or of each expert's."""
    return lambda one: each_array(one, lambda array: array[..., start:stop, :])


def minus_one(weight: np.ndarray) -> np.ndarray:
    """Undo the one that is added to a norm's weight in the file, and by mlx-lm when it computes."""
    return weight - np.float32(1)
