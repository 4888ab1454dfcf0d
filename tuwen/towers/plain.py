"""Small residual networks that nobody has trained yet: for drawn or simple pictures, learnt with the rest.

The grid of an ImageNet tower is 32 pixels a cell; counts, places and small flat shapes need a finer one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuwen.checkpoint import read_tensors
from tuwen.errors import ConfigError
from tuwen.towers.tower import Body, Tower
from tuwen.towers.weights import fill

WIDTHS = (32, 64, 128)  # each halves the side
CELL = 8  # pixels
HIDDEN = 0.25  # of the pictures have no colours while training
DULL, EDGE = 0.1, 0.4  # in deviations: the second is a tenth of the way from black to white


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


class Palette(nn.Module):
    """Which colours lie in a cell of 8 x 8 pixels, by layers that see one pixel each: (B, 48, S/8, S/8).

    It cannot see a form, for it knows neither which pixels lie together nor what lies beside the cell.
    """

    def __init__(self, pixel: int = 32, width: int = 48) -> None:
        super().__init__()
        self.pixels = nn.Sequential(nn.Conv2d(3, pixel, 1), nn.ReLU(), nn.Conv2d(pixel, pixel, 1), nn.ReLU())
        self.cells = nn.Sequential(nn.Conv2d(2 * pixel, width, 1), nn.GroupNorm(8, width), nn.ReLU())
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        x = self.pixels(x)
        held = [F.max_pool2d(x, CELL, ceil_mode=True), F.avg_pool2d(x, CELL, ceil_mode=True)]
        cells: Tensor = self.cells(torch.cat(held, 1))
        return cells


class TwofoldBody(Body):
    """Colours beside forms: (B, 176, S/8, S/8).

    What it says of a form cannot depend on the colours that it was seen in, nor the other way round (features that are
    read apart and bound by place: Treisman and Gelade 1980), so a pair that training never showed is nothing new.
    While training, some pictures have no colours, so that forms are enough where forms are asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.colours, self.forms = Palette(), PlainBody(2)
        self.grid_width = self.pooled_width = self.colours.width + self.forms.grid_width

    def forward(self, x: Tensor) -> Tensor:
        colours = self.colours(x)
        if self.training:  # else a white circle, where none was ever shown, is hardly counted as a circle
            colours = colours * (torch.rand(len(x), 1, 1, 1, device=x.device) >= HIDDEN)
        return torch.cat([colours, self.forms(find_edges(x))], 1)


def find_edges(x: Tensor) -> Tensor:
    """How clearly each pixel differs in colour from the one to its left and the one above, from 0 to 1: (B, 3, S, S) ->
    (B, 2, S, S). Half at `EDGE` above `DULL`, what a mottled or packed picture has everywhere: so a faint outline is
    nearly as good as a strong one, and noise is none."""
    right = F.pad((x[..., 1:] - x[..., :-1]).square().sum(1), (1, 0))
    down = F.pad((x[..., 1:, :] - x[..., :-1, :]).square().sum(1), (0, 0, 1, 0))
    apart = F.relu((torch.stack([right, down], 1) + 1e-8).sqrt() - DULL).square()
    return apart / (apart + EDGE**2)


BODIES: dict[str, Callable[[], Body]] = {"plain": PlainBody, "twofold": TwofoldBody}


def build_plain(name: str, size: int | None, pretrained: bool, weights: Path | None) -> Tower:
    """One of `BODIES`, side 64 unless told: ConfigError where trained weights are asked for and no file holds them."""
    if pretrained and weights is None:
        raise ConfigError(f"{name}: nobody has trained it: model.image.pretrained=false model.image.finetune=true")
    body = BODIES[name]()
    if weights is not None:
        fill(body, read_tensors(weights), str(weights))
    return Tower(name, body, size or 64, mean=[127.5] * 3, std=[63.75] * 3)
