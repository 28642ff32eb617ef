"""Qwen 3.5 and Qwen3-Next: three of four layers have linear attention (a gated delta net), dense or with experts."""

from typing import Any, NamedTuple

import numpy as np

from app.services.gguf.architectures import experts
from app.services.gguf.architectures.common import (
    GATED,
    embeddings,
    head_dim,
    head_rows,
    key_value_heads,
    multi_token_prediction,
    query_key_value,
    sizes,
)
from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import (
    Change,
    Entry,
    Layout,
    Target,
    each_array,
    entry,
    norms,
    weights,
)
from app.services.gguf.architectures.rope import rotated_share, scaled_rope
from app.services.gguf.file import GGUFFile

_NORMS = {"attn_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
# The largest group that values share a scale in: heads of a multiple can change places within packed rows.
_LARGEST_GROUP = 128


class _Heads(NamedTuple):
    """The heads of linear attention. Each key head serves several value heads."""

    keys: int
    values: int
    key_size: int
    value_size: int
    is_tiled: bool  # in the file: as llama.cpp repeats key heads

    @property
    def per_key(self) -> int:
        """How many value heads share a key head."""
        return self.values // self.keys


def qwen35(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Qwen 3.5, dense or with experts."""
    values = Hyperparameters(file)
    config, heads = _config(file, values, is_tiled=True)
    has_experts = file.architecture == "qwen35moe"
    values.get("rope.dimension_sections")  # of pictures: in a text all sections count alike
    text = config | {
        "model_type": "qwen3_5_moe_text" if has_experts else "qwen3_5_text",
        "rope_parameters": (scaled_rope(values) or {"rope_type": "default"})
        | {"rope_theta": config.pop("rope_theta"), "partial_rotary_factor": config.pop("partial_rotary_factor")},
        **(_experts(values, config) if has_experts else {}),
    }
    values.finish()
    layout = _layout(file, text, heads, "language_model.")
    return {"model_type": "qwen3_5_moe" if has_experts else "qwen3_5", "text_config": text}, layout


def qwen3next(file: GGUFFile) -> tuple[dict[str, Any], Layout]:
    """Qwen3-Next, which mlx-lm has with all projections of a layer's linear attention in one matrix."""
    values = Hyperparameters(file)
    config, heads = _config(file, values, is_tiled=False)
    config |= {
        "model_type": "qwen3_next",
        "rope_scaling": scaled_rope(values),
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        **_experts(values, config),
    }
    values.finish()
    return config, _layout(file, config, heads, "")


def _config(file: GGUFFile, values: Hyperparameters, *, is_tiled: bool) -> tuple[dict[str, Any], _Heads]:
    config = sizes(file, values)
    layers = config["num_hidden_layers"]
    size = head_dim(values, config)
    heads = _heads(values, is_tiled)
    config |= {
        "head_dim": size,
        "num_key_value_heads": key_value_heads(values, config),
        "intermediate_size": uniform(values.per_layer("feed_forward_length", layers, 0), values, "feed_forward_length"),
        "partial_rotary_factor": rotated_share(values, size),
        "full_attention_interval": _interval(values, layers),
        "linear_num_key_heads": heads.keys,
        "linear_num_value_heads": heads.values,
        "linear_key_head_dim": heads.key_size,
        "linear_value_head_dim": heads.value_size,
        "linear_conv_kernel_dim": values.integer("ssm.conv_kernel"),
    }
    return config, heads


def _heads(values: Hyperparameters, is_tiled: bool) -> _Heads:
    count, inner = values.integer("ssm.time_step_rank"), values.integer("ssm.inner_size")
    keys = values.integer("ssm.group_count")
    if min(count, keys) < 1 or inner % count or count % keys:
        raise values.refused(f"has {keys} key heads and {count} value heads in {inner} numbers, which do not fit")
    return _Heads(keys, count, values.integer("ssm.state_size"), inner // count, is_tiled)


def _interval(values: Hyperparameters, layers: int) -> int:
    """Give n where every n-th layer has full attention. Raises LoadFailed if the file has others."""
    interval = values.integer("full_attention_interval", 4)
    if not 1 < interval <= layers:
        raise values.refused(
            f"has full attention in every {interval}th of {layers} layers, which mlx-lm's model has not"
        )
    flags = values.flags("attention.recurrent_layers", layers)
    if flags not in (None, [(layer + 1) % interval != 0 for layer in range(layers)]):
        raise values.refused("has linear attention in layers that follow no pattern, which mlx-lm's model has not")
    return interval


def _experts(values: Hyperparameters, config: dict[str, Any]) -> dict[str, Any]:
    layers = config["num_hidden_layers"]
    size = uniform(values.per_layer("expert_feed_forward_length", layers), values, "expert_feed_forward_length")
    return {
        "num_experts": values.integer("expert_count"),
        "num_experts_per_tok": uniform(values.per_layer("expert_used_count", layers), values, "experts"),
        "moe_intermediate_size": size,
        "shared_expert_intermediate_size": values.integer("expert_shared_feed_forward_length"),
        "norm_topk_prob": True,  # in llama.cpp's code, not in the file
    }


def _layout(file: GGUFFile, config: dict[str, Any], heads: _Heads, prefix: str) -> Layout:
    layout = embeddings(file, f"{prefix}model.")
    if "output.weight" in file.tensors:
        layout["output.weight"] = entry(f"{prefix}lm_head.weight")
    for layer in range(config["num_hidden_layers"]):
        block, target = f"blk.{layer}.", f"{prefix}model.layers.{layer}."
        layout |= norms(block, target, _NORMS)
        if (layer + 1) % config["full_attention_interval"] == 0:
            layout |= _full_attention(file, config, block, target)
        else:
            layout |= _linear_attention(file, heads, block, f"{target}linear_attn.")
        if "num_experts" in config:
            layout |= _feed_forward(file, config, block, f"{target}mlp.")
        else:
            layout |= weights(block, target, GATED)
    return layout | multi_token_prediction(file, config)


def _full_attention(file: GGUFFile, config: dict[str, Any], block: str, target: str) -> Layout:
    """Give the entries of full attention, each of whose heads has as many rows of a gate as of queries."""
    queries, keys, values = head_rows(config)
    layout = query_key_value(file, block, f"{target}self_attn.", (2 * queries, keys, values))
    return layout | weights(block, target, {"attn_output": "self_attn.o_proj"}) | norms(block, target, _HEAD_NORMS)


def _feed_forward(file: GGUFFile, config: dict[str, Any], block: str, target: str) -> Layout:
    layout = experts.routed(file, block, f"{target}switch_mlp.", config["moe_intermediate_size"])
    layout |= experts.shared(block, f"{target}shared_expert.") | weights(block, target, {"ffn_gate_inp": "gate"})
    layout[f"{block}ffn_gate_inp_shexp.weight"] = entry(f"{target}shared_expert_gate.weight", _one_row, is_dense=True)
    return layout


def _one_row(weight: np.ndarray) -> np.ndarray:
    return weight.reshape(1, -1)


def _linear_attention(file: GGUFFile, heads: _Heads, block: str, target: str) -> Layout:
    layout = norms(block, target, {"ssm_norm": "norm"}) | _projections(file, heads, block, target)
    return layout | {
        f"{block}ssm_a": entry(f"{target}A_log", lambda a: np.log(-_grouped(a, heads)), is_dense=True),
        f"{block}ssm_dt.bias": entry(f"{target}dt_bias", _rows(heads), is_dense=True),
        f"{block}ssm_conv1d.weight": entry(
            f"{target}conv1d.weight", lambda kernels: _after_keys(heads)(kernels)[..., None], is_dense=True
        ),
        f"{block}ssm_out.weight": entry(
            f"{target}out_proj.weight", _columns(heads), is_dense=heads.value_size % _LARGEST_GROUP != 0
        ),
    }


def _projections(file: GGUFFile, heads: _Heads, block: str, target: str) -> Layout:
    if heads.is_tiled:
        return {
            f"{block}attn_qkv.weight": entry(f"{target}in_proj_qkv.weight", _after_keys(heads)),
            f"{block}attn_gate.weight": entry(f"{target}in_proj_z.weight", _rows(heads)),
            f"{block}ssm_alpha.weight": entry(f"{target}in_proj_a.weight", _rows(heads)),
            f"{block}ssm_beta.weight": entry(f"{target}in_proj_b.weight", _rows(heads)),
        }
    joined = f"{target}in_proj_qkvz.weight"
    layout = weights(block, target, {"ssm_ba": "in_proj_ba"})
    if (whole := f"{block}ssm_in.weight") in file.tensors:  # of the first files, which have it as mlx-lm does
        return layout | {whole: entry(joined)}
    rows, gate = f"{block}attn_qkv.weight", f"{block}attn_gate.weight"
    kinds = {file.tensors[name].type.name for name in (rows, gate) if name in file.tensors}
    is_dense = len(kinds) > 1  # rows of different packings cannot be one matrix
    return layout | {gate: Entry(()), rows: Entry((Target(joined, _by_key_head(heads), is_dense, (gate,)),))}


def _grouped(array: np.ndarray, heads: _Heads, axis: int = 0) -> np.ndarray:
    """Put value heads beside those that share their key head.

    In the files of Qwen 3.5 the first value heads of all key heads come first, then the second ones.
    """
    if not heads.is_tiled:
        return array
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    parts = array.reshape(*before, heads.per_key, heads.keys, -1, *after)
    return np.ascontiguousarray(parts.swapaxes(axis, axis + 1)).reshape(array.shape)


def _rows(heads: _Heads) -> Change:
    return lambda matrix: each_array(matrix, lambda array: _grouped(array, heads))


def _columns(heads: _Heads) -> Change:
    return lambda matrix: each_array(matrix, lambda array: _grouped(array, heads, 1))


def _after_keys(heads: _Heads) -> Change:
    """Change the order of the rows of values, which come after those of queries and keys."""
    first = 2 * heads.keys * heads.key_size

    def change(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[:first], _grouped(array[first:], heads)])

    return lambda matrix: each_array(matrix, change)


def _by_key_head(heads: _Heads) -> Change:
    """Join queries, keys and values with gates: for each key head its rows of all four."""
    key_rows = heads.keys * heads.key_size

    def change(array: np.ndarray, gates: np.ndarray) -> np.ndarray:
        parts = (array[:key_rows], array[key_rows : 2 * key_rows], array[2 * key_rows :], gates)
        by_head = [part.reshape(heads.keys, -1, part.shape[-1]) for part in parts]
        return np.concatenate(by_head, axis=1).reshape(-1, array.shape[-1])

    return lambda matrix, gates: each_array(matrix, change, gates)
