"""Projection matching (CMPM, CMPC; Zhang and Lu, ECCV 2018) and distribution matching (SDM, CVPR 2023).

Where public code differs from the paper, and what is done here:

1. Targets. Public code divides the label mask by its L2 norm, so that k positives sum to sqrt(k) and the loss
   can fall below its proper minimum. Here they are a distribution (L1), as in the paper.
2. Axis. Public code divides by `norm(dim=1)` without keeping the dimension, which scales columns, right only
   for a symmetric mask. Here rows, so that P pictures and C captions may differ in number.
3. Epsilon (1e-8) stands where paper and code have it: added to the target inside the logarithm, the only
   place where a zero arises; never to the prediction, whose logarithm comes from `log_softmax`.
4. Projection. As in the paper, only the side projected upon is normalised (x . z/|z|); code that normalises
   both has no temperature left to learn. That variant, with its temperature, is `sdm`.
5. Batch of one. Public models `.squeeze()` it away; nothing is squeezed here.
6. Class weights. Some code normalises W once, when the layer is made, so that it is not unit length after a
   step. Here at every call, without bias, as in the paper.
7. Both directions are added, each averaged over its own rows; a row without any positive is left out.
8. Cosine statistics that public code returns beside the loss are scores, and not computed here.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tuwen.layers import l2_normalise, widen
from tuwen.losses.common import mean_where, same_label


def cmpm(
    image_emb: Tensor,
    text_emb: Tensor,
    labels: Tensor,
    text_labels: Tensor | None = None,
    epsilon: float = 1e-8,
) -> Tensor:
    """Cross-modal projection matching: KL(p || q), projections against identities (Zhang and Lu 2018).

    `image_emb` (P, d) and `text_emb` (C, d) unnormalised, `labels` (P,) identities, `text_labels` (C,) the
    same by default. p is the softmax of x_i . z_j/|z_j| over j, q the labels' distribution; and the other way
    round.
    """
    image_emb, text_emb = widen(image_emb), widen(text_emb)
    positive = same_label(labels, text_labels)
    on_text = image_emb @ l2_normalise(text_emb).T  # (P, C)
    on_image = text_emb @ l2_normalise(image_emb).T  # (C, P)
    return _divergence(on_text, positive, epsilon) + _divergence(on_image, positive.T, epsilon)


def sdm(
    image_emb: Tensor,
    text_emb: Tensor,
    labels: Tensor,
    text_labels: Tensor | None = None,
    temperature: float | Tensor = 0.02,
    epsilon: float = 1e-8,
) -> Tensor:
    """Similarity distribution matching: CMPM over cosines / temperature (IRRA: Jiang and Ye, CVPR 2023)."""
    logits = l2_normalise(image_emb) @ l2_normalise(text_emb).T
    logits = logits / temperature
    positive = same_label(labels, text_labels)
    return _divergence(logits, positive, epsilon) + _divergence(logits.T, positive.T, epsilon)


def _divergence(logits: Tensor, positive: Tensor, epsilon: float) -> Tensor:
    """Mean over the rows that have a positive of sum_j p_j (log p_j - log(q_j + epsilon))."""
    log_p = logits.log_softmax(1)
    count = positive.sum(1, keepdim=True)
    q = positive.to(logits.dtype) / count.clamp(min=1)
    by_row = (log_p.exp() * (log_p - (q + epsilon).log())).sum(1)
    return mean_where(by_row, count[:, 0] > 0)


def cmpc(image_emb: Tensor, text_emb: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Cross-modal projection classification: cross entropy over identities (Zhang and Lu 2018).

    Row i of `image_emb` (N, d) and of `text_emb` (N, d) are a pair of class `labels` (N,); a batch of P
    pictures with several captions passes `image_emb[owner]`. `weight` (classes, d) is one vector a class
    (Xavier uniform at first). A picture is classified by its projection on its text, (x . z/|z|) z/|z|, with
    class vectors of unit length.
    """
    if image_emb.shape != text_emb.shape:
        raise ValueError(f"cmpc takes pairs: {tuple(image_emb.shape)} pictures, {tuple(text_emb.shape)} texts")
    image_emb, text_emb = widen(image_emb), widen(text_emb)
    unit = l2_normalise(weight)
    logits = [_project(x, onto) @ unit.T for x, onto in ((image_emb, text_emb), (text_emb, image_emb))]
    return torch.stack([F.cross_entropy(one, labels) for one in logits]).sum()


def _project(x: Tensor, onto: Tensor) -> Tensor:
    """Row by row, the projection of `x` (N, d) on the direction of `onto` (N, d)."""
    direction = l2_normalise(onto)
    return (x * direction).sum(1, keepdim=True) * direction
