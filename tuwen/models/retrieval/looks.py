"""Several looks at one picture, whose mean is its vector: what one look mistakes, another may not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tuwen.layers import l2_normalise

MIDDLE = 0.85  # share of the width and of the height that a closer look shows


def embed_looks(embed: Callable[[Tensor], Tensor], pixels: Tensor, count: int) -> Tensor:
    """The mean of the unit vectors (B, W) that `embed` gives of the first `count` looks, at unit length.

    Two looks, the second as different from the first as can be, brought most of what six did (docs/retrieval.md).
    """
    if count == 1:
        return embed(pixels)
    return l2_normalise(torch.stack([embed(look) for look in make_looks(pixels, count)]).mean(0))


def make_looks(pixels: Tensor, count: int) -> list[Tensor]:
    """Pixels (B, S, S, 3), the first `count` of: whole, its middle mirrored, whole mirrored, its middle."""
    size = int(pixels.shape[1])  # a tensor while a graph is traced
    edge = round(size * (1 - MIDDLE) / 2)
    middle = pixels[:, edge : size - edge, edge : size - edge].permute(0, 3, 1, 2).float()
    # Linear: the runtime's cubic takes longer than the tower.
    closer = F.interpolate(middle, (size, size), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    return [pixels, closer.flip(2), pixels.flip(2), closer][:count]
