"""Objectives of answering: logits over all known answers against what each is worth."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def answer_bce(logits: Tensor, scores: Tensor, times_answers: bool = True) -> Tensor:
    """Binary cross entropy of each answer against its soft score (Teney et al., CVPR 2018), both (B, A).

    As published the mean over questions and answers is taken times the number of answers: a sum over the answers of a
    question. With `times_answers=False` it stays the mean, A times smaller: of consequence for clipping, not for Adam.
    """
    loss = F.binary_cross_entropy_with_logits(logits.float(), scores.float())
    return loss * logits.shape[1] if times_answers else loss


def answer_cross_entropy(logits: Tensor, scores: Tensor, smoothing: float = 0.0, times_answers: bool = True) -> Tensor:
    """Softmax cross entropy against the soft scores (B, A) as shares of their sum; a mean over the questions of which
    an answer is known (0 where there is none), times the number of answers as published, or without.
    """
    scores = scores.float()
    total = scores.sum(1, keepdim=True)
    known = (total > 0).squeeze(1)  # (B,)
    shares = scores / total.clamp(min=1e-12)
    each = F.cross_entropy(logits.float(), shares, label_smoothing=smoothing, reduction="none")
    loss = each.masked_fill(~known, 0).sum() / known.sum().clamp(min=1)
    return loss * logits.shape[1] if times_answers else loss
