"""Hubness taken off the similarities of a dual encoder, inside its vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EXTRA = 4  # dimensions that a vector grows by


class Bank(nn.Module):
    """Vectors of training items of one side, to tell how near a vector of the other side lies to all of them.

    Kept in the `axes` principal axes of the items about their mean, which holds nearly all of their similarities in a
    tenth of the room. Empty (zeros) until `fill`: then everything is as near as everything else.
    """

    mean: Tensor
    axes: Tensor
    items: Tensor

    def __init__(self, width: int, count: int, axes: int, beta: float) -> None:
        super().__init__()
        axes = min(axes, width, count)
        self.beta = beta
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("axes", torch.zeros(axes, width))
        self.register_buffer("items", torch.zeros(count, axes))

    @torch.no_grad()
    def fill(self, vectors: Tensor) -> None:
        """(count, W) unit vectors of the items."""
        exact = vectors.double()
        mean = exact.mean(0)
        away = exact - mean
        _, found = torch.linalg.eigh(away.T @ away)  # eigenvalues rise
        axes = found.T.flip(0)[: len(self.axes)]
        self.mean.copy_(mean)
        self.axes.copy_(axes)
        self.items.copy_(away @ axes.T)

    def forward(self, x: Tensor) -> Tensor:
        """(B, W) unit vectors -> (B, 1) log-mean-exp of `beta` times their similarities to the items, over `beta`."""
        similar = x @ self.mean[:, None] + (x @ self.axes.T) @ self.items.T  # (B, count)
        mean: Tensor = ((self.beta * similar).logsumexp(1, keepdim=True) - math.log(len(self.items))) / self.beta
        return mean.clamp(-1, 1)  # the axes are an approximation, the bound is not


class Hubs(nn.Module):
    """v . t - weight * (near(v) + near(t)) as the dot product of two longer unit vectors, for every index to use.

    Some vectors lie near everything, and a search finds them whatever it is asked for (Radovanovic et al., JMLR 2010).
    Taking off how near a vector lies to a bank of the other side is the inverted softmax (Smith et al., ICLR 2017),
    with training items as the bank: querybank normalisation (Bogolin et al., CVPR 2022), here on both sides at once.
    The mean over the bank is a log-mean-exp at `beta`, so `near` is never outside -1 to 1, and with w its weight

        picture  [v, sqrt(w) (-near(v), 1, sqrt(1 - near(v)^2), 0)] / sqrt(1 + 2 w)
        sentence [t, sqrt(w) (1, -near(t), 0, sqrt(1 - near(t)^2))] / sqrt(1 + 2 w)

    have unit length and the corrected similarity over 1 + 2 w as their dot product. The dot product of two pictures
    (or two sentences) grows with v . v' and is 1 where they are the same.

    Args:
        width: of the dual encoder's vectors; these are EXTRA wider.
        pictures, sentences: items of the banks.
        picture_axes, sentence_axes: principal axes that the banks are kept in.
    """

    def __init__(
        self,
        width: int,
        pictures: int,
        sentences: int,
        picture_axes: int,
        sentence_axes: int,
        beta: float = 20.0,
        weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.weight = weight
        self.pictures = Bank(width, pictures, picture_axes, beta)
        self.sentences = Bank(width, sentences, sentence_axes, beta)

    def fill(self, pictures: Tensor, sentences: Tensor) -> None:
        """Fill the banks by unit vectors of training items, (pictures, W) and (sentences, W)."""
        self.pictures.fill(pictures)
        self.sentences.fill(sentences)

    def mark_pictures(self, vectors: Tensor) -> Tensor:
        """(B, W) unit vectors of pictures -> (B, W + EXTRA), unit length."""
        near = self.sentences(vectors)
        return self._join(vectors, -near, torch.ones_like(near), _rest(near), torch.zeros_like(near))

    def mark_sentences(self, vectors: Tensor) -> Tensor:
        """(B, W) unit vectors of sentences -> (B, W + EXTRA), unit length."""
        near = self.pictures(vectors)
        return self._join(vectors, torch.ones_like(near), -near, torch.zeros_like(near), _rest(near))

    def _join(self, vectors: Tensor, *marks: Tensor) -> Tensor:
        return torch.cat([vectors, *(math.sqrt(self.weight) * mark for mark in marks)], 1) / math.sqrt(
            1 + 2 * self.weight
        )


def _rest(near: Tensor) -> Tensor:
    return (1 - near.square()).sqrt()
