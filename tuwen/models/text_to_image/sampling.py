"""From noise to a picture along the flow: the steps between, by three methods."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Method = Literal["euler", "midpoint", "multistep"]
Guess = Callable[[Tensor, float], Tensor]  # a noisy picture and its time -> the clean picture

DRAFT = 0.35  # the time that a draft is made noisy to, or the next one on the path

METHODS: tuple[Method, ...] = ("euler", "midpoint", "multistep")


def times(steps: int, shift: float = 1.0) -> list[float]:
    """`steps` + 1 times from 0 (noise) to 1; a `shift` above 1 spends more of them near the noise, where layout forms.

    t = s / (s + shift (1 - s)) for s in equal steps (Esser et al., Stable Diffusion 3, 2024, equation 23).
    """
    even = [n / steps for n in range(steps + 1)]
    return [s / (s + shift * (1 - s)) for s in even]


def integrate(
    guess: Guess,
    noise: Tensor,
    steps: int,
    *,
    method: Method = "euler",
    shift: float = 1.0,
    draft: Tensor | None = None,
) -> Tensor:
    """Follow the flow from `noise` (B, ...) to t = 1; with a `draft` (B, ...), only from there on where its details are
    lost in the noise and its layout is not (SDEdit, Meng et al., ICLR 2022).

    The net's guess of the clean picture gives the speed (guess - x) / (1 - t). `euler`: a guess a step; `midpoint`:
    two; `multistep`: one, corrected by the guess before it (DPM-Solver++ 2M, Lu et al. 2022, in the flow's times).
    """
    x, before = noise, None
    path = times(steps, shift)
    if draft is not None:
        path = [time for time in path if time >= DRAFT] if steps > 1 and path[-2] >= DRAFT else path[-2:]
        x = (1 - path[0]) * noise + path[0] * draft
    for n, (now, then) in enumerate(pairwise(path)):
        clean = guess(x, now)
        if method == "midpoint" and n < steps - 1:  # the last step ends at the guess itself
            middle = (now + then) / 2
            half = x + (middle - now) / (1 - now) * (clean - x)
            speed = (guess(half, middle) - half) / (1 - middle)
            x = x + (then - now) * speed
            continue
        aim = clean
        if method == "multistep" and before is not None and then < 1:
            last, time = before
            ratio = (_log_snr(now) - _log_snr(time)) / (_log_snr(then) - _log_snr(now)) if time > 0 else None
            aim = clean + (clean - last) / (2 * ratio) if ratio else clean
        before = (clean, now)
        x = x * (1 - then) / (1 - now) + aim * (1 - (1 - then) / (1 - now))
    return x


def _log_snr(time: float) -> float:
    return float(torch.logit(torch.tensor(time, dtype=torch.float64)))
