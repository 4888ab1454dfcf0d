"""The first hits of a search in the order that a re-ranker gives them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuwen.errors import PictureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tuwen.pipelines import Reranker
    from tuwen.searching import Hit


def rerank(hits: Sequence[Hit], query: str, reranker: Reranker) -> list[Hit]:
    """The same hits, the first `reranker.top` of them ordered anew by how well the words fit their grids.

    Their scores become similarity + weight x (score - mean score of these hits), so that they stay about where they
    were; ranks are counted anew. The pictures are read now. One that can't be read keeps its similarity.
    """
    first, rest = list(hits[: reranker.top]), list(hits[reranker.top :])
    read, regions = [], []
    for place, hit in enumerate(first):
        try:
            regions.append(reranker.read_images([Path(hit.file)]))
            read.append(place)
        except PictureError:
            continue
    if not read:
        return list(hits)
    import torch

    rows = np.arange(len(read))
    scores = reranker.score(torch.cat(regions), reranker.read_texts([query]), rows, np.zeros_like(rows))
    for place, score in zip(read, reranker.weight * (scores - scores.mean()), strict=True):
        first[place] = replace(first[place], score=round(first[place].score + float(score), 6))
    first.sort(key=lambda hit: -hit.score)
    return [replace(hit, rank=rank) for rank, hit in enumerate([*first, *rest], hits[0].rank)]
