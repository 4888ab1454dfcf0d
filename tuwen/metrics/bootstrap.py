"""Intervals by resampling: how far a score would wander on other pictures of the same kind. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Statistic = Callable[[NDArray[Any]], Any]


class Interval(NamedTuple):
    """A percentile interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """`after - before`, and its percentile interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: NDArray[Any],
    statistic: Statistic = np.mean,
    *,
    groups: NDArray[Any] | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap of `statistic` over the rows of `values` (Efron and Tibshirani 1993, chapter 13).

    `groups` (len(values),) says which rows are drawn together: the captions of one picture are alike, so a
    recall over captions takes the picture of each. `n` draws, with replacement, of as many groups (rows,
    without `groups`) as there are; the same seed draws the same. Raises ValueError where there is nothing to
    draw or the lengths disagree.
    """
    return Interval(*_percentiles([statistic(values[rows]) for rows in _draw(values, groups, n, seed)], level))


def bootstrap_difference(
    before: NDArray[Any],
    after: NDArray[Any],
    statistic: Statistic = np.mean,
    *,
    groups: NDArray[Any] | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Difference:
    """Paired bootstrap of `statistic(after) - statistic(before)`: each draw takes the same rows on both
    sides.

    Row i of both is one query scored by two models. An interval that holds 0 says that the data can't tell
    them apart.
    """
    if len(before) != len(after):
        raise ValueError(f"a paired bootstrap needs the same queries: {len(before)} before, {len(after)} after")
    drawn = [statistic(after[rows]) - statistic(before[rows]) for rows in _draw(before, groups, n, seed)]
    return Difference(float(statistic(after) - statistic(before)), *_percentiles(drawn, level))


def _draw(values: NDArray[Any], groups: NDArray[Any] | None, n: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Rows of `n` draws."""
    size = len(values)
    if size == 0:
        raise ValueError("a bootstrap needs at least one value")
    if groups is not None and len(groups) != size:
        raise ValueError(f"{len(groups)} groups for {size} values")
    numbers = np.arange(size) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.argsort(numbers, kind="stable")  # the rows of group g are order[start[g] : start[g] + count[g]]
    count = np.bincount(numbers)
    start = np.cumsum(count) - count
    generator = np.random.default_rng(seed)
    for _ in range(n):
        drawn = generator.integers(0, len(count), len(count))
        lengths = count[drawn]
        first = np.cumsum(lengths) - lengths
        yield order[np.repeat(start[drawn] - first, lengths) + np.arange(lengths.sum())]


def _percentiles(drawn: list[Any], level: float) -> tuple[float, float]:
    low, high = np.percentile(drawn, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
