"""Words or a picture into an index, and the pictures or captions that fit out of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tuwen.browsing import duplicates, read_picture, thumbnail
from tuwen.errors import DataError
from tuwen.hits import CaptionHit, Filter, Hit, hits_of, live_rows, path_of
from tuwen.noting import corrected, export_corrections, set_caption
from tuwen.records import guess_language
from tuwen.store import CAPTIONS, VECTORS, LanceStore, Row, Vector

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
DATED = 1000  # hits that are put in the order of their dates, at most
FUSION = 60  # Cormack, Clarke and Buettcher, "Reciprocal rank fusion" (SIGIR 2009)

Scored = list[tuple[str, float]]  # content ids, best first


@dataclass(frozen=True)
class Query:
    """What is looked for. `weight` is the picture's share where `text` and `image` are both given; `without` names
    what should be absent; `everything` lifts the no-match threshold."""

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


@dataclass(frozen=True)
class Found:
    """A page of hits; `more`: there is another one."""

    hits: list[Hit]
    more: bool = False
    warnings: list[str] = field(default_factory=list)


def find(store: LanceStore, pipeline: Embedder, query: Query) -> Found:
    """The pictures that fit a query, best first, `k` of them from `offset` on.

    Raises:
        DataError: a query without words and picture.
        PictureError: its picture cannot be read.
    """
    if query.text is None and query.image is None:
        raise DataError("the query has neither words nor a picture")
    lang = guess_language(query.text) if query.text else None
    vector = _vector(pipeline, query)
    floor = -2.0 if query.everything or query.image is not None else pipeline.threshold.get(lang or "en", -2.0)
    wanted = query.offset + query.k + 1
    scored, rows = _nearest(store, vector, DATED if query.order == "date" else wanted, query.filter.condition())
    scored = [(key, score) for key, score in scored if score >= floor]
    if query.order == "date":
        scored = sorted(scored, key=lambda hit: rows[hit[0]]["date"] or "", reverse=True)
    page = scored[query.offset : query.offset + query.k]
    return Found(hits_of(store, page, rows, lang, query.offset), len(scored) > query.offset + query.k)


def similar(store: LanceStore, id: str, k: int = 10, offset: int = 0) -> Found:
    """The pictures most like one of the index, itself left out. DataError where there is no such id."""
    found = next(iter(store.scan(VECTORS, ["vector"], ("key", [id]))), None)
    if found is None:
        raise DataError(f"{id}: no such picture in {store.folder}")
    scored, rows = _nearest(store, np.asarray(found["vector"], np.float32), offset + k + 2, None)
    scored = [hit for hit in scored if hit[0] != id]
    return Found(hits_of(store, scored[offset : offset + k], rows, None, offset), len(scored) > offset + k)


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


def _vector(pipeline: Embedder, query: Query) -> Vector:
    parts = []
    if query.text is not None:
        parts.append((1 - query.weight if query.image is not None else 1.0) * pipeline.embed_texts([query.text])[0])
    if query.image is not None:
        parts.append((query.weight if query.text is not None else 1.0) * pipeline.embed_images([query.image])[0])
    if query.without:
        parts.append(-0.5 * pipeline.embed_texts([query.without])[0])
    whole: Vector = np.sum(parts, axis=0, dtype=np.float32)
    return whole / max(float(np.linalg.norm(whole)), 1e-6)


def _nearest(store: LanceStore, vector: Vector, k: int, where: str | None) -> tuple[Scored, dict[str, Row]]:
    """The k pictures nearest to a vector that lie in the index and pass, with their rows."""
    limit = k + SPARE
    while True:
        nearest = store.search(VECTORS, vector, limit)
        rows = live_rows(store, {row["key"] for row, _ in nearest}, where)
        alive = [(row["key"], score) for row, score in nearest if row["key"] in rows]
        if len(alive) >= k or len(nearest) < limit:
            return alive[:k], rows
        limit *= 4
