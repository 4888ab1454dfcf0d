"""Confidence that means something: one temperature for all scores, and the confidence from which an answer is sure."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

EVEN = 0.5  # an answer is sure that is right more often than not
TEMPERATURES = np.geomspace(1 / 16, 16, 41)


def best_confidence(logits: NDArray[np.floating], kind: Literal["softmax", "sigmoid"], temperature: float) -> Scores:
    """The confidence (n,) in the best answer of raw scores (n, A); -inf: an answer that is not to be given."""
    scaled = np.asarray(logits, np.float64) / temperature
    best = scaled.max(1)
    if kind == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-best)))
    return np.asarray(1 / np.exp(scaled - best[:, None]).sum(1))


def fit_temperature(logits: NDArray[np.floating], right: Scores, kind: Literal["softmax", "sigmoid"]) -> float:
    """What to divide raw scores (n, A) by, so that confidence tells how often the best answer is right (n,), 0 to 1.

    Temperature scaling (Guo et al., ICML 2017), but by the logistic loss of the best answer's confidence rather than
    that of the true class: a right answer that the model doesn't know has none, and yet it was wrong. 1 for no rows.
    """
    if not len(right):
        return 1.0

    def loss(temperature: float) -> float:
        sure = best_confidence(logits, kind, temperature).clip(1e-9, 1 - 1e-9)
        return float(-(right * np.log(sure) + (1 - right) * np.log1p(-sure)).mean())

    coarse = min(TEMPERATURES.tolist(), key=loss)
    step = float(TEMPERATURES[1] / TEMPERATURES[0])
    return float(min(np.geomspace(coarse / step, coarse * step, 11).tolist(), key=loss))


def fit_threshold(confidence: Scores, right: Scores, share: float = EVEN) -> float:
    """The lowest confidence (n,) from which an answer is right (n,) at least as often as `share`; 1 where none is.

    How often an answer of each confidence is right is told by isotonic regression: it never falls as confidence rises,
    so a few lucky guesses of low confidence count with their neighbours.
    """
    order = np.argsort(confidence, kind="stable")
    values, first = np.unique(confidence[order], return_index=True)
    sums = np.add.reduceat(right[order], first) if len(values) else np.zeros(0)
    counts = np.diff(np.append(first, len(order)))
    blocks: list[tuple[float, float, float]] = []  # lowest confidence, sum right, how many
    for value, total, count in zip(values, sums, counts, strict=True):
        block = (float(value), float(total), float(count))
        while blocks and blocks[-1][1] * block[2] >= block[1] * blocks[-1][2]:  # the one below is right as often
            below = blocks.pop()
            block = (below[0], below[1] + block[1], below[2] + block[2])
        blocks.append(block)
    return next((value for value, total, count in blocks if total >= share * count), 1.0)
