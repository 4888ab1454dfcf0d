"""Objectives of drawing: flow matching, critics that look at picture and sentence together, and a Gaussian's KL."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tuwen.layers import widen

LATEST = 0.95  # a speed divides by 1 - t, which is kept at 1 - LATEST at least
Kind = Literal["bce", "hinge"]


def flow_matching(guess: Tensor, clean: Tensor, time: Tensor) -> Tensor:
    """Mean squared error of the speed that a `guess` (B, ...) of the `clean` picture at `time` (B,) means.

    The straight path's speed is clean - noise = (clean - x) / (1 - t) (Lipman et al., ICLR 2023), so the error of the
    speed is that of the guess over 1 - t; 1 - t is kept from 0 as Li and He (Back to Basics, 2025) do. A net that
    says 0 pays mean(clean^2 / (1 - t)^2).
    """
    each = (widen(guess) - clean).square().flatten(1).mean(1)  # (B,)
    return (each / (1 - time.clamp(max=LATEST)).square()).mean()


def judge_true_and_false(real: Tensor, wrong: Tensor, fake: Tensor, kind: Kind, apart: Tensor | None = None) -> Tensor:
    """What a matching-aware critic pays (Reed et al., ICML 2016): true pairs against both ways to be false.

    Logits (B,) of true pairs, of true pictures with a `wrong` sentence, of `fake` pictures with the right one; the
    false ones count a half each. `apart` (B,) leaves out a wrong sentence that belongs to the same group. A critic that
    says 0 pays 2 log 2 (`bce`) or 2 (`hinge`, DF-GAN).
    """
    real, wrong, fake = widen(real), widen(wrong), widen(fake)
    if kind == "hinge":
        true, astray, made = (F.relu(1 - real), F.relu(1 + wrong), F.relu(1 + fake))
    else:
        true, astray, made = (F.softplus(-real), F.softplus(wrong), F.softplus(fake))
    if apart is not None:
        astray = astray * apart / apart.float().mean().clamp(min=1 / len(apart))
    return true.mean() + (astray.mean() + made.mean()) / 2


def fool(fooled: Tensor, kind: Kind) -> Tensor:
    """What a generator pays for the critic's logits (B,) of what it drew; `bce` in the form that does not saturate."""
    fooled = widen(fooled)
    return -fooled.mean() if kind == "hinge" else F.softplus(-fooled).mean()


def slope_penalty(slope: Tensor, power: float = 6.0) -> Tensor:
    """DF-GAN's matching-aware gradient penalty: mean of `slope` ** `power`; `slope` (B,), a critic's at true pairs."""
    return widen(slope).pow(power).mean()


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL from N(mean, variance) to N(0, 1), the mean over rows and dimensions of (B, W) (StackGAN's conditioning)."""
    mean, log_variance = widen(mean), widen(log_variance)
    return 0.5 * torch.mean(mean.square() + log_variance.exp() - 1 - log_variance)
