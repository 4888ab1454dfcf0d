"""Scores after re-ranking, against lists ordered by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tuwen.metrics.reranking import rerank_metrics, shortlist
from tuwen.metrics.retrieval import retrieval_metrics

K, WEIGHT = 4, 0.3


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    image, text = (draw.normal(size=(n, 6)).astype(np.float32) for n in (9, 15))
    return image, text, np.arange(15) % 9


def slow_rank(similar: np.ndarray, extra: dict[int, float], right: np.ndarray) -> int:
    order = np.argsort(-similar, kind="stable").tolist()
    first = sorted(order[:K], key=lambda item: -(similar[item] + WEIGHT * extra[item]))
    return next(place for place, item in enumerate([*first, *order[K:]], 1) if right[item])


def test_ranks_equal_those_of_lists_ordered_by_hand() -> None:
    image, text, owner = world()
    lists = shortlist(image, text, K, chunk=4)
    pictures, captions = lists.pairs()
    assert len(pictures) == (9 + 15) * K
    fit = np.random.default_rng(1).normal(size=(9, 15))
    got = rerank_metrics(image, text, owner, None, lists, fit[pictures, captions], WEIGHT)
    similar = image @ text.T
    for i in range(9):
        extra = {c: fit[i, c] for c in lists.i2t[i]}
        assert got.i2t_ranks[i] == slow_rank(similar[i], extra, owner == i)
    for c in range(15):
        extra = {i: fit[i, c] for i in lists.t2i[c]}
        assert got.t2i_ranks[c] == slow_rank(similar[:, c], extra, np.arange(9) == owner[c])
    before = retrieval_metrics(image, text, owner)
    assert (got.i2t_ranks != before.i2t_ranks).any()
    np.testing.assert_array_equal(got.t2i_ranks[before.t2i_ranks > K], before.t2i_ranks[before.t2i_ranks > K])


def test_a_weight_of_0_changes_nothing_and_a_perfect_judge_finds_all_that_are_listed() -> None:
    image, text, owner = world(2)
    lists = shortlist(image, text, K)
    pictures, captions = lists.pairs()
    before = retrieval_metrics(image, text, owner)
    same = rerank_metrics(image, text, owner, None, lists, np.ones(len(pictures)), 0.0)
    assert same.metrics == before.metrics
    judge = rerank_metrics(image, text, owner, None, lists, 100.0 * (owner[captions] == pictures), 1.0)
    assert judge.metrics["t2i_r1"] == pytest.approx(100 * (before.t2i_ranks <= K).mean())


def test_a_picture_without_captions_is_no_query() -> None:
    image, text, _ = world()
    owner = np.arange(15) % 5  # pictures 5 to 8 have none
    lists = shortlist(image, text, K)
    fit = np.random.default_rng(3).normal(size=len(lists.pairs()[0]))
    got = rerank_metrics(image, text, owner, None, lists, fit, WEIGHT)
    assert len(got.i2t_ranks) == 5
