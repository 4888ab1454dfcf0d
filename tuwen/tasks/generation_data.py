"""Small pictures for the drawing models: decoded once, kept in one matrix on disk, read from memory."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuwen import images
from tuwen.files import cache_folder, sha256_text, write_atomic
from tuwen.images import View
from tuwen.progress import track

MOST = 4_000_000_000  # bytes of pixels that are kept; more are decoded for each batch


@dataclass
class KeptPixels:
    """All pictures of a split in one uint8 matrix (n, S, S, 3); `flip` mirrors a half of those that are drawn."""

    pixels: NDArray[np.uint8]
    flip: bool = False

    def gather(self, rows: NDArray[np.int64], draw: np.random.Generator | None) -> Tensor:
        """Rows -> pixels (B, S, S, 3) uint8."""
        block = np.array(self.pixels[rows])
        if self.flip and draw is not None:
            turned = draw.random(len(rows)) < 0.5
            block[turned] = block[turned][:, :, ::-1]
        return torch.from_numpy(block)


def keep_pixels(paths: Sequence[Path], size: int, view: View, cache: Path | None = None) -> NDArray[np.uint8]:
    """Pixels (n, size, size, 3) of all pictures, decoded once a machine: the matrix is kept by their content and view.

    Raises:
        PictureError: a picture cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        contents = list(pool.map(images.content_id, paths))
        about = json.dumps([images.DECODER, size, str(view), contents])
        path = (cache or cache_folder() / "pixels") / f"{sha256_text(about)[:24]}.npy"
        if not path.is_file():
            decoded = pool.map(lambda one: images.load(one, size, view), paths)
            block = np.stack(list(track(decoded, len(paths), f"decoding at {size} pixels")))
            data = io.BytesIO()
            np.save(data, block)
            write_atomic(path, data.getvalue())
    kept: NDArray[np.uint8] = np.load(path, mmap_mode="r")
    return kept


def to_signed(pixels: Tensor) -> Tensor:
    """uint8 (B, S, S, 3) -> (B, 3, S, S) in [-1, 1]: mean and deviation 0.5."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(drawn: Tensor) -> Tensor:
    """(B, 3, S, S) in [-1, 1] -> uint8 (B, S, S, 3)."""
    return ((drawn.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def grid(pixels: Tensor, columns: int, gap: int = 2) -> Tensor:
    """uint8 (n, S, S, 3) -> one picture (H, W, 3), row by row, white between and around."""
    count, side = pixels.shape[:2]
    rows = -(-count // columns)
    sheet = torch.full((rows * (side + gap) + gap, columns * (side + gap) + gap, 3), 255, dtype=torch.uint8)
    for place, one in enumerate(pixels):
        top, left = (gap + n * (side + gap) for n in divmod(place, columns))
        sheet[top : top + side, left : left + side] = one
    return sheet
