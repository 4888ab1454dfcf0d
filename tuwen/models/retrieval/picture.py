"""From a tower's features to one vector a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuwen.layers import GPO, drop_items, masked_mean, topk_mean


class PictureEncoder(nn.Module):
    """Projects every region and pools the regions.

    VSE++ (Faghri et al. 2018): one pooled region, `linear` alone, Xavier-normal. VSE-infinity (Chen et al. 2021):
    the regions of a grid, `linear` beside a residual MLP, generalised pooling.

    Args:
        in_width: width of the tower's features.
        width: width of the joint space.
        pooling: `mean`, `topk` (mean of the k largest a dimension) or `gpo`.
        hidden: width of the residual MLP's hidden layer; 0 for none.
        region_dropout: share of the regions left out of each picture while training.
    """

    def __init__(
        self,
        in_width: int,
        width: int,
        pooling: str = "mean",
        topk: int = 5,
        hidden: int = 0,
        dropout: float = 0.0,
        region_dropout: float = 0.0,
        init: str = "xavier",
    ) -> None:
        super().__init__()
        self.pooling, self.topk, self.region_dropout = pooling, topk, region_dropout
        self.linear = nn.Linear(in_width, width)
        self.mlp = None
        if hidden:
            self.mlp = nn.Sequential(
                nn.Linear(in_width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
            )
        self.gpo: nn.Module | None = GPO() if pooling == "gpo" else None
        self.dropout = nn.Dropout(dropout)
        if init == "xavier":
            nn.init.xavier_normal_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        elif init == "normal":
            nn.init.normal_(self.linear.weight, 0.0, 0.09)  # CMPM/CMPC's 1x1 convolution
            nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, D) features of N regions -> (B, W), not normalised."""
        mask = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
        if self.training and self.region_dropout and features.shape[1] > 1:
            features, mask = drop_items(features, mask, self.region_dropout)
            most = int(mask.sum(1).max())
            features, mask = features[:, :most], mask[:, :most]
        regions = self.linear(self.dropout(features))  # (B, N, W)
        if self.mlp is not None:
            regions = regions + self.mlp(features)
        if self.gpo is not None:
            pooled: Tensor = self.gpo(regions, mask if self.training else None)
            return pooled
        return topk_mean(regions, mask, self.topk) if self.pooling == "topk" else masked_mean(regions, mask)
