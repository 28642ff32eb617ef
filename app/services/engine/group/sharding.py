"""What of a model each machine computes: a share of every layer (tensor), or some of the layers (pipeline)."""

from collections.abc import Sequence
from typing import Any

from app.services.engine.cache.footprint import measure
from app.services.engine.cache.layers import new_layers
from app.services.engine.group.messages import Kind, Ready
from app.services.errors import LoadFailed
from app.services.hostfile import Sharding


def choose(network: Any, machines: int, sharding: Sharding, split: Sequence[int]) -> Kind:
    """Say how a model is shared out. Raises LoadFailed, which says why it cannot be."""
    reasons = {"tensor": why_not_tensor(network, machines), "pipeline": why_not_pipeline(network, machines, split)}
    kinds: tuple[Kind, ...] = ("pipeline", "tensor") if split else ("tensor", "pipeline")
    for kind in kinds:
        if sharding in ("auto", kind) and reasons[kind] is None:
            return kind
    why = "; ".join(f"{kind}: {reasons[kind]}" for kind in kinds if sharding in ("auto", kind))
    raise LoadFailed(f"the model cannot be shared out over {machines} machines ({why})")


def why_not_tensor(network: Any, machines: int) -> str | None:
    """Say why the layers of a model cannot each be shared out, None if they can."""
    if not hasattr(network, "shard"):
        return "mlx-lm has no way for this architecture"
    for name, heads in _heads(network).items():
        if heads % machines:
            good = (
                ", ".join(str(count) for count in range(2, heads + 1) if not heads % count) or "no number of machines"
            )
            return f"{name} is {heads}, which goes with {good}"
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


def share(network: Any, group: Any, kind: Kind, split: Sequence[int] | None) -> None:
    """Leave of a model what this machine computes, before its weights are read. Raises LoadFailed."""
    try:
        if kind == "tensor":
            network.shard(group)
        else:
            network.model.pipeline(group, list(split) if split else None)
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
