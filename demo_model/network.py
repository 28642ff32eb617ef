"""The network in PyTorch: mlx-lm's Qwen3 architecture, with the same parameter names."""

from dataclasses import asdict, dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Shape:
    """The sizes of the network, under the names that `config.json` uses."""

    vocab_size: int = 2560
    hidden_size: int = 192
    num_hidden_layers: int = 6
    intermediate_size: int = 512
    num_attention_heads: int = 6
    num_key_value_heads: int = 6
    head_dim: int = 32
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000_000.0
    max_position_embeddings: int = 8192

    def as_config(self) -> dict[str, object]:
        """The shape as the fields of `config.json`."""
        return dict(asdict(self))


class Norm(nn.Module):
    """Root mean square norm with a learned gain."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Values of shape (…, size), normalised."""
        x = x.float()
        return x * (torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight)


def narrow(x: Tensor) -> Tensor:
    """Cast once where autocast would cast for each matrix that follows."""
    return x.bfloat16() if torch.is_autocast_enabled("cpu") else x


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary positions to `x` of shape (batch, heads, length, head_dim), halves paired."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention in single precision, in which the CPU's kernel is fastest."""
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(q, k, v.float(), is_causal=True)


class Attention(nn.Module):
    """Causal self-attention with grouped keys and normalised queries and keys."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = s.num_attention_heads, s.num_key_value_heads, s.head_dim
        self.q_proj = nn.Linear(s.hidden_size, self.heads * s.head_dim, bias=False)
        self.k_proj = nn.Linear(s.hidden_size, self.kv_heads * s.head_dim, bias=False)
        self.v_proj = nn.Linear(s.hidden_size, self.kv_heads * s.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * s.head_dim, s.hidden_size, bias=False)
        self.q_norm = Norm(s.head_dim, s.rms_norm_eps)
        self.k_norm = Norm(s.head_dim, s.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Hidden states (batch, length, hidden_size) after attention."""
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv_heads, self.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.head_dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = self.heads // self.kv_heads
        if groups > 1:
            k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = attend(q, k, v)
        mixed: Tensor = self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))
        return mixed


class FeedForward(nn.Module):
    """The gated feed-forward part of a block."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.up_proj = nn.Linear(s.hidden_size, s.intermediate_size, bias=False)
        self.down_proj = nn.Linear(s.intermediate_size, s.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states (batch, length, hidden_size) transformed one by one."""
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Block(nn.Module):
    """One transformer block: attention, then feed-forward, each added to its input."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = FeedForward(s)
        self.input_layernorm = Norm(s.hidden_size, s.rms_norm_eps)
        self.post_attention_layernorm = Norm(s.hidden_size, s.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Hidden states (batch, length, hidden_size) after the block."""
        x = x + self.self_attn(narrow(self.input_layernorm(x)), cos, sin)
        out: Tensor = x + self.mlp(narrow(self.post_attention_layernorm(x)))
        return out


class Network(nn.Module):
    """Token ids in, final hidden states out; the output layer is the embedding."""

    angles: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.num_hidden_layers))
        self.norm = Norm(shape.hidden_size, shape.rms_norm_eps)
        self.register_buffer("angles", self._angles(), persistent=False)
        self._initialise()

    def _angles(self) -> Tensor:
        steps = torch.arange(0, self.shape.head_dim, 2).float() / self.shape.head_dim
        return torch.outer(torch.arange(4096).float(), self.shape.rope_theta**-steps)

    def _initialise(self) -> None:
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        for name, weight in self.layers.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                nn.init.zeros_(weight)
            elif weight.ndim == 2:
                nn.init.normal_(weight, std=weight.shape[1] ** -0.5)

    def attention(self, layer: int) -> Attention:
        """The attention of a layer."""
        return cast(Block, self.layers[layer]).self_attn

    def forward(self, ids: Tensor) -> Tensor:
        """Final hidden states (batch, length, hidden_size) for ids (batch, length)."""
        angles = self.angles[: ids.shape[1]]
        cos, sin = angles.cos(), angles.sin()
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary for hidden states of shape (…, hidden_size)."""
        return functional.linear(hidden, self.embed_tokens.weight)

    def predictions(self, ids: Tensor, places: Tensor) -> Tensor:
        """Scores (places, vocabulary) for what follows each of the flat `places` (batch * length)."""
        return self.logits(self(ids).flatten(0, 1)[places]).float()
