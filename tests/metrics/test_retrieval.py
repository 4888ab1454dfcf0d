"""Retrieval scores against plain lists, and the ways in which a scorer can flatter a model."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tuwen.metrics.bootstrap import bootstrap_difference, bootstrap_interval
from tuwen.metrics.retrieval import Scores, fold_metrics, retrieval_metrics

quick = settings(deadline=None, max_examples=40, derandomize=True, database=None)
KEYS = {f"{way}_{score}" for way in ("i2t", "t2i") for score in ("r1", "r5", "r10", "map_r", "medr", "meanr")}


def slow_query(similarities: list[float], right: list[bool]) -> tuple[int, float]:
    """Rank of the best right item and average precision at R, from one sorted list with the wrong first in a
    tie.
    """
    order = sorted(range(len(right)), key=lambda j: (-similarities[j], right[j]))
    relevant = [right[j] for j in order]
    count = sum(right)
    precision = sum(sum(relevant[: i + 1]) / (i + 1) for i in range(count) if relevant[i]) / count
    return relevant.index(True) + 1, precision


def slow_scores(sim: list[list[float]], owner: list[int], groups: list[object]) -> dict[str, float]:
    n, m = len(sim), len(owner)
    i2t = [
        slow_query(sim[i], [groups[owner[c]] == groups[i] for c in range(m)])
        for i in range(n)
        if any(groups[owner[c]] == groups[i] for c in range(m))
    ]
    t2i = [
        slow_query([sim[i][c] for i in range(n)], [groups[i] == groups[owner[c]] for i in range(n)]) for c in range(m)
    ]
    out: dict[str, float] = {}
    for way, queries in (("i2t", i2t), ("t2i", t2i)):
        ranks = [rank for rank, _ in queries]
        for k in (1, 5, 10):
            out[f"{way}_r{k}"] = 100 * sum(rank <= k for rank in ranks) / len(ranks)
        out[f"{way}_map_r"] = 100 * sum(precision for _, precision in queries) / len(ranks)
        out[f"{way}_meanr"] = sum(ranks) / len(ranks)
        k = 1
        while 2 * sum(rank <= k for rank in ranks) < len(ranks):
            k += 1
        out[f"{way}_medr"] = k
    out["rsum"] = sum(out[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10))
    return out


def make_world(n: int, m: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], list[object]]:
    """Embeddings of small whole numbers (exact, with many ties), captions spread unevenly, identities
    shared.
    """
    rng = np.random.default_rng(seed)
    image, text = rng.integers(-2, 3, (n, 3)), rng.integers(-2, 3, (m, 3))
    groups = [None if g == 0 else f"person-{g}" for g in rng.integers(0, 3, n)]
    return image.astype(np.float32), text.astype(np.float32), rng.integers(0, n, m), list(groups)


@quick
@given(st.integers(1, 12), st.integers(1, 20), st.integers(0, 10_000), st.booleans(), st.integers(1, 7))
def test_scores_equal_the_plain_lists(n: int, m: int, seed: int, grouped: bool, chunk: int) -> None:
    image, text, owner, groups = make_world(n, m, seed)
    own = [i if not grouped or group is None else group for i, group in enumerate(groups)]
    scores = retrieval_metrics(image, text, owner, groups if grouped else None, chunk=chunk)
    slow = slow_scores((image @ text.T).tolist(), owner.tolist(), own)
    assert scores.metrics.keys() == KEYS | {"rsum"}
    assert scores.metrics == pytest.approx(slow)


def test_the_worlds_hold_the_hard_cases() -> None:
    worlds = [make_world(8, 12, seed) for seed in range(20)]
    assert any(len(set(owner.tolist())) < 8 for _, _, owner, _ in worlds)  # pictures without captions
    assert all(len(np.unique(image @ text.T)) < 96 for image, text, _, _ in worlds)  # ties
    assert any(len([g for g in groups if g == "person-1"]) > 1 for *_, groups in worlds)  # shared identities


def test_scores_worked_by_hand() -> None:
    # Picture 0 has captions 0 and 1, picture 1 caption 2, picture 2 none.
    sim = np.array([[0.9, 0.1, 0.5], [0.8, 0.0, 0.3], [0.2, 0.4, 0.6]])
    scores = retrieval_metrics(sim, np.eye(3), np.array([0, 0, 1]))
    assert scores.i2t_ranks.tolist() == [1, 2]
    assert scores.i2t_owner.tolist() == [0, 1]
    assert scores.t2i_ranks.tolist() == [1, 2, 3]
    assert scores.t2i_owner.tolist() == [0, 0, 1]
    assert scores.metrics["i2t_r1"] == 50
    assert scores.metrics["i2t_map_r"] == pytest.approx(25)  # (1/1 + 0) / 2 and 0
    assert scores.metrics["i2t_medr"] == 1  # recall@1 is 50% already
    assert scores.metrics["t2i_medr"] == 2
    assert scores.metrics["t2i_meanr"] == 2


def normal(n: int, each: int, noise: float, seed: int = 0, width: int = 24) -> tuple[NDArray[Any], ...]:
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(n), each)
    image = rng.normal(size=(n, width))
    text = image[owner] + noise * rng.normal(size=(n * each, width))
    image, text = (emb / np.linalg.norm(emb, axis=1, keepdims=True) for emb in (image, text))
    return image.astype(np.float32), text.astype(np.float32), owner


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("chunk", [7, 64, 10_000])
def test_collapsed_model_ranks_last(dtype: Any, chunk: int) -> None:
    one = normal(1, 1, 0)[0].astype(dtype)
    scores = retrieval_metrics(one.repeat(101, 0), one.repeat(303, 0), np.repeat(np.arange(101), 3), chunk=chunk)
    assert set(scores.i2t_ranks) == {301}
    assert set(scores.t2i_ranks) == {101}
    assert scores.metrics["rsum"] == 0
    assert scores.metrics["i2t_map_r"] == 0


def test_diverged_model_ranks_last() -> None:
    image, text, owner = normal(20, 2, 0.1)
    scores = retrieval_metrics(np.full_like(image, np.nan), text, owner)
    assert scores.metrics["rsum"] == 0
    text[::7] = np.nan  # some captions only: they stand before all others, and are found by nobody
    some = retrieval_metrics(image, text, owner)
    assert some.metrics["i2t_r1"] == 0
    assert (some.t2i_ranks[::7] == 20).all()
    image, text, owner = normal(20, 2, 0.1)
    image[3] = np.nan  # the right picture itself: behind all wrong ones
    assert set(retrieval_metrics(image, text, owner).t2i_ranks[owner == 3]) == {20}


def test_twins_tie_exactly_wherever_they_stand() -> None:
    # Pictures 0..49 come again as 50..99; a twin is as good as the right one, so no caption finds its own first.
    image, text, owner = normal(50, 5, 0.3)
    for chunk in (1, 13, 250):
        scores = retrieval_metrics(np.concatenate([image, image]), text, owner, chunk=chunk)
        assert scores.t2i_ranks.min() == 2


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_chunked_equals_full(dtype: Any) -> None:
    image, text, owner = (part.astype(dtype) if part.dtype == np.float32 else part for part in normal(150, 5, 1.5))
    image[100:] = image[:50]  # ties too
    full = retrieval_metrics(image, text, owner, chunk=10_000)
    assert 0 < full.metrics["t2i_r1"] < 100
    for chunk in (1, 37, 256):
        part = retrieval_metrics(image, text, owner, chunk=chunk)
        for name in Scores.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(part, name), getattr(full, name))


def test_order_of_the_pictures_changes_nothing() -> None:
    image, text, owner = normal(40, 3, 1.0)
    order = np.random.default_rng(2).permutation(40)
    back = np.argsort(order)
    shuffled = retrieval_metrics(image[order], text, back[owner])
    assert shuffled.metrics == pytest.approx(retrieval_metrics(image, text, owner).metrics)


def test_group_mates_count_as_right() -> None:
    image = np.eye(4)[[0, 1, 2, 3]]
    text = np.eye(4)[[1, 0, 2]]  # the captions of 0 and 1 are exchanged; picture 3 has none
    owner = np.array([0, 1, 2])
    assert retrieval_metrics(image, text, owner).metrics["i2t_r1"] == pytest.approx(100 / 3)
    grouped = retrieval_metrics(image, text, owner, groups=["a", "a", None, None])
    assert grouped.metrics["i2t_r1"] == 100
    assert len(grouped.i2t_ranks) == 3
    numbers = retrieval_metrics(image, text, owner, groups=np.array([5, 5, 6, 7]))
    assert numbers.metrics == grouped.metrics


@pytest.mark.parametrize(
    ("n", "owner", "groups", "why"),
    [
        (0, [], None, "nothing to score"),
        (2, [], None, "nothing to score"),
        (2, [0, 2], None, "owner"),
        (2, [0, -1], None, "owner"),
        (2, [0, 1], ["a"], "groups"),
    ],
)
def test_what_cannot_be_scored_is_refused(n: int, owner: list[int], groups: list[object] | None, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        retrieval_metrics(np.ones((n, 2)), np.ones((len(owner), 2)), np.array(owner, dtype=int), groups)


def test_five_folds_are_five_small_sets() -> None:
    image, text, owner = normal(25, 4, 1.0)
    each = []
    for fold in range(5):
        inside = (owner >= 5 * fold) & (owner < 5 * fold + 5)
        part = image[5 * fold : 5 * fold + 5]
        each.append(retrieval_metrics(part, text[inside], owner[inside] - 5 * fold).metrics)
    folded = fold_metrics(image, text, owner)
    assert folded == pytest.approx({key: sum(scores[key] for scores in each) / 5 for key in each[0]})
    assert folded["t2i_meanr"] < retrieval_metrics(image, text, owner).metrics["t2i_meanr"]


def test_memory_stays_under_a_gigabyte_at_full_size() -> None:
    def bound(n: int, m: int, width: int, chunk: int) -> int:
        # Embeddings in float64 (and the queries' copy), one block of similarities in float64 and float32, small change.
        return 8 * width * (2 * n + m) + 14 * chunk * max(n, m) + 2_000_000

    image, text, owner = normal(400, 5, 1.0, width=64)
    tracemalloc.start()
    retrieval_metrics(image, text, owner, chunk=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 2_000_000 < peak < bound(400, 2000, 64, 64)
    assert bound(5000, 25_000, 1024, 256) < 1e9


def test_importing_the_scores_costs_no_torch() -> None:
    look = "import sys, tuwen.metrics.{}\nprint('numpy' in sys.modules, 'torch' in sys.modules)"
    for module in ("retrieval", "bootstrap"):
        ran = subprocess.run([sys.executable, "-c", look.format(module)], capture_output=True, text=True)
        assert ran.stdout.split() == ["True", "False"]


def test_interval_equals_the_loop() -> None:
    values = np.array([1.0, 0, 0, 1, 1, 0, 1])
    owner = np.array([4, 4, 9, 2, 2, 2, 7])
    rng = np.random.default_rng(3)
    names = [2, 4, 7, 9]
    drawn = []
    for _ in range(200):
        rows = [r for g in rng.integers(0, 4, 4) for r in range(7) if owner[r] == names[g]]
        drawn.append(sum(values[r] for r in rows) / len(rows))
    interval = bootstrap_interval(values, groups=owner, n=200, seed=3, level=0.8)
    assert interval == pytest.approx(np.percentile(drawn, [10, 90]).tolist())
    assert interval.low < interval.high


def test_interval_covers_what_it_should() -> None:
    # Of 200 samples of a coin of 0.3, about 95% of the intervals hold 0.3 (between 90% and 99% by a wide margin).
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        low, high = bootstrap_interval((rng.random(150) < 0.3).astype(float), n=300, seed=seed)
        held += low <= 0.3 <= high
    assert 180 <= held <= 198


def test_captions_of_one_picture_are_drawn_together() -> None:
    hits = np.repeat(np.random.default_rng(1).random(60) < 0.5, 5).astype(float)
    owner = np.repeat(np.arange(60), 5)
    alone, together = bootstrap_interval(hits), bootstrap_interval(hits, groups=owner)
    assert together.high - together.low > 1.8 * (alone.high - alone.low)
    assert bootstrap_interval(hits, groups=owner) == together  # the seed is fixed


def test_interval_of_any_statistic() -> None:
    values = np.arange(101.0)
    low, high = bootstrap_interval(values, np.median, n=200)
    assert 25 < low < 50 < high < 75
    assert bootstrap_interval(np.ones(5)) == (1, 1)


def test_paired_difference_sees_what_two_intervals_do_not() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(300)
    after = before + 0.02 + 0.01 * rng.normal(size=300)  # a little better on every picture
    value, low, high = bootstrap_difference(before, after)
    assert 0 < low < value < high
    assert value == pytest.approx(float((after - before).mean()))
    assert bootstrap_interval(before).high > bootstrap_interval(after).low
    assert bootstrap_difference(before, before) == (0, 0, 0)


def test_bootstrap_refuses_what_it_cannot_draw() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval(np.array([]))
    with pytest.raises(ValueError, match="groups"):
        bootstrap_interval(np.ones(3), groups=np.ones(2))
    with pytest.raises(ValueError, match="same queries"):
        bootstrap_difference(np.ones(3), np.ones(2))
