"""Gains: against sums by hand, and verdicts that the data can bear."""

from __future__ import annotations

import numpy as np
import pytest

from tuwen.metrics.gain import recall_gain
from tuwen.metrics.retrieval import Scores, retrieval_metrics


def scores(n: int, right: int, each: int = 2, seed: int = 0) -> Scores:
    """n pictures of which the first `right` and their captions find each other, the others nothing."""
    eye = np.eye(2 * n)
    image = eye[:n]
    owner = np.repeat(np.arange(n), each)
    text = np.where((owner < right)[:, None], eye[owner], eye[n + owner])
    return retrieval_metrics(image, text, owner)


def test_differences_are_those_of_the_recalls() -> None:
    before, after = scores(40, 10), scores(40, 25)
    gain = recall_gain(before, after, np.arange(40))
    assert set(gain.recalls) == {f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)}
    for key, difference in gain.recalls.items():
        assert difference.value == pytest.approx(after.metrics[key] - before.metrics[key])
        assert difference.low <= difference.value <= difference.high
    by_hand = np.mean([after.metrics[key] - before.metrics[key] for key in gain.recalls])
    assert gain.mean.value == pytest.approx(by_hand)
    assert gain.verdict == "improved"


def test_verdicts() -> None:
    assert recall_gain(scores(40, 25), scores(40, 10), np.arange(40)).verdict == "worse"
    same = recall_gain(scores(100, 50), scores(100, 50), np.arange(100))
    assert same.verdict == "no gain to be seen"
    assert (same.mean.low, same.mean.high, same.smallest) == (0, 0, 1.0)
    few = recall_gain(scores(19, 0), scores(19, 19), np.arange(19))
    assert few.verdict == "the data is too small to tell"
    assert recall_gain(scores(20, 0), scores(20, 20), np.arange(20)).verdict == "improved"


def test_a_change_in_both_directions_is_no_proof_either_way() -> None:
    n = 30
    before = scores(n, 15)
    swapped = np.r_[np.arange(n - 15, n), np.arange(n - 15)]
    ranks = {name: getattr(before, name) for name in Scores.__dataclass_fields__}
    ranks["i2t_ranks"] = before.i2t_ranks[swapped]
    ranks["t2i_ranks"] = before.t2i_ranks.reshape(n, 2)[swapped].ravel()
    gain = recall_gain(before, Scores(**ranks), np.arange(n))
    assert gain.mean.low < 0 < gain.mean.high
    assert gain.smallest > 5
    assert gain.verdict == "the data is too small to tell"


def test_one_identity_is_drawn_whole() -> None:
    before, after = scores(40, 10), scores(40, 25)
    alone = recall_gain(before, after, np.arange(40)).mean
    together = recall_gain(before, after, np.arange(40) // 5).mean
    assert together.value == alone.value
    assert together.high - together.low > alone.high - alone.low


def test_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="same queries"):
        recall_gain(scores(30, 10), scores(31, 10), np.arange(31))
