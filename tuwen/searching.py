"""Words or a picture into an index, and the pictures or captions that fit out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuwen.records import guess_language
from tuwen.store import CAPTIONS, FILES, VECTORS, Row, Store, Vector

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuwen.pipelines import Embedder

SPARE = 32  # hits asked for beyond k: some may belong to pictures that are gone


@dataclass(frozen=True)
class Hit:
    """A picture that fits: `score` is the cosine, `rank` starts at 1, `id` is the content's sha256."""

    file: str
    score: float
    rank: int
    caption: str | None
    id: str


@dataclass(frozen=True)
class CaptionHit:
    """A caption that fits a picture, and the file that it was written for."""

    text: str
    score: float
    rank: int
    file: str


def search_text(store: Store, pipeline: Embedder, text: str, k: int = 10, everything: bool = False) -> list[Hit]:
    """The k pictures nearest to a text, best first.

    Unless `everything`, none below the threshold that the model names for the language of the text.
    """
    lang = guess_language(text)
    floor = -2.0 if everything else pipeline.threshold.get(lang, -2.0)
    vector = pipeline.embed_texts([text])[0]
    return [hit for hit in _pictures(store, vector, k, lang) if hit.score >= floor]


def search_image(store: Store, pipeline: Embedder, image: Path | Image, k: int = 10) -> list[Hit]:
    """The k pictures nearest to a picture, best first; itself too where it is indexed."""
    return _pictures(store, pipeline.embed_images([image])[0], k, None)


def search_captions(store: Store, pipeline: Embedder, image: Path | Image, k: int = 10) -> list[CaptionHit]:
    """The k captions nearest to a picture with their cosines, best first: the published inference (VSE++).
    One text is one hit, whoever wrote it for how many pictures."""
    vector, limit = pipeline.embed_images([image])[0], k + SPARE
    while True:
        nearest = store.search(CAPTIONS, vector, limit, ["key", "content", "text"])
        files = _files(store, {row["content"] for row, _ in nearest})
        best: dict[str, tuple[float, str]] = {}
        for row, score in nearest:
            if row["content"] in files:
                best.setdefault(row["text"], (score, _path(files[row["content"]])))
        if len(best) >= k or len(nearest) < limit:
            break
        limit *= 4
    ranked = list(best.items())[:k]
    return [CaptionHit(text, round(s, 6), rank, file) for rank, (text, (s, file)) in enumerate(ranked, 1)]


def _pictures(store: Store, vector: Vector, k: int, lang: str | None) -> list[Hit]:
    limit = k + SPARE
    while True:
        nearest = store.search(VECTORS, vector, limit)
        files = _files(store, {row["key"] for row, _ in nearest})
        alive = [(row["key"], score) for row, score in nearest if row["key"] in files]
        if len(alive) >= k or len(nearest) < limit:
            break
        limit *= 4
    hits = []
    for rank, (content, score) in enumerate(alive[:k], 1):
        row = files[content]
        hits.append(Hit(_path(row), round(score, 6), rank, _caption(row, lang), content))
    return hits


def _files(store: Store, contents: set[str]) -> dict[str, Row]:
    """One row a content id: of several copies the first that still lies there."""
    columns = ["folder", "path", "content", "captions"]
    rows = sorted(store.scan(FILES, columns, ("content", contents)), key=lambda row: (row["folder"], row["path"]))
    files: dict[str, Row] = {}
    for row in rows:
        if row["content"] not in files or not Path(_path(files[row["content"]])).exists():
            files[row["content"]] = row
    return files


def _path(row: Row) -> str:
    return str(Path(row["folder"]) / row["path"])


def _caption(row: Row, lang: str | None) -> str | None:
    captions = row["captions"] or []
    same = [caption["text"] for caption in captions if caption["lang"] == lang]
    return next(iter(same or [caption["text"] for caption in captions]), None)
