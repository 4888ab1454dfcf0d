"""Scores of a ranking whose first k hits a slower model has ordered anew. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.metrics.retrieval import Groups, Scores, retrieval_metrics

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shortlists:
    """The k nearest captions of each picture (n, k), and the k nearest pictures of each caption (m, k), best first."""

    i2t: Ints
    t2i: Ints

    def pairs(self) -> tuple[Ints, Ints]:
        """(N,) pictures and (N,) captions of every pair in them: those of `i2t` row by row, then those of `t2i`."""
        pictures = np.concatenate([_rows(self.i2t), self.t2i.ravel()])
        captions = np.concatenate([self.i2t.ravel(), _rows(self.t2i)])
        return pictures, captions


def shortlist(image_emb: NDArray[Any], text_emb: NDArray[Any], k: int = 20, chunk: int = 256) -> Shortlists:
    """The k nearest both ways (all, where there are fewer) by dot product, of (n, d) and (m, d)."""
    return Shortlists(_nearest(image_emb, text_emb, k, chunk), _nearest(text_emb, image_emb, k, chunk))


def rerank_metrics(
    image_emb: NDArray[Any],
    text_emb: NDArray[Any],
    owner: NDArray[Any],
    groups: Groups | None,
    lists: Shortlists,
    scores: NDArray[Any],
    weight: float,
) -> Scores:
    """`retrieval_metrics` after the hits of each shortlist are ordered by similarity + weight x score.

    `scores` (N,) of `lists.pairs()`. What is on no shortlist stays behind what is, in its order.
    """
    parts = {"i2t": scores[: lists.i2t.size].reshape(lists.i2t.shape)}
    parts["t2i"] = scores[lists.i2t.size :].reshape(lists.t2i.shape)
    places = {"i2t": lists.i2t, "t2i": lists.t2i}

    def rescore(way: str, query: int, row: Floats) -> Floats:
        chosen = places[way][query]
        new = row[chosen] + weight * parts[way][query]
        out = row.copy()
        out[chosen] = new - new.min() + row.max() + 1  # before all others
        return out

    return retrieval_metrics(image_emb, text_emb, owner, groups, rescore=rescore)


def _rows(lists: Ints) -> Ints:
    return np.repeat(np.arange(len(lists)), lists.shape[1])


def _nearest(queries: NDArray[Any], items: NDArray[Any], k: int, chunk: int) -> Ints:
    found = [
        np.argsort(-(queries[start : start + chunk] @ items.T), axis=1, kind="stable")[:, :k]
        for start in range(0, len(queries), chunk)
    ]
    return np.concatenate(found).astype(np.int64)
