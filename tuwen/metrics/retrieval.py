"""Scores of retrieval both ways: recall, ranks and mAP@R over any number of captions a picture. numpy only.

Whatever can flatter a model counts against it: a wrong item with the same similarity as a right one stands
before it (a collapsed model ranks last, not first), and so does one whose similarity is not a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CUTS = (1, 5, 10)
Groups = Sequence[object] | NDArray[Any]
Rescore = Callable[[str, int, NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Scores:
    """Scores of one set, and how each query did: `i2t_*` for q pictures, `t2i_*` for the captions in order.

    `metrics`: recalls, mAP@R and `rsum` (of the six recalls) in percent, median and mean ranks. `*_ranks`:
    the place of the best right item, from 1. `*_precisions`: average precision among the first R, 0 to 1.
    `*_owner`: the picture of each query (a picture without a caption is none), the group to draw by in a
    bootstrap.
    """

    metrics: dict[str, float]
    i2t_ranks: NDArray[np.int64]  # (q,)
    t2i_ranks: NDArray[np.int64]  # (m,)
    i2t_precisions: NDArray[np.float64]
    t2i_precisions: NDArray[np.float64]
    i2t_owner: NDArray[np.int64]
    t2i_owner: NDArray[np.int64]


def retrieval_metrics(
    image_emb: NDArray[Any],
    text_emb: NDArray[Any],
    owner: NDArray[Any],
    groups: Groups | None = None,
    chunk: int = 256,
    rescore: Rescore | None = None,
) -> Scores:
    """Scores both directions.

    `image_emb` (n, d), `text_emb` (m, d) (L2-normalised, any float type), `owner` (m,) the picture of each
    caption, `groups` (n,) identities (None in it: the picture is its own). Right are all captions of a
    picture's identity, and all pictures of a caption's. A picture without a right caption is no query, but
    stands among what captions search. `rescore` may change the similarities of a query before they are
    ranked: it is given the way (`i2t` or `t2i`), the row of the query, and its similarities (items,). Memory
    beside the embeddings in float64 is about 20 bytes x `chunk` x max(n, m). Raises ValueError on shapes that
    disagree or where there is nothing to score.
    """
    owner = np.asarray(owner, dtype=np.int64)
    n, m = len(image_emb), len(text_emb)
    if n == 0 or m == 0:
        raise ValueError(f"nothing to score: {n} pictures, {m} captions")
    if owner.shape != (m,) or owner.min() < 0 or owner.max() >= n:
        raise ValueError(f"owner must name one of {n} pictures for each of {m} captions")
    if groups is not None and len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} pictures")
    labels = _number_identities(n, groups)
    queries = np.flatnonzero(np.isin(labels, labels[owner]))
    # In float64, rounded to float32 after the product: one similarity then has one value, whatever block of the matrix
    # product it falls into, and equal embeddings tie exactly.
    image, text = (np.asarray(emb, dtype=np.float64) for emb in (image_emb, text_emb))
    change = rescore or (lambda way, query, row: row)
    i2t_ranks, i2t_precisions = _rank(
        image[queries], text, labels[queries], labels[owner], chunk, lambda i, row: change("i2t", int(queries[i]), row)
    )
    t2i_ranks, t2i_precisions = _rank(text, image, labels[owner], labels, chunk, lambda i, row: change("t2i", i, row))
    metrics = _summarise("i2t", i2t_ranks, i2t_precisions) | _summarise("t2i", t2i_ranks, t2i_precisions)
    metrics["rsum"] = sum(metrics[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in CUTS)
    return Scores(metrics, i2t_ranks, t2i_ranks, i2t_precisions, t2i_precisions, queries, owner)


def _number_identities(n: int, groups: Groups | None) -> NDArray[np.int64]:
    """One number (n,) for each picture's identity."""
    numbers: dict[object, int] = {}
    names = [(None, i) if groups is None or groups[i] is None else (groups[i], -1) for i in range(n)]
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)


def _rank(
    queries: NDArray[np.float64],
    items: NDArray[np.float64],
    labels: NDArray[np.int64],
    item_labels: NDArray[np.int64],
    chunk: int,
    change: Callable[[int, NDArray[np.float32]], NDArray[np.float32]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rank of the best right item (q,) and average precision at R (q,); every query has a right item."""
    ranks = np.empty(len(queries), dtype=np.int64)
    precisions = np.empty(len(queries))
    for start in range(0, len(queries), chunk):
        stop = start + chunk
        similarities = (queries[start:stop] @ items.T).astype(np.float32)  # (chunk, items)
        for i, (row, label) in enumerate(zip(similarities, labels[start:stop], strict=True), start):
            ranks[i], precisions[i] = _rank_one(change(i, row), item_labels == label)
    return ranks, precisions


def _rank_one(row: NDArray[np.float32], right: NDArray[np.bool_]) -> tuple[int, float]:
    """Rank of the best right item, and average precision among the first R (R: how many are right).

    mAP@R as in Musgrave et al., A metric learning reality check, ECCV 2020.
    """
    good = row[right]
    good[np.isnan(good)] = -np.inf
    good = np.sort(good)[::-1]  # best first
    # Wrong items not below the worst right one; no other can matter. NaN is not below, and sorts last: above all.
    wrong = np.sort(row[~(row < good[-1]) & ~right])
    ahead = len(wrong) - np.searchsorted(wrong, good, side="left")  # wrong items at least as similar as each
    places = ahead + np.arange(1, len(good) + 1)
    within = places <= len(good)
    precision = (np.arange(1, len(good) + 1)[within] / places[within]).sum() / len(good)
    return int(places[0]), float(precision)


def _summarise(way: str, ranks: NDArray[np.int64], precisions: NDArray[np.float64]) -> dict[str, float]:
    """Scores of one direction. The median rank is the smallest k with recall@k of at least 50%."""
    scores = {f"{way}_r{k}": 100 * float((ranks <= k).mean()) for k in CUTS}
    scores[f"{way}_map_r"] = 100 * float(precisions.mean())
    scores[f"{way}_medr"] = float(np.sort(ranks)[(len(ranks) - 1) // 2])
    scores[f"{way}_meanr"] = float(ranks.mean())
    return scores


def fold_metrics(
    image_emb: NDArray[Any],
    text_emb: NDArray[Any],
    owner: NDArray[Any],
    groups: Groups | None = None,
    folds: int = 5,
    chunk: int = 256,
) -> dict[str, float]:
    """Mean of the metrics over `folds` equal parts of the pictures, in order: COCO's "1K" is five folds of
    its 5K.
    """
    owner = np.asarray(owner, dtype=np.int64)
    every = []
    for part in np.array_split(np.arange(len(image_emb)), folds):
        inside = np.flatnonzero(np.isin(owner, part))
        own = None if groups is None else [groups[i] for i in part]
        scores = retrieval_metrics(image_emb[part], text_emb[inside], owner[inside] - part[0], own, chunk)
        every.append(scores.metrics)
    return {key: float(np.mean([metrics[key] for metrics in every])) for key in every[0]}
