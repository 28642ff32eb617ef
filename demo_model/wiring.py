"""The weights to start from: random but for a copying circuit, which training would need millions of tokens to find.

Heads of the first layer look one and two tokens back and note codes of what they see. Heads of the second and third
layer look for places whose notes are the codes of the present token and of the one before it, and copy what stands
there: what followed the last time follows again. Two tokens, since one alone, such as the `_` of a tool's name, stands
in many places.
"""

import torch
from torch import Tensor

from demo_model.network import Attention, Network

CONSTANT = 0  # the dimension that is alike in all embeddings: a head that reads it alone sees positions only
NOTE = 32  # the size of a note on an earlier token
SCRATCH = 2 * NOTE  # the last dimensions: the note on the previous token, then the note on the one before
SLOW = 8  # pairs of a head's dimensions that positions hardly turn
LOOKING = 2  # heads of a layer that look for the present two tokens; the others start at random
NEAR = 4.0  # how much more the present token weighs than its note on the previous one, whose values are larger
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
    """Make the first layer's heads look one, two, three places back; two of them note what they see."""
    attention, size = network.attention(0), network.shape.head_dim
    attention.q_proj.weight.zero_()
    attention.k_proj.weight.zero_()
    for head, distance in enumerate((1, 2, 3, 1, 2, 4)):
        attention.q_proj.weight[head * size : (head + 1) * size, CONSTANT] = _phases(attention, network, distance)
    for head in range(attention.kv_heads):
        attention.k_proj.weight[head * size : (head + 1) * size, CONSTANT] = _phases(attention, network, 0)
    for head, first in enumerate((-SCRATCH, -NOTE)):
        seen = head * attention.kv_heads // attention.heads * size
        attention.v_proj.weight[seen : seen + size] = code
        notes = range(network.shape.hidden_size + first, network.shape.hidden_size + first + NOTE)
        attention.o_proj.weight[notes, head * size : (head + 1) * size] = torch.eye(NOTE, size) * 0.35
    attention.q_norm.weight.fill_(SHARP)
    attention.k_norm.weight.fill_(SHARP)


def _look_up(network: Network, layer: int, code: Tensor) -> None:
    """Make two heads look for the present two tokens and copy what stands behind them."""
    attention, size, width = network.attention(layer), network.shape.head_dim, network.shape.hidden_size
    half, group = size // 2, attention.heads // attention.kv_heads
    slow = list(range(half - SLOW, half)) + list(range(size - SLOW, size))
    near, far = slow[::2], slow[1::2]
    for nth in range(LOOKING):
        kv = nth * attention.kv_heads // LOOKING
        head, first = kv * group * size, kv * size
        notes = [(SLOW * (LOOKING * nth + layer) + d) % NOTE for d in range(SLOW)]
        previous, before = ([width + start + note for note in notes] for start in (-SCRATCH, -NOTE))
        attention.q_proj.weight[head : head + size] = 0
        attention.k_proj.weight[first : first + size] = 0
        attention.q_proj.weight[[head + d for d in near]] = code[notes] * NEAR
        for d, here, there in zip(far, previous, before, strict=True):
            attention.q_proj.weight[head + d, here] = 1
            attention.k_proj.weight[first + d, there] = 1
        for d, there in zip(near, previous, strict=True):
            attention.k_proj.weight[first + d, there] = 1
        seen = torch.zeros(size, width)
        seen[:, 1 : width - SCRATCH] = _directions(size, width - SCRATCH - 1)
        attention.v_proj.weight[first : first + size] = seen
        attention.o_proj.weight[:, head : head + size] = seen.T * 0.4
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
