"""Muon: matrices move along the nearest orthogonal matrix of their momentum, all else by AdamW.

Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), scaled to AdamW's step (Liu et al., Muon
is Scalable for LLM Training, 2025, equation 4), so that one learning rate serves both. torch's own takes matrices
alone, and these networks are made of kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: steep at zero
ROUNDS = 5
MOMENTUM = 0.95


class Muon(AdamW):
    """Groups with `hidden: True` move by Muon, kernels flattened to matrices (out, in x height x width)."""

    def __init__(self, groups: Iterable[dict[str, Any]], **settings: Any) -> None:
        super().__init__([{"hidden": False, **group} for group in groups], **settings)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every group."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["hidden"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            for p in group["params"] if group["hidden"] else ():
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return loss

    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros(())  # Adam's states have one, and it looks for it
            state["momentum"] = torch.zeros_like(p)
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        update = orthogonalise(grad.lerp(momentum, MOMENTUM).flatten(1))  # Nesterov's look ahead
        rate: float = group["lr"]
        p.mul_(1 - rate * group["weight_decay"])
        p.add_(update.view(p.shape).to(p.dtype), alpha=-0.2 * max(update.shape) ** 0.5 * rate)


def hidden_matrices(model: nn.Module) -> Iterator[nn.Parameter]:
    """What Muon is for: weights that multiply, of layers, kernels, attention and recurrences; no tables, no places."""
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.MultiheadAttention, nn.RNNBase)
    for module in model.modules():
        if isinstance(module, kinds):
            yield from (p for p in module.parameters(recurse=False) if p.ndim > 1)


def orthogonalise(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix (m, n) = U S V^T: its singular values end between 0.7 and 1.2 (Newton-Schulz)."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, b * gram + c * gram @ gram, x, beta=a)
    return x.T if tall else x
