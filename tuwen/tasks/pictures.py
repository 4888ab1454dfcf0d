"""The picture side that every task shares: a tower, its cached features or pixels, and the views they are kept of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuwen import checkpoint, images
from tuwen.config import DataConfig, TowerConfig
from tuwen.dataset import Dataset
from tuwen.errors import ConfigError, ModelError
from tuwen.features import extract
from tuwen.images import View
from tuwen.towers import Top, Tower, build_tower

PRECOMPUTED = "features:"  # a tower's name that means a matrix of `dataset.json`

Ints = NDArray[np.int64]


class PictureSource(Protocol):
    """Where a batch's picture side comes from: cached features, or pixels read now."""

    def gather(self, rows: Ints, draw: np.random.Generator | None) -> Tensor:
        """Rows -> features (B, N, D) float32 or pixels (B, S, S, 3) uint8; `draw` picks one of several views."""


@dataclass
class Cached:
    """Features of a frozen tower, one table a view."""

    views: Sequence[object]  # features.Features

    def gather(self, rows: Ints, draw: np.random.Generator | None) -> Tensor:
        if draw is None or len(self.views) == 1:
            block = self.views[0][rows]  # type: ignore[index]
        else:
            chosen = draw.integers(len(self.views), size=len(rows))
            parts = [self.views[v][rows[chosen == v]] for v in range(len(self.views))]  # type: ignore[index]
            block = np.empty((len(rows), *parts[0].shape[1:]), dtype=parts[0].dtype)
            for v, part in enumerate(parts):
                block[chosen == v] = part
        features = torch.from_numpy(np.ascontiguousarray(block)).float()
        return features.unsqueeze(1) if features.ndim == 2 else features


@dataclass
class Pixels:
    """Pictures decoded for each batch: for a tower that is trained with the rest.

    `view` is how they are scored; `training` the kind of view that is drawn anew each time.
    """

    paths: list[Path]
    size: int
    view: View
    training: Literal["squash", "center", "crop", "zoom"] = "squash"
    flip: bool = False

    def gather(self, rows: Ints, draw: np.random.Generator | None) -> Tensor:
        pixels = []
        for row in rows:
            view = self.view
            if draw is not None:
                view = View(self.training, self.flip and bool(draw.integers(2)), int(draw.integers(1 << 30)))
            pixels.append(images.load(self.paths[row], self.size, view))
        return torch.from_numpy(np.stack(pixels))


def open_tower(image: TowerConfig) -> Tower | None:
    """The recipe's tower; None where it names precomputed features."""
    if image.tower.startswith(PRECOMPUTED):
        return None
    if not (image.pretrained or image.weights or image.finetune):
        raise ConfigError(
            "a frozen tower that starts at random learns nothing: model.image.finetune=true, or give weights"
        )
    weights = Path(image.weights) if image.weights else None
    return build_tower(image.tower, size=image.size, pretrained=image.pretrained, weights=weights)


def cut_top(tower: Tower | None, image: TowerConfig) -> Top | None:
    """Cut off what of the tower is trained; None where nothing is, or the tower learns as a whole.

    Raises:
        ModelError: the run that `image.top` names has no top of this tower.
    """
    if tower is None or image.features != "map":
        return None
    top = tower.behead(image.tail)
    if image.top:
        run = checkpoint.find_run(image.top)
        if checkpoint.read_config(run)["tower"]["sha256"] != tower.sha256:
            raise ModelError(f"model.image.top={image.top}: trained above another tower, or with another tail")
        tensors = checkpoint.read_tensors(run / checkpoint.WEIGHTS)
        first = min(name for name in tensors if name.endswith("head.weight")).removesuffix("weight")
        own = {name.removeprefix(first): value for name, value in tensors.items() if name.startswith(first)}
        checkpoint.load_state(top, own, str(run))
    return top


def build_tail(config: dict[str, Any]) -> tuple[int, nn.Sequential | None]:
    """The channels that a tower's last convolution takes, and the trained blocks before it, with random weights."""
    count = config["model"]["image"].get("tail", 0)
    if not count:
        return config["in_width"], None
    tower = config["tower"]
    top = build_tower(tower["name"], size=tower["size"], pretrained=False).behead(count)
    return top.in_features, top.tail


def open_pictures(
    tower: Tower | None, image: TowerConfig, data: DataConfig, part: Dataset, split: str, cache: Path | None
) -> PictureSource:
    """The pictures of one split: precomputed or cached features, or pixels where the tower is trained too."""
    if tower is None:
        matrix, rows = part.features(image.tower.removeprefix(PRECOMPUTED))
        return Cached([matrix[rows]])
    paths = [part.path(picture) for picture in part.pictures]
    plain = View("center" if data.view == "crop" else data.view)
    if image.finetune:
        return Pixels(paths, tower.size, plain, "zoom" if data.zooms else data.view, data.flip)
    views = [plain] if split != "train" else training_views(data)
    kind: Literal["pooled", "grid"] = "pooled" if image.features == "pooled" else "grid"
    return Cached([extract(tower, paths, kind, view, cache) for view in views])


def feature_width(tower: Tower | None, image: TowerConfig, pictures: PictureSource) -> int:
    """Channels of what a model is given of each region."""
    if tower is not None:
        return tower.pooled_width if image.features == "pooled" else tower.grid_width
    return int(pictures.gather(np.array([0]), None).shape[-1])


def describe_tower(tower: Tower | None, image: TowerConfig, data: DataConfig) -> dict[str, Any]:
    """What `config.json` says of the tower: enough to open it again, or to refuse another."""
    return {
        "name": image.tower,
        "size": tower.size if tower else None,
        "weights": str(Path(image.weights).resolve()) if image.weights else None,
        "sha256": tower.sha256 if tower else None,
        "inside": image.finetune,
        "pooled": image.features == "pooled",
        "view": "center" if data.view == "crop" else data.view,
    }


def pretrained_part(image: TowerConfig) -> str:
    """The tower and what it was trained on, for the protocol."""
    return image.tower if image.tower.startswith("hf:") else f"{image.tower} (ImageNet)"


def training_views(data: DataConfig) -> list[View]:
    """The views of each picture that a frozen tower's features are kept of: they stand for random augmentation."""
    if data.view == "crop":
        views = [View("crop", seed=seed) for seed in range(data.views)]
        return views + [View("crop", flip=True, seed=view.seed) for view in views if data.flip]
    flips = [View(data.view, flip=True)] if data.flip else []
    return [View(data.view), *flips, *(View("zoom", data.flip and bool(i % 2), i) for i in range(data.zooms))]
