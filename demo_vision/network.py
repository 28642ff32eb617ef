"""The network in PyTorch: the demo model's text network behind a tower, both as Qwen3-VL has them."""

from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from demo_model.network import Network, Norm, Shape, narrow, rotate
from demo_vision.scenes import CONTENTS, SQUARE

SECTIONS = (6, 5, 5)  # of the frequencies of a head: those that turn by time, height and width
_EPSILON = 1e-6
_BASE = 10_000.0  # of the rotary embedding of patches


@dataclass(frozen=True)
class VisionShape:
    """The sizes of the tower, under the names that `config.json` uses in `vision_config`."""

    depth: int = 4
    hidden_size: int = 128
    intermediate_size: int = 320
    num_heads: int = 2
    patch_size: int = SQUARE
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    num_position_embeddings: int = 256
    out_hidden_size: int = 192
    in_channels: int = 3

    def as_config(self) -> dict[str, object]:
        """The shape as the fields of `vision_config`."""
        fixed = {"model_type": "qwen3_vl", "hidden_act": "gelu_pytorch_tanh", "deepstack_visual_indexes": []}
        return fixed | dict(asdict(self))

    @property
    def side(self) -> int:
        """Pixels of a token's side."""
        return self.patch_size * self.spatial_merge_size

    @property
    def numbers(self) -> int:
        """Numbers of a patch: channels, moments, rows, columns."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2


def patches(pixels: np.ndarray, shape: VisionShape) -> np.ndarray:
    """The patches (patches, numbers) of pixels (height, width, 3) whose sides are whole tokens, token by token."""
    numbers = (pixels.astype(np.float32) / 255 - 0.5) / 0.5
    side, merge = shape.patch_size, shape.spatial_merge_size
    height, width, channels = numbers.shape
    grid = numbers.reshape(height // side // merge, merge, side, width // side // merge, merge, side, channels)
    ordered = grid.transpose(0, 3, 1, 4, 6, 2, 5)  # token rows, token columns, rows, columns, channels, pixels
    moments = np.repeat(ordered[..., None, :, :], shape.temporal_patch_size, axis=-3)
    return np.ascontiguousarray(moments.reshape(-1, shape.numbers))


class Attention(nn.Module):
    """Attention of all patches of an image to all others, turned by their places."""

    def __init__(self, s: VisionShape) -> None:
        super().__init__()
        self.heads = s.num_heads
        self.qkv = nn.Linear(s.hidden_size, 3 * s.hidden_size)
        self.proj = nn.Linear(s.hidden_size, s.hidden_size)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Patches (images, patches, width) after attention."""
        images, count, width = x.shape
        q, k, v = self.qkv(x).view(images, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k = rotate(q.float(), cos, sin).to(v.dtype), rotate(k.float(), cos, sin).to(v.dtype)
        with torch.autocast("cpu", enabled=False):  # of so few numbers, half as slow as PyTorch's fused attention
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            out = scores.softmax(-1) @ v
        mixed: Tensor = self.proj(out.transpose(1, 2).reshape(images, count, width))
        return mixed


class FeedForward(nn.Module):
    """Two matrices with a GELU between."""

    def __init__(self, s: VisionShape) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(s.hidden_size, s.intermediate_size)
        self.linear_fc2 = nn.Linear(s.intermediate_size, s.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Patches transformed one by one."""
        out: Tensor = self.linear_fc2(functional.gelu(self.linear_fc1(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """One layer of the tower."""

    def __init__(self, s: VisionShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(s.hidden_size, eps=_EPSILON)
        self.norm2 = nn.LayerNorm(s.hidden_size, eps=_EPSILON)
        self.attn = Attention(s)
        self.mlp = FeedForward(s)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Patches (images, patches, width) after the layer."""
        x = x + self.attn(self.norm1(x), cos, sin)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Merger(nn.Module):
    """Makes one token of the patches of a square."""

    def __init__(self, s: VisionShape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(s.hidden_size, eps=_EPSILON)
        self.inputs = s.hidden_size * s.spatial_merge_size**2
        self.linear_fc1 = nn.Linear(self.inputs, self.inputs)
        self.linear_fc2 = nn.Linear(self.inputs, s.out_hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (images, tokens, out_hidden_size) of patches (images, patches, width), which come token by token."""
        x = self.norm(x).reshape(len(x), -1, self.inputs)
        out: Tensor = self.linear_fc2(functional.gelu(self.linear_fc1(x)))
        return out


class PatchEmbed(nn.Module):
    """Makes vectors of patches."""

    def __init__(self, s: VisionShape) -> None:
        super().__init__()
        self.proj = nn.Linear(s.numbers, s.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors (images, patches, width) of patches (images, patches, numbers)."""
        out: Tensor = self.proj(x)
        return out


class Contents(nn.Module):
    """Says what is in each patch. It is for the training alone: so the tower learns from each patch of a picture."""

    def __init__(self, s: VisionShape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(s.hidden_size, eps=_EPSILON)
        self.scores = nn.Linear(s.hidden_size, CONTENTS)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (images, patches, contents) of the states of a tower."""
        out: Tensor = self.scores(self.norm(x))
        return out


class Visual(nn.Module):
    """The tower; its parameters have the names of the checkpoints."""

    def __init__(self, shape: VisionShape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = PatchEmbed(shape)
        self.pos_embed = nn.Embedding(shape.num_position_embeddings, shape.hidden_size)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.merger = Merger(shape)
        nn.init.normal_(self.pos_embed.weight, std=0.02)

    def states(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """What the layers make (images, patches, width) of images of so many rows and columns of tokens.

        They are given as patches (images, patches, numbers).
        """
        cos, sin = _angles(rows, columns, self.shape)
        indices, weights = _corners(rows, columns, self.shape)
        x = self.patch_embed(x) + (self.pos_embed(indices) * weights[..., None]).sum(1)
        for block in self.blocks:
            x = block(narrow(x), cos, sin)
        return x

    def forward(self, x: Tensor, rows: int, columns: int) -> Tensor:
        """Tokens (images, tokens, out_hidden_size) of the same."""
        out: Tensor = self.merger(self.states(x, rows, columns))
        return out


def token_by_token(grid: np.ndarray, merge: int) -> np.ndarray:
    """What stands in the places of patches (rows, columns), in the order in which the tower has them."""
    rows, columns = (count // merge for count in grid.shape)
    return grid.reshape(rows, merge, columns, merge).transpose(0, 2, 1, 3).reshape(-1)


@cache
def _angles(rows: int, columns: int, shape: VisionShape) -> tuple[Tensor, Tensor]:
    """Cosine and sine (patches, half of a head) of the places of patches: a half turns by rows, the rest by columns."""
    merge, size = shape.spatial_merge_size, shape.hidden_size // shape.num_heads
    frequencies = _BASE ** (-np.arange(0, size // 2, 2) / (size // 2))
    places = [token_by_token(each, merge) for each in np.mgrid[: rows * merge, : columns * merge]]
    angles = torch.tensor(np.concatenate([each[:, None] * frequencies for each in places], axis=-1)).float()
    return angles.cos(), angles.sin()


@cache
def _corners(rows: int, columns: int, shape: VisionShape) -> tuple[Tensor, Tensor]:
    """The four entries (patches, 4) of the square table that each patch lies between, and their weights."""
    merge, side = shape.spatial_merge_size, int(shape.num_position_embeddings**0.5)

    def neighbours(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        places = np.arange(count) * (side - 1) / max(count - 1, 1)
        low = np.floor(places).astype(np.int64)
        return [(low, 1 - (places - low)), (np.minimum(low + 1, side - 1), places - low)]

    pairs = [(down, across) for down in neighbours(rows * merge) for across in neighbours(columns * merge)]
    indices = [token_by_token(down[0][:, None] * side + across[0], merge) for down, across in pairs]
    weights = [token_by_token(down[1][:, None] * across[1], merge) for down, across in pairs]
    return torch.tensor(np.stack(indices, -1)), torch.tensor(np.stack(weights, -1)).float()


class SeeingNetwork(Network):
    """The text network, in whose prompts images may stand."""

    def __init__(self, shape: Shape, vision: VisionShape) -> None:
        super().__init__(shape)
        self.visual = Visual(vision)
        self.contents = Contents(vision)
        axes = np.zeros(shape.head_dim // 2, dtype=np.int64)
        for axis in (1, 2):
            axes[axis : 3 * SECTIONS[axis] : 3] = axis
        self.axes = axes.tolist()
        steps = torch.arange(0, shape.head_dim, 2).float() / shape.head_dim
        self.register_buffer("frequencies", shape.rope_theta**-steps, persistent=False)

    frequencies: Tensor

    def seen(self, ids: Tensor, embeddings: Tensor, places: Tensor, image_token: int) -> Tensor:
        """Final hidden states (batch, length, hidden_size) for ids (batch, length) with images.

        `embeddings` are the tokens that the tower has made of them, row after row of the batch, and `places` (3, batch,
        length) those of all tokens in time, height and width.
        """
        x = self.embed_tokens(ids)
        is_image = ids == image_token
        x = x.masked_scatter(is_image[..., None], embeddings.to(x.dtype))
        angles = (places[self.axes].permute(1, 2, 0) * self.frequencies)[:, None]  # (batch, 1, length, half)
        cos, sin = angles.cos(), angles.sin()
        for layer in self.layers:
            x = layer(x, cos, sin)
        out: Tensor = self.norm(x)
        return out


def positions(ids: list[int], grid: tuple[int, int], image_token: int) -> np.ndarray:
    """The places (3, length) of tokens with images of one size: each takes as many as its longer side has tokens."""
    count, span = grid[0] * grid[1], max(grid)
    image = np.stack([np.zeros(count, dtype=np.int64), *(axis.ravel() for axis in np.mgrid[: grid[0], : grid[1]])])
    parts, done, place = [], 0, 0
    while image_token in ids[done:]:
        start = ids.index(image_token, done)
        parts += [np.tile(np.arange(start - done) + place, (3, 1)), image + place + start - done]
        place += start - done + span
        done = start + count
    parts.append(np.tile(np.arange(len(ids) - done) + place, (3, 1)))
    return np.concatenate(parts, axis=1)


__all__ = ["Norm", "SeeingNetwork", "Shape", "VisionShape", "patches", "positions", "token_by_token"]
