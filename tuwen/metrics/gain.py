"""What a change of model brought: recalls before and after on the same queries, with a paired interval. numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.metrics.bootstrap import Difference, bootstrap_difference
from tuwen.metrics.retrieval import CUTS, Scores

FEW = 20  # pictures under which an interval is not believed
TELLING = 5.0  # points: data that could not have seen a change of this size can't tell that there is none
POWER = 1.960 + 0.842  # standard errors that a two-sided test of 5% sees in four cases of five (Cohen 1988)


@dataclass(frozen=True)
class Gain:
    """After minus before, in points. `recalls`: by `i2t_r1` ..., `t2i_r10`; `mean`: of these six.

    `smallest`: the change of `mean` that these queries would have shown with a probability of 80%.
    `verdict`: `improved`, `worse`, `no gain to be seen` or `the data is too small to tell`.
    """

    recalls: dict[str, Difference]
    mean: Difference
    smallest: float
    verdict: str


def recall_gain(before: Scores, after: Scores, labels: NDArray[Any], seed: int = 0, n: int = 1000) -> Gain:
    """Paired bootstrap of every recall and of their mean; pictures of one identity are drawn together.

    `labels` (pictures,): the identity of each picture, numbered. The interval covers the choice of the scored pictures,
    not that of the seed of the training. The verdict goes by the interval of the mean: above 0 is improved, under 0
    worse; around 0 it is no gain where a change of 5 points would have shown, else, as with fewer than 20 pictures, the
    data is too small to tell. Raises ValueError where the two were not scored on the same queries.
    """
    recalls = {}
    columns = []
    for number, way in enumerate(("i2t", "t2i")):
        ranks = [getattr(scores, f"{way}_ranks") for scores in (before, after)]
        groups = np.asarray(labels)[getattr(before, f"{way}_owner")]
        hits = [np.stack([100.0 * (r <= k) for k in CUTS], 1) for r in ranks]  # (q, 3) each
        for i, k in enumerate(CUTS):
            old, new = hits[0][:, i], hits[1][:, i]
            recalls[f"{way}_r{k}"] = bootstrap_difference(old, new, groups=groups, seed=seed, n=n)
        columns.append([np.c_[hit.mean(1), np.full(len(hit), number)] for hit in hits] + [groups])
    old, new, groups = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    mean = bootstrap_difference(old, new, _mean_of_ways, groups=groups, seed=seed, n=n)
    queries = min(len(before.i2t_ranks), len(before.t2i_ranks))
    spread = (mean.high - mean.low) / (2 * 1.960)
    smallest = max(POWER * spread, 100 / queries)
    return Gain(recalls, mean, smallest, _judge(mean, smallest, len(before.i2t_ranks)))


def _mean_of_ways(rows: NDArray[Any]) -> float:
    """Mean of the two ways' means of (value, way): each way counts the same, however many queries it has."""
    ways = rows[:, 1] == 1
    return float((rows[~ways, 0].mean() + rows[ways, 0].mean()) / 2)


def _judge(mean: Difference, smallest: float, pictures: int) -> str:
    if pictures < FEW:
        return "the data is too small to tell"
    if mean.low > 0:
        return "improved"
    if mean.high < 0:
        return "worse"
    return "the data is too small to tell" if smallest > TELLING else "no gain to be seen"
