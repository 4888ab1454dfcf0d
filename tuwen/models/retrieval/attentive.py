"""The stronger picture encoder: the tower's last convolution trained, and attention that pools before it projects."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from tuwen.towers import Top


class AttentivePicture(nn.Module):
    """From the map before a tower's last 1x1 convolution to one vector a picture.

    That convolution is trained, and with a `tail` the blocks before it (`Top`). Each of `heads` takes its own
    softmax-weighted mean of the regions and projects it to its slice of the joint space (multi-query attention pooling,
    Lin et al. 2017, with the value projection after the mean: as many times cheaper as there are regions). The mean and
    the maximum of the regions are projected beside it, and a residual MLP ends it.

    Args:
        in_width: channels of the map.
        features: channels after the tower's last convolution.
        width: width of the joint space, a multiple of `heads`.
        tail: the tower's last blocks, where they are trained too: (B, D, H, W) -> (B, in_width, H, W).
    """

    def __init__(
        self,
        in_width: int,
        features: int,
        width: int,
        heads: int = 8,
        dropout: float = 0.1,
        region_dropout: float = 0.0,
        tail: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.features, self.region_dropout = heads, features, region_dropout
        self.head = Top(in_width, features, tail)
        self.norm = nn.LayerNorm(features)
        self.score = nn.Linear(features, heads)
        self.value = nn.Linear(features, width)
        self.mean = nn.Linear(features, width)
        self.peak = nn.Linear(features, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions: Tensor) -> Tensor:
        """(B, N, in_width) -> (B, W), not normalised; with a `tail` as wide as that takes, of a square grid."""
        drop = self.training and self.region_dropout > 0
        if drop and self.head.tail is None:  # as good before the convolution as after it, and cheaper
            regions = keep_some(regions, 1 - self.region_dropout)
        features = self.head(regions)  # (B, N, F)
        if drop and self.head.tail is not None:
            features = keep_some(features, 1 - self.region_dropout)
        normed = self.dropout(self.norm(features))
        weights = self.score(normed).float().softmax(1).to(normed.dtype)  # (B, N, H)
        seen = weights.transpose(1, 2) @ normed  # (B, H, F)
        value = self.value.weight.view(self.heads, -1, self.features).to(seen.dtype)  # (H, W / H, F)
        joint = (seen.transpose(0, 1) @ value.transpose(1, 2)).transpose(0, 1).flatten(1) + self.value.bias  # (B, W)
        size = (self.features,)
        joint = joint + self.mean(layer_norm(features.mean(1, dtype=torch.float32), size))
        joint = joint + self.peak(self.dropout(layer_norm(features.amax(1).float(), size)))
        out: Tensor = joint.float() + self.mlp(joint).float()
        return out


def keep_some(regions: Tensor, share: float) -> Tensor:
    """A random share of the regions of each picture, as many in each: (B, N, D) -> (B, round(N * share), D)."""
    count = max(1, round(regions.shape[1] * share))
    chosen = torch.rand(regions.shape[:2], device=regions.device).argsort(1)[:, :count]
    return regions.gather(1, chosen[..., None].expand(-1, -1, regions.shape[2]))
