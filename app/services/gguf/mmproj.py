"""The vision part of a model as llama.cpp has it (mmproj): which tower it holds, and which it is of several files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.services.errors import LoadFailed
from app.services.files import bad, explained
from app.services.gguf import names
from app.services.gguf.architectures.hyperparameters import Hyperparameters
from app.services.gguf.architectures.layout import (
    IGNORED,
    Entry,
    Layout,
    Parameter,
    Target,
    entry,
    minus_one,
    parameters,
)
from app.services.gguf.architectures.layout import weights as renamed
from app.services.gguf.architectures.rope import halves_apart
from app.services.gguf.file import GGUFFile, read_any

_KINDS = "gemma3, gemma4v, idefics3, lfm2, pixtral, qwen2vl_merger, qwen2.5vl_merger, qwen3vl_merger"
_WINDOW = 112  # pixels, of Qwen2.5-VL: in llama.cpp's code, not in the file
_LEAST_TOKENS = 64  # of an image for Qwen3-VL
_POOLING = 3  # patches of a token's side, of Gemma 4
_EPSILON = 1e-5  # of the norms in Pixtral's tower: in transformers' code, not in config.json
_BOTH = (".weight", ".bias")


@dataclass(frozen=True, slots=True)
class VisionPart:
    """A tower in a file, and the configuration that its model would have in a folder."""

    path: Path
    config: Mapping[str, Any]  # as config.json has it
    settings: Mapping[str, Any]  # as preprocessor_config.json has it
    image_token: str  # what stands for images in prompts, if the vocabulary has it
    parameters: tuple[Parameter, ...]  # by the names of the tower's weights in a folder


def choose(model: GGUFFile, config: Mapping[str, Any]) -> tuple[Path | None, str | None]:
    """Give the vision part beside a model's file that fits it, or why none of those that are there does."""
    folder, problem = model.path.parent, None
    folders = (folder, folder.parent) if names.is_quant(folder.name) else (folder,)
    with explained(model.path):
        beside = {path.name: path for one in folders for path in one.iterdir() if names.is_gguf(path.name)}
    for path in (beside[name] for name in names.vision_parts(beside, model.path.name)):
        try:
            read(path, model, config)
        except LoadFailed as error:
            problem = problem or error.message
        else:
            return path, None
    return None, problem


def read(path: Path, model: GGUFFile, config: Mapping[str, Any]) -> VisionPart:
    """Read the header of a vision part, given the model it is for. Raises LoadFailed for what does not fit."""
    file = read_any(path)
    if file.architecture != "clip":
        raise bad(path, "is no vision part (mmproj) of a model.")
    kind = file.metadata.get("clip.vision.projector_type") or file.metadata.get("clip.projector_type")
    if (reader := _READERS.get((model.architecture, kind if isinstance(kind, str) else ""))) is None:
        reason = f"is of the kind {kind!r}, which cannot be read for a model of architecture {model.architecture!r}"
        raise bad(path, f"{reason} (kinds that can be: {_KINDS}).")
    text = dict(config.get("text_config") or config)
    values = Hyperparameters(file)
    if (width := values.integer("vision.projection_dim", text["hidden_size"])) != text["hidden_size"]:
        raise bad(path, f"is for a model of the width {width}, but {model.path.name} has {text['hidden_size']}.")
    sections = model.metadata.get(f"{model.architecture}.rope.dimension_sections")
    if sections is not None:
        rope = text.get("rope_parameters") or {}
        text["rope_scaling"] = {**rope, "mrope_section": [int(one) for one in sections[:3]]}
    try:
        tower = reader(file, values, text)
    except KeyError as error:
        raise bad(path, f"lacks the tensor {error}. Download it again.") from error
    if missing := set(tower.texts).difference(model.metadata.get("tokenizer.ggml.tokens", ())):
        raise bad(path, f"is for a model with the token {min(missing)}, which {model.path.name} has not.")
    moments = {name: values.numbers(f"vision.{name}", 3) for name in ("image_mean", "image_std")}
    weights = tuple(parameters(file, tower.layout | _sound(file)))
    return VisionPart(path, {"text_config": text, **tower.config}, moments | tower.settings, tower.image_token, weights)


def _sound(file: GGUFFile) -> Layout:
    """Leave out the part of a file that hears."""
    return {name: IGNORED for name in file.tensors if name.startswith(("a.", "mm.a."))}


class _Tower(NamedTuple):
    """What a file says of its tower."""

    config: dict[str, Any]  # config.json, without the text model
    settings: dict[str, Any]  # preprocessor_config.json, without mean and standard deviation
    image_token: str
    layout: Layout
    texts: tuple[str, ...] = ()  # tokens that images need in the vocabulary


def _sizes(file: GGUFFile, values: Hyperparameters) -> tuple[int, int, int, int, int]:
    """Give width, inner width, layers, heads and the patch's side. Files of Qwen 2 VL have another inner width."""
    width, layers = values.integer("vision.embedding_length"), values.integer("vision.block_count")
    up = file.tensors.get("v.blk.0.ffn_up.weight")
    inner = max(up.shape) if up is not None and up.shape != (width, width) else width
    return width, inner, layers, values.integer("vision.attention.head_count"), values.integer("vision.patch_size")


def _feed_forward(file: GGUFFile, width: int, up: str, down: str) -> dict[str, str]:
    """Say where both matrices of a layer go: the first converters exchanged their names."""
    tensor = file.tensors.get("v.blk.0.ffn_down.weight")
    is_exchanged = tensor is not None and tensor.shape[-1] == width != tensor.shape[0]
    return {"ffn_up": down, "ffn_down": up} if is_exchanged else {"ffn_up": up, "ffn_down": down}


def _siglip(file: GGUFFile, values: Hyperparameters, tower: str) -> tuple[dict[str, Any], Layout]:
    """Give the sizes of SigLIP and where its tensors go; `tower` is before their names."""
    width, inner, layers, heads, patch = _sizes(file, values)
    vision = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": values.integer("vision.image_size"),
        "patch_size": patch,
        "layer_norm_eps": values.number("vision.attention.layer_norm_epsilon", 1e-6),
    }
    outer = {"v.patch_embd": "embeddings.patch_embedding", "v.post_ln": "post_layernorm"}
    layout = renamed("", tower, outer, biases=True)
    layout["v.position_embd.weight"] = entry(f"{tower}embeddings.position_embedding.weight")
    inside = {
        **{f"attn_{one}": f"self_attn.{one}_proj" for one in "qkv"},
        "attn_out": "self_attn.out_proj",
        "ln1": "layer_norm1",
        "ln2": "layer_norm2",
        **_feed_forward(file, width, "mlp.fc1", "mlp.fc2"),
    }
    for layer in range(layers):
        layout |= renamed(f"v.blk.{layer}.", f"{tower}encoder.layers.{layer}.", inside, biases=True)
    return vision, layout


def _gemma3(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    vision, layout = _siglip(file, values, "vision_tower.vision_model.")
    layout |= {
        "mm.input_projection.weight": entry("multi_modal_projector.mm_input_projection_weight"),
        "mm.soft_emb_norm.weight": entry("multi_modal_projector.mm_soft_emb_norm.weight", minus_one),
    }
    size, scale = vision["image_size"], values.integer("vision.projector.scale_factor", 4, least=1)
    tokens = (size // vision["patch_size"] // scale) ** 2
    config = {"model_type": "gemma3", "vision_config": vision, "mm_tokens_per_image": tokens}
    return _Tower(config, {"size": {"height": size, "width": size}, "resample": 2}, "<image_soft_token>", layout)


def _idefics3(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    vision, layout = _siglip(file, values, "vision_model.")
    layout["mm.model.fc.weight"] = entry("connector.modality_projection.proj.weight")
    scale, size = values.integer("vision.projector.scale_factor", 2, least=1), vision["image_size"]
    config = {"model_type": "smolvlm", "vision_config": vision, "scale_factor": scale}
    longest = values.integer("vision.preproc_image_size", 4 * size, least=1)
    settings = {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": size}, "resample": 1}
    return _Tower(config, settings, "<image>", layout)


def _lfm2(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    vision, layout = _siglip(file, values, "vision_tower.")
    vision["num_patches"] = file.tensors["v.position_embd.weight"].shape[0]
    kernel = entry("vision_tower.embeddings.patch_embedding.weight", _channels_innermost)
    layout |= {"v.patch_embd.weight": kernel}
    projector = "multi_modal_projector."
    layout |= renamed("", projector, {"mm.1": "linear_1", "mm.2": "linear_2"}, biases=True)
    is_normed = "mm.input_norm.weight" in file.tensors
    if is_normed:
        layout |= renamed("", projector, {"mm.input_norm": "layer_norm"}, biases=True)
    factor = values.integer("vision.projector.scale_factor", 2, least=1)
    config = {
        "model_type": "lfm2_vl",
        "vision_config": vision,
        "downsample_factor": factor,
        "projector_hidden_size": file.tensors["mm.1.weight"].shape[0],
        "projector_bias": "mm.1.bias" in file.tensors,
        "projector_use_layernorm": is_normed,
    }
    settings = {"encoder_patch_size": vision["patch_size"], "downsample_factor": factor}
    return _Tower(config, settings, "<image>", layout)


def _gemma4(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    width, inner, layers, heads, patch = _sizes(file, values)
    pooling = values.integer("vision.projector.scale_factor", _POOLING, least=1)
    head_size = file.tensors["v.blk.0.attn_q.weight"].shape[0] // heads
    is_clipped = "v.blk.0.attn_q.input_min" in file.tensors
    vision = {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": file.tensors["v.blk.0.attn_k.weight"].shape[0] // head_size,
        "head_dim": head_size,
        "patch_size": patch,
        "pooling_kernel_size": pooling,
        "position_embedding_size": file.tensors["v.position_embd.weight"].shape[1],
        "use_clipped_linears": is_clipped,
        "standardize": "v.std_bias" in file.tensors,
    }
    layout: Layout = {
        "v.patch_embd.weight": entry("vision_tower.patch_embedder.input_proj.weight", _channels_innermost),
        "v.position_embd.weight": entry("vision_tower.patch_embedder.position_embedding_table"),
        "mm.input_projection.weight": entry("embed_vision.embedding_projection.weight"),
        **{f"v.{name}": entry(f"vision_tower.{name}", is_optional=True) for name in ("std_bias", "std_scale")},
    }
    norms = {
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ln1": "input_layernorm",
        "attn_post_norm": "post_attention_layernorm",
        "ln2": "pre_feedforward_layernorm",
        "ffn_post_norm": "post_feedforward_layernorm",
    }
    linears = {
        **{f"attn_{one}": f"self_attn.{one}_proj" for one in "qkv"},
        "attn_out": "self_attn.o_proj",
        **{f"ffn_{one}": f"mlp.{one}_proj" for one in ("gate", "up", "down")},
    }
    for layer in range(layers):
        block, target = f"v.blk.{layer}.", f"vision_tower.encoder.layers.{layer}."
        layout |= renamed(block, target, norms | {name: f"{to}.linear" for name, to in linears.items()})
        if is_clipped:
            limits = [f"{side}_{limit}" for side in ("input", "output") for limit in ("min", "max")]
            layout |= {
                f"{block}{name}.{limit}": entry(f"{target}{to}.{limit}")
                for name, to in linears.items()
                for limit in limits
            }
    # The larger models, which have no embeddings for each layer, let the tokens of an image see each other.
    whole = {**text, "use_bidirectional_attention": None if text.get("hidden_size_per_layer_input") else "vision"}
    config = {"model_type": "gemma4", "vision_config": vision, "text_config": whole}
    settings = {"patch_size": patch, "pooling_kernel_size": pooling, "do_normalize": False}
    return _Tower(config, settings, "<|image|>", layout)


def _pixtral(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    width, inner, layers, heads, patch = _sizes(file, values)
    if (epsilon := values.number("vision.attention.layer_norm_epsilon")) != _EPSILON:
        raise values.refused(f"has norms with an epsilon of {epsilon}, not of {_EPSILON}")
    activations = [name for name in ("silu", "gelu") if values.flag(f"use_{name}", default=False)]
    if len(activations) != 1:
        raise values.refused("does not say which activation its layers have (clip.use_silu or clip.use_gelu)")
    vision = {
        "model_type": "pixtral",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": values.integer("vision.image_size", least=1),
        "patch_size": patch,
        "hidden_act": activations[0],
        "rope_theta": values.number("rope.freq_base", 10_000.0),
    }
    tower, projector = "vision_tower.", "multi_modal_projector."
    layout = renamed("", tower, {"v.patch_embd": "patch_conv", "v.pre_ln": "ln_pre"})
    layout |= renamed("", projector, {"mm.1": "linear_1", "mm.2": "linear_2"}, biases=True)
    # The row of the text model's embeddings that ends a row of an image: here it comes from the text model.
    layout["v.token_embd.img_break"] = IGNORED
    config = {
        "model_type": "pixtral",
        "vision_config": vision,
        "multimodal_projector_bias": "mm.1.bias" in file.tensors,
    }
    if "mm.patch_merger.weight" in file.tensors:  # Mistral 3
        config |= {"model_type": "mistral3", "spatial_merge_size": values.integer("vision.spatial_merge_size", least=1)}
        merger = {"mm.input_norm": "norm", "mm.patch_merger": "patch_merger.merging_layer"}
        layout |= renamed("", projector, merger)
    inside = {
        "attn_v": "attention.v_proj",
        "attn_out": "attention.o_proj",
        "ln1": "attention_norm",
        "ln2": "ffn_norm",
        **{f"ffn_{one}": f"feed_forward.{one}_proj" for one in ("gate", "up", "down")},
    }
    for layer in range(layers):
        block, target = f"v.blk.{layer}.", f"{tower}transformer.layers.{layer}."
        layout |= renamed(block, target, inside)
        layout |= {
            f"{block}attn_{one}.weight": entry(
                f"{target}attention.{one}_proj.weight", halves_apart(heads), is_dense=True
            )
            for one in "qk"
        }
    settings = {"size": {"longest_edge": vision["image_size"]}}
    return _Tower(config, settings, "[IMG]", layout, ("[IMG]", "[IMG_BREAK]", "[IMG_END]"))


def _qwen(
    model_type: str,
    file: GGUFFile,
    values: Hyperparameters,
    sizes: dict[str, Any],
    inside: Mapping[str, str],
    more: Layout,
) -> _Tower:
    """Give what the towers of Qwen's models have in common."""
    _, _, layers, heads, patch = _sizes(file, values)
    merge = values.integer("vision.spatial_merge_size", 2, least=1)
    vision = {
        "depth": layers,
        "num_heads": heads,
        "patch_size": patch,
        "temporal_patch_size": 2,
        "in_channels": 3,
        "spatial_merge_size": merge,
        **sizes,
    }
    layout: Layout = {
        "v.patch_embd.weight": _joined("visual.patch_embed.proj.weight", _moments, "v.patch_embd.weight.1"),
        "v.patch_embd.weight.1": Entry(()),
        **more,
    }
    for layer in range(layers):
        block, target = f"v.blk.{layer}.", f"visual.blocks.{layer}."
        layout |= renamed(
            block, target, {"attn_out": "attn.proj", "ln1": "norm1", "ln2": "norm2", **inside}, biases=True
        )
        for kind in _BOTH:
            if f"{block}attn_qkv{kind}" in file.tensors:
                layout[f"{block}attn_qkv{kind}"] = entry(f"{target}attn.qkv{kind}")
                continue
            first, *others = (f"{block}attn_{one}{kind}" for one in "qkv")
            layout |= {first: _joined(f"{target}attn.qkv{kind}", _rows, *others)} | dict.fromkeys(others, Entry(()))
    settings = {"patch_size": patch, "temporal_patch_size": 2, "merge_size": merge}
    return _Tower({"model_type": model_type, "vision_config": vision}, settings, "<|image_pad|>", layout)


def _qwen2(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    width, inner, *_ = _sizes(file, values)
    sizes = {"embed_dim": width, "hidden_size": text["hidden_size"], "mlp_ratio": inner / width}
    feed_forward = _feed_forward(file, width, "mlp.fc1", "mlp.fc2")
    return _qwen("qwen2_vl", file, values, sizes, feed_forward, _merger())


def _qwen2_5(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    width, inner, layers, *_ = _sizes(file, values)
    pattern = values.integer("vision.n_wa_pattern", least=1)
    sizes = {
        "hidden_size": width,
        "intermediate_size": inner,
        "out_hidden_size": text["hidden_size"],
        "window_size": values.integer("vision.window_size", _WINDOW, least=1),
        "fullatt_block_indexes": [*range(pattern - 1, layers, pattern)],
    }
    feed_forward = {**_feed_forward(file, width, "mlp.up_proj", "mlp.down_proj"), "ffn_gate": "mlp.gate_proj"}
    return _qwen("qwen2_5_vl", file, values, sizes, feed_forward, _merger())


def _merger() -> Layout:
    layout = renamed("", "visual.merger.", {"mm.0": "mlp.0", "mm.2": "mlp.2"}, biases=True)
    return layout | renamed("", "visual.merger.", {"v.post_ln": "ln_q"}, biases=True)


def _qwen3(file: GGUFFile, values: Hyperparameters, text: Mapping[str, Any]) -> _Tower:
    width, inner, layers, _, patch = _sizes(file, values)
    deep = [layer for layer in range(layers) if f"v.deepstack.{layer}.norm.weight" in file.tensors]
    sizes = {
        "hidden_size": width,
        "intermediate_size": inner,
        "out_hidden_size": text["hidden_size"],
        "num_position_embeddings": file.tensors["v.position_embd.weight"].shape[0],
        "deepstack_visual_indexes": deep,
    }
    more: Layout = {"v.position_embd.weight": entry("visual.pos_embed.weight")}
    more["v.patch_embd.bias"] = entry("visual.patch_embed.proj.bias")
    more |= renamed(
        "", "visual.merger.", {"mm.0": "linear_fc1", "mm.2": "linear_fc2", "v.post_ln": "norm"}, biases=True
    )
    for number, layer in enumerate(deep):
        target = f"visual.deepstack_merger_list.{number}."
        more |= renamed(
            f"v.deepstack.{layer}.", target, {"norm": "norm", "fc1": "linear_fc1", "fc2": "linear_fc2"}, biases=True
        )
    feed_forward = {"ffn_up": "mlp.linear_fc1", "ffn_down": "mlp.linear_fc2"}
    tower = _qwen("qwen3_vl" if deep else "qwen3_5", file, values, sizes, feed_forward, more)
    side = tower.settings["merge_size"] * patch
    tower.settings["size"] = {"shortest_edge": _LEAST_TOKENS * side**2, "longest_edge": 2**40}
    return tower


def _joined(name: str, change: Callable[..., Any], *partners: str) -> Entry:
    return Entry((Target(name, change, is_dense=True, partners=partners),))


def _rows(*arrays: np.ndarray) -> np.ndarray:
    return np.concatenate(arrays)


def _moments(*kernels: np.ndarray) -> np.ndarray:
    """Make the kernel of two moments (width, 3, 2, rows, columns) of that of each."""
    return np.stack(kernels, axis=2)


def _channels_innermost(kernel: np.ndarray) -> np.ndarray:
    """Make the matrix of patches (width, rows * columns * 3) of a kernel (width, 3, rows, columns)."""
    return np.ascontiguousarray(kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1))


Reader = Callable[[GGUFFile, Hyperparameters, Mapping[str, Any]], _Tower]
_READERS: Mapping[tuple[str, str], Reader] = {  # by the architecture of the model and the kind of its vision part
    ("gemma3", "gemma3"): _gemma3,
    ("gemma4", "gemma4v"): _gemma4,
    ("lfm2", "lfm2"): _lfm2,
    ("llama", "idefics3"): _idefics3,
    ("llama", "pixtral"): _pixtral,
    ("mistral3", "pixtral"): _pixtral,
    ("qwen2vl", "qwen2vl_merger"): _qwen2,
    ("qwen2vl", "qwen2.5vl_merger"): _qwen2_5,
    ("qwen3vl", "qwen3vl_merger"): _qwen3,
    ("qwen3vlmoe", "qwen3vl_merger"): _qwen3,
    ("qwen35", "qwen3vl_merger"): _qwen3,
    ("qwen35moe", "qwen3vl_merger"): _qwen3,
}
