"""Seeing pictures: a small convolutional eye, what judges a picture with its sentence, and what matches the two."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = 4  # the eye's last grid has so many cells a side


class Eye(nn.Module):
    """Pictures (B, 3, S, S) -> features (B, out, 4, 4): residual halvings without normalisation (DF-GAN)."""

    def __init__(self, size: int = 64, width: int = 32) -> None:
        super().__init__()
        halvings = int(math.log2(size // CELLS))
        widths = [width * min(2**n, 8) for n in range(halvings + 1)]
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.steps = nn.ModuleList(Halving(a, b) for a, b in pairwise(widths))
        self.out_width = widths[-1]

    def forward(self, pictures: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, out, 4, 4)."""
        x = self.enter(pictures)
        for step in self.steps:
            x = step(x)
        return F.leaky_relu(x, 0.2)


class Halving(nn.Module):
    """Half the side, a residual with a learned gain that begins at 0."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, out, 4, stride=2, padding=1)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Conv2d(width, out, 1)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, out, H/2, W/2)."""
        y = F.leaky_relu(self.first(F.leaky_relu(x, 0.2)), 0.2)
        halved: Tensor = self.skip(F.avg_pool2d(x, 2)) + self.gain * self.second(y)
        return halved


class Critic(nn.Module):
    """Says how true a picture looks together with a sentence: `forward(pictures, sentences)` -> logits (B,).

    Args:
        told: width of a sentence's vector.
        judges: whether it judges at all.
        matches: width of the space in which it matches pictures with sentences; 0: it does not.
    """

    def __init__(self, told: int, size: int = 64, width: int = 32, *, judges: bool = True, matches: int = 0) -> None:
        super().__init__()
        self.eye = Eye(size, width)
        seen = self.eye.out_width
        if judges:
            self.told = nn.Linear(told, seen)
            self.joint = nn.Conv2d(2 * seen, 2 * width, 3, padding=1)
            self.verdict = nn.Conv2d(2 * width, 1, CELLS)
        if matches:
            self.match_picture = nn.Linear(seen * CELLS**2, matches)
            self.match_sentence = nn.Linear(told, matches)
            self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def forward(self, pictures: Tensor, sentences: Tensor) -> Tensor:
        """(B, 3, S, S) and (B, told) -> (B,)."""
        return self.judge(self.eye(pictures), sentences)

    def judge(self, seen: Tensor, sentences: Tensor) -> Tensor:
        """The eye's features (B, C, 4, 4) and sentences (B, told) -> logits (B,), high for true."""
        told = self.told(sentences)[..., None, None].expand(-1, -1, CELLS, CELLS)
        joint = F.leaky_relu(self.joint(torch.cat([seen, told], 1)), 0.2)
        verdict: Tensor = self.verdict(joint)
        return verdict.flatten()

    def match(self, seen: Tensor, sentences: Tensor) -> Tensor:
        """The eye's features of P pictures and C sentences -> scaled cosines (P, C)."""
        pictures = F.normalize(self.match_picture(seen.flatten(1)).float(), dim=-1)
        told = F.normalize(self.match_sentence(sentences).float(), dim=-1)
        return pictures @ told.T * self.log_scale.exp().clamp(max=100)


def frozen(critic: Critic, way: str, pictures: Tensor, sentences: Tensor) -> Tensor:
    """`judge` or `match` of a critic whose weights get no gradient; the pictures do."""
    held = {name: value.detach() for name, value in critic.state_dict(keep_vars=True).items()}
    result: Tensor = torch.func.functional_call(_Way(critic, way), {f"critic.{k}": v for k, v in held.items()},
                                                (pictures, sentences))  # fmt: skip
    return result


class _Way(nn.Module):
    """One method of a critic as a module, which `functional_call` wants."""

    def __init__(self, critic: Critic, way: str) -> None:
        super().__init__()
        self.critic, self.way = critic, way

    def forward(self, pictures: Tensor, sentences: Tensor) -> Tensor:
        result: Tensor = getattr(self.critic, self.way)(self.critic.eye(pictures), sentences)
        return result
