"""Words or a picture into an index, and the pictures or captions that fit out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tuwen.browsing import duplicates, read_picture, thumbnail
from tuwen.calibrate import ALL
from tuwen.calibrate import floor as floor_of
from tuwen.errors import DataError
from tuwen.hits import CaptionHit, Filter, Hit, hits_of, live_rows, path_of
from tuwen.noting import corrected, export_corrections, set_caption
from tuwen.records import guess_language
from tuwen.store import CAPTIONS, FILES, VECTORS, LanceStore, Row, Vector, quote
from tuwen.text import split_words

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuwen.pipelines import Embedder

__all__ = [
    "CaptionHit",
    "Filter",
    "Found",
    "Hit",
    "Query",
    "corrected",
    "duplicates",
    "export_corrections",
    "find",
    "read_picture",
    "search_captions",
    "set_caption",
    "similar",
    "thumbnail",
]

SPARE = 32  # hits asked for beyond k: some may belong to pictures that are gone
FEW = 2000  # pictures that pass a filter, up to which they alone are searched
DATED = 1000  # hits that are put in the order of their dates, at most
FUSED = 200  # hits of each list that are fused, at least
FUSION = 60  # Cormack, Clarke and Buettcher, "Reciprocal rank fusion" (SIGIR 2009)
SAMPLE = 2000  # vectors by which the spread of a query's cosines is told
WITHOUT = 0.5  # share of what should be absent that is taken from what is wanted
OFFER = "where there is a network, `tuwen models get {}` fetches a web-trained one"

Scored = list[tuple[str, float]]  # content ids, best first


@dataclass(frozen=True)
class Query:
    """What is looked for. `weight` is the picture's share where `text` and `image` are both given; `without` names
    what should be absent; `itself` is a picture, by its id, that is no hit; `everything` lifts the no-match floor;
    `mode` says what the words are held against: the pictures, the captions' words, or both."""

    text: str | None = None
    image: Path | Image | None = None
    weight: float = 0.5
    without: str | None = None
    mode: Literal["vector", "words", "hybrid"] = "vector"
    filter: Filter = field(default_factory=Filter)
    order: Literal["score", "date"] = "score"
    offset: int = 0
    k: int = 10
    everything: bool = False
    itself: str | None = None


@dataclass(frozen=True)
class Found:
    """A page of hits; `more`: there is another one."""

    hits: list[Hit]
    more: bool = False
    warnings: list[str] = field(default_factory=list)


def find(store: LanceStore, pipeline: Embedder, query: Query) -> Found:
    """The pictures that fit a query, best first, `k` of them from `offset` on.

    In the order `date` the best thousand come newest first; a file without a date counts by when it was written.

    Raises:
        DataError: a query without words and picture, or of words in a mode that needs them.
        PictureError: its picture cannot be read.
    """
    text = (query.text or "").strip() or None
    if text is None and (query.image is None or query.mode != "vector"):
        raise DataError(
            "the query has neither words nor a picture" if query.image is None else "the query has no words"
        )
    lang = guess_language(text) if text else None
    wanted = query.offset + query.k + 1 + (query.itself is not None)
    wanted = max(DATED, wanted) if query.order == "date" else wanted
    passing = _Passing(store, query.filter.condition())
    warnings: list[str] = []
    if query.mode == "vector":
        scored = _by_vector(store, pipeline, query, text, passing, wanted)
    elif query.mode == "words":
        scored = _by_words(store, text or "", passing, wanted)
    else:
        depth = max(FUSED, wanted)
        lists = (_by_vector(store, pipeline, query, text, passing, depth), _by_words(store, text or "", passing, depth))
        scored = fuse(*lists)
    if text and query.mode != "words":
        warnings = warn_of(pipeline, text)
    scored = [hit for hit in scored if hit[0] != query.itself]
    if query.order == "date":
        scored = sorted(scored, key=lambda hit: _taken(passing.rows[hit[0]]), reverse=True)
    page = scored[query.offset : query.offset + query.k]
    hits = hits_of(store, page, passing.rows, lang, query.offset)
    return Found(hits, len(scored) > query.offset + query.k, warnings)


def similar(store: LanceStore, id: str, k: int = 10, offset: int = 0) -> Found:
    """The pictures most like one of the index, itself left out. DataError where there is no such id."""
    found = next(iter(store.scan(VECTORS, ["vector"], ("key", [id]))), None)
    if found is None:
        raise DataError(f"{id}: no such picture in {store.folder}")
    passing = _Passing(store, None)
    nearest = _nearest(store, np.asarray(found["vector"], np.float32), offset + k + 2, passing)
    scored = [hit for hit in nearest if hit[0] != id]
    return Found(hits_of(store, scored[offset : offset + k], passing.rows, None, offset), len(scored) > offset + k)


def search_captions(store: LanceStore, pipeline: Embedder, image: Path | Image, k: int = 10) -> list[CaptionHit]:
    """The k captions nearest to a picture with their cosines, best first: the published inference (VSE++).
    One text is one hit, whoever wrote it for how many pictures."""
    vector, limit = pipeline.embed_images([image])[0], k + SPARE
    while True:
        nearest = store.search(CAPTIONS, vector, limit, ["key", "content", "text"])
        files = live_rows(store, {row["content"] for row, _ in nearest})
        best: dict[str, tuple[float, str]] = {}
        for row, score in nearest:
            if row["content"] in files:
                best.setdefault(row["text"], (score, path_of(files[row["content"]])))
        if len(best) >= k or len(nearest) < limit:
            break
        limit *= 4
    ranked = list(best.items())[:k]
    return [CaptionHit(text, round(s, 6), rank, file) for rank, (text, (s, file)) in enumerate(ranked, 1)]


def fuse(*lists: Scored) -> Scored:
    """Reciprocal rank fusion: the sum of 1 / (60 + rank) over the lists that hold a picture."""
    total: dict[str, float] = {}
    for ranked in lists:
        for rank, (key, _) in enumerate(ranked, 1):
            total[key] = total.get(key, 0.0) + 1 / (FUSION + rank)
    return sorted(total.items(), key=lambda hit: (-hit[1], hit[0]))


def warn_of(pipeline: Embedder, text: str) -> list[str]:
    """Plain warnings where the model does not know the words, or was not taught the language."""
    lang, told = guess_language(text), []
    if lang not in pipeline.languages:
        name = {"en": "English", "zh": "Chinese"}[lang]
        told.append(
            f"model '{pipeline.name}' was not taught {name}; {OFFER.format('chinese' if lang == 'zh' else 'best')}"
        )
    words, strange = split_words(text), pipeline.unknown_words(text)
    if words and set(words) <= set(strange):
        told.append(
            f"model '{pipeline.name}' knows none of these words, so the hits mean little: {', '.join(words)}; "
            + OFFER.format("best")
        )
    elif strange:
        told.append(f"model '{pipeline.name}' does not know the words: {', '.join(dict.fromkeys(strange))}")
    return told


class _Passing:
    """Which pictures pass a filter, and the rows of those that were met."""

    def __init__(self, store: LanceStore, condition: str | None) -> None:
        self.store, self.condition, self.rows = store, condition, dict[str, Row]()
        self.among: str | None = None  # what a vector must be of, where few pass
        if condition:
            contents = {row["content"] for row in store.scan(FILES, ["content"], also=condition, limit=FEW + 1)}
            if len(contents) <= FEW:
                self.among = f"key IN ({', '.join(map(quote, sorted(contents)))})" if contents else "false"

    def take(self, found: Scored) -> Scored:
        """Those that pass and lie in the index."""
        new = {key for key, _ in found} - set(self.rows)
        self.rows |= live_rows(self.store, new, self.condition)
        return [(key, score) for key, score in found if key in self.rows]


def _by_vector(
    store: LanceStore, pipeline: Embedder, query: Query, text: str | None, passing: _Passing, k: int
) -> Scored:
    """Nearest first. The query's vector is the weighted sum of its parts, each divided by the spread of its cosines
    over the index (those of pictures spread wider than those of words), less WITHOUT times what should be absent."""
    parts: list[tuple[float, Vector]] = []
    if text is not None:
        parts.append((1 - query.weight if query.image is not None else 1.0, pipeline.embed_texts([text])[0]))
    if query.image is not None:
        parts.append((query.weight if text is not None else 1.0, pipeline.embed_images([query.image])[0]))
    if query.without and query.without.strip():
        parts.append((-WITHOUT, pipeline.embed_texts([query.without])[0]))
    floor = (
        ALL if query.everything or query.image is not None or text is None else floor_of(pipeline, text, parts[0][1])
    )
    if len(parts) == 1:
        return [hit for hit in _nearest(store, parts[0][1], k, passing) if hit[1] >= floor]
    _, sample = store.vectors(SAMPLE)
    spreads = [max(float((sample @ vector).std()), 1e-3) if len(sample) > 1 else 1.0 for _, vector in parts]
    whole = np.sum([share / spread * vector for (share, vector), spread in zip(parts, spreads, strict=True)], axis=0)
    scored = _nearest(store, whole / max(float(np.linalg.norm(whole)), 1e-6), k, passing)
    if floor == ALL:
        return scored
    keys = [key for key, _ in scored]  # the floor is of the words alone
    rows = store.scan(VECTORS, ["key", "vector"], ("key", keys))
    near = {row["key"]: float(np.dot(row["vector"], parts[0][1])) for row in rows}
    return [(key, score) for key, score in scored if near[key] >= floor]


def _nearest(store: LanceStore, vector: Vector, k: int, passing: _Passing) -> Scored:
    """The k pictures nearest to a vector that lie in the index and pass."""
    limit = k + SPARE
    while True:
        nearest = [(row["key"], score) for row, score in store.search(VECTORS, vector, limit, where=passing.among)]
        alive = passing.take(nearest)
        if len(alive) >= k or len(nearest) < limit:
            return alive[:k]
        limit *= 4


def _by_words(store: LanceStore, words: str, passing: _Passing, k: int) -> Scored:
    """The k pictures whose captions hold the words, by the best of their captions (BM25)."""
    limit = 4 * k + SPARE  # a picture has several captions
    while True:
        found = store.find_words(words, limit, ["key", "content"])
        best: dict[str, float] = {}
        for row, score in found:
            best.setdefault(row["content"], score)
        alive = passing.take(list(best.items()))
        if len(alive) >= k or len(found) < limit:
            return alive[:k]
        limit *= 4


def _taken(row: Row) -> str:
    """When a picture was taken, or written where it does not say; local time, ISO 8601."""
    written = datetime.fromtimestamp(row["mtime_ns"] / 1e9).isoformat(timespec="seconds")  # as EXIF: without a zone
    return str(row["date"] or written)
