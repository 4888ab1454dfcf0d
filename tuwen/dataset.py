"""A data set on disk: `metadata.jsonl`, a line a picture, and `dataset.json` beside it (DESIGN, 1)."""

from __future__ import annotations

import gc
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from tuwen.errors import DataError, suggest
from tuwen.files import sha256_file, sha256_text, write_atomic
from tuwen.progress import track
from tuwen.records import FORMAT, Caption, Manifest, Picture, Question, Row, guess_language

ROWS, MANIFEST = "metadata.jsonl", "dataset.json"
SHARES = (("train", 0.8), ("val", 0.9), ("test", 1.0))  # upper ends, over a uniform hash in [0, 1)
ALIASES = {
    "dev": "val", "valid": "val", "validation": "val", "minival": "val",
    "training": "train", "restval": "train", "testing": "test",
}  # fmt: skip


@dataclass
class Dataset:
    """Pictures in the order of their lines; `rows` holds their positions in `metadata.jsonl`, from 0."""

    folder: Path
    manifest: Manifest
    pictures: list[Picture]
    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.pictures):
            self.rows = list(range(len(self.pictures)))

    def __len__(self) -> int:
        return len(self.pictures)

    def root(self, name: str | None) -> Path:
        """The absolute folder of a root; without a name, the data set's own. DataError: no such root."""
        if name is None:
            return self.folder.absolute()
        if name not in self.manifest.roots:
            near = suggest(name, self.manifest.roots)
            raise DataError(f"{self.folder / MANIFEST}: no root '{name}'{near}; add it to roots")
        return self.folder.absolute() / self.manifest.roots[name]

    def path(self, picture: Picture) -> Path:
        """Where a picture's file lies; nothing is opened."""
        return self.root(picture.root) / picture.file_name

    def select(self, split: str | None) -> Dataset:
        """The rows of one split in their order, or all. DataError where no row is of that split."""
        if split is None:
            return self
        split = ALIASES.get(split, split)
        kept = [i for i, picture in enumerate(self.pictures) if picture.split == split]
        if not kept:
            known = self.splits()
            have = ", ".join(known) or "none"
            raise DataError(f"{self.folder}: no split '{split}'{suggest(split, known)} (it has {have})")
        return replace(self, pictures=[self.pictures[i] for i in kept], rows=[self.rows[i] for i in kept])

    def splits(self) -> dict[str, int]:
        """Pictures a split, in the order of first sight; rows without one are not counted."""
        return dict(Counter(picture.split for picture in self.pictures if picture.split))

    def captions(self, lang: str | None = None, human: bool = True) -> Iterator[tuple[int, Caption]]:
        """Each caption with its picture's index: those that people wrote, or with `human=False` all."""
        for index, picture in enumerate(self.pictures):
            for caption in picture.human(lang) if human else picture.captions:
                if lang is None or caption.lang == lang:
                    yield index, caption

    def features(self, name: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """A precomputed matrix (m, ...), memory-mapped, and the row of it (n,) that belongs to each picture.

        A row of the data set may name its number (`"features": {"resnet50": 12}`); where none does, the
        position of its line counts. DataError where the matrix is missing or a picture has no row in it.
        """
        known = self.manifest.features
        if name not in known:
            have = ", ".join(known) or "none"
            raise DataError(f"{self.folder / MANIFEST}: no features '{name}'{suggest(name, known)} (it has {have})")
        path = self.folder.absolute() / known[name]
        try:
            matrix: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: not readable as a matrix ({error}); import the features again") from None
        numbers = [feature_rows(picture).get(name) for picture in self.pictures]
        if all(number is None for number in numbers):
            numbers = list(self.rows)
        for picture, number in zip(self.pictures, numbers, strict=True):
            if number is None or not 0 <= number < len(matrix):
                raise DataError(f"{path}: no row for {picture.file_name} among its {len(matrix)}; import its features")
        return matrix, np.array(numbers, dtype=np.int64)

    def fingerprint(self) -> str:
        """Hex sha256 over the rows and the name: equal for equal data, wherever the pictures lie."""
        return sha256_text("\n".join([self.manifest.name, *map(to_line, self.pictures)]))


def feature_rows(picture: Picture) -> dict[str, int]:
    """The rows that a picture names for itself, by feature matrix."""
    named = (picture.model_extra or {}).get("features")
    return {k: v for k, v in named.items() if isinstance(v, int)} if isinstance(named, dict) else {}


def load(folder: Path | str) -> Dataset:
    """Read a data set. Rows without a split get one: 80/10/10 by a hash of `group`, else of the content.

    Raises:
        DataError: no such folder, no `metadata.jsonl`, no row, or a bad line (`metadata.jsonl:LINE: why`).
    """
    dataset = read(folder)
    fill_splits(dataset)
    return dataset


def read(folder: Path | str) -> Dataset:
    """Read a data set as it is written: rows without a split stay without. Errors as in `load`."""
    folder = Path(folder)
    if folder.name == ROWS and folder.is_file():
        folder = folder.parent
    rows = read_rows(folder)
    dataset = Dataset(folder, read_manifest(folder), [])
    gc_was_on = gc.isenabled()
    gc.disable()  # half a million small objects, no cycles: collecting costs a third of the time
    try:
        for number, picture in rows:
            if isinstance(picture, str):
                raise DataError(f"{folder / ROWS}:{number}: {picture}")
            if picture.root is not None and picture.root not in dataset.manifest.roots:
                raise DataError(f"{folder / ROWS}:{number}: root '{picture.root}' is not among the roots of {MANIFEST}")
            dataset.pictures.append(picture)
    finally:
        if gc_was_on:
            gc.enable()
    if not dataset.pictures:
        raise DataError(f"{folder / ROWS}: empty; bring pictures with 'tuwen import FORMAT SRC {folder}'")
    return Dataset(dataset.folder, dataset.manifest, dataset.pictures)


def read_rows(folder: Path) -> Iterator[tuple[int, Picture | str]]:
    """Each line's number, from 1, with its picture or with what is wrong. DataError: nothing to read."""
    path = folder / ROWS
    if not folder.is_dir():
        raise DataError(
            f"{folder}: {'not a folder' if folder.exists() else 'no such folder'}; name a data set's folder"
        )
    if not path.is_file():
        raise DataError(f"{folder}: no {ROWS} in it; make one with 'tuwen import FORMAT SRC {folder}'")
    return _parse_lines(path)


def _parse_lines(path: Path) -> Iterator[tuple[int, Picture | str]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if line.strip():
                yield number, _parse(line)


def _parse(line: bytes) -> Picture | str:
    try:
        row = json.loads(line.decode())
        if not isinstance(row, dict):
            return "not a JSON object; write one {...} a line"
        for key in [key for key, value in row.items() if value is None and key in Picture.model_fields]:
            del row[key]  # null is absent
        picture = Picture.model_validate(row)
    except UnicodeDecodeError as error:
        return f"not UTF-8 at byte {error.start}; save the file as UTF-8"
    except ValidationError as error:
        return one_line(error)
    except ValueError as error:
        return f"not JSON ({error}); mend or remove the line"
    except RecursionError:
        return "not JSON (nested too deeply); mend or remove the line"
    if picture.split is not None:
        picture.split = ALIASES.get(picture.split, picture.split)
    return picture


def one_line(error: ValidationError) -> str:
    """The first fault of a pydantic error: `captions.0.text: Field required`."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def read_manifest(folder: Path) -> Manifest:
    """`dataset.json`, or a plain one where there is none. DataError: not readable, or of a newer format."""
    path = folder / MANIFEST
    if not path.is_file():
        return Manifest(name=folder.absolute().name)
    try:
        manifest = Manifest.model_validate(json.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        raise DataError(f"{path}: {one_line(error)}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); mend or remove it") from None
    if manifest.format > FORMAT:
        raise DataError(f"{path}: format {manifest.format} is newer than this version reads ({FORMAT}): update tuwen")
    return manifest


def fill_splits(dataset: Dataset) -> int:
    """Give each row without a split one, by the hash of its group or content; how many it gave.

    A group of which some rows name a split follows them, so that no identity is torn apart.
    """
    named = {p.group: p.split for p in reversed(dataset.pictures) if p.group is not None and p.split}
    empty = [picture for picture in dataset.pictures if not picture.split]
    unsplit = [picture for picture in empty if picture.group is None]
    for picture in empty:
        if picture.group is not None:
            picture.split = named.get(picture.group) or split_of(sha256_text(picture.group))
    hashes = track(content_hashes(dataset, unsplit), len(unsplit), "reading pictures")
    for picture, digest in zip(unsplit, hashes, strict=True):
        picture.split = split_of(digest)
    return len(empty)


def split_of(digest: str) -> str:
    """The default split of a hex hash: 80/10/10 for train, val and test."""
    place = int(digest[:8], 16) / 16**8
    return next(name for name, end in SHARES if place < end)


def content_hashes(dataset: Dataset, pictures: Iterable[Picture]) -> Iterator[str]:
    """Hex sha256 of each picture's bytes: as its row keeps it, else read; without a file, of its name."""

    def digest(picture: Picture) -> str:
        kept = (picture.model_extra or {}).get("sha256")
        if isinstance(kept, str) and len(kept) == 64:
            return kept
        try:
            return sha256_file(dataset.path(picture))
        except OSError:
            return sha256_text(picture.file_name)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(digest, pictures)


def save(dataset: Dataset, folder: Path | str | None = None) -> None:
    """Write both files whole, rows last: into its own folder, or into another; no picture moves."""
    dataset = rebase(dataset, Path(folder)) if folder is not None else dataset
    if dataset.manifest.features and dataset.rows != list(range(len(dataset))):
        dataset = replace(dataset, pictures=pin(dataset), rows=[])
    lines = "".join(to_line(picture) + "\n" for picture in dataset.pictures)
    try:
        manifest = json.dumps(to_dict(dataset.manifest), ensure_ascii=False, indent=2)
        write_atomic(dataset.folder / MANIFEST, manifest + "\n")
        write_atomic(dataset.folder / ROWS, lines)
    except OSError as error:
        raise DataError(f"{dataset.folder}: can't be written ({error.strerror or error})") from None


def to_line(picture: Picture) -> str:
    """One line of `metadata.jsonl`, without its end."""
    line = json.dumps(to_dict(picture), ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # a lone surrogate: only an escape can say it
        return json.dumps(to_dict(picture))
    return line


def to_dict(row: Row) -> dict[str, Any]:
    """A row as it is written: absent keys left out, plain captions as strings, unknown keys as they came."""
    written: dict[str, Any] = {}
    for key in type(row).model_fields:
        value = getattr(row, key)
        if value is None or value == []:
            continue
        written[key] = [_to_item(item) for item in value] if isinstance(value, list) else value
    return {**written, **(row.model_extra or {})}


def _to_item(item: Any) -> Any:
    if isinstance(item, Caption) and item.source == "human" and not item.model_extra:
        return item.text if item.lang == guess_language(item.text) else {"text": item.text, "lang": item.lang}
    if isinstance(item, Question) and item.source == "human":
        return {key: value for key, value in to_dict(item).items() if key != "source"}
    return to_dict(item) if isinstance(item, Row) else item


def pin(dataset: Dataset) -> list[Picture]:
    """The pictures, each naming its row in every feature matrix that went by position until now."""
    named = {name for picture in dataset.pictures for name in feature_rows(picture)}
    by_position = [name for name in dataset.manifest.features if name not in named]
    if not by_position:
        return list(dataset.pictures)
    return [
        picture.model_copy(update={"features": {**feature_rows(picture), **dict.fromkeys(by_position, position)}})
        for picture, position in zip(dataset.pictures, dataset.rows, strict=True)
    ]


def rebase(dataset: Dataset, folder: Path) -> Dataset:
    """The same rows for another folder: own pictures get a root, relative paths become absolute."""
    here, there = dataset.folder.absolute(), folder.absolute()
    if here == there:
        return replace(dataset, folder=folder)
    manifest = dataset.manifest.model_copy(deep=True)
    manifest.roots = {name: str(dataset.root(name)) for name in manifest.roots}
    manifest.features = {name: str(here / path) for name, path in manifest.features.items()}
    if copies := copied(manifest):
        manifest = manifest.model_copy(update={"copied": {str(here / to): origin for to, origin in copies.items()}})
    own = add_root(manifest, there, here) if any(picture.root is None for picture in dataset.pictures) else None
    moved = []
    for picture in dataset.pictures:
        regions = str(here / picture.regions) if picture.regions else None
        moved.append(picture.model_copy(update={"root": picture.root or own, "regions": regions}))
    return Dataset(folder, manifest, moved, dataset.rows)


def copied(manifest: Manifest) -> dict[str, str]:
    """Folders that hold copied pictures, and where these came from: both names mean the same picture."""
    known = (manifest.model_extra or {}).get("copied")
    return dict(known) if isinstance(known, dict) else {}


def add_root(manifest: Manifest, folder: Path, place: Path) -> str:
    """The name of the root at `place`, added to the manifest of `folder` where no root lies there yet."""
    target = os.path.realpath(place)
    for name, path in manifest.roots.items():
        if os.path.realpath(folder / path) == target:
            return name
    parts = [part for part in place.parts[1:] if part.lower() not in ("images", "imgs", "image", "data", "pictures")]
    name = free_name(parts[-1] if parts else "pictures", manifest.roots)
    manifest.roots[name] = str(place)
    return name


def free_name(name: str, taken: Iterable[str]) -> str:
    """`name`, or `name-2`, `name-3` ... where it is taken."""
    taken, number, free = set(taken), 2, name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
