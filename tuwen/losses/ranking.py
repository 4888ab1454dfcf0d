"""Triplet hinge losses of VSE++ and the offline search for hard negatives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tuwen.layers import widen
from tuwen.losses.common import same_label

Reduction = Literal["mean", "sum"]


def hinge_sum(sim: Tensor, positive: Tensor, margin: float = 0.2, reduction: Reduction = "mean") -> Tensor:
    """Sum of hinges over all negatives, both ways (Faghri et al., BMVC 2018, eq. 5).

    Each positive pair (i, c) pays sum_j [margin + s(i, j) - s(i, c)]+ over the captions j that do not belong
    to picture i, and the same over the pictures that caption c does not belong to. With one caption a picture
    this is the original.

    `sum` adds up the pairs of the batch, as the original code does: the published recipe (clipped at norm 2)
    needs it. `mean` divides by the number of positive pairs, so that the value depends neither on the batch
    nor on how many captions a picture brings, and can be mixed with other losses.
    """
    sim = widen(sim)
    rows, columns = positive.nonzero(as_tuple=True)  # K positive pairs
    needed = margin - sim[rows, columns][:, None]  # (K, 1)
    negatives = sim.masked_fill(positive, -torch.inf)  # relu turns -inf into 0, with gradient 0
    image_to_text = F.relu(needed + negatives[rows]).sum()  # over (K, C)
    text_to_image = F.relu(needed + negatives.T[columns]).sum()  # over (K, P)
    return _reduce(image_to_text + text_to_image, positive, reduction)


def hinge_hardest(sim: Tensor, positive: Tensor, margin: float = 0.2, reduction: Reduction = "mean") -> Tensor:
    """Hinge of the hardest negative in the batch, both ways (Faghri et al. 2018, eq. 6).

    A collapsed model (all similarities equal) sits at 2 x margin in `mean`, at 2 x margin x pairs in `sum`
    (as above). Where several negatives are equally hard they share the gradient, so that the order of a batch
    changes nothing.
    """
    sim = widen(sim)
    negatives = sim.masked_fill(positive, -torch.inf)
    image_to_text = F.relu(margin + negatives.amax(1, keepdim=True) - sim)  # (P, C), read at positives only
    text_to_image = F.relu(margin + negatives.amax(0, keepdim=True) - sim)
    total = torch.where(positive, image_to_text + text_to_image, 0).sum()
    return _reduce(total, positive, reduction)


def hinge(
    sim: Tensor, positive: Tensor, margin: float = 0.2, hardest: float = 1.0, reduction: Reduction = "mean"
) -> Tensor:
    """`(1 - hardest) x hinge_sum + hardest x hinge_hardest`: raise `hardest` from 0 to 1 to warm up.

    Hardest negatives alone often collapse in the first steps; the sum has gradients from every negative, and
    is larger by up to the number of negatives, so even a small share of it still steers.
    """
    if not 0 <= hardest <= 1:
        raise ValueError(f"hardest must be between 0 and 1, not {hardest}")
    if hardest == 1:
        return hinge_hardest(sim, positive, margin, reduction)
    every = hinge_sum(sim, positive, margin, reduction)
    if hardest == 0:
        return every
    return (1 - hardest) * every + hardest * hinge_hardest(sim, positive, margin, reduction)


def _reduce(total: Tensor, positive: Tensor, reduction: Reduction) -> Tensor:
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be 'mean' or 'sum', not '{reduction}'")
    return total / positive.sum().clamp(min=1) if reduction == "mean" else total


@torch.no_grad()
def mine_hardest(
    image_emb: Tensor, text_emb: Tensor, labels: Tensor, text_labels: Tensor, k: int = 1, chunk: int = 1024
) -> tuple[Tensor, Tensor]:
    """The `k` most similar captions of another label for each picture, and pictures for each caption.

    For offline mining over a whole training set: `image_emb` (P, d), `text_emb` (C, d), `labels` (P,),
    `text_labels` (C,) (the mask is made chunk by chunk; a full (P, C) one would not fit COCO). Returns int64
    (P, k) indices into the captions and (C, k) into the pictures, hardest first, -1 where fewer than k
    negatives exist.
    """
    return (
        _hardest_of(image_emb, text_emb, labels, text_labels, k, chunk),
        _hardest_of(text_emb, image_emb, text_labels, labels, k, chunk),
    )


def _hardest_of(queries: Tensor, items: Tensor, labels: Tensor, item_labels: Tensor, k: int, chunk: int) -> Tensor:
    found = torch.full((len(queries), k), -1, dtype=torch.int64, device=queries.device)
    width = min(k, len(items))
    for start in range(0, len(queries), chunk):
        rows = slice(start, start + chunk)
        sim = widen(queries[rows] @ items.T)
        sim.masked_fill_(same_label(labels[rows], item_labels), -torch.inf)
        best, where = sim.topk(width, dim=1)
        found[rows, :width] = where.masked_fill(best == -torch.inf, -1)
    return found
