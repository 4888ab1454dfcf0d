"""A folder of pictures into an index: brought up to date, or changed to another model, or captioned."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tuwen import images
from tuwen.errors import DataError, PictureError
from tuwen.hits import path_of
from tuwen.intake import IndexReport, Intake
from tuwen.listing import Listing, Patterns, list_pictures
from tuwen.noting import put_notes
from tuwen.progress import bar
from tuwen.store import FILES, NOTES, VECTORS, LanceStore, Model, adopt, read_state, same, writer

if TYPE_CHECKING:
    from tuwen.pipelines import Describer, Embedder

__all__ = ["IndexReport", "caption_index", "describe", "estimate", "index_folder"]

DEFAULT_DB = Path("tuwen.db")
MEASURED = 8  # pictures from which the time of a change is told
RATED = 16  # pictures below which a run says nothing about the rate
DESCRIBED = 128  # captions a commit


def index_folder(
    pictures: Path,
    db: Path,
    pipeline: Embedder,
    name: str | None = None,
    *,
    patterns: Patterns | None = None,
    change: bool = False,
    fill: bool = False,
    wait: float = 0,
) -> IndexReport:
    """Bring the index up to date with a folder, and say what that took.

    `name` is what loads the pipeline again, from anywhere: a shipped name, or an absolute path. `patterns`: which
    paths count; None takes those of the folder's last run. `change`: the index may be of another model; then all its
    folders are embedded anew beside the old vectors, which serve until the new ones are whole. `fill`: thumbnails
    that are missing are made too. `wait`: seconds for another writer to finish.

    DataError where there is no folder or no picture in it: then nothing is written, and nothing removed from
    an index whose drive is not there. StoreError where the index is of another model, or locked.
    """
    started = time.monotonic()
    folder, db = Path(pictures).expanduser().resolve(), Path(db).expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"{pictures}: there is no such folder")
    if patterns is None:
        patterns = _remembered(db, folder)
    listing = list_pictures(folder, skip=db, patterns=patterns)
    if not listing.found:
        some = " that these patterns take" if patterns != Patterns() else ""
        raise DataError(f"{pictures}: no picture in it{some} (JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC, AVIF)")
    report = IndexReport(str(db), failed=listing.failed)
    with writer(db, describe(pipeline, name), change, wait) as store:
        before = _note_folder(store, folder, patterns)
        _take_in(store, pipeline, folder, listing, report, fill)
        if not same(before, store.model):
            _change(store, pipeline, folder, before, report)
        _note_rate(store, report, time.monotonic() - started)
    report.failed.sort(key=lambda failure: failure["file"])
    report.warnings += _tell(listing)
    report.seconds = round(time.monotonic() - started, 3)
    report.pictures_per_second = round(report.decoded / max(report.seconds, 1e-3), 1)
    return report


def describe(pipeline: Embedder, name: str | None = None) -> Model:
    """What an index notes of the model whose vectors it holds."""
    return Model(name or pipeline.name, pipeline.fingerprint, pipeline.dim, pipeline.size, str(pipeline.view))


def estimate(store: LanceStore, pipeline: Embedder) -> tuple[int, float]:
    """How many pictures an index holds, and the seconds that embedding them all anew will take, by its first ones."""
    count = store.count(VECTORS)
    files = (path_of(row) for row in store.scan(FILES, ["folder", "path"], also="state = 'ok'", limit=10 * MEASURED))
    measured = list(islice((file for file in files if Path(file).is_file()), MEASURED + 1))
    taken: list[float] = []
    for file in measured:  # one by one: the first opens the model, and is not counted
        begun = time.perf_counter()
        try:
            pipeline.embed_pixels(images.load(file, pipeline.size, pipeline.view)[None])
        except PictureError:
            continue
        taken.append(time.perf_counter() - begun)
    return count, count * (sum(taken[1:]) / len(taken[1:]) if taken[1:] else sum(taken))


def caption_index(
    db: Path, describer: Describer, langs: Sequence[str], pipeline: Embedder | None = None
) -> tuple[int, list[dict[str, str]]]:
    """Describe the pictures of an index that have no caption in these languages; how many captions, and what failed.

    They are notes of the source `model:NAME`, written in batches: what a kill leaves undone the next run does. With
    `pipeline` (the index's own) they can be found `--for captions` at once, else by their words alone.
    """
    failed: list[dict[str, str]] = []
    done = 0
    source = f"model:{describer.name}"
    with writer(db) as store, bar() as progress:
        for lang in langs:
            todo = _silent(store, lang)
            task = progress.add_task(f"caption ({lang})", total=len(todo), note="")
            notes: list[tuple[str, str, str, str]] = []
            for described in describer.describe(list(todo), lang, failed=failed):
                if described.texts and described.texts[0].text:
                    notes.append((todo[described.file], described.texts[0].text, lang, source))
                if len(notes) >= DESCRIBED:
                    put_notes(store, notes)
                    done, notes = done + len(notes), []
                progress.advance(task)
            put_notes(store, notes)
            done += len(notes)
        if pipeline is not None and done:
            Intake(store, pipeline, Path(), IndexReport(str(db))).finish()
    return done, failed


def _silent(store: LanceStore, lang: str) -> dict[str, str]:
    """Pictures without a caption in a language: file -> content id, in the order of the paths."""
    noted = {row["content"] for row in store.scan(NOTES, ["content", "lang"]) if row["lang"] == lang}
    files: dict[str, str] = {}
    rows = store.scan(FILES, ["folder", "path", "content", "captions"], also="state = 'ok'")
    given: set[str] = set()
    for row in rows:
        if any(caption["lang"] == lang for caption in row["captions"] or ()):
            given.add(row["content"])
        elif row["content"] not in noted and Path(path_of(row)).is_file():
            files[path_of(row)] = row["content"]
    one_each = {content: file for file, content in sorted(files.items(), reverse=True) if content not in given}
    return {file: content for content, file in sorted(one_each.items(), key=lambda pair: pair[1])}


def _remembered(db: Path, folder: Path) -> Patterns:
    if not (db / "index.json").is_file():
        return Patterns()
    noted = read_state(db).folders.get(str(folder), {})
    return Patterns(tuple(noted.get("include", ())), tuple(noted.get("exclude", ())))


def _note_folder(store: LanceStore, folder: Path, patterns: Patterns) -> Model:
    """Write down that this folder is indexed, and how; the model that the index is of until now."""
    state = read_state(store.folder)
    held = {row["folder"] for row in store.scan(FILES, ["folder"])}  # of a drive that is not there too
    folders = {place: noted for place, noted in state.folders.items() if place in held or Path(place).is_dir()}
    folders[str(folder)] = {"include": list(patterns.include), "exclude": list(patterns.exclude)}
    if folders != state.folders:
        replace(state, folders=folders).save(store.folder)
    return state.model


def _take_in(
    store: LanceStore, pipeline: Embedder, folder: Path, listing: Listing, report: IndexReport, fill: bool
) -> None:
    run = Intake(store, pipeline, folder, report, fill)
    moved = report.moved
    todo = run.compare(listing)
    try:
        run.work(todo)
    finally:  # Ctrl-C, or a model that fails: what is embedded stays
        run.commit()
    run.finish()
    report.removed -= report.moved - moved


def _change(store: LanceStore, pipeline: Embedder, done: Path, before: Model, report: IndexReport) -> None:
    """The other folders of the index with the new model; then it is the index's, and the old vectors go."""
    db = store.folder
    for place in sorted({row["folder"] for row in store.scan(FILES, ["folder"])} - {str(done)}):
        folder = Path(place)
        listing = list_pictures(folder, skip=db, patterns=_remembered(db, folder)) if folder.is_dir() else None
        if listing is not None and listing.found:  # none: a drive that is not there, whose mount point is
            report.failed += [{**failure, "file": f"{place}/{failure['file']}"} for failure in listing.failed]
            _take_in(store, pipeline, folder, listing, report, False)
    adopt(store)
    report.changed = before.name
    there = {key for batch in store.batches(VECTORS, ["key"]) for key in batch.column("key").to_pylist()}
    rows = store.scan(FILES, ["content", "folder"], also="state = 'ok'")
    away = {row["content"]: row["folder"] for row in rows if row["content"] not in there}
    if away:
        report.warnings.append(
            f"{len(away):,} pictures, some of {next(iter(away.values()))}, could not be read: they are found again "
            "after a `tuwen index` of their folder"
        )


def _note_rate(store: LanceStore, report: IndexReport, seconds: float) -> None:
    if report.decoded >= RATED:
        rate = round(report.decoded / max(seconds, 1e-3), 2)
        replace(read_state(store.folder), rate=rate).save(store.folder)


def _tell(listing: Listing) -> list[str]:
    told = [f"{where}: the folder cannot be read; what was indexed of it stays" for where in listing.unread]
    if listing.links:
        told.append(f"{listing.links} symbolic links lead to folders, outside or nowhere: not followed")
    return told
