"""Two residual linear maps on the vectors of a frozen model of pictures and sentences."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from tuwen.layers import l2_normalise


class Adapter(nn.Module):
    """unit(x + x A) for pictures and unit(y + y B) for sentences, A and B zero at first: it begins as the frozen model.

    A linear form of CLIP-Adapter (Gao et al. 2021, arXiv:2110.04544), which keeps a residual to the frozen vectors
    so that little data cannot spoil them.

    Args:
        width: of the frozen vectors.
        rate: dropout of their dimensions in what the maps see while training; the residual keeps them whole.
        scale: first factor on the similarities before a softmax (1 / temperature), learned up to `max_scale`.
    """

    def __init__(self, width: int, rate: float = 0.0, scale: float = 30.0, max_scale: float = 100.0) -> None:
        super().__init__()
        self.rate, self.max_scale = rate, max_scale
        self.picture = nn.Linear(width, width, bias=False)
        self.sentence = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.picture.weight)
        nn.init.zeros_(self.sentence.weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    @property
    def scale(self) -> Tensor:
        """Factor on the similarities before a softmax."""
        return self.log_scale.exp().clamp(max=self.max_scale)

    def embed_pictures(self, vectors: Tensor) -> Tensor:
        """(B, W) unit vectors of the frozen model -> (B, W), unit length."""
        return l2_normalise(vectors + self.picture(dropout(vectors, self.rate, self.training)))

    def embed_sentences(self, vectors: Tensor) -> Tensor:
        """(B, W) unit vectors of the frozen model -> (B, W), unit length."""
        return l2_normalise(vectors + self.sentence(dropout(vectors, self.rate, self.training)))

    def forward(self, pictures: Tensor, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """(P, W), (C, W) -> (P, W), (C, W), unit length."""
        return self.embed_pictures(pictures), self.embed_sentences(sentences)
