"""A retrieval model together with a re-ranker that was trained above it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen import checkpoint
from tuwen.errors import ModelError
from tuwen.pipelines.embedder import Vectors
from tuwen.pipelines.pictures import batches
from tuwen.pipelines.retrieval import Retrieval

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from tuwen.models.retrieval import Cross

SENTENCES = 256  # a batch


class Reranker:
    """An `Embedder` whose vectors are those of `base`, with scores of pairs for the best hits beside them.

    All but the tower runs through torch, unlike `base`: it is for the few hits that a person looks at.

    Raises:
        ModelError: the base is another model than the one that it was trained above.
    """

    task = "retrieval"

    def __init__(self, folder: Path, config: dict[str, Any], base: Retrieval, device: str = "cpu") -> None:
        if base.fingerprint != config["fingerprint"]:
            raise ModelError(
                f"{folder}: trained above {config['base']} {config['fingerprint']}, here it is {base.fingerprint}: "
                "bring that model back, or train again"
            )
        self.folder, self.config, self.base, self.device = folder, config, base, device
        self.name: str = config.get("name") or folder.name
        self.dim, self.size, self.view, self.fingerprint = base.dim, base.size, base.view, base.fingerprint
        self.languages, self.threshold = base.languages, base.threshold
        self._cross: Cross | None = None
        self._look: Callable[[Any], NDArray[Any]] | None = None  # pixels -> the tower's grid

    # What the base does ----------------------------------------------------------------------------------------------

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """As the base."""
        return self.base.embed_pixels(pixels)

    def embed_images(self, pictures: Iterable[Path | str | Image]) -> Vectors:
        """As the base."""
        return self.base.embed_images(pictures)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """As the base."""
        return self.base.embed_texts(texts)

    def unknown_words(self, text: str) -> list[str]:
        """As the base."""
        return self.base.unknown_words(text)

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        return {**self.base.about(), "reranker": f"{self.name}, first {self.top} hits, weight {self.weight:g}"}

    # What it does itself ---------------------------------------------------------------------------------------------

    @property
    def cross(self) -> Cross:
        """The module itself."""
        if self._cross is None:
            from tuwen.tasks import restore_model

            model: Any = restore_model(self.config)
            path = self.folder / checkpoint.WEIGHTS
            checkpoint.load_state(model, checkpoint.read_tensors(path), str(path))
            self._cross = model.to(self.device).eval()
        return self._cross

    @property
    def top(self) -> int:
        """How many hits it orders anew."""
        return int(self.config["top"])

    @property
    def weight(self) -> float:
        """What its scores count beside the similarity of the vectors."""
        return float(self.cross.weight)

    def read_images(self, pictures: Iterable[Path | str | Image]) -> Tensor:
        """Paths or PIL pictures -> their regions (n, 2, H, N, e) in half precision, for `score`.

        Raises:
            PictureError: one can't be read; it is named.
        """
        import torch

        if self._look is None:
            from tuwen.features import runner

            if (tower := self.base.model.tower) is None:
                raise ModelError(f"{self.folder}: {self.base.name} was trained on a feature matrix: use read_features")
            self._look = runner(tower, "grid")
        parts = []
        for _, pixels in batches(pictures, self.size, self.view):
            with torch.inference_mode():
                parts.append(self._regions(torch.from_numpy(self._look(pixels)).to(self.device)))
        return torch.cat(parts)

    def read_features(self, features: NDArray[Any]) -> Tensor:
        """As `read_images`, of (n, N, D) features of the base's tower."""
        import torch

        with torch.inference_mode():
            blocks = (features[i : i + 64].astype(np.float32) for i in range(0, len(features), 64))
            return torch.cat([self._regions(torch.from_numpy(block).to(self.device)) for block in blocks])

    def read_texts(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Sentences -> their words (n, T, .) in half precision and lengths (n,), for `score`."""
        import torch

        from tuwen.models.retrieval import members_of, word_states

        framed, length = self.base.config["framed"], self.base.config["max_tokens"]
        encoded = self.base.tokenizer.encode(list(texts), length, bos=framed, eos=framed)
        ids, lengths = (torch.from_numpy(part) for part in encoded)
        words, first = [], members_of(self.base.model)[0]  # the others' vectors are not asked for
        with torch.inference_mode():
            for some, own in zip(torch.split(ids, SENTENCES), torch.split(lengths, SENTENCES), strict=True):
                states, _ = word_states(first, some.to(self.device), own.to(self.device))
                words.append(self.cross.read_words(states).half())
        return torch.cat(words), lengths.to(self.device)

    def score(
        self, regions: Tensor, words: tuple[Tensor, Tensor], pictures: NDArray[np.int64], sentences: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """(N,) scores of pairs, as rows of `read_images` and of `read_texts`: what the words find in the picture."""
        import torch

        pairs = torch.from_numpy(pictures).to(self.device), torch.from_numpy(sentences).to(self.device)
        with torch.inference_mode():
            scores: NDArray[np.float32] = self.cross.score_pairs(regions, *words, pairs).numpy()
        return scores

    def _regions(self, grid: Tensor) -> Tensor:
        from tuwen.models.retrieval import grid_features

        return self.cross.read_regions(grid_features(self.base.model, grid)).half()
