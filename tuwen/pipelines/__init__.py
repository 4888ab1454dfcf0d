"""From a checkpoint to an answer: `tuwen.load(name)`."""

from __future__ import annotations

from pathlib import Path

from tuwen import checkpoint
from tuwen.errors import ModelError
from tuwen.pipelines.embedder import Embedder, Vectors
from tuwen.pipelines.fetch import OFFERS
from tuwen.pipelines.hub import HubEmbedder
from tuwen.pipelines.retrieval import Retrieval, read_model

__all__ = ["Embedder", "HubEmbedder", "Retrieval", "Vectors", "load", "read_model"]

HUB = "hf:"


def load(name: str = "retrieval", device: str | None = None) -> Embedder:
    """A pipeline by a shipped model's name, a run's folder, or `hf:` and the hub name or folder of a CLIP-like model.

    The short names of `tuwen models get` work too, once they are fetched.

    `device`: `cpu`, `cuda`, ...; None takes a GPU where there is one, told by its device file, because asking torch
    would cost its import.

    Raises:
        ModelError: no such model, damaged or unsafe weights, or another task's.
    """
    if name.startswith(HUB) or (name in OFFERS and not Path(name).exists()):
        return HubEmbedder(name.removeprefix(HUB), device)
    name, device = str(name), device or _default_device()
    folder = checkpoint.find_run(name)
    config = checkpoint.read_config(folder, task="retrieval")
    try:
        return Retrieval(folder, config, device)
    except KeyError as error:
        raise ModelError(
            f"{folder}/config.json: no {error}: the run is damaged or of another version, train again"
        ) from None


def _default_device() -> str:
    return "cuda" if Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists() else "cpu"
