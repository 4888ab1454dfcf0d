"""The published decoder: a sentence's vector through one layer and two transposed convolutions to a picture."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 128


class Decoder(nn.Module):
    """FC -> 128 x 16 x 16 -> two transposed convolutions -> 64 x 64, tanh (`size` / 4 cells a side before them).

    The teaching code takes 512 for BERT's 768 and leaves a size open; here the layer is as wide as what comes in.
    """

    def __init__(self, told: int, size: int = 64, noise: int = 0) -> None:
        super().__init__()
        self.side, self.noise = size // 4, noise
        self.enter = nn.Linear(told + noise, CHANNELS * self.side**2)
        self.first = nn.ConvTranspose2d(CHANNELS, CHANNELS // 2, 4, stride=2, padding=1)
        self.second = nn.ConvTranspose2d(CHANNELS // 2, 3, 4, stride=2, padding=1)

    def forward(self, told: Tensor) -> Tensor:
        """(B, told + noise) -> (B, 3, S, S) in [-1, 1]."""
        x = F.relu(self.enter(told)).view(-1, CHANNELS, self.side, self.side)
        drawn: Tensor = self.second(F.relu(self.first(x)))
        return drawn.tanh()
