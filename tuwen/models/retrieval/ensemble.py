"""Several dual encoders in one index: each embeds by itself, and their vectors stand side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tuwen.models.retrieval.dual import DualEncoder
from tuwen.models.retrieval.hubs import Hubs
from tuwen.models.retrieval.looks import embed_looks

if TYPE_CHECKING:
    from tuwen.towers import Tower


class Ensemble(nn.Module):
    """Members that differ in their seeds alone, above one frozen tower.

    With unit vectors v_i and t_i of k members, [v_1, ..., v_k] / sqrt(k) has unit length, and its dot product with the
    same of a sentence is the mean of the members' similarities: an average of models that any index can hold.

    Args:
        members: without towers of their own, of one width.
        hubs: takes hubness off the joined vectors.
        looks: as of a `DualEncoder`.
    """

    def __init__(self, members: Sequence[DualEncoder], hubs: Hubs | None = None, looks: int = 1) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.tower: Tower | None = None
        self.hubs, self.looks = hubs, looks

    def regions(self, batch: Tensor) -> Tensor:
        """As of one member: all of them look at the same features."""
        if self.tower is None:
            return batch
        first: DualEncoder = self.members[0]  # type: ignore[assignment]
        features: Tensor = self.tower.pooled(batch).unsqueeze(1) if first.pooled else self.tower(batch)
        return features

    def embed_pictures(self, batch: Tensor, *, plain: bool = False) -> Tensor:
        """Features or pixels -> (B, k W), unit length; (B, k W + EXTRA) where there are `hubs`, unless `plain`."""
        vectors = embed_looks(self._join_pictures, batch, 1 if self.tower is None else self.looks)
        return vectors if self.hubs is None or plain else self.hubs.mark_pictures(vectors)

    def _join_pictures(self, batch: Tensor) -> Tensor:
        regions = self.regions(batch)
        return join([member.embed_pictures(regions) for member in self.members])  # type: ignore[operator]

    def embed_sentences(self, ids: Tensor, lengths: Tensor, *, plain: bool = False) -> Tensor:
        """(B, T) ids, (B,) lengths -> (B, k W), unit length; as for pictures with `hubs`."""
        vectors = join([member.embed_sentences(ids, lengths) for member in self.members])  # type: ignore[operator]
        return vectors if self.hubs is None or plain else self.hubs.mark_sentences(vectors)

    def forward(self, pictures: Tensor, ids: Tensor, lengths: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What each member's `forward` gives: each learns by itself."""
        return [member(pictures, ids, lengths) for member in self.members]


def members_of(model: DualEncoder | Ensemble) -> list[DualEncoder]:
    """The dual encoders that a retrieval model is made of."""
    return list(model.members) if isinstance(model, Ensemble) else [model]  # type: ignore[arg-type]


def join(vectors: Sequence[Tensor]) -> Tensor:
    """k times (B, W), unit length -> (B, k W), unit length."""
    return torch.cat(list(vectors), 1) / math.sqrt(len(vectors))
