"""A small residual network that nobody has trained yet: for drawn or simple pictures, learnt with the rest.

The grid of an ImageNet tower is 32 pixels a cell; counts, places and small flat shapes need a finer one.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tuwen.checkpoint import read_tensors
from tuwen.errors import ConfigError
from tuwen.towers.tower import Body, Tower
from tuwen.towers.weights import fill

WIDTHS = (32, 64, 128)  # each halves the side: 8 pixels a cell


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

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in WIDTHS:
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), Residual(width)]
            channels = width
        self.layers = nn.Sequential(*layers, Residual(channels), nn.GroupNorm(8, channels), nn.ReLU())
        self.grid_width = self.pooled_width = channels

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.layers(x)
        return last


def build_plain(size: int | None, pretrained: bool, weights: Path | None) -> Tower:
    """`plain`, side 64 unless told: ConfigError where trained weights are asked for, which only a file can hold."""
    if pretrained and weights is None:
        raise ConfigError("plain: nobody has trained it: model.image.pretrained=false model.image.finetune=true")
    body = PlainBody()
    if weights is not None:
        fill(body, read_tensors(weights), str(weights))
    return Tower("plain", body, size or 64, mean=[127.5] * 3, std=[63.75] * 3)
