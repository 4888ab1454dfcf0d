"""The top of a tower that is trained while all below it stays frozen and cached."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn.functional import relu6


class Top(nn.Linear):
    """A tower's last 1x1 convolution, its normalisation folded in, with the ReLU6 that follows it.

    It learns the new data at the price of a matrix product; with a `tail`, the tower's last blocks do too.

    Args:
        in_width: channels that the convolution takes.
        features: channels that it gives.
        tail: blocks before it, (B, D, H, W) -> (B, in_width, H, W).
    """

    def __init__(self, in_width: int, features: int, tail: nn.Sequential | None = None) -> None:
        super().__init__(in_width, features)
        self.tail = tail

    def forward(self, regions: Tensor) -> Tensor:
        """(B, N, D) regions, of a square grid where there is a tail -> (B, N, features)."""
        if self.tail is not None:
            side = math.isqrt(regions.shape[1])
            grid = regions.transpose(1, 2).reshape(*regions.shape[::2], side, side)  # shapes that a graph leaves free
            regions = self.tail(grid).flatten(2).transpose(1, 2)
        return relu6(super().forward(regions))

    def split(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The convolution's parameters, and the tail's."""
        return [*self.parameters(recurse=False)], [] if self.tail is None else list(self.tail.parameters())
