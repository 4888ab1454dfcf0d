"""Self-critical training: the score of sampled captions as a gradient."""

from __future__ import annotations

from torch import Tensor


def advantages(rewards: Tensor) -> Tensor:
    """Each sample's reward less the mean of the others' (Luo 2020, "A better variant of self-critical sequence
    training"): (P, K) -> (P, K), K >= 2. Rows sum to 0."""
    samples = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * (samples / (samples - 1))


def reinforce(log_probs: Tensor, sizes: Tensor, gains: Tensor) -> Tensor:
    """The policy gradient's loss (Rennie et al., SCST, CVPR 2017), a mean over words.

    `log_probs` (M,) of the words of R samples, sample after sample; `sizes` (R,) words of each; `gains` (R,).
    """
    return -(log_probs * gains.repeat_interleave(sizes)).sum() / sizes.sum()
