"""What the loss families share: masks from labels, and a mean that survives an empty mask."""

from __future__ import annotations

import torch
from torch import Tensor


def same_label(labels: Tensor, other: Tensor | None = None) -> Tensor:
    """Bool (P, C), true where `labels` (P,) equals `other` (C,), `labels` itself by default.

    A label is the picture's index, or one number for all pictures of a `group`.
    """
    return labels[:, None] == (labels if other is None else other)[None, :]


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `values` where `mask` (same shape) holds; 0 (still on the graph) where it holds nowhere."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)
