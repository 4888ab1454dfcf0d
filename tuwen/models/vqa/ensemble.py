"""Several answering models as one: each answers by itself, and their log probabilities are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tuwen.models.vqa.fusion import FusionTransformer
from tuwen.models.vqa.joint import JointEmbedding


class Ensemble(nn.Module):
    """Members of other seeds or kinds, over the same regions of a frozen tower.

    Args:
        members: without towers of their own, with the same answers.
        softmax: whether their logits are those of a softmax (else each answer has a sigmoid of its own).
    """

    def __init__(self, members: Sequence[JointEmbedding | FusionTransformer], softmax: bool = True) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.softmax, self.tower = softmax, None

    def forward(self, *given: Any, **named: Any) -> Tensor:
        """What a member takes -> the mean of their log probabilities (B, A), which a softmax makes their normalised
        geometric mean; while training the logits of each, (members, B, A), for each learns by itself."""
        logits = torch.stack([member(*given, **named) for member in self.members])
        if self.training:
            return logits
        return (logits.float().log_softmax(2) if self.softmax else logits).mean(0)

    def attend(self, *given: Any, **named: Any) -> Tensor | None:
        """The mean of the members' attention (B, N); None if they are blind."""
        maps = [member.attend(*given, **named) for member in self.members]  # type: ignore[operator]
        return None if maps[0] is None else torch.stack(maps).mean(0)


def members_of(model: JointEmbedding | FusionTransformer | Ensemble) -> list[JointEmbedding | FusionTransformer]:
    """The models that an answering model is made of."""
    return list(model.members) if isinstance(model, Ensemble) else [model]  # type: ignore[arg-type]
