"""The optimizers: orthogonalised momentum (Muon) for matrices, AdamW for embeddings and gains."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from demo_model.network import Network


def orthogonal(stack: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices to a stack (count, rows, columns), by Newton-Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = stack.shape[1] > stack.shape[2]
    x: Tensor = stack.mT if tall else stack
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum whose updates are orthogonalised, matrices of one shape together."""

    def __init__(self, matrices: Sequence[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all matrices."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                alike[matrix.shape].append(matrix)
            for matrices in alike.values():
                self._update(matrices, group["lr"], group["momentum"], group["decay"])

    def _update(self, matrices: list[Tensor], lr: float, momentum: float, decay: float) -> None:
        directions = orthogonal(torch.stack([self._direction(m, momentum) for m in matrices]))
        scale = lr * max(1.0, matrices[0].shape[0] / matrices[0].shape[1]) ** 0.5
        for matrix, direction in zip(matrices, directions, strict=True):
            matrix.mul_(1 - lr * decay).add_(direction, alpha=-scale)

    def _direction(self, matrix: Tensor, momentum: float) -> Tensor:
        state, gradient = self.state[matrix], matrix.grad
        assert gradient is not None
        buffer: Tensor = state.setdefault("momentum", torch.zeros_like(matrix))
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def optimizers(network: Network, matrix_lr: float, other_lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the rest."""
    matrices = [p for p in network.layers.parameters() if p.ndim == 2]
    others = [p for p in network.parameters() if all(p is not m for m in matrices)]
    adam = torch.optim.AdamW(others, lr=other_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [Muon(matrices, matrix_lr), adam]
