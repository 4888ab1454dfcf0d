"""What both captioners are given."""

from __future__ import annotations

from torch import Tensor

Captions = dict[int, tuple[Tensor, Tensor]]  # language -> ids (P, K, T), end words included, and lengths (P, K)
