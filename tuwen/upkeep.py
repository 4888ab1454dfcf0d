"""The upkeep of an index: what is wrong with it, the mending of that, and a watch over its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import numpy as np

from tuwen import images
from tuwen.errors import DataError, StoreError
from tuwen.hits import path_of
from tuwen.indexing import describe, index_folder
from tuwen.intake import IndexReport
from tuwen.noting import said
from tuwen.store import (
    CAPTIONS,
    FILES,
    NOTES,
    TABLES,
    TEXTS,
    THUMBNAILS,
    VECTORS,
    LanceStore,
    State,
    open_store,
    read_state,
    writer,
)

if TYPE_CHECKING:
    from tuwen.pipelines import Embedder

LENGTH = 1e-3  # by which a vector may miss the unit length
QUIET = 1600  # milliseconds without a change before a watch indexes
WAIT = 30.0  # seconds for a correction in the page to be written
TOLD = 3  # names in a line


@dataclass
class Health:
    """What `verify` found. `problems` ({"table", "detail"}) are mended by `repair`, `notes` harm nothing."""

    pictures: int = 0
    problems: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)  # tables that cannot be read

    def add(self, table: str, detail: str) -> None:
        """Note a problem."""
        self.problems.append({"table": table, "detail": detail})


def verify(db: Path) -> Health:
    """Read every table of an index whole and hold them against one another and against the folders; nothing is written.

    StoreError where there is no index at all.
    """
    health = Health()
    if not db.is_dir() or not any(db.iterdir()):
        read_state(db)
    try:
        store = open_store(db)
    except StoreError as error:
        health.add("index.json", str(error))
        return health
    keys = {table: _read_all(store, table, health) for table in TABLES}
    if FILES not in health.damaged:
        _compare(store, keys, health)
    return health


def repair(
    db: Path, pipeline: Embedder, name: str | None = None, folder: Path | None = None
) -> tuple[Health, list[IndexReport]]:
    """Mend what `verify` finds: tables that cannot be read are dropped and made again from the folders of the index.

    Captions that people noted have no other source: their table, where it cannot be read, is set aside, not dropped.

    Raises:
        StoreError: no index, another model's, or locked.
        DataError: it is not known any more which folders it was of; `folder` names one.
    """
    health = verify(db)
    if any(problem["table"] == "index.json" for problem in health.problems):
        if not (db / f"{FILES}.lance").is_dir():
            raise StoreError(health.problems[0]["detail"])
        State(describe(pipeline, name)).save(db)
        below = verify(db)
        health = replace(below, problems=[*health.problems, *below.problems])
    with writer(db, describe(pipeline, name)) as store:
        folders = {Path(place) for place in read_state(db).folders}
        if FILES not in health.damaged:
            folders |= {Path(row["folder"]) for row in store.scan(FILES, ["folder"])}
        folders |= {folder.expanduser().resolve()} if folder else set()
        there = sorted(place for place in folders if place.is_dir())
        if not there and (health.damaged - {NOTES}):
            raise DataError(f"{db}: none of its folders is there; name one: tuwen index PICTURES --repair --db {db}")
        for table in health.damaged:
            store.drop(table, aside=table == NOTES)
        if VECTORS not in health.damaged:
            store.delete(VECTORS, _wrong_vectors(store))
    return health, [_fill(place, db, pipeline, name) for place in there]


def _fill(place: Path, db: Path, pipeline: Embedder, name: str | None) -> IndexReport:
    """Index a folder again; one that was emptied is told, and costs the others nothing."""
    try:
        return index_folder(place, db, pipeline, name, fill=True)
    except DataError as error:
        return IndexReport(str(db), warnings=[str(error)])


def watch(pictures: Path, db: Path, act: Callable[[], None], stop: Event | None = None) -> None:
    """Call `act` now, and again each time that pictures of the folder changed and then were left alone for a moment.

    An error of the data (no picture left, an unreadable file) is for `act` to tell. DataError without `watchfiles`.
    """
    try:
        from watchfiles import watch as changes
    except ImportError:
        raise DataError("--watch needs one more package: pip install watchfiles") from None
    folder, index = Path(pictures).expanduser().resolve(), Path(db).expanduser().resolve()

    def matters(_: object, path: str) -> bool:
        file = Path(path)
        if file.is_relative_to(index) or not file.is_relative_to(folder):
            return False
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        known = file.suffix.lower() in images.SUFFIXES or file.name == "metadata.jsonl" or not file.suffix
        return known and not hidden

    first = True  # what changes while `act` runs for the first time is seen: the watch is on by then
    for some in changes(
        folder, watch_filter=matters, stop_event=stop, debounce=QUIET, rust_timeout=1000, yield_on_timeout=True
    ):
        if some or first:
            first = False
            act()


def _read_all(store: LanceStore, table: str, health: Health) -> set[str]:
    """Every value of a table; its keys."""
    keys: Counter[str] = Counter()
    try:
        for batch in store.batches(table):
            batch.validate(full=True)
            keys.update(batch.column("key").to_pylist())
        if table == TEXTS:
            store.find_words("a", 1)
        elif table in (VECTORS, CAPTIONS):
            store.search(table, np.ones(store.model.dim, np.float32), 1)
    except (StoreError, ValueError) as error:
        health.damaged.add(table)
        health.add(table, f"cannot be read: {str(error).removeprefix(f'{store.folder}: ').partition(';')[0]}")
        return set()
    if twice := [key for key, count in keys.items() if count > 1]:
        health.damaged.add(table)
        health.add(table, f"{len(twice):,} rows are there more than once")
    return set(keys)


def _compare(store: LanceStore, keys: dict[str, set[str]], health: Health) -> None:
    contents: set[str] = set()
    gone, changed = [], []
    for row in store.scan(FILES, ["folder", "path", "content", "state", "mtime_ns", "size"]):
        file = Path(path_of(row))
        try:
            stat = file.stat()
            if (stat.st_mtime_ns, stat.st_size) != (row["mtime_ns"], row["size"]):
                changed.append(str(file))
        except OSError:
            gone.append(str(file))
        if row["state"] == "ok":
            health.pictures += 1
            contents.add(row["content"])
    for table, what in ((VECTORS, "vector"), (THUMBNAILS, "thumbnail")):
        if table not in health.damaged and (lacking := contents - keys[table]):
            health.add(table, f"{len(lacking):,} pictures have no {what}")
    if VECTORS not in health.damaged and (wrong := _wrong_vectors(store)):
        health.add(VECTORS, f"{len(wrong):,} vectors are not of unit length")
    if NOTES not in health.damaged:
        spoken = said(store)
        for table, what in ((TEXTS, "not found by their words"), (CAPTIONS, "without a vector")):
            if table not in health.damaged and (lacking := spoken - keys[table]):
                health.add(table, f"{len(lacking):,} captions are {what}")
    orphans = len(keys[VECTORS] - contents) + len(keys[THUMBNAILS] - contents)
    if orphans:
        health.notes.append(f"{orphans:,} vectors and thumbnails belong to no file; the next `tuwen index` sweeps them")
    for some, what in ((gone, "are not there any more"), (changed, "changed since")):
        if some:
            health.notes.append(
                f"{len(some):,} files {what} ({', '.join(sorted(some)[:TOLD])}); `tuwen index` sees to it"
            )


def _wrong_vectors(store: LanceStore) -> list[str]:
    wrong: list[str] = []
    for batch in store.batches(VECTORS, ["key", "vector"]):
        rows = batch.column("vector").flatten().to_numpy().reshape(len(batch), -1)
        off = ~(np.abs(np.linalg.norm(rows, axis=1) - 1) <= LENGTH)  # NaN is off too
        names = batch.column("key").to_pylist()
        wrong += [names[i] for i in np.flatnonzero(off)]
    return wrong
