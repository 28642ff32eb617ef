"""Tiny GGUF files with real tokenizers, written by llama.cpp's own package from the MLX folders of the tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants
from safetensors.numpy import load_file, save_file

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
_LAYERS = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def write(
    folder: Path,
    path: Path,
    types: Mapping[str, str] | str = "F32",
    *,
    metadata: Mapping[str, str] | None = None,
    numbers: Mapping[str, int] | None = None,
    shards: int = 1,
    template: bool = True,
) -> Path:
    """Write the model of an MLX folder (tests/tiny_model.py) as a GGUF file. Returns the file, or its first shard.

    `types` are those of the matrices, by the name in the file: "attn_q" or "token_embd"; or one for all.
    """
    config = json.loads((folder / "config.json").read_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    largest = (
        {} if shards == 1 else {"split_max_tensors": -(-(len(_LAYERS) * config["num_hidden_layers"] + 2) // shards)}
    )
    writer = GGUFWriter(path, "llama", **largest)
    add_sizes(writer, config)
    add_tokenizer(writer, folder, template=template)
    for key, value in (metadata or {}).items():
        writer.add_string(key, value)
    for key, number in (numbers or {}).items():
        writer.add_uint32(key, number)
    for name, values in load_file(folder / "model.safetensors").items():
        _add_tensor(writer, _name(name), _turned(name, values, config), types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path if shards == 1 else path.with_name(f"{path.stem}-00001-of-{shards:05}.gguf")


def rounded(folder: Path, target: Path, types: Mapping[str, str] | str) -> Path:
    """Write the MLX folder whose weights, in float32, are exactly those of such a file."""
    target.mkdir(parents=True)
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (target / path.name).write_bytes(path.read_bytes())
    weights = {
        name: _rounded(_name(name), values, types) for name, values in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, target / "model.safetensors", metadata={"format": "mlx"})
    return target


def _type(name: str, values: np.ndarray, types: Mapping[str, str] | str) -> GGMLQuantizationType:
    if values.ndim == 1:
        return GGMLQuantizationType.F32
    kind = types if isinstance(types, str) else types.get(name.split(".")[-2], "F32")
    return GGMLQuantizationType[kind]


def _rounded(name: str, values: np.ndarray, types: Mapping[str, str] | str) -> np.ndarray:
    kind = _type(name, values, types)
    wide = quants.dequantize(quants.quantize(values, kind), kind)
    return np.ascontiguousarray(wide.reshape(values.shape), np.float32)


def _add_tensor(writer: GGUFWriter, name: str, values: np.ndarray, types: Mapping[str, str] | str) -> None:
    kind = _type(name, values, types)
    writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)


def _name(name: str) -> str:
    if name in _OUTSIDE:
        return _OUTSIDE[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYERS[rest.removesuffix('.weight')]}.weight"


def _turned(name: str, values: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Put the rows of queries and keys into llama.cpp's order, in which the pairs that rope turns are neighbours."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
    if heads is None:
        return values
    halves = values.reshape(config[heads], 2, -1, values.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def add_sizes(writer: GGUFWriter, config: dict[str, Any]) -> None:
    """Add what a configuration says of the sizes of a model."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])


def add_tokenizer(writer: GGUFWriter, folder: Path, *, template: bool) -> None:
    """Add the tokenizer of a folder, with its chat template."""
    content = json.loads((folder / "tokenizer.json").read_bytes())
    special = {one["content"]: one["special"] for one in content["added_tokens"]}
    ids = content["model"]["vocab"] | {one["content"]: one["id"] for one in content["added_tokens"]}
    tokens = sorted(ids, key=lambda token: int(ids[token]))
    kinds = {None: NORMAL, True: CONTROL, False: USER_DEFINED}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds[special.get(token)] for token in tokens])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in content["model"]["merges"]]
    )
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template((folder / "chat_template.jinja").read_text())
