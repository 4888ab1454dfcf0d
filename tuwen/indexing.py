"""A folder of pictures into a store.

`index_folder` compares the folder with the table `files` by (mtime, size), then by content, and embeds only
what is new: threads decode ahead of the model, and vectors are written before the rows that need them.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tuwen import images
from tuwen.errors import DataError, ModelError, PictureError
from tuwen.files import sha256_text
from tuwen.listing import Found, Listing, list_pictures
from tuwen.progress import bar
from tuwen.store import CAPTIONS, FILES, VECTORS, LanceStore, Model, Row, Vector, writer

if TYPE_CHECKING:
    from tuwen.pipelines import Embedder

DEFAULT_DB = Path("tuwen.db")
BATCH = 32  # pictures a call of the model
THREADS = min(8, (os.cpu_count() or 1) + 1)  # that decode
COMMIT_ROWS, COMMIT_SECONDS = 256, 10.0  # what a kill -9 can lose

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class IndexReport:
    """What a run of `index_folder` did. `failed` lists every file of the folder that cannot be read now."""

    db: str
    added: int = 0
    updated: int = 0
    moved: int = 0
    removed: int = 0
    unchanged: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)
    decoded: int = 0
    seconds: float = 0.0
    pictures_per_second: float = 0.0
    warnings: list[str] = field(default_factory=list)


def index_folder(pictures: Path, db: Path, pipeline: Embedder, name: str | None = None) -> IndexReport:
    """Bring the index up to date with a folder, and say what that took.

    `name` is what loads the pipeline again, from anywhere: a shipped model's name, or an absolute path.

    DataError where there is no folder or no picture in it: then nothing is written, and nothing removed from
    an index whose drive is not there. StoreError where the index is of another model, or locked.
    """
    started = time.monotonic()
    folder, db = Path(pictures).expanduser().resolve(), Path(db).expanduser().resolve()
    if not folder.is_dir():
        raise DataError(f"{pictures}: there is no such folder")
    listing = list_pictures(folder, skip=db)
    if not listing.found:
        raise DataError(f"{pictures}: no picture in it (JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC, AVIF)")
    report = IndexReport(str(db), failed=listing.failed)
    with writer(db, describe(pipeline, name)) as store:
        run = _Run(store, pipeline, folder, report)
        todo = run.compare(listing)
        try:
            run.work(todo)
        finally:  # Ctrl-C, or a model that fails: what is embedded stays
            run.commit()
        run.finish()
    report.failed.sort(key=lambda failure: failure["file"])
    report.warnings = _tell(listing)
    report.seconds = round(time.monotonic() - started, 3)
    report.pictures_per_second = round(report.decoded / max(report.seconds, 1e-3), 1)
    return report


def describe(pipeline: Embedder, name: str | None = None) -> Model:
    """What an index notes of the model whose vectors it holds."""
    return Model(name or pipeline.name, pipeline.fingerprint, pipeline.dim, pipeline.size, str(pipeline.view))


def _tell(listing: Listing) -> list[str]:
    told = [f"{where}: the folder cannot be read; what was indexed of it stays" for where in listing.unread]
    if listing.links:
        told.append(f"{listing.links} symbolic links lead to folders, outside or nowhere: not followed")
    return told


@dataclass(frozen=True)
class Known:
    """What the index says of a path."""

    key: str
    content: str
    mtime_ns: int
    size: int
    captions: tuple[tuple[str, str, str], ...]
    why: str | None


@dataclass
class Looked:
    """A file that was opened: its header, and its pixels where its content has no vector yet."""

    found: Found
    content: str = ""
    info: dict[str, Any] = field(default_factory=dict)
    pixels: images.Pixels | None = None
    why: str | None = None


class _Run:
    """One run over one folder: compare, work, commit now and then, finish."""

    def __init__(self, store: LanceStore, pipeline: Embedder, folder: Path, report: IndexReport) -> None:
        self.store, self.pipeline, self.folder, self.report = store, pipeline, str(folder), report
        # A content id in here has its vector in the store or in `vectors`, which is written before `rows`.
        self.embedded = {row["key"] for row in store.scan(VECTORS, ["key"])}
        self.said = {row["key"] for row in store.scan(CAPTIONS, ["key"])}
        self.known: dict[str, Known] = {}
        self.lost: dict[str, list[Known]] = defaultdict(list)  # by content: rows whose file is gone
        self.gone: dict[str, Known] = {}  # by key: to be taken away in the end
        self.rows: list[Row] = []
        self.vectors: dict[str, Vector] = {}
        self.committed = time.monotonic()

    def compare(self, listing: Listing) -> list[Found]:
        """The files to open: new ones, and those whose stat or captions changed."""
        columns = ["key", "folder", "path", "content", "mtime_ns", "size", "captions", "why"]
        for row in self.store.scan(FILES, columns):
            words = tuple((c["text"], c["lang"], c["source"]) for c in row["captions"] or ())
            known = Known(row["key"], row["content"], row["mtime_ns"], row["size"], words, row["why"])
            path = row["path"]
            if row["folder"] == self.folder:
                self.known[path] = known
                if path not in listing.found and not _below(path, listing.unread):
                    self.lost[known.content].append(known)
                    self.gone[known.key] = known
            elif not Path(row["folder"]).is_dir():  # the folder itself was renamed: its pictures moved here
                self.lost[known.content].append(known)
        todo = []
        for found in listing.found.values():
            old = self.known.get(found.path)
            seen = old and (old.mtime_ns, old.size, old.captions) == (found.mtime_ns, found.size, found.captions)
            if old is None or not seen:
                todo.append(found)
            elif old.why is not None:
                self.report.failed.append({"file": found.path, "why": old.why})
            elif old.content not in self.embedded:
                todo.append(found)  # its vector was lost: damage mends itself
            else:
                self.report.unchanged += 1
        return todo

    def work(self, todo: Sequence[Found]) -> None:
        """Open, embed and commit, in batches; pictures wait in memory for two batches at most."""
        batch: list[Looked] = []
        with bar() as progress, ThreadPoolExecutor(THREADS) as pool:
            task = progress.add_task("index", total=len(todo), note="")
            try:
                for looked in _ahead(pool, self.look, todo, 2 * BATCH):
                    batch.append(looked)
                    if sum(one.pixels is not None for one in batch) == BATCH or len(batch) == COMMIT_ROWS:
                        self.take(batch)
                        progress.advance(task, len(batch))
                        batch = []
                self.take(batch)
            finally:
                pool.shutdown(cancel_futures=True)

    def look(self, found: Found) -> Looked:
        """Open one file, in a thread. Its content is hashed first: what has a vector is not decoded again."""
        looked = Looked(found)
        try:
            looked.content = images.content_id(found.file)
            looked.info = images.probe(found.file)
            if looked.content not in self.embedded:
                looked.pixels = images.load(found.file, self.pipeline.size, self.pipeline.view)
        except PictureError as error:
            looked.why = str(error).removeprefix(f"{found.file}: ")
        return looked

    def take(self, batch: Sequence[Looked]) -> None:
        """Embed what has no vector yet, and note each file's row."""
        fresh = {one.content: one.pixels for one in batch if one.pixels is not None}
        fresh = {content: pixels for content, pixels in fresh.items() if content not in self.embedded}
        if fresh:
            vectors = self.pipeline.embed_pixels(np.stack([p for p in fresh.values() if p is not None]))
            if vectors.shape != (len(fresh), self.pipeline.dim) or not np.isfinite(vectors).all():
                raise ModelError(f"model {self.pipeline.name}: gave no finite vectors; the index is left as it was")
            self.vectors.update(zip(fresh, vectors, strict=True))
            self.embedded.update(fresh)
            self.report.decoded += len(fresh)
        for looked in batch:
            self.count(looked)
            if looked.content:  # else it could not be opened at all: tried again each time, its old row stays
                self.rows.append(_row(self.folder, looked))
        if len(self.rows) >= COMMIT_ROWS or time.monotonic() - self.committed > COMMIT_SECONDS:
            self.commit()

    def count(self, looked: Looked) -> None:
        """Tell added, updated, moved and unchanged apart."""
        old, report = self.known.get(looked.found.path), self.report
        if looked.why is not None:
            report.failed.append({"file": looked.found.path, "why": looked.why})
        elif old is not None and old.content == looked.content and old.captions == looked.found.captions:
            report.unchanged += 1  # touched, not changed
        elif old is not None:
            report.updated += 1
        elif lost := self.lost.get(looked.content):
            row = lost.pop()
            self.gone[row.key] = row
            report.moved += 1
        else:
            report.added += 1

    def commit(self) -> None:
        """Vectors, then captions, then the rows that make both count: a kill between leaves only orphans."""
        self.store.put(VECTORS, [{"key": key, "vector": vector} for key, vector in self.vectors.items()])
        captions = {key: row for one in self.rows for key, row in _captions(one) if key not in self.said}
        if captions:
            vectors = self.pipeline.embed_texts([row["text"] for row in captions.values()])
            self.store.put(CAPTIONS, [{**row, "vector": v} for row, v in zip(captions.values(), vectors, strict=True)])
            self.said.update(captions)
        self.store.put(FILES, self.rows)
        self.rows, self.vectors, self.committed = [], {}, time.monotonic()

    def finish(self) -> None:
        """Take away the rows of files that are gone, and sweep vectors and captions that no row needs."""
        self.store.delete(FILES, self.gone)
        self.report.removed = len(self.gone) - self.report.moved
        contents: set[str] = set()
        captions: set[str] = set()
        for row in self.store.scan(FILES, ["content", "captions"]):
            contents.add(row["content"])
            captions.update(key for key, _ in _captions(row))
        self.store.delete(VECTORS, self.embedded - contents)
        self.store.delete(CAPTIONS, self.said - captions)


def _row(folder: str, looked: Looked) -> Row:
    found, info = looked.found, looked.info
    latitude, longitude = info.get("gps") or (None, None)
    return {
        "key": sha256_text(f"{folder}\0{found.path}"),
        "folder": folder,
        "path": found.path,
        "content": looked.content,
        "mtime_ns": found.mtime_ns,
        "size": found.size,
        **{name: info.get(name) for name in ("width", "height", "format", "date", "camera")},
        "latitude": latitude,
        "longitude": longitude,
        "captions": [{"text": text, "lang": lang, "source": source} for text, lang, source in found.captions],
        "state": "ok" if looked.why is None else "failed",
        "why": looked.why,
    }


def _captions(row: Row) -> Iterator[tuple[str, Row]]:
    """The caption rows of a file's row; one content with one text is one row."""
    for caption in row["captions"] or ():
        text = caption["text"]
        key = sha256_text(f"{row['content']}\0{text}")
        yield key, {"key": key, "content": row["content"], "text": text, "lang": caption["lang"]}


def _below(path: str, folders: Sequence[str]) -> bool:
    return any(folder == "." or path.startswith(f"{folder}/") for folder in folders)


def _ahead(pool: ThreadPoolExecutor, act: Callable[[T], R], items: Iterable[T], window: int) -> Iterator[R]:
    """`map` in threads, in order, at most `window` results ahead of the caller."""
    waiting: deque[Future[R]] = deque()
    for item in items:
        waiting.append(pool.submit(act, item))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
