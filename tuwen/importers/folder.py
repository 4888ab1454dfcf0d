"""A bare folder of pictures, with all folders below it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tuwen.errors import DataError
from tuwen.images import SUFFIXES
from tuwen.importers.common import Imported, ImportOptions, Rows, guess_split

UNSEEN = frozenset({"thumbs.db", "desktop.ini", "metadata.jsonl", "dataset.json"})
MISSING = "a link to a file that is missing"


def read_folder(src: Path, options: ImportOptions) -> Imported:
    """Every picture without captions. Folders `train` and `val` (or `test`) at the top are taken for splits."""
    if not src.is_dir():
        raise DataError(f"{src}: not a folder; FORMAT 'folder' takes a folder of pictures")
    rows, splits = Rows(), split_folders(src)
    for name in walk(src, options.dest):
        if is_missing(src / name):
            rows.skipped.add(MISSING, name)
        elif Path(name).suffix.lower() in SUFFIXES:
            rows.add(name, split=splits.get(name.split("/")[0]))
        else:
            rows.skipped.add("not a picture", name)
    return Imported(src.absolute().name, rows.pictures, [src.absolute()], rows.skipped, located=True)


def walk(src: Path, leave: Path | None = None) -> Iterator[str]:
    """Paths of the visible files below a folder, with `/`, in a fixed order; those of a data set inside it left out."""
    left = leave.absolute() if leave is not None and leave.absolute() != src.absolute() else None
    for here, below, files in os.walk(src):
        below[:] = sorted(
            d for d in below if not d.startswith((".", "__MACOSX")) and (Path(here) / d).absolute() != left
        )
        for file in sorted(files):
            if not file.startswith(".") and file.lower() not in UNSEEN:
                yield (Path(here) / file).relative_to(src).as_posix()


def is_missing(path: Path) -> bool:
    """Whether a listed file is a link that leads nowhere."""
    return path.is_symlink() and not path.exists()


def split_folders(src: Path) -> dict[str, str]:
    """The folders at the top that are splits, where there are two or more: one `test` alone proves nothing."""
    named = {child.name: guess_split(child.name) for child in src.iterdir() if child.is_dir()}
    splits = {name: split for name, split in named.items() if split is not None}
    return splits if len(set(splits.values())) > 1 else {}
