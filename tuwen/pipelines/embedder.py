"""What indexing, searching and scoring need of a model: pictures and sentences in one space."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tuwen.images import View

if TYPE_CHECKING:
    from PIL.Image import Image

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Vectors are float32, of unit length; `threshold` is the similarity, by language, under which nothing matches."""

    task: str
    name: str
    dim: int
    fingerprint: str
    size: int
    view: View
    languages: list[str]
    threshold: dict[str, float]

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """(B, size, size, 3) as `images.load` gives with this model's `size` and `view` -> (B, dim)."""

    def embed_images(self, pictures: Iterable[Path | str | Image]) -> Vectors:
        """Paths or PIL pictures -> (n, dim). Raises PictureError where one can't be read."""

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Sentences -> (n, dim)."""

    def unknown_words(self, text: str) -> list[str]:
        """The words of a query that the model never saw."""

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name: tower, pretrained parts, seed."""
