"""The generator of DF-GAN (Tao et al., CVPR 2022): one stage, the sentence fused in everywhere by affine layers."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

START = 4  # cells a side of the first grid


class Generator(nn.Module):
    """Noise and a sentence -> a picture: a grid of 4 x 4, then doubled to `size`, each time with two fusion blocks."""

    def __init__(self, told: int, size: int = 64, noise: int = 100, width: int = 32) -> None:
        super().__init__()
        self.noise = noise
        doublings = int(math.log2(size // START))
        widths = [width * min(2 ** (doublings - n), 8) for n in range(doublings + 1)]
        self.enter = nn.Linear(noise, widths[0] * START**2)
        self.steps = nn.ModuleList(Doubling(a, b, told + noise) for a, b in pairwise(widths))
        self.leave = nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, told: Tensor) -> Tensor:
        """(B, told + noise), the noise last -> (B, 3, S, S) in [-1, 1]."""
        x = self.enter(told[:, -self.noise :]).view(len(told), -1, START, START)
        for step in self.steps:
            x = step(x, told)
        drawn: Tensor = self.leave(F.leaky_relu(x, 0.2))
        return drawn.tanh()


class Doubling(nn.Module):
    """Twice the side, a residual of two fusions and convolutions."""

    def __init__(self, width: int, out: int, told: int) -> None:
        super().__init__()
        self.fuse = nn.ModuleList([Fusion(width, told), Fusion(out, told)])
        self.convs = nn.ModuleList([nn.Conv2d(width, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)])
        self.skip = nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """(B, C, H, W) and (B, told) -> (B, out, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2.0)
        y = x
        for fuse, conv in zip(self.fuse, self.convs, strict=True):
            y = conv(fuse(y, told))
        added: Tensor = self.skip(x) + y
        return added


class Fusion(nn.Module):
    """Two affine layers, each with a ReLU behind it, whose scales and shifts the sentence sets."""

    def __init__(self, width: int, told: int) -> None:
        super().__init__()
        self.makers = nn.ModuleList(
            nn.Sequential(nn.Linear(told, width), nn.ReLU(), nn.Linear(width, 2 * width)) for _ in range(2)
        )
        for maker in self.makers:
            nn.init.zeros_(maker[2].weight)  # type: ignore[index]
            nn.init.zeros_(maker[2].bias)  # type: ignore[index]

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        for maker in self.makers:
            scale, shift = maker(told)[..., None, None].chunk(2, 1)
            x = F.leaky_relu(x * (1 + scale) + shift, 0.2)
        return x
