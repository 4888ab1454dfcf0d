"""A tiny deterministic model for tests of everything above the models: colours of pictures, colour words of texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuwen import images
from tuwen.images import View

COLOURS = {
    "red": (220, 50, 47),
    "green": (60, 160, 60),
    "blue": (50, 90, 210),
    "yellow": (240, 200, 40),
    "purple": (140, 70, 180),
    "orange": (240, 130, 40),
    "black": (30, 30, 30),
    "white": (250, 250, 250),
}
CHINESE = dict(zip(COLOURS, "红绿蓝黄紫橙黑白", strict=True))


class FakeEmbedder:
    """Shares of eight colours, and a ninth axis for words it does not know; `batches` counts its calls."""

    task = "retrieval"

    def __init__(self, name: str = "colours", fingerprint: str = "c0ffee00c0ffee00", floor: float = 0.3) -> None:
        self.name, self.fingerprint = name, fingerprint
        self.dim, self.size, self.view = len(COLOURS) + 1, 8, View()
        self.languages = ["en", "zh"]
        self.threshold = {"en": floor, "zh": floor}
        self.batches: list[int] = []

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        palette = np.array(list(COLOURS.values()), np.float32)
        far = ((pixels[..., None, :].astype(np.float32) - palette) ** 2).sum(-1)  # (B, 8, 8, colours)
        shares = np.exp(-far / 2000).mean((1, 2)) + 1e-3
        return _unit(np.concatenate([shares, np.full((len(pixels), 1), 1e-3)], 1))

    def embed_images(self, pictures: Iterable[Path | str | Image.Image]) -> NDArray[np.float32]:
        loaded = [
            images.load_pil(p, self.size, self.view) if isinstance(p, Image.Image) else images.load(p, self.size)
            for p in pictures
        ]
        return self.embed_pixels(np.stack(loaded))

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [[float(name in text.lower() or CHINESE[name] in text) for name in COLOURS] for text in texts]
        return _unit(np.array([[*row, float(not any(row))] for row in rows]))

    def unknown_words(self, text: str) -> list[str]:
        from tuwen.text import split_words

        known = {*COLOURS, *CHINESE.values()}
        return [word for word in split_words(text) if word not in known]


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def draw(path: Path, *colours: str, seed: int = 0) -> Path:
    """A 16x16 PNG of stripes in these colours, a corner pixel or two by `seed`, so that contents differ."""
    array = np.zeros((16, 16, 3), np.uint8)
    for stripe, colour in zip(np.array_split(np.arange(16), len(colours)), colours, strict=True):
        array[stripe] = COLOURS[colour]
    array[0, 0] = (seed % 256, seed // 256 % 256, 7)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def draw_many(folder: Path, count: int) -> list[Path]:
    """`count` pictures, each of two colours and of another content."""
    names = list(COLOURS)
    return [draw(folder / f"p{n:03}.png", names[n % 8], names[n // 8 % 8], seed=n + 1) for n in range(count)]
