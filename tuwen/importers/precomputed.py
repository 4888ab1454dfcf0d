"""Features without their pictures: `*_ims.npy` with `*_caps.txt` (VSE++, SCAN), or one matrix as `.npy` or `.pth`.

`train_ims.npy` holds one row a picture, or the same row once for each caption; `train_caps.txt` a caption a line, those
of a picture together (Faghri et al. 2018). Rows without a file carry their number: `"features": {"f30k_precomp": 12}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.dataset import feature_rows
from tuwen.errors import DataError
from tuwen.images import SUFFIXES
from tuwen.importers.common import (
    Imported,
    ImportOptions,
    Rows,
    choose,
    read_lines,
    read_text,
    sentence,
    split_lines,
    split_name,
)
from tuwen.importers.locate import guess_folders
from tuwen.records import Picture

Matrix = NDArray[Any]
MATRICES = (r"[^/]*_ims\.npy", r"[^/]*\.(?:npy|pth|pt)")
REPEATS = 5  # captions a picture, where each has its own copy of the picture's row


@dataclass
class Part:
    """One matrix: its row of picture i is `matrix[i * step]`; `each` captions a picture."""

    path: Path
    matrix: Matrix
    captions: list[str]
    names: list[str]
    step: int
    each: int

    @property
    def stem(self) -> str:
        return self.path.stem.removesuffix("_ims")

    def __len__(self) -> int:
        return len(self.matrix) // self.step


def read_precomputed(src: Path, options: ImportOptions) -> Imported:
    """Rows with their captions and features; or, without captions, features for the rows that the data set has."""
    if src.name.endswith("_caps.txt"):
        caps, src = src, src.with_name(src.name.replace("_caps.txt", "_ims.npy"))
        if not src.is_file():
            raise DataError(f"{caps}: no {src.name} beside it; put the features there")
    paths = choose(src, MATRICES, "*_ims.npy with *_caps.txt", many=True)
    rows = Rows()
    if len(paths) > 1 and not all(path.stem.endswith("_ims") for path in paths):
        raise DataError(f"{src}: several matrices ({', '.join(path.name for path in paths[:4])}); name one as SRC")
    if {"test_ims", "testall_ims"} <= {path.stem for path in paths}:  # the first thousand of the same pictures
        paths = [path for path in paths if path.stem != "test_ims"]
        rows.skipped.add("a part of testall_ims.npy", "test_ims.npy")
    parts = [_read_part(path, options) for path in paths]
    family = paths[0].stem.endswith("_ims")
    name = paths[0].absolute().parent.name if family else paths[0].stem
    if not family and not parts[0].captions and options.present:
        return _attach(parts[0], name, options)
    numbers, features = _join(parts, name, options)
    for part, at in zip(parts, numbers, strict=True):
        _add_rows(rows, part, name, at)
    located = all(part.names and Path(part.names[0]).suffix.lower() in SUFFIXES for part in parts)
    folders = guess_folders(paths[0].parent) if located else []
    found = located and (options.images is not None or len(folders) > 1)
    return Imported(name, rows.pictures, folders, rows.skipped, made=not found, features=features)


def _read_part(path: Path, options: ImportOptions) -> Part:
    matrix, names = _read_matrix(path)
    base = path.stem.removesuffix("_ims")
    caps = [path.with_name(f"{base}_caps.txt")] if not options.annotations else list(options.annotations)
    captions = [line.strip() for line in split_lines(read_text(caps[0]))] if caps[0].is_file() else []
    while captions and not captions[-1]:
        captions.pop()
    if path.stem.endswith("_ims") and not captions:
        raise DataError(f"{path}: no {caps[0].name} beside it; put the captions there or name them with --annotations")
    step, each = _count(path, matrix, len(captions))
    ids = path.with_name(f"{base}_ids.txt")
    names = names or ([line.strip() for _, line in read_lines(ids)] if ids.is_file() else [])
    pictures = len(matrix) // step
    if len(names) == pictures * each and each > 1:
        names = names[::each]
    return Part(path, matrix, captions, names if len(names) == pictures else [], step, each)


def _count(path: Path, matrix: Matrix, captions: int) -> tuple[int, int]:
    """(rows a picture, captions a picture). DataError where the counts do not fit."""
    rows = len(matrix)
    if captions == rows and rows % REPEATS == 0 and _repeats(matrix):
        return REPEATS, REPEATS
    if rows and captions % rows == 0:
        return 1, captions // rows
    raise DataError(f"{path}: {rows} rows, but {captions} captions: neither one a row nor the same number for each")


def _repeats(matrix: Matrix) -> bool:
    """Whether each run of five rows is one row five times; read in pieces, for a matrix may be larger than memory."""
    for start in range(0, len(matrix), 200 * REPEATS):
        block = np.asarray(matrix[start : start + 200 * REPEATS])
        runs = block.reshape(-1, REPEATS, *block.shape[1:])
        if not np.array_equal(runs, np.broadcast_to(runs[:, :1], runs.shape)):
            return False
    return True


def _read_matrix(path: Path) -> tuple[Matrix, list[str]]:
    """A matrix (n, ...) and, where the file names them, its pictures."""
    _check_kind(path)
    try:
        if path.suffix.lower() == ".npy":
            matrix: Matrix = np.load(path, mmap_mode="r", allow_pickle=False)
            names: list[str] = []
        else:
            matrix, names = _read_pth(path)
    except DataError:
        raise
    except Exception as error:  # torch and numpy raise many kinds over foreign bytes; none may unpickle them
        why = (
            "it holds pickled objects" if re.search("pickle|object", str(error)) else " ".join(str(error).split())[:100]
        )
        raise DataError(f"{path}: not a plain matrix ({why}); save it with numpy.save as numbers") from None
    if matrix.ndim < 2 or not len(matrix) or matrix.dtype.kind not in "fiu":
        raise DataError(f"{path}: {matrix.dtype} of shape {matrix.shape}, where numbers (pictures, width) are due")
    return matrix, names


def _check_kind(path: Path) -> None:
    """DataError where neither the name nor the first bytes are those of a matrix (numpy's, or a zip or pickle)."""
    starts = {".npy": (b"\x93NUMPY",), ".pth": (b"PK", b"\x80"), ".pt": (b"PK", b"\x80")}.get(path.suffix.lower())
    if starts is not None:
        try:
            with path.open("rb") as file:
                head = file.read(6)
        except OSError as error:
            raise DataError(f"{path}: can't be read ({error.strerror or error})") from None
    if starts is None or not head.startswith(starts):
        raise DataError(f"{path}: no .npy or .pth matrix; name one as SRC")


def _read_pth(path: Path) -> tuple[Matrix, list[str]]:
    import torch

    held = torch.load(path, map_location="cpu", weights_only=True)
    names: list[str] = []
    if isinstance(held, dict):
        lists = [held[key] for key in ("file_names", "filenames", "names", "ids") if isinstance(held.get(key), list)]
        names = [str(name) for name in lists[0]] if lists else []
        tensors = {key: value for key, value in held.items() if isinstance(value, torch.Tensor)}
        if len(tensors) != 1 and "features" not in tensors:
            raise DataError(f"{path}: {len(tensors)} tensors in it, where one, or one named 'features', is due")
        held = tensors.get("features", next(iter(tensors.values())))
    if not isinstance(held, torch.Tensor):
        raise DataError(f"{path}: a {type(held).__name__}, where one tensor (pictures, width) is due")
    wide = held.float() if held.dtype == torch.bfloat16 else held
    return wide.detach().numpy(), names


def _join(parts: list[Part], name: str, options: ImportOptions) -> tuple[list[list[int]], dict[str, str]]:
    """Each part's row numbers in the matrix of that name, and where that lies: in place if it can, else joined."""
    known = {p.file_name: feature_rows(p).get(name) for p in options.present}
    had = [[known.get(_virtual(part, name, i)) for i in range(len(part))] for part in parts]
    old = options.features.get(name)
    fresh = [part for part, numbers in zip(parts, had, strict=True) if old is None or None in numbers]
    if old is None and len(parts) == 1 and parts[0].path.suffix == ".npy" and not options.copy:
        return [[i * parts[0].step for i in range(len(parts[0]))]], {name: str(parts[0].path.absolute())}
    start = len(np.load(old, mmap_mode="r", allow_pickle=False)) if old is not None else 0
    numbers = []
    for part, before in zip(parts, had, strict=True):
        if part in fresh:
            numbers.append(list(range(start, start + len(part))))
            start += len(part)
        else:
            numbers.append([number for number in before if number is not None])
    if not fresh:
        return numbers, {}
    target = Path("features") / f"{name}.npy"
    _write([(old, 1)] if old is not None else [], fresh, options.staging / target)
    return numbers, {name: str(target)}


def _write(before: list[tuple[Path, int]], parts: list[Part], target: Path) -> None:
    """Stack matrices into one file, a piece at a time."""
    blocks = [(np.load(path, mmap_mode="r", allow_pickle=False), step) for path, step in before]
    blocks += [(part.matrix, part.step) for part in parts]
    width, kind = blocks[0][0].shape[1:], blocks[0][0].dtype
    for part in parts:
        if part.matrix.shape[1:] != width:
            raise DataError(f"{part.path}: rows of shape {part.matrix.shape[1:]}, but the matrix to join has {width}")
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = sum(len(matrix) // step for matrix, step in blocks)
    joined = np.lib.format.open_memmap(target, mode="w+", dtype=kind, shape=(rows, *width))
    at = 0
    for matrix, step in blocks:
        picked = matrix[::step]
        for start in range(0, len(picked), 1024):
            piece = picked[start : start + 1024]
            joined[at : at + len(piece)] = piece
            at += len(piece)
    joined.flush()


def _virtual(part: Part, name: str, index: int) -> str:
    """The name of a picture without a file; or its true one."""
    true = part.names and Path(part.names[index]).suffix.lower() in SUFFIXES
    return part.names[index] if true else f"{name}/{part.stem}/{index:06d}"


def _add_rows(rows: Rows, part: Part, name: str, numbers: list[int]) -> None:
    found = re.match(r"train|dev|val|test", part.stem)
    split = split_name(found[0]) if found else None
    for index, number in enumerate(numbers):
        texts = part.captions[index * part.each : (index + 1) * part.each]
        row_id = part.names[index] if part.names else None
        picture = rows.add(_virtual(part, name, index), [sentence(text) for text in texts], split=split, id=row_id)
        picture.features = {name: number}  # type: ignore[attr-defined]


def _attach(part: Part, name: str, options: ImportOptions) -> Imported:
    """Features for the rows of the data set: by the names that come with them, else in order."""
    present = options.present
    if not part.names and len(present) != len(part):
        have = f"{len(part)} rows, but the data set has {len(present)} pictures"
        raise DataError(f"{part.path}: {have}; give the same number, or a file of names {part.stem}_ids.txt")
    at = {key: i for i, p in enumerate(present) for key in (p.id, p.file_name, Path(p.file_name).name) if key}
    rows = Rows()
    pictures: list[Picture] = []
    for number, label in enumerate(part.names or [p.file_name for p in present]):
        index = at.get(label) if part.names else number
        if index is None:
            rows.skipped.add("features of a picture that the data set lacks", label)
            continue
        held = Picture(file_name=present[index].file_name, root=present[index].root)
        held.features = {name: number}  # type: ignore[attr-defined]
        pictures.append(held)
    if part.path.suffix == ".npy" and not options.copy:
        return Imported(name, pictures, [], rows.skipped, made=True, features={name: str(part.path.absolute())})
    target = Path("features") / f"{name}.npy"
    _write([], [part], options.staging / target)
    return Imported(name, pictures, [], rows.skipped, made=True, features={name: str(target)})
