"""What a folder holds: its pictures, and the captions that its `metadata.jsonl` gives them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from tuwen import images
from tuwen.records import Caption


@dataclass(frozen=True)
class Found:
    """A file of the folder: its path below the folder (or absolute, outside it) and its stat."""

    path: str
    file: Path
    mtime_ns: int
    size: int
    captions: tuple[tuple[str, str, str], ...] = ()  # (text, lang, source)


@dataclass(frozen=True)
class Patterns:
    """Which paths count: those that fit any of `include` (none: all) and none of `exclude`.

    A pattern with a slash is held against the path below the folder and each folder above the file, one without
    against the name of the file and of each of these folders; `*` `?` `[abc]` as in a shell, case counts.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def take(self, path: str) -> bool:
        """Whether a path below the folder counts."""
        return (not self.include or _fits(path, self.include)) and not _fits(path, self.exclude)


def _fits(path: str, patterns: Iterable[str]) -> bool:
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(
        fnmatchcase(name, pattern.strip("/")) for pattern in patterns for name in (above if "/" in pattern else parts)
    )


@dataclass
class Listing:
    """What a folder holds."""

    found: dict[str, Found] = field(default_factory=dict)
    failed: list[dict[str, str]] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)  # sub-folders that could not be listed
    links: int = 0  # symbolic links that were not followed
    patterns: Patterns = field(default_factory=Patterns)


def list_pictures(folder: Path, skip: Path | None = None, patterns: Patterns | None = None) -> Listing:
    """The pictures below a folder, and those its `metadata.jsonl` names, with their captions.

    Hidden files and folders are passed over, `skip` (the index), and what `patterns` leave out. A link is followed to a
    file inside the folder, never to a folder and never outside: so no walk goes round, and nothing foreign is indexed.
    """
    listing = Listing(patterns=patterns or Patterns())
    for entry in _walk(folder, skip, listing):
        if entry.suffix.lower() in images.SUFFIXES:
            _add(listing, folder, entry)
    if (folder / "metadata.jsonl").is_file():
        from tuwen.dataset import read

        data = read(folder)
        captions: dict[Path, list[Caption]] = defaultdict(list)
        for picture in data.pictures:
            captions[Path(os.path.normpath(data.path(picture)))] += picture.captions
        for file, some in captions.items():
            _add(listing, folder, file, some)
    return listing


def _walk(folder: Path, skip: Path | None, listing: Listing) -> Iterator[Path]:
    folders = [folder]
    while folders:
        here = folders.pop()
        try:
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError:
            listing.unread.append(here.relative_to(folder).as_posix())
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.name.startswith(".") or path == skip:
                continue
            if entry.is_symlink() and not (path.is_file() and path.resolve().is_relative_to(folder)):
                listing.links += 1
            elif entry.is_dir(follow_symlinks=False):
                if not _fits(path.relative_to(folder).as_posix(), listing.patterns.exclude):
                    folders.append(path)
            else:
                yield path


def _add(listing: Listing, folder: Path, file: Path, captions: Iterable[Caption] = ()) -> None:
    path = file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.as_posix()
    if not listing.patterns.take(path):
        return
    words = tuple(dict.fromkeys((c.text, c.lang, c.source) for c in captions))
    try:
        path.encode()
        stat = file.stat()
        listing.found[path] = Found(path, file, stat.st_mtime_ns, stat.st_size, words)
    except UnicodeEncodeError:
        shown = path.encode(errors="replace").decode()
        listing.failed.append({"file": shown, "why": "its name is not UTF-8; rename it"})
    except OSError as error:
        listing.failed.append({"file": path, "why": error.strerror or str(error)})
