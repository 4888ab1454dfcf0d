"""A trained dual encoder as a pipeline.

On a CPU it runs ONNX graphs, made once a machine from the checkpoint, and then imports neither torch nor transformers;
on a GPU, or where a model can't be exported, it runs the modules themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen import __version__, checkpoint, graphs
from tuwen.errors import GraphError, ModelError
from tuwen.images import View
from tuwen.pipelines.embedder import Vectors
from tuwen.pipelines.pictures import batches
from tuwen.text import load_tokenizer

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuwen.models.retrieval import DualEncoder, Ensemble

SENTENCES = 256  # a batch


class Retrieval:
    """A trained dual encoder."""

    task = "retrieval"

    def __init__(self, folder: Path, config: dict[str, Any], device: str = "cpu") -> None:
        if not (folder / checkpoint.WEIGHTS).is_file():
            raise ModelError(f"{folder}: no {checkpoint.WEIGHTS}: the training saved none, go on with --resume")
        self.folder, self.config, self.device = folder, config, device
        self.name = config.get("name") or folder.name
        self.dim: int = config.get("dim", config["model"]["width"])
        tower = config["tower"]
        self.precomputed = tower["size"] is None
        self.size: int = tower["size"] or 0
        self.view = View(tower["view"])
        self.languages: list[str] = config["languages"]
        self.threshold: dict[str, float] = config.get("threshold", {})
        self.tokenizer = load_tokenizer(folder)
        self.fingerprint = checkpoint.fingerprint(folder, config)
        self._model: DualEncoder | Ensemble | None = None
        self._graphs: dict[str, Any] = {}

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """(B, S, S, 3) uint8 as `images.load` gives with this pipeline's `size` and `view` -> (B, d)."""
        if self.precomputed:
            raise ModelError(f"{self.folder}: trained on a feature matrix, so it can't look at pictures")
        return self._run("picture", {"pixels": pixels})

    def embed_images(self, pictures: Iterable[Path | str | Image]) -> Vectors:
        """Paths or PIL pictures -> (n, d), unit length.

        Raises:
            PictureError: one can't be read; it is named.
        """
        if self.precomputed:
            raise ModelError(
                f"{self.folder}: trained on a feature matrix, so it can't look at pictures: use embed_features"
            )
        if isinstance(pictures, str | Path):
            raise ModelError("embed_images takes a list of pictures, not one path: write [path]")
        blocks = [self.embed_pixels(pixels) for _, pixels in batches(pictures, self.size, self.view)]
        return np.concatenate(blocks) if blocks else np.zeros((0, self.dim), np.float32)

    def embed_features(self, features: NDArray[Any]) -> Vectors:
        """(n, D) or (n, N, D) features of the tower -> (n, d)."""
        import torch

        rows = features[:, None] if features.ndim == 2 else features
        with torch.inference_mode():
            parts = [
                self.model.embed_pictures(torch.from_numpy(np.asarray(rows[i : i + 256], np.float32)).to(self.device))
                for i in range(0, len(rows), 256)
            ]
        out: Vectors = torch.cat(parts).float().cpu().numpy()
        return out

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Sentences -> (n, d), unit length."""
        if isinstance(texts, str):
            raise ModelError("embed_texts takes a list of sentences, not one string: write [text]")
        framed, length = self.config["framed"], self.config["max_tokens"]
        out = np.zeros((len(texts), self.dim), np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike lengths waste no padding
        for start in range(0, len(order), SENTENCES):
            rows = order[start : start + SENTENCES]
            ids, lengths = self.tokenizer.encode([texts[i] for i in rows], length, bos=framed, eos=framed)
            out[rows] = self._run("sentence", {"ids": ids, "lengths": lengths})
        return out

    def unknown_words(self, text: str) -> list[str]:
        """The words of a query that the model never saw."""
        return self.tokenizer.unknown(text)

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        config = self.config
        return {
            "tower": config["tower"]["name"],
            "looks": config["model"]["image"].get("looks", 1),
            "pretrained": config["pretrained"],
            "seed": config["seed"],
            "tokeniser": f"{self.tokenizer.kind}, {self.tokenizer.size} ids",
        }

    @property
    def model(self) -> DualEncoder | Ensemble:
        """The module itself, its frozen tower inside."""
        if self._model is None:
            self._model = read_model(self.folder, self.config).to(self.device)
        return self._model

    def _run(self, side: str, inputs: dict[str, NDArray[Any]]) -> Vectors:
        if self.device == "cpu" and side not in self._graphs:
            self._graphs[side] = self._open_graph(side)
        if graph := self._graphs.get(side):
            out: Vectors = graph.run(None, inputs)[0]
            return out
        import torch

        tensors = [torch.from_numpy(array).to(self.device) for array in inputs.values()]
        call = self.model.embed_pictures if side == "picture" else self.model.embed_sentences
        with torch.inference_mode():
            vectors: Vectors = call(*tensors).float().cpu().numpy()
        return vectors

    def _open_graph(self, side: str) -> Any:
        """The ONNX session of a side, made on first use; None where the module can't be written as a graph."""

        def make(path: Path) -> None:
            from tuwen.models.retrieval.export import picture_side, sentence_side

            module = read_model(self.folder, self.config)  # its own: exporting changes the pooling
            made = (
                picture_side(module, self.size)
                if side == "picture"
                else sentence_side(module, self.config["max_tokens"])
            )
            graphs.export(made[0], tuple(made[1].values()), tuple(made[1]), path, axes={"ids": {1: "time"}})

        try:
            return graphs.session(f"{self.task}-{side}-{self.fingerprint}-{__version__}", make)
        except GraphError:
            return None


def read_model(folder: Path, config: dict[str, Any]) -> DualEncoder | Ensemble:
    """The trained module of a run, in eval mode, with its tower: from the run if it was tuned, else by name and hash.

    Raises:
        ModelError: the weights don't fit, or the tower on this machine is not the one it was trained on.
    """
    from tuwen.tasks import restore_model
    from tuwen.towers import build_tower

    model: Any = restore_model(config)
    path = folder / checkpoint.WEIGHTS
    checkpoint.load_state(model, checkpoint.read_tensors(path), str(path))
    tower = config["tower"]
    if not tower["inside"] and tower["size"] is not None:
        weights = Path(tower["weights"]) if tower["weights"] else None
        frozen = build_tower(tower["name"], size=tower["size"], weights=weights)
        if config["features"]:
            frozen.behead(config["model"]["image"].get("tail", 0))
        if frozen.sha256 != tower["sha256"]:
            raise ModelError(
                f"{folder}: trained on tower {tower['name']} {tower['sha256'][:12]}, here is {frozen.sha256[:12]}: "
                "install the version that the model card names"
            )
        model.tower = frozen
    out: DualEncoder | Ensemble = model.eval()
    return out
