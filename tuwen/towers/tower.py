"""A picture tower: uint8 pixels in; a grid of local features, or one vector, out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tuwen.errors import ConfigError
from tuwen.images import View
from tuwen.towers.top import Top


class Body(nn.Module):
    """A network over normalised pixels, and how its last map is read; as it stands, a convolutional one."""

    grid_width: int
    pooled_width: int

    def forward(self, x: Tensor) -> Tensor:
        """Normalised pixels (B, 3, S, S) -> the last map, by default (B, D, H, W)."""
        raise NotImplementedError

    def behead(self, tail: int = 0) -> Top:
        """Cut off the last 1x1 convolution, and the last `tail` blocks before it: what stays gives the map below them.
        ConfigError where there are none."""
        raise ConfigError("this tower has no last 1x1 convolution to train: take lite0 or lite2")

    def grid(self, last: Tensor) -> Tensor:
        """(B, N, grid_width)."""
        return last.flatten(2).transpose(1, 2)

    def pool(self, last: Tensor) -> Tensor:
        """(B, pooled_width)."""
        return self.grid(last).mean(1)


class Tower(nn.Module):
    """A body with its size and normalisation inside, so that all users (and its graph) pass uint8 pixels.

    `forward(pixels)`: uint8 (B, size, size, 3) -> (B, N, grid_width); `pooled(pixels)` -> (B, pooled_width).
    `mean` and `std` are in units of the pixels, 0 to 255. `view` is how its makers cut their pictures.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        body: Body,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        view: View | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.body = body
        self.size = size
        self.view = view or View()
        self.frozen = False
        self.fixed_batchnorm = True
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def grid_width(self) -> int:
        return self.body.grid_width

    @property
    def pooled_width(self) -> int:
        return self.body.pooled_width

    def behead(self, tail: int = 0) -> Top:
        """As `Body.behead`."""
        return self.body.behead(tail)

    @property
    def transform(self) -> str:
        """What is done to the pixels, for the keys of caches."""
        numbers = (f"{value:g}" for value in (*self.mean.flatten().tolist(), *self.std.flatten().tolist()))
        return f"{self.size}:{','.join(numbers)}"

    @property
    def sha256(self) -> str:
        """Hex sha256 over the floating weights (type, shape, bytes) in their order, whatever their names."""
        digest = hashlib.sha256()
        for value in self.body.state_dict().values():
            if value.is_floating_point():
                digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
                digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return digest.hexdigest()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.body.grid(self._last(pixels))

    def pooled(self, pixels: Tensor) -> Tensor:
        return self.body.pool(self._last(pixels))

    def _last(self, pixels: Tensor) -> Tensor:
        x = pixels.permute(0, 3, 1, 2).to(self.mean.dtype)
        return self.body((x - self.mean) / self.std)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> Tower:
        """As `nn.Module.train`, but a frozen tower stays in evaluation, and BatchNorm keeps its statistics.

        Statistics of a small batch of another domain ruin a pretrained tower (VSE++ keeps them fixed too).
        """
        super().train(mode and not self.frozen)
        if self.fixed_batchnorm:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class Pooled(nn.Module):
    """A tower's `pooled` as a module of its own, for its graph."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: Tensor) -> Tensor:
        return self.tower.pooled(pixels)


def freeze(tower: Tower) -> Tower:
    """No gradient, and evaluation mode for good: what a feature cache may stand for."""
    tower.frozen = True
    return tower.requires_grad_(False).eval()


def thaw(tower: Tower, fixed_batchnorm: bool = True) -> Tower:
    """Train it again; with `fixed_batchnorm` the running statistics stay as they are."""
    tower.frozen, tower.fixed_batchnorm = False, fixed_batchnorm
    return tower.requires_grad_(True).train()
