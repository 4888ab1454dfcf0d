"""Regions that a detector found, for the pictures of a data set that is there already.

Three public layouts: the TSV of bottom-up attention (Anderson et al., CVPR 2018) and of LXMERT (Tan and Bansal, EMNLP
2019), whose cells hold float32 in base64; the HDF5 `train36.hdf5` with its index `train36_imgid2idx`; and one `.npz` a
picture, which stays where it is. The first two are read a picture at a time, for they are larger than memory, and
written to `regions/NAME/` of the data set, from where a stopped import goes on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib
import json
import pickletools
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from tuwen.errors import DataError
from tuwen.files import write_atomic
from tuwen.importers.common import Imported, ImportOptions, Skipped, choose, need, read_json, read_lines
from tuwen.progress import track
from tuwen.records import Picture
from tuwen.regions import FOLDER, SOURCE, Regions, find_picture, name_forms, read_regions, read_source, write_regions

Found = tuple[str, Callable[[], Regions | None]]  # what its layout calls a picture, and how to read its regions

TSV, HDF5, NPZ = r"[^/]*\.tsv(?:\.\d+)?", r"[^/]*\.(?:hdf5|h5)", r"[^/]*\.npz"
COLUMNS = "image_id image_w image_h num_boxes boxes features"
LONGEST = 1 << 26  # bytes of a line: 100 boxes of 2,048 numbers take a sixtieth
HEAD = 1 << 20  # bytes by which a file is known again


def read_region_files(src: Path, options: ImportOptions) -> Imported:
    """The data set's pictures, each with the file of its regions.

    Raises:
        DataError: DEST is no data set yet, or a file is cut or of another layout. What was written before is kept.
    """
    if not options.present:
        raise DataError(f"{options.dest}: no pictures in it yet; import those first, then their regions")
    paths = choose(src, (TSV, HDF5, NPZ), ".tsv, .hdf5 or .npz of regions", many=True)
    pictures = [own for own in options.present if options.split in (None, own.split)]
    skipped, at = Skipped(), find_picture(pictures)
    regions: dict[int, str] = {}
    if paths[0].suffix.lower() == ".npz":
        read_regions(paths[0])  # of many files the first tells the layout; `tuwen check` looks at all
        for path in track(paths, len(paths), "finding pictures"):
            place = _find(path.stem, at, regions, skipped)
            if place is not None:
                regions[place] = _keep(path, options)
    else:
        for path in paths:
            _write(path, options, at, regions, skipped)
    found = [(pictures[place], file) for place, file in sorted(regions.items())]
    rows = [Picture(file_name=own.file_name, root=own.root, split=own.split, regions=file) for own, file in found]
    return Imported("regions", rows, [], skipped, made=True)


def _find(label: str, at: dict[str, int | None], regions: dict[int, str], skipped: Skipped) -> int | None:
    """The picture that a label names; None, with the reason noted, where there is none or it has its regions."""
    form = next((form for form in name_forms(label) if form in at), None)
    place = at[form] if form is not None else None
    if form is None:
        skipped.add("regions of a picture that the data set lacks", label)
    elif place is None:
        skipped.add("several pictures of that name", label)
    elif place in regions:
        skipped.add("a picture whose regions came before", label)
        return None
    return place


def _keep(path: Path, options: ImportOptions) -> str:
    """Where a picture's own file is from the data set: as it lies, or copied."""
    if options.copy:
        staged = options.staging / FOLDER / (path.absolute().parent.name or "files") / path.name
        staged.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, staged)
        return staged.relative_to(options.staging).as_posix()
    whole, dest = path.resolve(), options.dest.resolve()
    return whole.relative_to(dest).as_posix() if whole.is_relative_to(dest) else str(whole)


def _write(
    path: Path, options: ImportOptions, at: dict[str, int | None], regions: dict[int, str], skipped: Skipped
) -> None:
    """A `.npz` for each picture of one large file; those that are there already stay."""
    name = re.sub(r"\.(?:tsv|hdf5|h5)(?=\.|$)", "", path.name)
    folder = options.dest / FOLDER / name
    _mark(folder, path)
    if re.fullmatch(TSV, path.name, re.IGNORECASE):
        found, total = _read_tsv(path), _count_lines(path)
    else:
        need(re.fullmatch(HDF5, path.name, re.IGNORECASE), path, ".tsv, .hdf5 or .npz of regions")
        index = _read_index(_index(path, options))
        found, total = _read_hdf5(path, index), len(index)
    for label, read in track(found, total, f"regions of {name}"):
        place = _find(label, at, regions, skipped)
        if place is None:
            continue
        target = folder / f"{quote(label, safe='')}.npz"
        if not target.is_file():
            held = read()
            if held is None:
                skipped.add("no region in it", label)
                continue
            write_regions(target, held)
        regions[place] = target.relative_to(options.dest).as_posix()


def _mark(folder: Path, path: Path) -> None:
    """Note which file a folder's regions are of: only what came from the same file is gone on with."""
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(HEAD)).hexdigest()
    mark = folder / SOURCE
    if read_source([mark]).get("head_sha256", digest) != digest and any(folder.glob("*.npz")):
        raise DataError(f"{folder}: holds the regions of another file of that name; remove it, or rename {path}")
    write_atomic(mark, json.dumps({"file": str(path.absolute()), "head_sha256": digest}))


# TSV


def _count_lines(path: Path) -> int:
    """About how many lines: with 36 boxes each, all are as long as the first."""
    with path.open("rb") as file:
        return round(path.stat().st_size / max(1, len(file.readline(LONGEST))))


def _read_tsv(path: Path) -> Iterator[Found]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST):
            number += 1
            cells = line.rstrip(b"\r\n").split(b"\t")
            if cells[0] in (b"image_id", b"img_id") or not line.strip():
                continue
            if len(cells) not in (6, 10):
                raise DataError(f"{path}:{number}: {len(cells)} columns, where {COLUMNS} are due; is it whole?")
            yield cells[0].decode("utf-8", "replace"), partial(_decode, path, number, cells)


def _decode(path: Path, number: int, cells: list[bytes]) -> Regions | None:
    """Of six cells, or of LXMERT's ten, which say the height first and hold labels and scores before the boxes."""
    size = cells[1:3] if len(cells) == 6 else cells[2:0:-1]
    try:
        width, height, count = (int(float(cell)) for cell in (*size, cells[-3]))
        boxes, features = (np.frombuffer(base64.b64decode(cell, validate=True), "<f4") for cell in cells[-2:])
        if min(width, height) < 1:
            raise ValueError(f"a picture of {width} x {height}")
        if not count:
            return None
        return Regions(boxes.reshape(count, 4), features.reshape(count, -1), (width, height))
    except (ValueError, binascii.Error) as error:
        raise DataError(f"{path}:{number}: not regions in base64 ({error}); is it whole?") from None


# HDF5


def _read_hdf5(path: Path, index: dict[str, int]) -> Iterator[Found]:
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError:
        raise DataError(f"{path}: HDF5 needs one more package: pip install h5py") from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise DataError(f"{path}: not readable as HDF5 ({error}); is it whole?") from None
    with file:
        need({"image_features", "image_bb"} <= set(file), path, "image_features and image_bb in HDF5")
        ragged = file["image_features"].ndim == 2
        need(not ragged or "pos_boxes" in file, path, "image_features (pictures, boxes, width), or pos_boxes in HDF5")
        pictures = len(file["pos_boxes"] if ragged else file["image_features"])
        for label, row in sorted(index.items(), key=lambda item: item[1]):
            if not 0 <= row < pictures:
                raise DataError(f"{path}: has {pictures} pictures, its index names row {row} for {label}; is it whole?")
            yield label, partial(_slice, file, row)


def _slice(file: Any, row: int) -> Regions | None:
    """One picture: row `row` of (N, 36, d), or rows `pos_boxes[row]` of (sum of boxes, d)."""
    at = slice(*map(int, file["pos_boxes"][row])) if file["image_features"].ndim == 2 else row
    boxes, features = file["image_bb"][at], file["image_features"][at]
    if not len(features):
        return None
    size = None
    if "spatial_features" in file:  # x and y of the boxes' ends as shares of the picture: of the farthest its size
        shares = file["spatial_features"][at][:, 2:4]  # (n, 2)
        ends, farthest = boxes[:, 2:4], shares.argmax(0)
        if shares.max(0).min() > 0:
            wide, high = (round(float(ends[i, axis] / shares[i, axis])) for axis, i in enumerate(farthest))
            size = wide, high
    return Regions(boxes, features, size)


def _index(path: Path, options: ImportOptions) -> Path:
    """The file that says which row is which picture's: named by the user, or beside."""
    beside = [path.with_name(f"{path.stem}{end}") for end in ("_imgid2idx.json", "_ids.txt", "_imgid2idx.pkl")]
    given = list(options.annotations)
    found = [own for own in given if own.name.startswith(path.stem)] or given[:1] or [p for p in beside if p.is_file()]
    if not found:
        names = " or ".join(p.name for p in beside)
        raise DataError(f"{path}: which row is which picture's? put {names} beside it, or name it with --annotations")
    return found[0]


def _read_index(path: Path) -> dict[str, int]:
    """Row by picture: `{"9": 0}` as JSON or as a pickle of whole numbers, or ids in order, as JSON or one a line."""
    if path.suffix.lower() in (".pkl", ".pickle"):
        return {str(label): row for label, row in read_pickled_ints(path).items()}
    if path.suffix.lower() != ".json":
        return {line.strip(): row for row, (_, line) in enumerate(read_lines(path))}
    body = read_json(path)
    pairs: Iterable[tuple[Any, Any]] = body.items() if isinstance(body, dict) else ((v, i) for i, v in enumerate(body))
    return {str(label): int(row) for label, row in pairs}


NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"}
FRAME = {"PROTO", "FRAME", "MARK", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "SETITEM", "SETITEMS", "STOP"}


def read_pickled_ints(path: Path) -> dict[int, int]:
    """The dict of whole numbers that a pickle spells, without unpickling it.

    The instructions are listed, never run; one that is neither a whole number nor part of one dict's frame, such as
    those that name a function, refuses the file.
    """
    numbers: list[int] = []
    dicts = 0
    try:
        with path.open("rb") as file:
            for code, value, _ in pickletools.genops(file):
                dicts += code.name in ("DICT", "EMPTY_DICT")
                if code.name in NUMBERS and type(value) is int:
                    numbers.append(value)
                elif code.name not in FRAME and code.name not in ("DICT", "EMPTY_DICT"):
                    raise ValueError(f"it holds {code.name}")
        if dicts != 1 or len(numbers) % 2 or not numbers:
            raise ValueError("it is not one dict")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: a pickle could run code, so only a plain dict of whole numbers is read ({error}); "
            f"where you trust it, write the same as {path.with_suffix('.json').name}"
        ) from None
    return dict(zip(numbers[::2], numbers[1::2], strict=True))
