"""One folder into an open store: compare, look, embed, commit, sweep.

Files are compared with the table `files` by (mtime, size), then by content, and only what is new is embedded: threads
decode ahead of the model, and vectors are written before the rows that need them.
"""

from __future__ import annotations

import io
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
from tuwen.browsing import KEPT, QUALITY
from tuwen.check.near import SIDE
from tuwen.errors import ModelError, PictureError
from tuwen.files import sha256_text
from tuwen.listing import Found, Listing
from tuwen.noting import text_key
from tuwen.progress import bar
from tuwen.store import CAPTIONS, FILES, NOTES, TEXTS, THUMBNAILS, VECTORS, LanceStore, Row, Vector

if TYPE_CHECKING:
    from tuwen.pipelines import Embedder

BATCH = 32  # pictures a call of the model
SENTENCES = 1024  # captions that are embedded and written at once
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
    captioned: int = 0
    changed: str | None = None  # the model whose vectors were replaced
    seconds: float = 0.0
    pictures_per_second: float = 0.0
    warnings: list[str] = field(default_factory=list)


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
    thumbnail: Row | None = None
    why: str | None = None


class Intake:
    """One run over one folder. `fill`: thumbnails that are missing are made too, which opens their files again."""

    def __init__(
        self, store: LanceStore, pipeline: Embedder, folder: Path, report: IndexReport, fill: bool = False
    ) -> None:
        self.store, self.pipeline, self.folder, self.report, self.fill = store, pipeline, str(folder), report, fill
        # A content id in here has its vector in the store or in `vectors`, which is written before `rows`.
        self.embedded = _keys(store, VECTORS)
        self.pictured = _keys(store, THUMBNAILS)
        self.texts, self.said = _keys(store, TEXTS), _keys(store, CAPTIONS)
        self.known: dict[str, Known] = {}
        self.lost: dict[str, list[Known]] = defaultdict(list)  # by content: rows whose file is gone
        self.gone: dict[str, Known] = {}  # by key: to be taken away in the end
        self.rows: list[Row] = []
        self.vectors: dict[str, Vector] = {}
        self.thumbnails: dict[str, Row] = {}
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
            elif self.lacks(old.content):
                todo.append(found)  # its vector was lost: damage mends itself
            else:
                self.report.unchanged += 1
        return todo

    def lacks(self, content: str) -> bool:
        """Whether a content's pixels are needed."""
        return content not in self.embedded or (self.fill and content not in self.pictured)

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
            if self.lacks(looked.content):
                pixels, small = images.load_both(found.file, self.pipeline.size, self.pipeline.view, KEPT)
                looked.pixels = pixels if looked.content not in self.embedded else None
                if looked.content not in self.pictured:
                    jpeg = io.BytesIO()
                    small.save(jpeg, "JPEG", quality=QUALITY)
                    tiny = images.load_pil(small, SIDE).tobytes()
                    looked.thumbnail = {"key": looked.content, "tiny": tiny, "jpeg": jpeg.getvalue()}
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
        thumbnails = {one.content: one.thumbnail for one in batch if one.thumbnail and one.content not in self.pictured}
        self.thumbnails.update(thumbnails)
        self.pictured.update(thumbnails)
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
        """Thumbnails, vectors, captions, then the rows that make them count: a kill between leaves only orphans."""
        self.store.put(THUMBNAILS, list(self.thumbnails.values()))
        self.store.put(VECTORS, [{"key": key, "vector": vector} for key, vector in self.vectors.items()])
        self.say({key: row for one in self.rows for key, row in _captions(one)})
        self.store.put(FILES, self.rows)
        self.rows, self.vectors, self.thumbnails, self.committed = [], {}, {}, time.monotonic()

    def say(self, captions: dict[str, Row]) -> None:
        """Write the captions that are not there yet, for their words and with their vectors."""
        self.store.put(TEXTS, [row for key, row in captions.items() if key not in self.texts])
        self.texts.update(captions)
        new = [row for key, row in captions.items() if key not in self.said]
        if new:
            vectors = self.pipeline.embed_texts([row["text"] for row in new])
            self.store.put(CAPTIONS, [{**row, "vector": vector} for row, vector in zip(new, vectors, strict=True)])
            self.said.update(row["key"] for row in new)

    def finish(self) -> None:
        """Take away the rows of files that are gone; say what is unsaid, and sweep what no row needs."""
        self.store.delete(FILES, self.gone)
        self.report.removed += len(self.gone)
        contents: set[str] = set()
        captions: set[str] = set()
        unsaid: dict[str, Row] = {}
        for row in self._rows_that_speak():
            contents.add(row["content"])
            for key, caption in _captions(row):
                captions.add(key)
                if key not in self.texts or key not in self.said:
                    unsaid[key] = caption
            if len(unsaid) >= SENTENCES:
                self.say(unsaid)
                unsaid = {}
        self.say(unsaid)
        self.store.delete(VECTORS, self.embedded - contents)
        self.store.delete(THUMBNAILS, self.pictured - contents)
        self.store.delete(TEXTS, self.texts - captions)
        self.store.delete(CAPTIONS, self.said - captions)

    def _rows_that_speak(self) -> Iterator[Row]:
        """Files, and notes of pictures that some file still has: those of others wait for it to come back."""
        contents = set()
        for row in self.store.scan(FILES, ["content", "captions"]):
            contents.add(row["content"])
            yield row
        for note in self.store.scan(NOTES, ["content", "text", "lang"]):
            if note["content"] in contents:
                yield {"content": note["content"], "captions": [note]}


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
        key = text_key(row["content"], caption["text"])
        yield key, {"key": key, "content": row["content"], "text": caption["text"], "lang": caption["lang"]}


def _keys(store: LanceStore, table: str) -> set[str]:
    return {key for batch in store.batches(table, ["key"]) for key in batch.column("key").to_pylist()}


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
