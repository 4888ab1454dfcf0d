"""Hits out of an index: copied or linked into a folder, or as a table."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tuwen.errors import DataError
from tuwen.files import write_atomic
from tuwen.hits import Hit

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins so
COLUMNS = ("rank", "score", "file", "caption", "date", "width", "height", "id")


def put_files(hits: Sequence[Hit], folder: Path, link: bool = False) -> int:
    """Copy the hits' files into a folder, or link to them there, as `001 NAME`, by rank; how many.

    What is there under such a name already is replaced only by the same file. Files that are gone are passed over.

    Raises:
        DataError: the folder is a file, or another file of that name is in it.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: not a folder; name another")
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    for hit in hits:
        source = Path(hit.file).resolve()
        if not source.is_file():
            continue
        target = folder / f"{hit.rank:03} {source.name}"
        if target.is_symlink() and link and target.resolve() == source:
            done += 1
            continue
        if os.path.lexists(target) and (target.is_symlink() or not _equal(target, source)):
            raise DataError(f"{target}: another file is there already; name an empty folder")
        if link:
            target.unlink(missing_ok=True)
            target.symlink_to(source)
        else:
            beside = target.with_name(f".{target.name}.tmp")
            shutil.copy2(source, beside)
            beside.replace(target)
        done += 1
    return done


def write_table(hits: Sequence[Hit], path: Path) -> None:
    """The hits as CSV, a row each; the mark at its begin tells Excel that it is UTF-8."""
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(COLUMNS)
    for hit in hits:
        table.writerow([safe_cell(getattr(hit, name)) for name in COLUMNS])
    write_atomic(path, "\ufeff" + out.getvalue())


def safe_cell(value: object) -> object:
    """A value as a spreadsheet may show it: one that it would run as a formula gets a quote in front."""
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return "" if value is None else value


def _equal(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
