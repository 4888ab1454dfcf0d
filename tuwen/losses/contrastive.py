"""Softmax losses over a similarity matrix: InfoNCE with many positives, N-pair, and soft targets."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tuwen.layers import widen
from tuwen.losses.common import mean_where


def info_nce(
    sim: Tensor,
    positive: Tensor,
    scale: float | Tensor = 20.0,
    smoothing: float = 0.0,
    ignore: Tensor | None = None,
) -> Tensor:
    """InfoNCE with many positives, mean of both directions (van den Oord et al. 2018; CLIP 2021).

    A positive pair (i, c) costs -log p, p its share in a softmax over itself and the negatives of row i: the
    row's other positives are left out of the denominator, for they are no mistakes (Khosla et al. 2020, the
    sum outside the logarithm). Averaged over the positives of a row, then over the rows that have one;
    columns likewise. With one positive a row it is `cross_entropy` over rows and columns.

    `scale` is the inverse temperature, a learned one as a 0-d tensor. `smoothing` moves that part of the
    target evenly onto all candidates of the pair, itself included, as `cross_entropy(label_smoothing=...)`
    does. `ignore` (P, C) bool names pairs that are neither: the diagonal, where a set of captions is
    contrasted with itself.
    """
    logits = widen(sim) * scale
    negative = ~positive
    if ignore is not None:
        positive, negative = positive & ~ignore, negative & ~ignore
    return (_one_way(logits, positive, negative, smoothing) + _one_way(logits.T, positive.T, negative.T, smoothing)) / 2


def _one_way(logits: Tensor, positive: Tensor, negative: Tensor, smoothing: float) -> Tensor:
    """Mean over rows of the mean over their positives of the (smoothed) cross entropy."""
    # A finite floor instead of -inf: a row without negatives costs exactly 0, with no NaN on the way back.
    floor = torch.finfo(logits.dtype).min / 2
    others = logits.masked_fill(~negative, floor).logsumexp(1, keepdim=True)  # (P, 1)
    cost = F.softplus(others - logits)  # (P, C): log(1 + sum_neg exp(s_neg - s)), meaningful at positives
    if smoothing:
        candidates = 1 + negative.sum(1, keepdim=True)
        everyone = logits + torch.where(negative, logits, 0).sum(1, keepdim=True)
        cost = (1 - smoothing) * cost + smoothing * (cost + logits - everyone / candidates)
    count = positive.sum(1)
    by_row = torch.where(positive, cost, 0).sum(1) / count.clamp(min=1)
    return mean_where(by_row, count > 0)


def info_nce_by_language(sim: Tensor, positive: Tensor, zh: Tensor, scale: Tensor, smoothing: float = 0.0) -> Tensor:
    """The mean over languages of `info_nce`: captions (C,) compete with those of their own, as they will in a search.

    `zh` (C,) bool, true where a caption is Chinese.
    """
    spoken = [own for own in (~zh, zh) if own.any()]
    return torch.stack([info_nce(sim[:, own], positive[:, own], scale, smoothing) for own in spoken]).mean()


def n_pair(sim: Tensor, positive: Tensor) -> Tensor:
    """N-pair loss, mean of both directions (Sohn, NeurIPS 2016): log(1 + sum_neg exp(s_neg - s_pos)).

    It is InfoNCE at scale 1. The paper leaves the embeddings unnormalised, `sim` being plain dot products,
    and holds their length by `norm_penalty`; over L2-normalised ones scale 1 is too soft to separate much:
    prefer `info_nce`.
    """
    return info_nce(sim, positive, scale=1.0)


def norm_penalty(*embeddings: Tensor) -> Tensor:
    """Mean squared L2 norm of the rows of each of `embeddings` (n, d), averaged: N-pair's regulariser."""
    return torch.stack([widen(x).square().sum(-1).mean() for x in embeddings]).mean()


def soft_nce(sim: Tensor, targets: Tensor, scale: float | Tensor = 20.0) -> Tensor:
    """Cross entropy against soft targets, mean of both directions.

    `targets` (P, C), not negative, is normalised within each row for picture -> text and within each column
    for text -> picture; rows or columns of zeros do not count. A teacher enters as `(t * (its_sim -
    its_sim.max())).exp()` (in float64 where t is over 40, lest it underflow).
    """
    logits = widen(sim) * scale
    return (_soft_one_way(logits, targets) + _soft_one_way(logits.T, targets.T)) / 2


def soft_nce_by_language(sim: Tensor, teacher: Tensor, zh: Tensor, scale: float = 10.0) -> Tensor:
    """The mean over languages of `soft_nce` to a `teacher`'s similarities (P, C) at the same scale: distillation
    (Hinton et al. 2015) at the temperature 1 / `scale`. `zh` (C,) bool, true where a caption is Chinese.
    """
    targets = (scale * (teacher.double() - teacher.max())).exp()
    spoken = [own for own in (~zh, zh) if own.any()]
    return torch.stack([soft_nce(sim[:, own], targets[:, own], scale) for own in spoken]).mean()


def _soft_one_way(logits: Tensor, targets: Tensor) -> Tensor:
    mass = targets.sum(1)
    counted = mass > 0
    share = (targets / torch.where(counted, mass, 1)[:, None]).to(logits.dtype)
    return mean_where(-(share * logits.log_softmax(1)).sum(1), counted)
