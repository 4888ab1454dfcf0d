"""Confidence that means something: one temperature for all scores, and the confidence from which an answer is sure."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]

PRECISION = 2 / 3  # of the answers that are told as sure, how many should be right
LEAST = 20  # answers that a precision is believed of
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


def fit_threshold(confidence: Scores, right: Scores, precision: float = PRECISION) -> float:
    """The lowest confidence of (n,) such that of the answers at or above it `precision` are right (n,); 1: none is."""
    order = np.argsort(-confidence, kind="stable")
    held, share = confidence[order], right[order].cumsum() / np.arange(1, len(order) + 1)
    last = np.append(held[1:] < held[:-1], True)[: len(order)]  # equal ones pass together
    good = np.flatnonzero((share >= precision) & last & (np.arange(1, len(order) + 1) >= min(LEAST, len(order))))
    return float(held[good[-1]]) if len(good) else 1.0
