"""Gemma 3: SigLIP, whose patches are averaged into 256 tokens an image, which all see each other."""

from collections.abc import Generator, Mapping
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from app.services.engine.vision.family import Family, Inputs
from app.services.engine.vision.siglip import Siglip


class _Norm(Module):
    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weight = mx.zeros((width,))
        self.epsilon = epsilon

    def __call__(self, x: mx.array) -> mx.array:
        return mx.fast.rms_norm(x, 1.0 + self.weight, self.epsilon)


class _Projector(Module):
    def __init__(self, width: int, hidden: int, epsilon: float, side: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.mm_input_projection_weight = mx.zeros((width, hidden))
        self.mm_soft_emb_norm = _Norm(width, epsilon)
        self.side = side  # tokens

    def __call__(self, patches: mx.array) -> mx.array:
        """Average patches (images, patches, width) into tokens (images, tokens, hidden size)."""
        images, count, width = patches.shape
        cell = int(count**0.5) // self.side
        cells = patches.reshape(images, self.side, cell, self.side, cell, width).mean((2, 4))
        return self.mm_soft_emb_norm(cells.reshape(images, -1, width)) @ self.mm_input_projection_weight


class _VisionTower(Module):
    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.vision_model = Siglip(config)


class Gemma3Tower(Module):
    """SigLIP and what follows it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        vision, hidden = config["vision_config"], config["text_config"]["hidden_size"]
        epsilon, side = vision.get("layer_norm_eps", 1e-6), int(config.get("mm_tokens_per_image", 256) ** 0.5)
        self.vision_tower = _VisionTower(vision)
        self.multi_modal_projector = _Projector(vision["hidden_size"], hidden, epsilon, side)
        self.scale = hidden**0.5  # by which the text model multiplies what comes in, in 16 bits

    def __call__(self, inputs: Inputs) -> Generator[mx.array, None, mx.array]:
        """Compute the embeddings (tokens, hidden size) of an image, a layer each step."""
        image = mx.array(inputs["pixel_values"].transpose(0, 2, 3, 1))
        patches = yield from self.vision_tower.vision_model(image)
        embeddings = self.multi_modal_projector(patches)[0]
        return embeddings / mx.array(self.scale, mx.bfloat16).astype(embeddings.dtype)


def _rename(name: str) -> str:
    """Give the name of a weight as the hub's checkpoints have it; later transformers write a shorter one."""
    rest = name.removeprefix("vision_tower.").removeprefix("vision_model.")
    return f"vision_tower.vision_model.{rest}" if name.startswith("vision_tower.") else name


GEMMA3 = Family(
    processor=("transformers.models.gemma3.image_processing_pil_gemma3", "Gemma3ImageProcessorPil"),
    before="\n\n<start_of_image>",
    after="<end_of_image>\n\n",
    mutual=lambda config: "everywhere",
    placeholder=lambda config: int(config.get("image_token_index") or config.get("image_token_id") or 262_144),
    tower=Gemma3Tower,
    rename=_rename,
    grid=lambda config, processor, width, height: (int(config.get("mm_tokens_per_image", 256) ** 0.5),) * 2,
)
