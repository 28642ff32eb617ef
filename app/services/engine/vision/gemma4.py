"""Gemma 4: a transformer over the patches of an image, averaged into as many tokens as a budget allows."""

from collections.abc import Generator
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.activations import gelu_approx
from mlx.nn.layers.base import Module
from mlx.nn.layers.linear import Linear
from mlx.nn.layers.normalization import RMSNorm

from app.services.engine.vision.family import Config, Family, Inputs, Mutual
from app.services.engine.vision.positions import turn

Angles = tuple[mx.array, mx.array]
_EPSILON = 1e-6
_BUDGETS = 70, 140, 280, 560, 1120  # tokens of an image
_BASE = 100.0  # of the rotary embedding of patches


class _Linear(Module):
    """A linear layer; some checkpoints have limits of what comes in and goes out."""

    def __init__(self, inputs: int, outputs: int, *, is_clipped: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.linear = Linear(inputs, outputs, bias=False)
        self.is_clipped = is_clipped
        if is_clipped:
            self.input_min, self.input_max = mx.array(-mx.inf), mx.array(mx.inf)
            self.output_min, self.output_max = mx.array(-mx.inf), mx.array(mx.inf)

    def __call__(self, x: mx.array) -> mx.array:
        if not self.is_clipped:
            y: mx.array = self.linear(x)
            return y
        return mx.clip(self.linear(mx.clip(x, self.input_min, self.input_max)), self.output_min, self.output_max)


class _Attention(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, size = vision["hidden_size"], vision["head_dim"]
        clipped = bool(vision.get("use_clipped_linears"))
        self.size = size
        queries, keys = size * vision["num_attention_heads"], size * vision["num_key_value_heads"]
        self.q_proj = _Linear(width, queries, is_clipped=clipped)
        self.k_proj = _Linear(width, keys, is_clipped=clipped)
        self.v_proj = _Linear(width, keys, is_clipped=clipped)
        self.o_proj = _Linear(queries, width, is_clipped=clipped)
        self.q_norm = RMSNorm(size, eps=_EPSILON)
        self.k_norm = RMSNorm(size, eps=_EPSILON)

    def __call__(self, x: mx.array, across: Angles, down: Angles) -> mx.array:
        """Let every patch (patches, width) see all others; half of each head is turned by columns, half by rows."""

        def heads(projection: _Linear) -> mx.array:
            return projection(x).reshape(len(x), -1, self.size).transpose(1, 0, 2)

        def turned(each: mx.array) -> mx.array:
            first, second = mx.split(each, 2, axis=-1)
            return mx.concatenate([turn(first, across), turn(second, down)], axis=-1)

        queries, keys = turned(self.q_norm(heads(self.q_proj))), turned(self.k_norm(heads(self.k_proj)))
        values = mx.fast.rms_norm(heads(self.v_proj), None, _EPSILON)
        out = mx.fast.scaled_dot_product_attention(queries[None], keys[None], values[None], scale=1.0)[0]
        return self.o_proj(out.transpose(1, 0, 2).reshape(len(x), -1))


class _MLP(Module):
    def __init__(self, width: int, inner: int, *, is_clipped: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.gate_proj = _Linear(width, inner, is_clipped=is_clipped)
        self.up_proj = _Linear(width, inner, is_clipped=is_clipped)
        self.down_proj = _Linear(inner, width, is_clipped=is_clipped)

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.down_proj(gelu_approx(self.gate_proj(x)) * self.up_proj(x))
        return y


class _Layer(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width = vision["hidden_size"]
        self.self_attn = _Attention(vision)
        self.mlp = _MLP(width, vision["intermediate_size"], is_clipped=bool(vision.get("use_clipped_linears")))
        self.input_layernorm = RMSNorm(width, eps=_EPSILON)
        self.post_attention_layernorm = RMSNorm(width, eps=_EPSILON)
        self.pre_feedforward_layernorm = RMSNorm(width, eps=_EPSILON)
        self.post_feedforward_layernorm = RMSNorm(width, eps=_EPSILON)

    def __call__(self, x: mx.array, across: Angles, down: Angles) -> mx.array:
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), across, down))
        y: mx.array = x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))
        return y


class _PatchEmbedder(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width = vision["hidden_size"]
        self.input_proj = Linear(3 * vision["patch_size"] ** 2, width, bias=False)
        self.position_embedding_table = mx.zeros((2, vision["position_embedding_size"], width))

    def __call__(self, patches: mx.array, columns: mx.array, rows: mx.array) -> mx.array:
        """Make vectors (patches, width) of patches (patches, numbers of a patch) from 0 to 1, by their places."""
        x = self.input_proj((2 * (patches - 0.5)).astype(self.position_embedding_table.dtype))
        y: mx.array = x + self.position_embedding_table[0, columns] + self.position_embedding_table[1, rows]
        return y


class _Encoder(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = [_Layer(vision) for _ in range(vision["num_hidden_layers"])]


class _VisionTower(Module):
    def __init__(self, vision: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.patch_embedder = _PatchEmbedder(vision)
        self.encoder = _Encoder(vision)
        self.is_standardized = bool(vision.get("standardize"))
        if self.is_standardized:
            self.std_bias, self.std_scale = mx.zeros((vision["hidden_size"],)), mx.ones((vision["hidden_size"],))


class _EmbedVision(Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.embedding_projection = Linear(width, hidden, bias=False)

    def __call__(self, x: mx.array) -> mx.array:
        y: mx.array = self.embedding_projection(mx.fast.rms_norm(x, None, _EPSILON))
        return y


class Gemma4Tower(Module):
    """The tower and what follows it, whose layers have the names of the checkpoints."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vision, hidden = config["vision_config"], config["text_config"]["hidden_size"]
        self.vision_tower = _VisionTower(vision)
        self.embed_vision = _EmbedVision(vision["hidden_size"], hidden)
        self.cell = int(vision.get("pooling_kernel_size", 3))  # patches, of a token's side
        self.head_size = vision["head_dim"]
        self.base = float((vision.get("rope_parameters") or {}).get("rope_theta", _BASE))
        self.scale = hidden**0.5  # by which the text model multiplies what comes in

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size) of an image, a layer each step."""
        tower, places = self.vision_tower, inputs["image_position_ids"][0]
        is_patch = places[:, 0] >= 0  # the rest fills up the budget
        columns, rows = places[is_patch].T.astype(np.int32)
        across, down = self._angles(columns), self._angles(rows)
        x = tower.patch_embedder(mx.array(inputs["pixel_values"][0][is_patch]), mx.array(columns), mx.array(rows))
        for layer in tower.encoder.layers:
            yield (x := layer(x, across, down))
        tokens = self._pooled(x, int(rows.max()) + 1, int(columns.max()) + 1)
        if tower.is_standardized:
            tokens = (tokens - tower.std_bias.astype(mx.float32)) * tower.std_scale.astype(mx.float32)
        y: mx.array = self.embed_vision(tokens.astype(x.dtype)) / self.scale
        return y

    def _angles(self, places: Any) -> Angles:
        size = self.head_size // 2
        frequencies = self.base ** (-np.arange(0, size, 2, dtype=np.float32) / size)
        angles = np.tile(places[:, None].astype(np.float32) * frequencies, 2)
        return mx.array(np.cos(angles)), mx.array(np.sin(angles))

    def _pooled(self, patches: mx.array, rows: int, columns: int) -> mx.array:
        """Average the patches (patches, width) of each token, in 32 bits: what follows exceeds 16."""
        cell, width = self.cell, patches.shape[-1]
        cells = patches.reshape(rows // cell, cell, columns // cell, cell, width).astype(mx.float32).mean((1, 3))
        tokens: mx.array = cells.reshape(-1, width) * width**0.5
        return tokens


def _grid(config: Config, processor: Any, width: int, height: int) -> tuple[int, int]:
    """Give the rows and columns of the tokens of an image, which is scaled to the budget."""
    from transformers.models.gemma4.image_processing_pil_gemma4 import get_aspect_ratio_preserving_size

    patch, cell = processor.patch_size, processor.pooling_kernel_size
    most = processor.max_soft_tokens * cell**2
    resized = get_aspect_ratio_preserving_size(height, width, patch, most, cell)
    return resized[0] // (patch * cell), resized[1] // (patch * cell)


def _limit(processor: Any, tokens: int) -> None:
    """Set the largest budget that is not over so many tokens, nor over the model's own."""
    most = min(tokens, processor.max_soft_tokens)
    processor.max_soft_tokens = max((budget for budget in _BUDGETS if budget <= most), default=_BUDGETS[0])


def _mutual(config: Config) -> Mutual | None:
    """Have images see themselves within windows if the model is one of the larger ones."""
    return "windows" if config["text_config"].get("use_bidirectional_attention") == "vision" else None


def _fit(array: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Give a limit, of which GGUF files have a list of one, as a number."""
    return array.reshape(shape) if array.size == 1 else array


GEMMA4 = Family(
    processor=("transformers.models.gemma4.image_processing_pil_gemma4", "Gemma4ImageProcessorPil"),
    before="<|image>",
    after="<image|>",
    mutual=_mutual,
    placeholder=lambda config: int(config.get("image_token_id") or 258_880),
    stand_in=lambda config: int(config["text_config"].get("pad_token_id") or 0),
    tower=Gemma4Tower,
    fit=_fit,
    grid=_grid,
    limit=_limit,
)
