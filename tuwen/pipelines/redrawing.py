"""Drawing again what is not as asked: each try begins from what the best one so far got right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuwen.scenes.faults import read_drawing

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from tuwen.scenes.world import Thing

PATIENCE = 4  # tries around the same things before all is drawn anew
RIM = 0.03  # of the side: how much of the ground around a thing stays with it
NEAR = 0.12  # of the side: and of the noise, which decides early what will stand where


class Attempts:
    """The tries at one picture.

    Args:
        image, noise: the first one, and the noise (3, S, S) that it came from.
        prompt: what it is read by.
    """

    def __init__(self, image: Image, prompt: str, noise: Tensor) -> None:
        self.prompt = prompt
        self.image, self.wrong = image, None  # the best, and what is wrong in it; None: the words name no flat shape
        self._base, self._noise, self._right, self._vain = image, noise, [], 0
        self.see(image, noise)

    image: Image
    wrong: list[str] | None
    _right: list[Thing]  # what stays of `_base`

    def see(self, image: Image, noise: Tensor) -> None:
        """Take in a try."""
        reading = read_drawing(image, self.prompt)
        if reading is None:
            return
        if self.wrong is None or len(reading.wrong) < len(self.wrong):
            self.image, self.wrong = image, reading.wrong
        self._vain += 1
        if len(reading.right) > len(self._right):
            self._base, self._noise, self._right, self._vain = image, noise, reading.right, 0
        elif self._vain == PATIENCE:
            self._right, self._vain = [], 0

    def start(self, fresh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From fresh noise what the next try begins with: its noise, and the pixels (3, S, S) and where (1, S, S) they
        stay, both of the try that got most things right."""
        import numpy as np
        import torch

        from tuwen.tasks.generation_data import to_signed

        pixels = to_signed(torch.from_numpy(np.array(self._base))[None])[0]
        near, stays = (self._around(rim, self._base.width) for rim in (NEAR, RIM))
        return torch.where(near, self._noise, fresh), pixels, stays

    def _around(self, rim: float, side: int) -> Tensor:
        """(1, S, S): the discs around the things that stay."""
        import torch

        place = (torch.arange(side) + 0.5) / side
        away = [
            ((place[None] - thing.x) ** 2 + (place[:, None] - thing.y) ** 2).sqrt() - thing.r for thing in self._right
        ]
        return (torch.stack(away).amin(0) < rim if away else torch.zeros(side, side, dtype=torch.bool))[None]
