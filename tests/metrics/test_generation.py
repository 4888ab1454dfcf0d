"""Scores of drawn pictures against slow loops, and against what they must tell apart."""

from __future__ import annotations

import numpy as np
import pytest

from tuwen.metrics import generation
from tuwen.metrics.generation import fid, floor_kid, kid, nearest, r_precision, share_interval, shuffle

RNG = np.random.default_rng(0)


def slow_kid(real: np.ndarray, drawn: np.ndarray) -> float:
    """Binkowski et al. 2018, equation 4, by three loops over pairs."""
    n, d = real.shape

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((sum(a * b for a, b in zip(x, y, strict=True)) / d + 1) ** 3)

    within = sum(kernel(s[i], s[j]) for s in (real, drawn) for i in range(n) for j in range(n) if i != j)
    between = sum(kernel(x, y) for x in real for y in drawn)
    return within / (n * (n - 1)) - 2 * between / n**2


def test_kid_is_the_slow_sum() -> None:
    real, drawn = RNG.normal(0, 1, (9, 5)), RNG.normal(0.5, 1.5, (9, 5))
    assert kid(real, drawn).value == pytest.approx(slow_kid(real, drawn), rel=1e-9)
    assert kid(real, np.concatenate([drawn, drawn])).value == kid(real, drawn).value
    with pytest.raises(ValueError, match="at least 4"):
        kid(real[:3], drawn)


def test_kid_orders_and_its_interval_covers() -> None:
    """Over many draws of two like sets, the 95% interval must hold the true value, 0, about that often."""
    inside, widths = 0, []
    for turn in range(60):
        draw = np.random.default_rng(turn)
        found = kid(draw.normal(0, 1, (60, 4)), draw.normal(0, 1, (60, 4)), halves=100)
        inside += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
    assert inside >= 50
    near, far = (kid(RNG.normal(0, 1, (60, 4)), RNG.normal(shift, 1, (60, 4))) for shift in (0.5, 1.5))
    assert np.median(widths) < far.high - far.low
    assert 0 < near.value < far.low < far.value < far.high
    real = RNG.normal(0, 1, (200, 4))
    floor = floor_kid(real)
    assert floor.low < 0 < floor.high
    assert floor == floor_kid(real)
    assert floor_kid(real, seed=1) != floor


def test_fid_needs_enough_and_is_frechets(monkeypatch: pytest.MonkeyPatch) -> None:
    real, drawn = RNG.normal(0, 1, (300, 3)), RNG.normal(0.7, 2, (300, 3)) * [1, 2, 0.5]
    assert fid(real, drawn) is None
    assert generation.FEWEST == 2048
    monkeypatch.setattr(generation, "FEWEST", 300)
    a, b = np.cov(real.T), np.cov(drawn.T)
    values, vectors = np.linalg.eigh(a)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T  # of a: (a b)^(1/2) has the trace of (root b root)^(1/2)
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root)).sum()
    slow = ((real.mean(0) - drawn.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross
    assert fid(real, drawn) == pytest.approx(slow, rel=1e-6)
    assert fid(real, real) == pytest.approx(0, abs=1e-6)
    assert fid(real[:299], drawn) is None


def unit(n: int, d: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(0, 1, (n, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_r_precision_knows_right_from_shuffled() -> None:
    captions = unit(150, 64, 0)
    texts = [f"caption {n}" for n in range(150)]
    pictures = captions + 0.3 * unit(150, 64, 1)
    right = r_precision(pictures, captions, texts)
    assert right.hits.mean() > 0.95
    assert set(right.candidates) == {100}
    order = shuffle(150)
    wrong = r_precision(pictures, captions[order], [texts[n] for n in order])
    assert wrong.hits.mean() < 0.1
    blind = r_precision(unit(150, 64, 5), captions, texts)
    assert blind.hits.mean() < 0.06  # 1 in 100
    collapsed = r_precision(np.ones((150, 64)), np.ones((150, 64)), texts)
    assert not collapsed.hits.any()  # ties count against it
    assert not r_precision(np.full((150, 64), np.nan), captions, texts).hits.any()


def test_r_precision_is_the_slow_ranking_where_all_are_candidates() -> None:
    pictures, captions = unit(40, 3, 2), unit(40, 3, 3)
    texts = [f"caption {n % 20}" for n in range(40)]  # each said of two pictures: never its own distractor
    captions[20:] = captions[:20]
    found = r_precision(pictures, captions, texts)
    slow = []
    for picture, own in zip(pictures, texts, strict=True):
        others = [captions[n] @ picture for n in range(40) if texts[n] != own]
        slow.append(captions[texts.index(own)] @ picture > max(others))
    assert found.hits.tolist() == slow
    assert 0 < sum(slow) < 40
    assert set(found.candidates) == {20}
    few = r_precision(pictures, captions, texts, candidates=2)
    assert set(few.candidates) == {2}
    assert few.hits.sum() > found.hits.sum()
    with pytest.raises(ValueError, match="different captions"):
        r_precision(pictures[:2], captions[:2], ["same", "same"])


def test_share_interval_solves_wilsons_equation() -> None:
    """Its ends are where the share lies 1.96 standard errors away, the error that of the end itself."""
    for right, n in ((3, 10), (0, 7), (19, 20), (500, 1000)):
        hits = np.arange(n) < right
        for end in share_interval(hits, np.arange(n)):
            p = end / 100
            assert (right / n - p) ** 2 == pytest.approx(1.96**2 * p * (1 - p) / n, abs=1e-12)
    low, high = share_interval(np.ones(10, bool), np.arange(10))
    assert (round(low, 2), high) == (72.25, 100)  # where a bootstrap says 100 to 100
    twice = share_interval(np.ones(20, bool), np.arange(20) // 2)
    assert twice == (low, high)
    with pytest.raises(ValueError, match="at least one"):
        share_interval(np.array([]), np.array([]))


def test_shuffling_leaves_nothing_in_its_place() -> None:
    for n in (2, 3, 50):
        order = shuffle(n, seed=n)
        assert sorted(order) == list(range(n))
        assert not (order == np.arange(n)).any()
    assert (shuffle(50) == shuffle(50)).all()
    with pytest.raises(ValueError, match="cannot be shuffled"):
        shuffle(1)


def test_nearest_is_the_slow_search() -> None:
    training, pictures = unit(50, 6, 7), unit(8, 6, 8)
    pictures[2] = training[31]
    rows, far = nearest(pictures, training, chunk=7)
    for picture, row, distance in zip(pictures, rows, far, strict=True):
        every = [float(np.sqrt(((picture - one) ** 2).mean())) for one in training]
        assert row == int(np.argmin(every))
        assert distance == pytest.approx(min(every), abs=1e-6)
    assert len(set(rows.tolist())) > 3
    assert rows[2] == 31
    assert far[2] == pytest.approx(0, abs=1e-6)
