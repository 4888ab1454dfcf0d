"""Pictures read ahead in threads, in batches, through the one loader."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from PIL import ImageOps

from tuwen import graphs, images
from tuwen.errors import ModelError, PictureError
from tuwen.images import Pixels, View

if TYPE_CHECKING:
    from PIL.Image import Image

Source: TypeAlias = "Path | str | Image"
Failed: TypeAlias = list[dict[str, str]]  # {"file", "why"}: pictures that cannot be read

BATCH = 32

T = TypeVar("T")
R = TypeVar("R")


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
    places: list[int] = []
    names: list[str] = []
    read: list[Pixels] = []
    for (place, picture), future in read_ahead(enumerate(pictures), lambda item: _load(item[1], size, view), 2 * batch):
        try:
            read.append(future.result())
        except PictureError as error:
            note_failed(failed, name_of(picture), error)
            continue
        places.append(place)
        names.append(name_of(picture))
        if len(read) == batch:
            yield places, names, np.stack(read)
            places, names, read = [], [], []
    if read:
        yield places, names, np.stack(read)


def read_ahead(
    items: Iterable[T], work: Callable[[T], R], most: int, workers: int | None = None
) -> Iterator[tuple[T, Future[R]]]:
    """Each item with what `work` makes of it, in their order; threads are at most `most` items ahead.

    `workers`: threads; None: one a core.
    """
    rest = iter(items)
    ahead: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(workers or graphs.cores()) as pool:
        try:
            while True:
                for item in islice(rest, most - len(ahead)):
                    ahead.append((item, pool.submit(work, item)))
                if not ahead:
                    return
                yield ahead.popleft()
        finally:
            for _, future in ahead:
                future.cancel()


def note_failed(failed: Failed | None, name: str, error: PictureError) -> None:
    """Note a picture that cannot be read; without a list to note it in, raise."""
    if failed is None:
        raise error
    failed.append({"file": name, "why": str(error).removeprefix(f"{name}: ")})


def open_whole(picture: Source) -> Image:
    """The whole picture, RGB and upright. PictureError: it cannot be read."""
    if isinstance(picture, str | Path):
        return images.open_image(picture)
    return images.to_rgb(ImageOps.exif_transpose(picture))


def _load(picture: Source, size: int, view: View) -> Pixels:
    if isinstance(picture, str | Path):
        return images.load(picture, size, view)
    return images.load_pil(picture, size, view)


def name_of(picture: Source) -> str:
    """The path as it was given; of a PIL picture that of its file, where it has one."""
    return str(picture) if isinstance(picture, str | Path) else str(getattr(picture, "filename", ""))
