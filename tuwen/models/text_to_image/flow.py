"""Flow matching: a small U-Net that turns noise into a picture along a straight path, told by the words.

Lipman et al., Flow Matching for Generative Modeling (ICLR 2023), the optimal-transport path. The net predicts the clean
picture (Li and He, Back to Basics, 2025): flat areas then stay flat, and what it says can be looked at.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuwen.models.text_to_image.critic import Critic
from tuwen.models.text_to_image.sampling import Method, integrate
from tuwen.models.text_to_image.words import BertEncoder, SmallEncoder, Told


class Sampling(NamedTuple):
    """How a model draws unless told: guesses, their method, the shift of their times and the guidance."""

    steps: int = 12
    method: Method = "multistep"
    shift: float = 3.0
    guidance: float = 2.0


class FlowUNet(nn.Module):
    """Noise and words to a picture: patches of pixels -> two resolutions of residual blocks -> patches.

    Pixels are folded into patches first, `size / patch` cells a side, so every convolution is cheap. At the coarser of
    the two resolutions each block looks at all cells and all words at once (GLIDE's attention, Nichol et al. 2022).

    Args:
        text: sentence encoder.
        size: side of the picture in pixels.
        patch: side of a patch.
        widths: channels at the finer and at the coarser resolution.
        blocks: residual blocks at each of them, on the way down; as many on the way up, and one.
        hidden: share of the sentences that are hidden while training, for classifier-free guidance.
        centre, spread: of the logit of the times drawn while training (t = 0 is noise).
        sampling: how it draws unless told.
        eye: matches pictures with sentences, which trains the text encoder too; None: nothing does.
    """

    def __init__(
        self,
        text: SmallEncoder | BertEncoder,
        size: int = 64,
        *,
        patch: int = 4,
        widths: tuple[int, int] = (96, 192),
        blocks: tuple[int, int] = (1, 2),
        heads: int = 4,
        hidden: float = 0.1,
        centre: float = -0.8,
        spread: float = 1.0,
        sampling: Sampling = Sampling(),  # noqa: B008
        eye: Critic | None = None,
    ) -> None:
        super().__init__()
        fine, coarse = widths
        self.sampling, self.eye = sampling, eye
        self.text, self.size, self.patch, self.noise_shape = text, size, patch, (3, size, size)
        self.hidden, self.centre, self.spread = hidden, centre, spread
        side, depth = size // patch, 3 * patch**2
        told = 2 * coarse
        self.clock = nn.Sequential(nn.Linear(CLOCK, told), nn.SiLU(), nn.Linear(told, told))
        self.sentence = nn.Linear(text.width, told)
        self.nothing = nn.Parameter(torch.zeros(text.width))  # stands for the words of a hidden sentence
        self.enter = nn.Conv2d(depth, fine, 3, padding=1)
        self.where = nn.Parameter(0.1 * torch.randn(1, fine, side, side))
        self.down = nn.ModuleList(Block(fine, fine, told) for _ in range(blocks[0]))
        self.shrink = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.where_coarse = nn.Parameter(0.1 * torch.randn(1, coarse, side // 2, side // 2))
        self.middle = nn.ModuleList(
            layer
            for _ in range(2 * blocks[1])
            for layer in (Block(coarse, coarse, told), Attention(coarse, text.width, heads))
        )
        self.grow = nn.Conv2d(coarse, 4 * fine, 1)
        self.up = nn.ModuleList(Block(2 * fine if n == 0 else fine, fine, told) for n in range(blocks[0] + 1))
        self.leave = nn.Sequential(nn.GroupNorm(8, fine), nn.SiLU(), nn.Conv2d(fine, depth, 3, padding=1))
        nn.init.zeros_(self.leave[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.leave[2].bias)  # type: ignore[arg-type]

    def forward(self, pictures: Tensor, ids: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        """A training step: pictures (B, 3, S, S) in [-1, 1] and their sentences, at times and noise drawn here.

        `guess` (B, 3, S, S) of the clean pictures and `time` (B,); with a matching eye `true_match` (B, B).
        """
        told = self.text(ids, lengths)
        out = {} if self.eye is None else {"true_match": self.eye.match(self.eye.eye(pictures), told.mean)}
        if self.training and self.hidden:
            told = self.hide(told, torch.rand(len(ids), device=ids.device) < self.hidden)
        time = self.draw_times(len(pictures), pictures.device)
        noise = torch.randn_like(pictures)
        at = time[:, None, None, None]
        return {**out, "guess": self.guess((1 - at) * noise + at * pictures, time, told), "time": time}

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        """(count,) times for training: logit-normal, one from each of `count` equally likely parts, in random order.

        So every batch sees early and late times alike, and its loss swings less (Kingma et al., VDM, 2021).
        """
        place = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
        logit = self.centre + self.spread * torch.special.ndtri(place.clamp(1e-6, 1 - 1e-6))
        return torch.sigmoid(logit)

    def draw(
        self,
        ids: Tensor,
        lengths: Tensor,
        noise: Tensor,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        draft: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, T) ids, (B,) lengths, (B, 3, S, S) noise -> (B, 3, S, S) in [-1, 1].

        With guidance w the guess is that without words, plus w times what the words change (Ho and Salimans 2022):
        1 is the sentence alone, more is more of it. By default the model's own `sampling`.

        `draft`: pixels (B, 3, S, S) in [-1, 1] to begin from (`integrate`), and where (B, 1, S, S) they stay while the
        rest is drawn to fit them: there the guess is known (as in RePaint, Lugmayr et al., CVPR 2022).
        """
        own = self.sampling
        strength = own.guidance if guidance is None else guidance
        told = self.text(ids, lengths)
        nothing = self.hide(told, torch.ones(len(ids), dtype=torch.bool, device=ids.device))
        both = Told(*(torch.cat(pair) for pair in zip(told, nothing, strict=True)))

        def guess(x: Tensor, time: float) -> Tensor:
            clean = say(x, time)
            return clean if draft is None else torch.where(draft[1], draft[0], clean)

        def say(x: Tensor, time: float) -> Tensor:
            at = torch.full((len(x),), time, device=x.device)
            if strength == 1:
                return self.guess(x, at, told)
            with_words, without = self.guess(torch.cat([x, x]), torch.cat([at, at]), both).chunk(2)
            return without + strength * (with_words - without)

        drawn = integrate(
            guess,
            noise,
            own.steps if steps is None else steps,
            method=own.method,
            shift=own.shift,
            draft=None if draft is None else draft[0],
        )
        return drawn.clamp(-1, 1)

    def hide(self, told: Told, hidden: Tensor) -> Told:
        """The same with the `hidden` (B,) sentences made unknown."""
        nothing = self.nothing.to(told.states.dtype)
        states = torch.where(hidden[:, None, None], nothing, told.states)
        first = torch.arange(told.mask.shape[1], device=hidden.device) == 0
        mask = torch.where(hidden[:, None], first, told.mask)
        return Told(states, mask, torch.where(hidden[:, None], nothing, told.mean))

    def guess(self, noisy: Tensor, time: Tensor, told: Told) -> Tensor:
        """The clean picture that a noisy one (B, 3, S, S) at `time` (B,) comes from."""
        about = F.silu(self.clock(clock_code(time)) + self.sentence(told.mean))
        x = self.enter(F.pixel_unshuffle(noisy, self.patch)) + self.where
        for block in self.down:
            x = block(x, about)
        y = self.shrink(x) + self.where_coarse
        for layer in self.middle:
            y = layer(y, about) if isinstance(layer, Block) else layer(y, told)
        x = torch.cat([x, F.pixel_shuffle(self.grow(y), 2)], 1)
        for block in self.up:
            x = block(x, about)
        return F.pixel_shuffle(self.leave(x), self.patch)


class Block(nn.Module):
    """Two convolutions around a scale and a shift that the time and the sentence set; a residual."""

    def __init__(self, width: int, out: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, out, 3, padding=1))
        self.film = nn.Linear(told, 2 * out)
        self.norm = nn.GroupNorm(8, out)
        self.second = nn.Conv2d(out, out, 3, padding=1)
        self.skip = nn.Identity() if width == out else nn.Conv2d(width, out, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, about: Tensor) -> Tensor:
        """(B, C, H, W) and (B, told) -> (B, out, H, W)."""
        scale, shift = self.film(about)[..., None, None].chunk(2, 1)
        y = F.silu(self.norm(self.first(x)) * (1 + scale) + shift)
        skipped: Tensor = self.skip(x) + self.second(y)
        return skipped


class Attention(nn.Module):
    """Every cell looks at every cell and every word."""

    def __init__(self, width: int, told: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.cells = nn.Linear(width, 3 * width)
        self.words = nn.Linear(told, 2 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        """(B, C, H, W) -> the same."""
        batch, width, high, wide = x.shape
        cells = self.norm(x).flatten(2).transpose(1, 2)  # (B, N, C)
        query, key, value = self.cells(cells).chunk(3, -1)
        word_key, word_value = self.words(told.states).chunk(2, -1)
        key, value = torch.cat([key, word_key], 1), torch.cat([value, word_value], 1)
        query, key, value = (y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in (query, key, value))
        # Written out: in half precision on a CPU this is twice as fast as the fused kernel and its backward pass.
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5  # (B, heads, N, N + T)
        empty = F.pad(~told.mask, (high * wide, 0))[:, None, None]
        seen = scores.masked_fill(empty, -torch.inf).softmax(-1).to(value.dtype) @ value
        moved: Tensor = self.out(seen.transpose(1, 2).flatten(2)).transpose(1, 2).reshape(batch, width, high, wide)
        return x + moved


CLOCK = 64  # width of a time's code


def clock_code(time: Tensor) -> Tensor:
    """Sinusoidal codes (B, CLOCK) of times (B,) in [0, 1]."""
    rate = torch.exp(torch.arange(CLOCK // 2, device=time.device) * (-math.log(1000.0) / (CLOCK // 2)))
    angle = 100 * time[:, None].float() * rate
    return torch.cat([angle.sin(), angle.cos()], 1)
