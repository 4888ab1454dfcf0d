"""Regions that a detector found, kept in one file a picture (DESIGN, 1: `boxes` and `features` in a `.npz`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.regions import read_regions, read_source

REGIONS = "regions"  # a tower's name that means: each picture's own file

Ints = NDArray[np.int64]


@dataclass
class RegionFiles:
    """Each picture's regions, the first `most` of its file; batches are padded to the most regions in them."""

    files: list[Path]
    pictures: list[Path]
    most: int = 36

    @property
    def detector(self) -> dict[str, Any] | None:
        """The detector that found all of them: its `detector` (name), `fingerprint` and `most`; None for others'."""
        source = read_source(self.files)
        return source if {"detector", "fingerprint", "most"} <= source.keys() else None

    def gather(self, rows: Ints, draw: np.random.Generator | None = None) -> Tensor:
        """Features (B, N, D) float32 alone, padding 0."""
        return self.read(rows)["pictures"]

    def read(self, rows: Ints) -> dict[str, Tensor]:
        """`pictures` (B, N, D) float32, `mask` (B, N) true where a region is, `boxes` (B, N, 4) as shares of it.

        Raises:
            DataError: a file is missing, broken, empty, or of another width than the first.
        """
        parts = [self._one(int(row)) for row in rows]
        longest, width = max(len(features) for features, _ in parts), parts[0][0].shape[1]
        features = np.zeros((len(parts), longest, width), np.float32)
        boxes = np.zeros((len(parts), longest, 4), np.float32)
        mask = np.zeros((len(parts), longest), np.bool_)
        for i, (own, placed) in enumerate(parts):
            if own.shape[1] != width:
                raise DataError(f"{self.files[rows[i]]}: {own.shape[1]} channels, other pictures have {width}")
            features[i, : len(own)], boxes[i, : len(own)], mask[i, : len(own)] = own, placed, True
        return {
            "pictures": torch.from_numpy(features),
            "mask": torch.from_numpy(mask),
            "boxes": torch.from_numpy(boxes),
        }

    def _one(self, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Features (n, D) and boxes (n, 4), xyxy as shares of the picture."""
        held = read_regions(self.files[row], self.most)
        features, boxes, size = held.features, held.boxes.astype(np.float32), held.size
        if size is None:  # width and height, after EXIF rotation
            try:
                with Image.open(self.pictures[row]) as picture:
                    size = ImageOps.exif_transpose(picture).size
            except OSError as error:
                raise DataError(f"{self.pictures[row]}: can't be read ({error}); its boxes need its size") from None
        return features, boxes / np.tile(np.asarray(size, np.float32), 2)


def open_regions(part: Dataset, most: int) -> RegionFiles:
    """The files of a split's pictures. DataError where a row names none."""
    for picture in part.pictures:
        if not picture.regions:
            raise DataError(f"{part.folder}: {picture.file_name} names no regions: import them, or take a tower's grid")
    files = [part.folder.absolute() / str(picture.regions) for picture in part.pictures]
    return RegionFiles(files, [part.path(picture) for picture in part.pictures], most)
