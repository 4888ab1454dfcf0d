"""Questions laid out by their pictures."""

from __future__ import annotations

import torch
from torch import Tensor


class Slots:
    """Questions in rows of their pictures: (B, ...) <-> (P, K, ...), K the most questions of a picture.

    So attention over a picture's regions runs once for all its questions, over keys that are not copied.
    """

    def __init__(self, pictures: int, owner: Tensor | None, count: int) -> None:
        self.pictures, self.most = pictures, 1
        self.index: Tensor | None = None
        if owner is None:
            if pictures != count:
                raise ValueError(f"{count} questions about {pictures} pictures: say which by `owner`")
            return
        of_each = torch.bincount(owner, minlength=pictures)  # (P,)
        order = owner.argsort(stable=True)
        place = torch.empty_like(owner)
        place[order] = torch.arange(count, device=owner.device) - (of_each.cumsum(0) - of_each)[owner[order]]
        self.most = int(of_each.max())
        self.index = owner * self.most + place  # (B,)

    def spread(self, x: Tensor) -> Tensor:
        """(B, ...) -> (P, K, ...), zeros where a picture has fewer."""
        if self.index is None:
            return x[:, None]
        flat = x.new_zeros(self.pictures * self.most, *x.shape[1:]).index_copy(0, self.index, x)
        return flat.view(self.pictures, self.most, *x.shape[1:])

    def collect(self, x: Tensor) -> Tensor:
        """(P, K, ...) -> (B, ...)."""
        return x[:, 0] if self.index is None else x.flatten(0, 1).index_select(0, self.index)
