"""What of a model each machine computes: a share of every layer (tensor), or some of the layers (pipeline)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import new_layers
from app.services.engine.group.messages import Kind, Ready
from app.services.errors import LoadFailed
from app.services.hostfile import Sharding

_MOST_MACHINES = 8  # that are looked at to say how many would do


@dataclass(frozen=True, slots=True)
class _Machine:
    """A machine that is not there, as mlx-lm asks a group of MLX's."""

    machines: int

    def rank(self) -> int:
        return 0

    def size(self) -> int:
        return self.machines


def choose(network: Any, copy: Callable[[], Any], machines: int, sharding: Sharding, split: Sequence[int]) -> Kind:
    """Say how a model is shared out; `copy` gives another of it to try. Raises LoadFailed, which says why it cannot be.

    No weights are read.
    """
    reasons = {
        "tensor": why_not_tensor(network, copy, machines),
        "pipeline": why_not_pipeline(network, machines, split),
    }
    kinds: tuple[Kind, ...] = ("pipeline", "tensor") if split else ("tensor", "pipeline")
    for kind in kinds:
        if sharding in ("auto", kind) and reasons[kind] is None:
            return kind
    why = "; ".join(f"{kind}: {reasons[kind]}" for kind in kinds if sharding in ("auto", kind))
    raise LoadFailed(f"the model cannot be shared out over {machines} machines ({why})")


def why_not_tensor(network: Any, copy: Callable[[], Any], machines: int) -> str | None:
    """Say why the layers of a model cannot each be shared out, None if they can."""
    if not hasattr(network, "shard"):
        return "mlx-lm has no way for this architecture"
    reason = _why_not_divided(network, copy, machines)
    if reason is None:
        return None
    good = [other for other in range(2, _MOST_MACHINES + 1) if _why_not_divided(network, copy, other) is None]
    return f"{reason}; {' or '.join(map(str, good))} would do" if good else f"{reason}; no number of machines would do"


def _why_not_divided(network: Any, copy: Callable[[], Any], machines: int) -> str | None:
    """Say what of a model so many machines do not divide: heads, or what shares a scale in quantized weights."""
    for name, heads in _heads(network).items():
        if heads % machines:
            return f"{name} is {heads}"
    try:
        copy().shard(_Machine(machines))
    except ValueError as error:
        return str(error)[:200]
    return None


def why_not_pipeline(network: Any, machines: int, split: Sequence[int]) -> str | None:
    """Say why the layers of a model cannot be given to machines one after another, None if they can."""
    body: Any = getattr(network, "model", None)
    if not hasattr(body, "pipeline"):
        return "mlx-lm has no way for this architecture"
    layers = len(body.layers)
    if layers < machines:
        return f"it has {layers} layers"
    if split and (len(split) != machines or sum(split) != layers or min(split) < 1):
        return f"--layer-split has to name the layers of {machines} machines, {layers} in all"
    return None


def share(network: Any, group: Any, kind: Kind, split: Sequence[int] | None) -> int:
    """Leave of a model what this machine computes, before its weights are read.

    Gives over how many machines each array is shared out. Raises LoadFailed.
    """
    try:
        if kind == "tensor":
            network.shard(group)
            return int(group.size())
        network.model.pipeline(group, list(split) if split else None)
        return 1
    except ValueError as error:
        raise LoadFailed(f"the model cannot be shared out: {str(error)[:200]}") from error


def exchanges(network: Any, kind: Kind) -> int:
    """Say how often all machines exchange something for a token."""
    return 2 * len(network.layers) if kind == "tensor" else 2


def _heads(network: Any) -> dict[str, int]:
    """Give the numbers of heads, of which each machine gets as many."""
    args = getattr(network, "args", None)
    inner = getattr(args, "text_config", None)
    heads: dict[str, int] = {}
    for name in (
        "num_attention_heads",
        "num_key_value_heads",
        "linear_num_key_heads",
        "linear_num_value_heads",
    ):
        value = getattr(args, name, None)
        if value is None and isinstance(inner, dict):
            value = inner.get(name)
        if isinstance(value, int):
            heads[name] = value
    return heads


def ready(network: Any, free_bytes: int) -> Ready:
    """Say what a share is like that is loaded."""
    return Ready(free_bytes, measure(network).token_bytes, new_layers(network).is_trimmable)
