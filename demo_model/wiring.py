"""The weights to start from: random but for a copying circuit, which training would need millions of tokens to find.

A head of the first layer looks one token back and notes a code of what it sees. Heads of the second and third layer
look for places whose note is the code of the present token, and copy what stands there: what followed the last time
follows again.
"""

import torch
from torch import Tensor

from demo_model.network import Attention, Network

CONSTANT = 0  # the dimension that is alike in all embeddings: a head that reads it alone sees positions only
SCRATCH = 32  # the last dimensions, in which the note on the previous token is written
SHARP = 3.0  # gain of queries and keys that look at a distance
MATCH = 2.2  # gain of queries and keys that look for a code


def _directions(rows: int, columns: int) -> Tensor:
    """Random orthonormal rows."""
    rotation: Tensor = torch.linalg.qr(torch.randn(columns, rows)).Q
    return rotation.T


def _embeddings(network: Network) -> None:
    weight = network.embed_tokens.weight
    weight[:, CONSTANT] = 0.35
    weight[:, -SCRATCH:] *= 0.1


def _phases(attention: Attention, network: Network, distance: int) -> Tensor:
    """A query (head_dim) that, turned by its position, meets the key of all ones `distance` places back."""
    half = attention.head_dim // 2
    turn = -network.angles[1] * distance
    query = torch.zeros(attention.head_dim)
    query[: half // 2], query[half : half + half // 2] = turn.cos()[: half // 2], turn.sin()[: half // 2]
    return query


def _look_back(network: Network, code: Tensor) -> None:
    """Make the first layer's heads look one, two, three places back; the first of them notes what it sees."""
    attention, size = network.attention(0), network.shape.head_dim
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    for head, distance in enumerate((1, 1, 2, 2, 3, 4)):
        attention.q_proj.weight[head * size : (head + 1) * size, CONSTANT] = _phases(attention, network, distance)
    for head in range(attention.kv_heads):
        attention.k_proj.weight[head * size : (head + 1) * size, CONSTANT] = _phases(attention, network, 0)
    attention.v_proj.weight[:size] = code
    attention.o_proj.weight[-SCRATCH:, :size] = torch.eye(SCRATCH, size) * 0.35
    attention.q_norm.weight.fill_(SHARP)
    attention.k_norm.weight.fill_(SHARP)


def _look_up(network: Network, layer: int, code: Tensor) -> None:
    """Make a head of each group look for the code of the present token and copy what stands there."""
    attention, size, width = network.attention(layer), network.shape.head_dim, network.shape.hidden_size
    half, group = size // 2, attention.heads // attention.kv_heads
    slow = list(range(half - 7, half)) + list(range(size - 7, size))  # dimensions that positions hardly turn
    for kv in range(attention.kv_heads):
        first, notes = kv * size, range(14 * kv, 14 * kv + 14)
        rows = [kv * group * size + d for d in slow]
        attention.q_proj.weight[kv * group * size : (kv * group + 1) * size] = 0
        attention.q_proj.weight[rows] = code[notes]
        attention.k_proj.weight[first : first + size] = 0
        for d, note in zip(slow, notes, strict=True):
            attention.k_proj.weight[first + d, width - SCRATCH + note] = 1
        seen = torch.zeros(size, width)
        seen[:, 1 : width - SCRATCH] = _directions(size, width - SCRATCH - 1)
        attention.v_proj.weight[first : first + size] = seen
        attention.o_proj.weight[:, kv * group * size : (kv * group + 1) * size] = seen.T * 0.4
    attention.q_norm.weight.fill_(MATCH)
    attention.k_norm.weight.fill_(MATCH)


@torch.no_grad()
def wire(network: Network) -> None:
    """Put the copying circuit into a fresh network."""
    width, size = network.shape.hidden_size, network.shape.head_dim
    code = torch.zeros(size, width)
    code[:, 1 : width - SCRATCH] = _directions(size, width - SCRATCH - 1)
    _embeddings(network)
    _look_back(network, code)
    _look_up(network, 1, code)
    _look_up(network, 2, code)
