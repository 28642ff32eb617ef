"""Tiny models as GGUF files, written as llama.cpp's converter writes them, and the same models as mlx-lm has them.

To add an architecture, add a row to `MODELS`: its configuration, and where the file has other names or numbers than
Hugging Face's model. The names of the file are those of the package `gguf`, which is llama.cpp's own.
"""

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

Change = Callable[[np.ndarray, dict[str, Any]], np.ndarray]  # of an array, given the configuration
Split = Callable[[np.ndarray, dict[str, Any]], dict[str, np.ndarray]]
# What stays as it is in files of any quantization, besides what has one dimension.
_FLOAT = re.compile(r"ffn_gate_inp|ssm_conv1d|shortconv.conv|altup|laurel|per_layer_model_proj|attn_kv_b|_norm\.weight")


class TinyModel(NamedTuple):
    """An architecture in a variant: what is special about it, and how it goes into a file."""

    name: str
    architecture: str  # llama.cpp's name
    config: dict[str, Any]  # as mlx-lm reads it
    keys: dict[str, Any] = {}  # of the metadata, without the architecture's name; laid over those that all have
    names: dict[str, str] = {}  # patterns in mlx-lm's names, and what Hugging Face has there, or the file
    changes: dict[str, Change] = {}  # of what has such a name (a pattern) in the file
    parts: dict[str, Split] = {}  # of what the file has as several tensors: what stands where the pattern did
    tensors: dict[str, np.ndarray] = {}  # of the file that are no weights of mlx-lm's model
    optional: tuple[str, ...] = ()  # tensors without which the file is another model, but a whole one

    @property
    def text(self) -> dict[str, Any]:
        """The part of the configuration that is the language model's."""
        return {**self.config, **self.config.get("text_config", {})}


def make_model(config: dict[str, Any]) -> Any:
    """Make mlx-lm's model of a configuration, with the weights that a new one has."""
    module = import_module(f"mlx_lm.models.{config['model_type']}")
    return module.Model(module.ModelArgs.from_dict(config))


def load(config: dict[str, Any], weights: Mapping[str, Any]) -> Any:
    """Make a model and give it weights, strictly, as mlx-lm does with those of a folder."""
    model = make_model(config)
    arrays = {name: mx.array(array) for name, array in weights.items()}
    model.load_weights(list(model.sanitize(arrays).items() if hasattr(model, "sanitize") else arrays.items()))
    return model


def log_probabilities(model: Any, count: int = 24) -> mx.array:
    """Give what a model says about the next token at each place of a prompt: (count, vocabulary)."""
    prompt = mx.array([[(7 * place * place + 3 * place + 5) % 100 for place in range(count)]])
    logits = model(prompt)[0].astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def random_weights(model: TinyModel, quantization: str, seed: int = 1) -> dict[str, np.ndarray]:
    """Give random float32 weights by mlx-lm's names, such as a file of this quantization can hold exactly."""
    generator = np.random.default_rng(seed)
    weights = {}
    for name, array in tree_flatten(make_model(model.config).parameters()):
        if name == "lm_head.weight" and model.text.get("tie_word_embeddings"):
            continue
        values = generator.normal(size=array.shape) * 0.15 + (1 if array.ndim == 1 else 0)
        weights[name] = _rounded(values.astype(np.float32), file_name(model, name), quantization)
    return weights


def write(model: TinyModel, weights: Mapping[str, np.ndarray], path: Path, quantization: str) -> Path:
    """Write the file of a model with weights by mlx-lm's names."""
    writer = gguf.GGUFWriter(path, model.architecture)
    for key, value in (_keys(model.text) | model.keys).items():
        _add(writer, f"{model.architecture}.{key}", value)
    for name, array in _stacked(model, weights).items():
        for pattern, change in model.changes.items():
            if re.search(pattern, name):
                array = np.ascontiguousarray(change(array, model.text))
        kind = gguf.GGMLQuantizationType[_quantization(array, name, quantization)]
        for part, rows in _split(model, name, array).items():
            writer.add_tensor(part, gguf.quants.quantize(rows, kind), raw_dtype=kind)
    for name, array in model.tensors.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def file_name(model: TinyModel, name: str) -> str:
    """Give the name in the file of a parameter of mlx-lm's; of several that are joined there all have the same."""
    name = name.replace("language_model.", "").replace("switch_mlp.", "experts.")
    for pattern, replacement in model.names.items():
        name = re.sub(pattern, replacement, name)
    names = _names(model.architecture, model.text["num_hidden_layers"])
    return names.get_name(name, try_suffixes=(".weight", ".bias")) or name


@cache
def _names(architecture: str, layers: int) -> gguf.TensorNameMap:
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    return gguf.get_tensor_name_map(gguf.MODEL_ARCH(numbers[architecture]), layers)


def _stacked(model: TinyModel, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give weights by their names in the file. What has the same name there is joined by rows."""
    tensors: dict[str, np.ndarray] = {}
    for name, array in weights.items():
        key = file_name(model, name)
        tensors[key] = np.concatenate([tensors[key], array], axis=-2) if key in tensors else array
    return tensors


def _split(model: TinyModel, name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """Give the tensors of the file that one of mlx-lm's becomes."""
    for pattern, split in model.parts.items():
        if re.search(pattern, name):
            parts = split(array, model.text).items()
            return {re.sub(pattern, part, name): np.ascontiguousarray(rows) for part, rows in parts}
    return {name: array}


def _keys(config: dict[str, Any]) -> dict[str, Any]:
    """Give the metadata that the converter writes for all models, from the names of Hugging Face."""
    keys = {
        "block_count": config["num_hidden_layers"],
        "context_length": config.get("max_position_embeddings"),
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config.get("intermediate_size"),
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config.get("num_key_value_heads"),
        "attention.key_length": config.get("head_dim"),
        "attention.value_length": config.get("head_dim"),
        "attention.layer_norm_rms_epsilon": config.get("rms_norm_eps"),
        "rope.freq_base": config.get("rope_theta"),
        "expert_count": config.get("num_local_experts", config.get("num_experts")),
        "expert_used_count": config.get("num_experts_per_tok", config.get("top_k_experts")),
    }
    return {key: value for key, value in keys.items() if value is not None}


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:  # a row takes a key away
        return
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds.get(type(value), writer.add_array)(key, value)


def _quantization(array: np.ndarray, name: str, quantization: str) -> str:
    is_matrix = array.ndim > 1 and array.shape[-1] % 32 == 0 and name.endswith(".weight") and not _FLOAT.search(name)
    return quantization if is_matrix else "F32"


def _rounded(array: np.ndarray, name: str, quantization: str) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[_quantization(array, name, quantization)]
    return gguf.quants.dequantize(gguf.quants.quantize(array, kind), kind).reshape(array.shape)


def plus_one(array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """What the file has of Gemma's norms: the factor itself, to which the model does not add one."""
    return array + np.float32(1)


def pairs_together(heads: str) -> Change:
    """Let rope's pairs lie side by side, as in files of Llama: (half, pair) of each head becomes (pair, half)."""

    def change(array: np.ndarray, config: dict[str, Any]) -> np.ndarray:
        halves = array.reshape(config[heads], 2, -1, *array.shape[1:])
        return halves.swapaxes(1, 2).reshape(array.shape)

    return change


def llama3_factors(size: int, base: float, factor: float) -> np.ndarray:
    """Give the file's factors of the wave lengths of Llama 3's rope, one for each pair."""
    factors = []
    for pair in range(size // 2):
        length = 2 * np.pi * base ** (2 * pair / size)
        share = (8192 / length - 1) / 3
        factors.append(1 if length < 2048 else factor if length > 8192 else 1 / ((1 - share) / factor + share))
    return np.array(factors, np.float32)


SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "vocab_size": 128,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
}
_LLAMA = {
    r"attn_q\.": pairs_together("num_attention_heads"),
    r"attn_k\.": pairs_together("num_key_value_heads"),
}
_LLAMA_KEYS = {"rope.dimension_count": 16, "vocab_size": 128}
_NORMS = {r"norm\.weight$": plus_one}
_TIED: dict[str, Any] = {"tie_word_embeddings": True}
_UNTIED: dict[str, Any] = {"tie_word_embeddings": False}
_YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
}
_YARN_KEYS = {
    "rope.scaling.type": "yarn",
    "rope.scaling.factor": 4.0,
    "rope.scaling.original_context_length": 128,
}
_QWEN_3_MOE = (
    SIZES
    | _UNTIED
    | {
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    }
)
_SECTIONS = {"rope.dimension_sections": [6, 5, 5, 0]}
_WINDOWS = ["sliding_attention", "sliding_attention", "full_attention"] * 2
_GEMMA_4 = SIZES | {
    "model_type": "gemma4_text",
    "num_hidden_layers": 6,
    "head_dim": 16,
    "global_head_dim": 32,
    "rms_norm_eps": 1e-06,
    "num_key_value_heads": 1,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 128,
    "sliding_window": 8,
    "final_logit_softcapping": 30.0,
    "layer_types": _WINDOWS,
    "use_double_wide_mlp": False,
    "rope_parameters": {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    **_TIED,
}
_GEMMA_4_KEYS = {
    "attention.key_length": 32,
    "attention.value_length": 32,
    "attention.key_length_swa": 16,
    "attention.value_length_swa": 16,
    "attention.shared_kv_layers": 0,
    "attention.sliding_window": 8,
    "attention.sliding_window_pattern": [kind == "sliding_attention" for kind in _WINDOWS],
    "embedding_length_per_layer_input": 0,
    "final_logit_softcapping": 30.0,
    "rope.dimension_count": 32,
    "rope.dimension_count_swa": 16,
    "rope.freq_base": 1000000.0,
    "rope.freq_base_swa": 10000.0,
}
_GEMMA_4_ROPE = {"rope_freqs.weight": np.array([1.0] * 4 + [1e30] * 12, np.float32)}
_GEMMA_4_NAMES = {r"layer_scalar$": "layer_scalar.weight"}
_GEMMA_4_EXPERTS = {
    r"model\.layers\.(\d+)\.router\.scale": r"blk.\1.ffn_gate_inp.scale",
    r"model\.layers\.(\d+)\.router\.per_expert_scale": r"blk.\1.ffn_down_exps.scale",
    r"experts\.switch_glu\.(gate|up)_proj": "experts.gate_up_proj",
    r"experts\.switch_glu\.down_proj": "experts.down_proj",
}

MODELS = (
    TinyModel("llama", "llama", SIZES | _UNTIED | {"model_type": "llama", "head_dim": 16}, _LLAMA_KEYS, changes=_LLAMA),
    TinyModel(
        "llama-3",
        "llama",
        SIZES
        | _TIED
        | {
            "model_type": "llama",
            "head_dim": 32,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            },
        },
        {"rope.dimension_count": 32, "vocab_size": 128},
        changes=_LLAMA,
        tensors={"rope_freqs.weight": llama3_factors(32, 500000.0, 8.0)},
        optional=("rope_freqs.weight",),
    ),
    TinyModel(
        "llama-linear",
        "llama",
        SIZES
        | _UNTIED
        | {"model_type": "llama", "head_dim": 16, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
        _LLAMA_KEYS | {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
        changes=_LLAMA,
    ),
    TinyModel(
        "llama-yarn",
        "llama",
        SIZES | _UNTIED | {"model_type": "llama", "head_dim": 32, "rope_scaling": _YARN},
        _YARN_KEYS | {"rope.dimension_count": 32, "vocab_size": 128},
        changes=_LLAMA,
    ),
    TinyModel(
        "llama-biases",
        "llama",
        SIZES | _UNTIED | {"model_type": "llama", "head_dim": 16, "attention_bias": True, "mlp_bias": True},
        _LLAMA_KEYS,
        changes=_LLAMA,
    ),
    TinyModel(
        "mixtral",
        "llama",
        SIZES | _UNTIED | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
        _LLAMA_KEYS,
        {r"block_sparse_moe\.experts": "mlp.experts"},
        changes=_LLAMA,
    ),
    TinyModel("qwen2", "qwen2", SIZES | _UNTIED | {"model_type": "qwen2"}),
    TinyModel("qwen2-tied", "qwen2", SIZES | _TIED | {"model_type": "qwen2", "rope_theta": 1000000.0}),
    TinyModel("qwen3", "qwen3", SIZES | _TIED | {"model_type": "qwen3", "head_dim": 32}),
    TinyModel(
        "qwen3-yarn",
        "qwen3",
        SIZES | _TIED | {"model_type": "qwen3", "head_dim": 32, "rope_scaling": _YARN},
        _YARN_KEYS,
    ),
    TinyModel("qwen3moe", "qwen3moe", _QWEN_3_MOE, {"expert_feed_forward_length": 32}),
    TinyModel("qwen2-vision", "qwen2vl", SIZES | _UNTIED | {"model_type": "qwen2"}, _SECTIONS),
    TinyModel(
        "qwen3-vision",
        "qwen3vl",
        SIZES | _UNTIED | {"model_type": "qwen3", "head_dim": 32},
        _SECTIONS | {"n_deepstack_layers": 3},
    ),
    TinyModel(
        "qwen3moe-vision",
        "qwen3vlmoe",
        _QWEN_3_MOE,
        _SECTIONS | {"n_deepstack_layers": 3, "expert_feed_forward_length": 32},
    ),
    TinyModel("gemma", "gemma", SIZES | _TIED | {"model_type": "gemma", "head_dim": 32}, changes=_NORMS),
    TinyModel(
        "gemma2",
        "gemma2",
        SIZES
        | _TIED
        | {
            "model_type": "gemma2",
            "head_dim": 32,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 3.0,
            "query_pre_attn_scalar": 32,
        },
        {"attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0, "attention.sliding_window": 64},
        changes=_NORMS,
    ),
    TinyModel(
        "gemma3",
        "gemma3",
        SIZES
        | _TIED
        | {
            "model_type": "gemma3_text",
            "num_hidden_layers": 7,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "sliding_window": 8,
            "sliding_window_pattern": 6,
        },
        {"attention.sliding_window": 8, "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
        changes=_NORMS,
    ),
    TinyModel(
        "gemma3-pattern",
        "gemma3",
        SIZES
        | _UNTIED
        | {
            "model_type": "gemma3_text",
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 5000.0,
            "sliding_window": 8,
            "sliding_window_pattern": 3,
        },
        {"attention.sliding_window": 8, "attention.sliding_window_pattern": 3, "rope.freq_base_swa": 5000.0},
        changes=_NORMS,
    ),
    TinyModel(
        "gemma4",
        "gemma4",
        _GEMMA_4 | {"num_kv_shared_layers": 3, "hidden_size_per_layer_input": 32, "use_double_wide_mlp": True},
        _GEMMA_4_KEYS
        | {
            "attention.shared_kv_layers": 3,
            "embedding_length_per_layer_input": 32,
            "feed_forward_length": [96, 96, 96, 192, 192, 192],
        },
        _GEMMA_4_NAMES,
        tensors=_GEMMA_4_ROPE,
        optional=("blk.2.attn_v.weight",),
    ),
    TinyModel(
        "gemma4-experts",
        "gemma4",
        _GEMMA_4
        | {
            "num_key_value_heads": 2,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
            "enable_moe_block": True,
            "num_experts": 4,
            "top_k_experts": 2,
            "moe_intermediate_size": 32,
        },
        _GEMMA_4_KEYS | {"attention.head_count_kv": [2, 2, 1, 2, 2, 1], "expert_feed_forward_length": 32},
        _GEMMA_4_EXPERTS | _GEMMA_4_NAMES,
        tensors=_GEMMA_4_ROPE,
    ),
)
