"""What the routes work with, and how they reach one picture: an indexed file, or an upload."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import UploadFile

from tuwen import images
from tuwen.errors import PictureError
from tuwen.server.albums import Shelf
from tuwen.server.limits import Missing, Refused, Work
from tuwen.server.shared import Shared
from tuwen.server.tuning import Tuner
from tuwen.store import FILES, LanceStore


@dataclass
class Desk:
    """What all requests share."""

    db: Path
    shared: Shared
    looking: Work
    making: Work
    albums: Shelf
    tuner: Tuner

    @contextmanager
    def picture(self, id: str | None, upload: UploadFile | None) -> Iterator[Path]:
        """The file of an indexed picture, or of an upload while it is worked on.

        Raises:
            Missing: no such picture, or its file may not be read.
            Refused: an upload that is no picture (SVG and HTML are none), or a broken or too large one.
        """
        if upload is None:
            yield find_file(self.shared.store(), str(id))
            return
        with tempfile.TemporaryDirectory(prefix="tuwen-upload-") as folder:
            path = Path(folder) / "image"
            with path.open("wb") as file:
                shutil.copyfileobj(upload.file, file, 1 << 20)
            try:
                images.probe(path)
                yield path
            except PictureError as error:
                raise Refused(f"upload: {str(error).removeprefix(f'{path}: ')}") from None

    def stop(self) -> None:
        """Let nothing wait any more."""
        self.tuner.stop()
        self.shared.stop()
        self.looking.stop()
        self.making.stop()


def check_id(store: LanceStore, id: str) -> None:
    """Missing where the index does not know a content id."""
    if next(iter(store.scan(FILES, ["key"], ("content", [id]), "state = 'ok'", 1)), None) is None:
        raise Missing("there is no picture with this id in the index")


def find_file(store: LanceStore, id: str) -> Path:
    """The file of a content id: of several copies the first that may be served.

    It lies inside the folder that was indexed, links resolved now, and still holds what was indexed. So no id, and no
    link that was put there since, leads to any other file.

    Raises:
        Missing: the index does not know the id, or the file is gone, changed, or leads elsewhere.
    """
    rows = list(store.scan(FILES, ["folder", "path", "mtime_ns", "size"], ("content", [id])))
    if not rows:
        raise Missing("there is no picture with this id in the index")
    why = "gone, changed or moved since it was indexed; run: tuwen index {folder}"
    for row in sorted(rows, key=lambda row: (row["folder"], row["path"])):
        try:
            file: Path = (Path(row["folder"]) / row["path"]).resolve(strict=True)
            stat = file.stat()
        except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
            continue
        if not file.is_relative_to(row["folder"]):
            why = "not served, for it lies outside {folder}; give `tuwen index` the folder that it lies in"
            continue
        if not file.is_file():
            continue
        if (stat.st_mtime_ns, stat.st_size) == (row["mtime_ns"], row["size"]) or images.content_id(file) == id:
            return file
    raise Missing(f"{row['path']}: {why.format(folder=row['folder'])}")
