"""What architectures share: the sizes that all have, and the tensors that llama.cpp names alike for all."""

from typing import Any

from app.services.gguf.architectures.hyperparameters import Hyperparameters, uniform
from app.services.gguf.architectures.layout import Entry, Layout, Target, entry, joined, weights, wrong_shape
from app.services.gguf.file import GGUFFile

GATED = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
EXPERTS = {f"{name}_exps": to.replace("mlp.", "mlp.switch_mlp.") for name, to in GATED.items()}
SHARED_EXPERTS = {f"{name}_shexp": to.replace("mlp.", "mlp.shared_experts.") for name, to in GATED.items()}
_QUERY_KEY_VALUE = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj"}


def sizes(file: GGUFFile, values: Hyperparameters) -> dict[str, Any]:
    """Give the part of config.json that nearly all models have. Raises LoadFailed."""
    values.expect("attention.causal", True)
    layers = values.integer("block_count") - values.integer("nextn_predict_layers", 0)
    if not 1 <= layers <= len(file.tensors):  # before anything is made for each
        raise values.refused(f"has {layers} layers by its metadata, but {len(file.tensors)} tensors")
    return {
        "hidden_size": hidden_size(file, values),
        "num_hidden_layers": layers,
        "num_attention_heads": uniform(
            values.per_layer("attention.head_count", layers, least=1), values, "attention heads"
        ),
        "rms_norm_eps": values.number("attention.layer_norm_rms_epsilon"),
        "vocab_size": vocabulary(file, values),
        "rope_theta": values.number("rope.freq_base", 10000.0),
        "max_position_embeddings": values.integer("context_length", least=1),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }


def hidden_size(file: GGUFFile, values: Hyperparameters) -> int:
    """Give the size of the hidden states, which the embedding has, too. Raises LoadFailed if it does not."""
    size = values.integer("embedding_length", least=1)
    if (tensor := file.tensors.get("token_embd.weight")) is not None and tensor.shape[-1] != size:
        raise wrong_shape(file, tensor)
    return size


def key_value_heads(values: Hyperparameters, config: dict[str, Any]) -> int:
    """Give the number of KV heads, which is that of all heads where the file has none. Raises LoadFailed."""
    layers, most = config["num_hidden_layers"], config["num_attention_heads"]
    heads = uniform(values.per_layer("attention.head_count_kv", layers, most, least=1), values, "KV heads")
    if most % heads:
        raise values.refused(f"has {heads} KV heads for {most} attention heads")
    return heads


def head_dim(values: Hyperparameters, config: dict[str, Any]) -> int:
    """Give the size of a head, which is the same for keys and values. Raises LoadFailed if it is not."""
    size = values.integer("attention.key_length", config["hidden_size"] // config["num_attention_heads"], least=1)
    values.expect("attention.value_length", size)
    return size


def feed_forward(values: Hyperparameters, layers: int) -> int:
    """Give the size of the feed-forward layers, which is the same in all. Raises LoadFailed if it is not."""
    return uniform(values.per_layer("feed_forward_length", layers, least=1), values, "feed_forward_length")


def linear_rope(values: Hyperparameters) -> dict[str, Any] | None:
    """Give `rope_scaling` of a model that may stretch positions evenly. Raises LoadFailed for other ways."""
    kind = values.text("rope.scaling.type")
    factor = values.number("rope.scaling.factor", values.number("rope.scale_linear", 1.0))
    if kind not in (None, "none", "linear"):
        raise values.refused(f"has rope.scaling.type {kind!r}, which mlx-lm's model has not")
    return None if kind == "none" or factor in (0.0, 1.0) else {"rope_type": "linear", "factor": factor}


def vocabulary(file: GGUFFile, values: Hyperparameters, name: str = "token_embd.weight") -> int:
    """Give the number of rows of an embedding: a vocabulary may be padded, and mlx-lm wants that size."""
    if (tensor := file.tensors.get(name)) is None:
        raise values.refused(f"lacks the tensor {name!r}")
    return tensor.shape[0]


def head_rows(config: dict[str, Any]) -> tuple[int, int, int]:
    """Give the rows of the projections of a layer: heads times their size, of queries, keys and values."""
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    cached = config["num_key_value_heads"] * size
    return config["num_attention_heads"] * size, cached, cached


def query_key_value(
    file: GGUFFile, block: str, target: str, heads: tuple[int, int, int], *, biases: bool = False
) -> Layout:
    """Give the entries of the projections of a layer, which a file may have as one tensor: queries, keys, values.

    `target` ends in a dot; `heads` are their rows (`head_rows`).
    """
    if (fused := f"{block}attn_qkv.weight") not in file.tensors:
        return weights(block, target, _QUERY_KEY_VALUE, biases=biases)
    names = list(_QUERY_KEY_VALUE.values())
    layout = {fused: joined(file, fused, {f"{target}{to}.weight": rows for to, rows in zip(names, heads, strict=True)})}
    if biases and (bias := f"{block}attn_qkv.bias") in file.tensors:
        parts = {f"{target}{to}.bias": rows for to, rows in zip(names, heads, strict=True)}
        layout[bias] = joined(file, bias, parts, is_dense=True)
    return layout


def multi_token_prediction(file: GGUFFile, config: dict[str, Any]) -> Layout:
    """Give the entries of the layers after the last, which predict further tokens and which mlx-lm does not have."""
    numbers = range(config["num_hidden_layers"], config["num_hidden_layers"] + 8)
    prefixes = tuple(f"blk.{number}." for number in numbers)
    return {name: Entry(()) for name in file.tensors if name.startswith(prefixes)}


def embeddings(file: GGUFFile, target: str = "model.", *, norm: str = "norm", ties: bool = True) -> Layout:
    """Give the entries of what surrounds the layers. `ties`: mlx-lm can use the embedding as the output layer.

    Where it cannot, but the file does, the output layer is the same tensor a second time.
    """
    token = f"{target}embed_tokens.weight"
    layout = {"output_norm.weight": entry(f"{target}{norm}.weight", is_dense=True)}
    if "output.weight" in file.tensors:
        return layout | {"token_embd.weight": entry(token), "output.weight": entry("lm_head.weight")}
    twice = () if ties else (Target("lm_head.weight"),)
    return layout | {"token_embd.weight": Entry((Target(token), *twice))}
