"""Pictures read ahead in threads, in batches, through the one loader."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tuwen import graphs, images
from tuwen.errors import ModelError, PictureError
from tuwen.images import Pixels, View

if TYPE_CHECKING:
    from PIL.Image import Image

Source: TypeAlias = "Path | str | Image"
Failed: TypeAlias = list[dict[str, str]]  # {"file", "why"}: pictures that cannot be read

BATCH = 32


def batches(
    pictures: Iterable[Source], size: int, view: View, batch: int = BATCH, failed: Failed | None = None
) -> Iterator[tuple[list[str], Pixels]]:
    """Names and pixels (B, size, size, 3) of paths or PIL pictures, in their order; a batch or two are read ahead.

    Raises:
        PictureError: one cannot be read; with `failed` it is noted there instead, and left out.
    """
    for _, names, pixels in numbered(pictures, size, view, batch, failed):
        yield names, pixels


def numbered(
    pictures: Iterable[Source], size: int, view: View, batch: int = BATCH, failed: Failed | None = None
) -> Iterator[tuple[list[int], list[str], Pixels]]:
    """As `batches`, and the place of each among those that were given, from 0."""
    if isinstance(pictures, str | Path):
        raise ModelError("takes a list of pictures, not one path: write [path]")
    items = enumerate(pictures)
    with ThreadPoolExecutor(graphs.cores()) as pool:
        ahead: deque[tuple[int, str, Future[Pixels]]] = deque()
        places: list[int] = []
        names: list[str] = []
        read: list[Pixels] = []
        try:
            while True:
                for place, picture in islice(items, 2 * batch - len(ahead)):
                    ahead.append((place, name_of(picture), pool.submit(_load, picture, size, view)))
                if not ahead:
                    break
                place, name, future = ahead.popleft()
                try:
                    read.append(future.result())
                    places.append(place)
                    names.append(name)
                except PictureError as error:
                    if failed is None:
                        raise
                    failed.append({"file": name, "why": str(error).removeprefix(f"{name}: ")})
                if len(read) == batch:
                    yield places, names, np.stack(read)
                    places, names, read = [], [], []
        finally:
            for *_, future in ahead:
                future.cancel()
    if read:
        yield places, names, np.stack(read)


def _load(picture: Source, size: int, view: View) -> Pixels:
    if isinstance(picture, str | Path):
        return images.load(picture, size, view)
    return images.load_pil(picture, size, view)


def name_of(picture: Source) -> str:
    """The path as it was given; of a PIL picture that of its file, where it has one."""
    return str(picture) if isinstance(picture, str | Path) else str(getattr(picture, "filename", ""))
