"""A picture's regions on disk, one `.npz` a picture (DESIGN, 1), and the pictures that a file of regions is about."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import DataError
from tuwen.files import write_atomic
from tuwen.records import Picture

FOLDER = "regions"  # of a data set, one folder below it a source
SOURCE = "source.json"  # in such a folder: what its regions are of
COCO = re.compile(r"(?:COCO_\w+_)?(\d{12})")

Array = NDArray[Any]


@dataclass(frozen=True)
class Regions:
    """n boxes (n, 4), xyxy in pixels after EXIF rotation, and their features (n, d). `size`: width and height of the
    picture that the boxes are pixels of; None: that of its file."""

    boxes: Array
    features: Array
    size: tuple[int, int] | None = None


def write_regions(path: Path, regions: Regions) -> None:
    """Write a `.npz` whole or not at all, numbers as they are. DataError: no room."""
    out = io.BytesIO()
    if regions.size is None:
        np.savez(out, boxes=regions.boxes, features=regions.features)
    else:
        np.savez(out, boxes=regions.boxes, features=regions.features, size=np.array(regions.size, np.int64))
    try:
        write_atomic(path, out.getvalue())
    except OSError as error:
        raise DataError(
            f"{path}: can't be written ({error.strerror or error}); make room, what is written is kept"
        ) from None


def read_regions(path: Path, most: int | None = None) -> Regions:
    """The first `most` regions of a file. DataError: it is missing, broken, or empty."""
    try:
        with np.load(path, allow_pickle=False) as body:
            features, boxes = body["features"][:most], body["boxes"][:most]
            size = body.get("size")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not readable as regions (boxes and features in .npz): {error}") from None
    if features.ndim != 2 or boxes.shape != (len(features), 4) or not len(features):
        raise DataError(
            f"{path}: features (n, d) and boxes (n, 4) are asked for; it has {features.shape}, {boxes.shape}"
        )
    return Regions(boxes, features, None if size is None else (int(size[0]), int(size[1])))


def read_source(files: Iterable[Path]) -> dict[str, Any]:
    """What made the regions in these files, as their folder says; nothing where they lie in several, or none says."""
    folders = {file.parent for file in files}
    if len(folders) != 1:
        return {}
    try:
        body = json.loads((folders.pop() / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def find_picture(pictures: Sequence[Picture]) -> dict[str, int | None]:
    """Names of pictures, and each one's place; None for a name that several pictures have.

    A picture is named by its id, its file, the file's last part with and without the suffix, and COCO's number (`9` of
    `COCO_train2014_000000000009.jpg`); where two kinds of names meet, the first of these counts.
    """
    kinds: tuple[dict[str, int | None], ...] = ({}, {}, {}, {}, {})
    for place, picture in enumerate(pictures):
        for names, name in zip(kinds, (picture.id, *_forms(picture.file_name)), strict=True):
            if name:
                names[name] = place if names.get(name, place) == place else None
    return {name: place for names in reversed(kinds) for name, place in names.items()}


def name_forms(label: str) -> Iterator[str]:
    """What a picture may be called by a file of regions, as `find_picture` knows it."""
    yield from (form for form in _forms(label) if form)


def _forms(name: str) -> tuple[str, str, str, str]:
    path = PurePosixPath(name.replace("\\", "/"))
    number = COCO.fullmatch(path.stem)
    return name, path.name, path.stem, str(int(number[1])) if number else ""
