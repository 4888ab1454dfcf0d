"""Where the pictures of a foreign layout lie."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tuwen.images import SUFFIXES

USUAL = re.compile(
    r"images?|imgs?|pics?|pictures?|photos?|jpegimages|image_data|.+[_-]images?(?:[_-]\d+)?|flic?ke?r\d+k.*|"
    r"(?:train|val|test|unlabeled)20\d\d|(?:train|val|test|validation)",
    re.IGNORECASE,
)
COCO = re.compile(r"COCO_\w+?_(\d{12}(?:\.\w+)?)$")  # a name of 2014; those of 2017 are the number alone
SPLIT = re.compile(r"(?:train|val|valid|validation|dev|test)(?:20\d\d)?", re.IGNORECASE)
DEPTH = 3  # how far a guessed folder is searched; one that the user names is searched whole


def guess_folders(base: Path, known: Iterable[Path] = ()) -> list[Path]:
    """Folders that may hold the pictures listed by a file in `base`, best first: usual names, `base`, `known` roots."""
    found: list[Path] = []
    for parent in (base, base.parent):
        try:
            inside = sorted(child for child in parent.iterdir() if child.is_dir())
        except OSError:
            continue
        found += [child for child in inside if USUAL.fullmatch(child.name)]
        found += [base] if parent == base else []
    found += known
    return list(dict.fromkeys(path.absolute() for path in found if path.is_dir()))


class Finder:
    """Finds listed names below some folders. Reads each directory once; opens no picture."""

    def __init__(self, folders: Sequence[Path], listed: Iterable[str], depth: int | None = None) -> None:
        self.folders = [folder.absolute() for folder in folders]
        self.depth = depth
        self._inside: dict[str, set[str]] = {}
        self._index: dict[str, list[tuple[Path, str]]] | None = None
        names = [name.replace("\\", "/") for name in listed]
        self._times = Counter(map(_key, names))

    def find(self, name: str) -> tuple[Path, str] | None:
        """(folder, path below it, with `/`) of a listed name, or None.

        The path as listed is tried in each folder; then its last part, anywhere below, where that is unambiguous.
        """
        if Path(name).is_absolute() and Path(name).is_file():
            return self._relative(Path(name))
        name = name.strip().replace("\\", "/").lstrip("/")
        for form in (name, *COCO.findall(name)):
            path = os.path.normpath(form)
            for folder in self.folders:
                if self._holds(folder / path):
                    return folder, PurePosixPath(path).as_posix()
        return next((hit for form in (name, *COCO.findall(name)) if (hit := self._search(form))), None)

    def _relative(self, path: Path) -> tuple[Path, str]:
        for folder in self.folders:
            if path.is_relative_to(folder):
                return folder, path.relative_to(folder).as_posix()
        return path.parent, path.name

    def _holds(self, path: Path) -> bool:
        parent = str(path.parent)
        if parent not in self._inside:
            try:
                self._inside[parent] = {entry.name for entry in os.scandir(parent) if entry.is_file()}
            except OSError:
                self._inside[parent] = set()
        return path.name in self._inside[parent]

    def _search(self, name: str) -> tuple[Path, str] | None:
        index = self._index = self._walk() if self._index is None else self._index
        hits = index.get(_key(name), [])
        whole = [hit for hit in hits if _plain(f"{hit[0] / hit[1]}").endswith(f"/{_plain(name)}")]
        if len(whole) == 1:
            return whole[0]
        # Two listed pictures of one last part differ by their folders: the last part alone proves nothing.
        alone = len(hits) == 1 and self._times[_key(name)] <= 1
        return hits[0] if alone and _agree(name, *hits[0]) else None

    def _walk(self) -> dict[str, list[tuple[Path, str]]]:
        index: dict[str, list[tuple[Path, str]]] = {}
        seen: set[str] = set()
        for folder in self.folders:
            for here, below, files in os.walk(folder):
                inner = Path(here).relative_to(folder)
                below[:] = sorted(d for d in below if not d.startswith("."))
                if self.depth is not None and len(inner.parts) >= self.depth:
                    below.clear()
                if here in seen:
                    below.clear()
                    continue
                seen.add(here)
                for file in sorted(files):
                    if PurePosixPath(file.lower()).suffix in SUFFIXES:
                        hit = (folder, (inner / file).as_posix())
                        forms = {key for form in (file, *COCO.findall(file)) for key in (_key(form), _bare(form))}
                        for key in forms:
                            index.setdefault(key, []).append(hit)
        return index


def _plain(name: str) -> str:
    """A name in small letters, each accent one with its letter: an archive of a Mac spells é with two signs."""
    return unicodedata.normalize("NFC", name).lower()


def _key(name: str) -> str:
    """What a listed name may be found by anywhere: its last part."""
    return PurePosixPath(_plain(name)).name


def _bare(name: str) -> str:
    """The same without its suffix: some layouts list none."""
    return PurePosixPath(_plain(name)).stem


def _agree(name: str, folder: Path, below: str) -> bool:
    """Whether a hit may be the listed picture: nothing but leading folders is missing, and no split is another."""
    listed = PurePosixPath(name)
    splits = [part for part in listed.parts[:-1] if SPLIT.fullmatch(part)]
    there = [part for part in (folder / below).parts[:-1] if SPLIT.fullmatch(part)]
    if splits and there and splits[-1].lower() != there[-1].lower():
        return False
    return len(listed.parts) == 1 or f"/{_plain(name)}".endswith(f"/{_plain(below)}")
