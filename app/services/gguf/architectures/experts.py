"""Mixtures of experts: the tensors that files have for them, one for all experts of a layer."""

from typing import Any

from app.services.gguf.architectures.common import GATED
from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import Entry, Layout, Target, entry, rows, weights
from app.services.gguf.file import GGUFFile

SOFTMAX, SIGMOID = 1, 2  # llama.cpp's numbers of the ways in which experts are chosen (`expert_gating_func`)


def routed(file: GGUFFile, block: str, target: str, size: int) -> Layout:
    """Give the entries of all experts, whose gates and ups a file may have as one tensor, gates first.

    `target` ends in a dot ("model.layers.0.mlp.switch_mlp."); `size` is that of an expert's hidden state.
    """
    names = {f"ffn_{name}_exps": f"{name}_proj" for name in ("gate", "up", "down")}
    if (fused := f"{block}ffn_gate_up_exps.weight") not in file.tensors:
        return weights(block, target, names)
    gate = Target(f"{target}gate_proj.weight", rows(0, size))
    up = Target(f"{target}up_proj.weight", rows(size, 2 * size))
    return {fused: Entry((gate, up)), f"{block}ffn_down_exps.weight": entry(f"{target}down_proj.weight")}


def shared(block: str, target: str) -> Layout:
    """Give the entries of the expert that every token passes."""
    return weights(block, target, {f"ffn_{name}_shexp": f"{name}_proj" for name in ("gate", "up", "down")})


def sigmoid_choice(values: Hyperparameters, layers: int) -> dict[str, Any]:
    """Give the config of experts that are chosen by a sigmoid and a bias. Raises LoadFailed for others."""
    values.expect("expert_gating_func", SIGMOID)
    size = uniform(values.per_layer("expert_feed_forward_length", layers), values, "expert_feed_forward_length")
    return {
        "moe_intermediate_size": size,
        "n_routed_experts": values.integer("expert_count"),
        "num_experts_per_tok": uniform(values.per_layer("expert_used_count", layers), values, "experts"),
        "norm_topk_prob": values.flag("expert_weights_norm", False),
        "routed_scaling_factor": values.number("expert_weights_scale", 0.0) or 1.0,
        "n_group": values.integer("expert_group_count", 0) or 1,
        "topk_group": values.integer("expert_group_used_count", 0) or 1,
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
    }


def chosen(file: GGUFFile, config: dict[str, Any], block: str, target: str) -> Layout:
    """Give the entries of a layer of experts with what they are chosen by; `target` ends in a dot ("….mlp.")."""
    layout = routed(file, block, f"{target}switch_mlp.", config["moe_intermediate_size"])
    layout[f"{block}ffn_gate_inp.weight"] = entry(f"{target}gate.weight", is_dense=True)
    if f"{block}exp_probs_b.bias" in file.tensors or config.get("scoring_func") == "sigmoid":
        layout[f"{block}exp_probs_b.bias"] = entry(f"{target}gate.e_score_correction_bias", is_dense=True)
    return layout | (shared(block, f"{target}shared_experts.") if config["n_shared_experts"] else {})


def dense_or_chosen(file: GGUFFile, config: dict[str, Any], layer: int) -> Layout:
    """Give the entries of the feed-forward part of a layer: the first ones are dense, the others have experts."""
    block, target = f"blk.{layer}.", f"model.layers.{layer}."
    if layer < config["first_k_dense_replace"]:
        return weights(block, target, GATED)
    return chosen(file, config, block, f"{target}mlp.")
