"""Batches: each picture once, every caption in its turn, the same again for the same seed, shares that add up."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tuwen.errors import DataError
from tuwen.tasks.pairs import PairBatches, Pairs
from tuwen.tasks.pictures import Cached


def pairs(n: int = 10, english: int = 5, chinese: int = 5) -> Pairs:
    owner = np.repeat(np.arange(n), english + chinese)
    langs = np.array((["en"] * english + ["zh"] * chinese) * n)
    ids = [np.array([i + 3]) for i in range(len(owner))]  # a caption's only token is its own number
    return Pairs(Cached([np.arange(n * 2.0).reshape(n, 2)]), ids, owner, langs, np.arange(n))


def test_each_picture_once_a_batch_and_every_caption_once_an_epoch() -> None:
    data = pairs()
    batches = PairBatches(data, captions=1, batch_size=5, seed=3, pad_id=0)
    assert (batches.rounds, len(batches)) == (5, 10)
    seen = []
    for index in range(len(batches)):
        batch = batches[index]
        rows = batch["pictures"][:, 0, 0] / 2
        assert len(set(rows.tolist())) == 5
        captions = batch["ids"][:, 0] - 3
        assert torch.equal(rows[batch["owner"]].long(), torch.from_numpy(data.owner[captions]))
        assert torch.equal(batch["labels"][batch["owner"]], batch["caption_labels"])
        assert batch["caption_zh"].tolist() == [str(data.langs[c]) == "zh" for c in captions]
        seen += captions.tolist()
    assert sorted(seen) == list(range(len(data.owner)))


def test_missing_captions_are_repeated_and_surplus_ones_sampled() -> None:
    few = PairBatches(pairs(4, english=2, chinese=0), captions=5, batch_size=4, seed=0, pad_id=0)
    assert few.rounds == 1
    counts = torch.bincount(few[0]["ids"][:, 0] - 3, minlength=8)
    assert counts.sum() == 20
    assert set(counts.tolist()) == {2, 3}
    many = PairBatches(pairs(4, english=12, chinese=0), captions=5, batch_size=4, seed=0, pad_id=0)
    chosen = {tuple(sorted((many.set_epoch(e), many[0])[1]["ids"][:, 0].tolist())) for e in range(6)}
    assert len(chosen) > 3


def test_a_batch_is_a_function_of_seed_epoch_and_index() -> None:
    first, second = (PairBatches(pairs(), captions=2, batch_size=4, seed=1, pad_id=0) for _ in range(2))
    second.set_epoch(3), second.set_epoch(1), first.set_epoch(1)
    for index in range(len(first)):
        one, other = first[index], second[index]
        assert all(torch.equal(one[key], other[key]) for key in one)
    other = PairBatches(pairs(), captions=2, batch_size=4, seed=2, pad_id=0)
    assert not torch.equal(other[0]["pictures"], first[0]["pictures"])


def test_the_shares_of_two_processes_are_the_whole_batch() -> None:
    whole = PairBatches(pairs(), captions=1, batch_size=4, seed=0, pad_id=0)
    parts = [PairBatches(pairs(), captions=1, batch_size=4, seed=0, pad_id=0, rank=r, world=2) for r in range(2)]
    for index in range(len(whole)):
        halves = [part[index] for part in parts]
        for key in ("pictures", "ids", "labels", "caption_labels"):
            assert torch.equal(torch.cat([half[key] for half in halves]), whole[index][key])
    with pytest.raises(DataError, match="does not divide"):
        PairBatches(pairs(), captions=1, batch_size=5, seed=0, pad_id=0, world=2)


def test_hard_neighbours_come_together() -> None:
    batches = PairBatches(pairs(), captions=5, batch_size=2, seed=0, pad_id=0)
    batches.neighbours = (np.arange(10)[:, None] ^ 1).astype(np.int64)  # 0-1, 2-3, ...
    batches.set_epoch(1)
    for index in range(len(batches)):
        a, b = batches[index]["labels"].tolist()
        assert a ^ 1 == b


def test_views_are_drawn_for_training_alone() -> None:
    source = Cached([np.zeros((6, 2)), np.ones((6, 2))])
    rows = np.arange(6)
    assert source.gather(rows, None).eq(0).all()
    drawn = {tuple(source.gather(rows, np.random.default_rng(seed))[:, 0, 0].tolist()) for seed in range(8)}
    assert len(drawn) > 4
