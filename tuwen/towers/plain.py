"""Small residual networks that nobody has trained yet: for drawn or simple pictures, learnt with the rest.

The grid of an ImageNet tower is 32 pixels a cell; counts, places and small flat shapes need a finer one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tuwen.checkpoint import read_tensors
from tuwen.errors import ConfigError
from tuwen.towers.tower import Body, Tower
from tuwen.towers.weights import fill

WIDTHS = (32, 64, 128)  # each halves the side: 8 pixels a cell
HALVES = (24, 48, 96)  # of each of two


class Residual(nn.Module):
    """Two convolutions, normed before (He et al. 2016, Identity mappings in deep residual networks)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class PlainBody(Body):
    """Three halvings with a residual block after each, one more at the end; its last map is (B, 128, S/8, S/8)."""

    def __init__(self, channels: int = 3, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), Residual(width)]
            channels = width
        self.layers = nn.Sequential(*layers, Residual(channels), nn.GroupNorm(8, channels), nn.ReLU())
        self.grid_width = self.pooled_width = channels

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.layers(x)
        return last


class TwofoldBody(Body):
    """Two side by side, of which the second is blind to colour: (B, 192, S/8, S/8).

    What it says of a shape cannot depend on the colours that the shape was seen in (features that are read apart and
    bound by place: Treisman and Gelade 1980), so pairs of both that training never showed are less strange.
    """

    def __init__(self) -> None:
        super().__init__()
        self.colour, self.light = PlainBody(3, HALVES), PlainBody(1, HALVES)
        self.grid_width = self.pooled_width = self.colour.grid_width + self.light.grid_width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.colour(x), self.light(x.mean(1, keepdim=True))], 1)


BODIES: dict[str, Callable[[], Body]] = {"plain": PlainBody, "twofold": TwofoldBody}


def build_plain(name: str, size: int | None, pretrained: bool, weights: Path | None) -> Tower:
    """One of `BODIES`, side 64 unless told: ConfigError where trained weights are asked for and no file holds them."""
    if pretrained and weights is None:
        raise ConfigError(f"{name}: nobody has trained it: model.image.pretrained=false model.image.finetune=true")
    body = BODIES[name]()
    if weights is not None:
        fill(body, read_tensors(weights), str(weights))
    return Tower(name, body, size or 64, mean=[127.5] * 3, std=[63.75] * 3)
