"""Looks at the things that a question names, one by one, and at how they lie to one another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuwen.models.vqa.slots import Slots

SPREAD = 0.15  # of the question's length: how far around its place a pointer reads at first


class Pointers(nn.Module):
    """Each pointer reads a stretch of the question and looks for what is said there; what they find, and by how much
    their finds lie apart, goes into the answer.

    A look that follows all words at once sees the two things of `is the red circle left of the blue ring?` alike, and
    the mean of their places tells nothing. Here the stretches differ from the start (a Gaussian over the words, as in
    the sentence attention of Graves 2013), what is looked for is a thing wherever it stands (keys without places),
    and differences of mean places (spatial softmax: Levine et al., JMLR 2016) say outright which is left of which.

    Args:
        count: how many pointers, spread evenly over the question at first.
    """

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.linspace(0, 1, count))
        self.spread = nn.Parameter(torch.full((count,), SPREAD).log())
        self.taste = nn.Parameter(torch.randn(count, width) * width**-0.5)  # which words matter, wherever they stand
        self.words_norm = nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        pairs = torch.combinations(torch.arange(count))
        self.register_buffer("pairs", pairs, persistent=False)
        self.mix = nn.Sequential(
            nn.Linear((count + 1) * width + 2 * len(pairs), 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    pairs: Tensor

    def forward(
        self,
        state: Tensor,
        words: Tensor,
        exist: Tensor,
        content: Tensor,
        memory: Tensor,
        places: Tensor,
        mask: Tensor | None,
        slots: Slots,
    ) -> Tensor:
        """(B, W), from the answer's `state` (B, W) so far, `words` (B, T, W) of which some `exist` (B, T), and regions:
        their `content` (P, N, W) without places, `memory` (P, N, W) with them, `places` (P or 1, N, 2), `mask` (P, N).
        """
        heard = self._read(self.words_norm(words), exist)  # (B, K, W)
        query = slots.spread(self.query(heard)).flatten(1, 2)  # (P, Q K, W)
        scores = (query @ self.key(content).transpose(1, 2)).float() / query.shape[-1] ** 0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], float("-inf"))
        look = scores.softmax(-1)  # (P, Q K, N)
        shape = len(look), slots.most, len(self.centre)
        seen = slots.collect((look.to(memory.dtype) @ self.value(memory)).view(*shape, -1))  # (B, K, W)
        place = slots.collect((look @ places.float()).view(*shape, 2))  # (B, K, 2)
        apart = place[:, self.pairs[:, 0]] - place[:, self.pairs[:, 1]]
        out: Tensor = self.mix(torch.cat([seen.flatten(1), 4 * apart.flatten(1).to(seen.dtype), state], 1))
        return out

    def _read(self, words: Tensor, exist: Tensor) -> Tensor:
        """Each pointer's mean of the words: (B, K, W)."""
        length = exist.sum(1, keepdim=True).clamp_min(1)
        place = (torch.arange(words.shape[1], device=words.device) + 0.5) / length  # (B, T)
        away = (place[:, None] - self.centre[:, None]) / self.spread.exp()[:, None]  # (B, K, T)
        scores = (words @ self.taste.T.to(words.dtype)).transpose(1, 2).float() - away**2 / 2
        weights = scores.masked_fill(~exist[:, None], -1e4).softmax(-1)
        out: Tensor = weights.to(words.dtype) @ words
        return out


def grid_places(count: int) -> Tensor:
    """The middles of a square grid's cells, row by row, as shares of the side: (count, 2), x and y."""
    side = round(count**0.5)
    middle = (torch.arange(side) + 0.5) / side
    return torch.stack([middle.repeat(side), middle.repeat_interleave(side)], 1)
