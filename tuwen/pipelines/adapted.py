"""A frozen model with an adapter that `tuwen tune` trained for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen import checkpoint
from tuwen.errors import ModelError
from tuwen.files import sha256_file, sha256_text
from tuwen.pipelines.embedder import Embedder, Vectors

if TYPE_CHECKING:
    from PIL.Image import Image


class Adapted:
    """An `Embedder` whose vectors are those of `base`, each side through its residual linear map.

    Raises:
        ModelError: the base is another model than the one that the adapter was trained on.
    """

    task = "retrieval"

    def __init__(self, folder: Path, config: dict[str, Any], base: Embedder) -> None:
        if base.fingerprint != config["fingerprint"]:
            raise ModelError(
                f"{folder}: tuned on {config['base']} {config['fingerprint']}, here it is {base.fingerprint}: "
                "bring that model back, or tune again"
            )
        path = folder / checkpoint.WEIGHTS
        tensors = {name: value.numpy() for name, value in checkpoint.read_tensors(path).items()}
        try:
            self._picture, self._sentence = (tensors[f"{side}.weight"].T for side in ("picture", "sentence"))
        except KeyError as error:
            raise ModelError(f"{path}: no {error} in it: the run is damaged, tune again") from None
        self.folder, self.base, self.config = folder, base, config
        self.name: str = config.get("name") or folder.name
        self.dim, self.size, self.view = base.dim, base.size, base.view
        self.languages: list[str] = config["languages"]
        self.threshold: dict[str, float] = config.get("threshold", {})
        self.fingerprint = sha256_text(f"{sha256_file(path)} {base.fingerprint}")[:16]

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """(B, S, S, 3) uint8 as `images.load` gives with this model's `size` and `view` -> (B, d), unit length."""
        return _mapped(self.base.embed_pixels(pixels), self._picture)

    def embed_images(self, pictures: Iterable[Path | str | Image]) -> Vectors:
        """Paths or PIL pictures -> (n, d), unit length. Raises PictureError where one can't be read."""
        return _mapped(self.base.embed_images(pictures), self._picture)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Sentences -> (n, d), unit length."""
        return _mapped(self.base.embed_texts(texts), self._sentence)

    def unknown_words(self, text: str) -> list[str]:
        """The words of a query that the base never saw."""
        return self.base.unknown_words(text)

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        return {**self.base.about(), "tuned_from": self.config["base"], "seed": self.config["seed"]}


def _mapped(vectors: Vectors, matrix: NDArray[np.float32]) -> Vectors:
    """As `models.retrieval.Adapter`, without torch."""
    moved = vectors + vectors @ matrix
    out: Vectors = moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6)
    return out
