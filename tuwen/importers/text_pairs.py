"""Pictures and texts in pairs: a table (`file<tab>caption`, CSV, JSON), or an `x.txt` for each `x.jpg`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from tuwen.errors import DataError
from tuwen.images import SUFFIXES
from tuwen.importers.common import (
    CAPTION_KEYS,
    FILE_KEYS,
    Imported,
    ImportOptions,
    Rows,
    choose,
    guess_split,
    need,
    read_captions,
    read_json,
    read_lines,
    read_table,
    sentence,
    split_name,
)
from tuwen.importers.folder import MISSING, is_missing, split_folders, walk
from tuwen.importers.locate import guess_folders

TABLES = (r"[^/]*\.tsv|[^/]*\.csv|[^/]*\.jsonl?", r"(?:captions?|pairs?|labels?|results|token)[^/]*\.txt")
CAPTION = re.compile(rf"(?:{'|'.join(CAPTION_KEYS)})(?:[ _-]?(?:\d+|en|zh|cn))?")
Record = tuple[int, dict[str, Any]]


def read_text_pairs(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their captions. A table may name its columns, and then also `split`, `group`, `id` and `lang`."""
    if src.is_dir() and _has_sidecars(src):
        return _read_sidecars(src, options)
    try:
        paths = choose(src, TABLES, "table of pairs, and no picture with a .txt of its name,", many=True)
    except DataError:
        if src.is_dir() and (texts := [name for name in walk(src, options.dest) if name.lower().endswith(".txt")]):
            return _read_texts(src, texts)
        raise
    if len(paths) > 1 and len({guess_split(path.stem) for path in paths} - {None}) < len(paths):
        raise DataError(
            f"{src}: several tables ({', '.join(path.name for path in paths[:4])}); name one of them as SRC"
        )
    rows, folders = Rows(), []
    for path in paths:
        split = guess_split(path.stem) if len(paths) > 1 else None
        _read_records(path, rows, split)
        folders += guess_folders(path.parent)
    return Imported(paths[0].absolute().parent.name, rows.pictures, folders, rows.skipped)


def _read_records(path: Path, rows: Rows, split: str | None) -> None:
    add_records(_json(path) if path.suffix.lower() in (".json", ".jsonl") else _table(path), path, rows, split)


def add_records(records: Iterator[Record], path: Path, rows: Rows, split: str | None = None) -> None:
    """The pictures and captions of numbered lines, by the names of their columns."""
    for number, record in records:
        captions = [c for k, value in record.items() if CAPTION.fullmatch(k) for c in read_captions(value) if c.text]
        if record.get("lang"):
            captions = [sentence(c.text, record["lang"], c.source) for c in captions]
        name = next((record[key] for key in FILE_KEYS if record.get(key)), None)
        if name is None or not captions:
            rows.skipped.add("no file name" if name is None else "no caption in the line", f"{path.name}:{number}")
            continue
        own = split_name(record.get("split")) or split
        rows.add(str(name), captions, split=own, group=_text(record.get("group")), id=_text(record.get("id")))


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _json(path: Path) -> Iterator[Record]:
    data = read_json(path)
    if isinstance(data, dict):
        lists = {k: v for k, v in data.items() if isinstance(v, list) and v and all(isinstance(i, dict) for i in v)}
        if lists and all(map(guess_split, lists)):  # {"train": [...], "test": [...]}
            data = [{"split": guess_split(name), **item} for name, items in lists.items() for item in items]
        elif lists:
            data = next(iter(lists.values()))
        else:
            data = [{"file_name": name, "captions": text} for name, text in data.items()]
    need(
        isinstance(data, list) and all(isinstance(item, dict) for item in data), path, "records of a file and a caption"
    )
    yield from enumerate(data, 1)


def _table(path: Path) -> Iterator[Record]:
    table = read_table(path)
    need(table and max(map(len, table)) > 1, path, "a file and a caption, with a tab or a comma between")
    if names_columns(table[0]):
        yield from named_records(table)
        return
    for number, row in enumerate(table, 1):
        at = next((i for i, cell in enumerate(row) if PurePosixPath(cell.lower()).suffix in SUFFIXES), 0)
        yield number, {"file_name": row[at], "captions": [cell for i, cell in enumerate(row) if i != at and cell]}


def names_columns(row: list[str]) -> bool:
    """Whether a first line names a column of files and one of captions."""
    head = _head(row)
    return any(cell in FILE_KEYS for cell in head) and any(CAPTION.fullmatch(cell) for cell in head)


def _head(row: list[str]) -> list[str]:
    return [cell.lower().strip().replace(" ", "_") for cell in row]


def named_records(table: list[list[str]]) -> Iterator[Record]:
    """The lines of a table below the one that names its columns."""
    head = _head(table[0])
    last = len(head) - 1
    for number, row in enumerate(table[1:], 2):
        if CAPTION.fullmatch(head[-1]) and len(row) > len(head):  # a comma within the last caption, not quoted
            row = [*row[:last], ", ".join(row[last:])]
        elif len(row) == last and (found := re.fullmatch(r"(\d+)\s+(\D.*)", row[-1])):  # as line 20,000 of Flickr30k's
            row = [*row[:-1], *found.groups()]
        yield number, dict(zip(head, row, strict=False))


def _has_sidecars(src: Path) -> bool:
    stems: dict[str, set[str]] = {}
    for name in walk(src):
        path = PurePosixPath(name)
        stems.setdefault(path.with_suffix("").as_posix(), set()).add(path.suffix.lower())
    return any(".txt" in kinds and kinds & SUFFIXES for kinds in stems.values())


def _read_sidecars(src: Path, options: ImportOptions) -> Imported:
    """`x.jpg` with `x.txt`: one caption a line."""
    names, rows, splits = list(walk(src, options.dest)), Rows(), split_folders(src)
    texts = {PurePosixPath(name).with_suffix("").as_posix(): name for name in names if name.lower().endswith(".txt")}
    for name in names:
        if PurePosixPath(name.lower()).suffix not in SUFFIXES:
            continue
        if is_missing(src / name):
            rows.skipped.add(MISSING, name)
            continue
        text = texts.pop(PurePosixPath(name).with_suffix("").as_posix(), None)
        if text is None:
            rows.skipped.add("no .txt beside the picture", name)
            continue
        captions = [sentence(line) for _, line in read_lines(src / text)]
        rows.add(name, captions or [sentence("")], split=splits.get(name.split("/")[0]))
    for name in texts.values():
        rows.skipped.add("no picture beside the .txt", name)
    return Imported(src.absolute().name, rows.pictures, [src.absolute()], rows.skipped, located=True)


def _read_texts(src: Path, texts: list[str]) -> Imported:
    """Texts in one folder, pictures of the same names in another."""
    rows = Rows()
    for name in texts:
        captions = [sentence(line) for _, line in read_lines(src / name)]
        rows.add(PurePosixPath(name).stem, captions or [sentence("")])
    return Imported(src.absolute().name, rows.pictures, guess_folders(src), rows.skipped)
