"""What ordering the best hits anew brings to a retrieval model, on the same queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.dataset import Dataset
from tuwen.metrics.gain import recall_gain
from tuwen.metrics.reranking import rerank_metrics, shortlist
from tuwen.metrics.retrieval import Scores, retrieval_metrics
from tuwen.pipelines import Reranker
from tuwen.progress import track

Ints = NDArray[np.int64]


class Reranking:
    """One split as a re-ranker sees it: grids and words read once, pairs scored once."""

    def __init__(self, reranker: Reranker, part: Dataset, texts: Sequence[str]) -> None:
        self.reranker, self.count = reranker, len(texts)
        self.groups = [picture.group for picture in part.pictures]
        if reranker.base.precomputed:
            matrix, rows = part.features(reranker.base.config["tower"]["name"].partition(":")[2])
            self.regions = reranker.read_features(matrix[rows])
        else:
            paths = [part.path(picture) for picture in part.pictures]
            self.regions = reranker.read_images(track(paths, len(paths), "grids"))
        self.words = reranker.read_texts(texts)
        self.codes, self.known = np.zeros(0, np.int64), np.zeros(0, np.float32)
        self.gains: dict[str, dict[str, Any]] = {}

    def scores(
        self, name: str, image: NDArray[Any], sentence: NDArray[Any], owner: Ints, chosen: NDArray[np.bool_]
    ) -> Scores:
        """Scores after re-ranking over the chosen captions, (n, d), (m, d), (m,), (m,); what it brought: `gains`."""
        own = np.flatnonzero(chosen)
        lists = shortlist(image, sentence[own], self.reranker.top)
        pictures, captions = lists.pairs()
        extra = self._pairs(pictures, own[captions])
        part = image, sentence[own], owner[own], self.groups
        before, after = retrieval_metrics(*part), rerank_metrics(*part, lists, extra, self.reranker.weight)
        gain = recall_gain(before, after, _numbers(self.groups))
        self.gains[name] = {
            "before": before.metrics,
            "gain": {key: [round(value, 2) for value in change] for key, change in gain.recalls.items()},
            "mean_recall": [round(value, 2) for value in gain.mean],
            "verdict": gain.verdict,
        }
        return after

    def _pairs(self, pictures: Ints, captions: Ints) -> NDArray[np.float32]:
        """(N,) scores of pairs; those of another language's lists are not computed twice."""
        codes = pictures * self.count + captions
        fresh = np.setdiff1d(codes, self.codes)
        if len(fresh):
            made = self.reranker.score(self.regions, self.words, fresh // self.count, fresh % self.count)
            every = np.concatenate([self.codes, fresh])
            order = np.argsort(every)
            self.codes, self.known = every[order], np.concatenate([self.known, made])[order]
        found: NDArray[np.float32] = self.known[np.searchsorted(self.codes, codes)]
        return found


def _numbers(groups: Sequence[object]) -> Ints:
    """(n,) identities: equal where pictures share a group."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(("g", g) if g is not None else i, len(seen)) for i, g in enumerate(groups)])
