"""Captioners: what is fed word by word equals what is fed at once, nobody's caption depends on a neighbour's."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from tuwen import decode
from tuwen.models.captioning import ShowTell, TransformerCaptioner

VOCABULARY, END, REGIONS, WIDTH = 11, 3, 9, 6
KINDS = ["show-tell", "tied show-tell", "transformer", "headed transformer"]
Captioner = ShowTell | TransformerCaptioner


def make(kind: str) -> Captioner:
    torch.manual_seed(0)
    if "show-tell" in kind:
        return ShowTell(WIDTH, VOCABULARY, 8, 8, layers=2, tied="tied" in kind, silent=[0, 1, 2]).eval()
    return TransformerCaptioner(
        WIDTH,
        VOCABULARY,
        REGIONS,
        features=10 if "headed" in kind else None,
        width=8,
        heads=2,
        feedforward=12,
        langs=2,
        limit=12,
        silent=[0, 1, 2],
    ).eval()


def world(pictures: int = 5, captions: int = 3, longest: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures, ids (P, K, T) that end in END, lengths (P, K); one caption is missing."""
    draw = torch.Generator().manual_seed(1)
    seen = torch.randn(pictures, REGIONS, WIDTH, generator=draw)
    ids = torch.randint(4, VOCABULARY, (pictures, captions, longest), generator=draw)
    lengths = torch.randint(2, longest + 1, (pictures, captions), generator=draw)
    lengths[0, 0] = longest
    lengths[2, 2] = 0
    place = torch.arange(longest)
    ids = torch.where(place == lengths[..., None] - 1, END, ids).masked_fill(place >= lengths[..., None], 0)
    return seen, ids, lengths


@pytest.mark.parametrize("kind", KINDS)
def test_steps_give_what_a_whole_caption_gives(kind: str) -> None:
    model = make(kind)
    seen, ids, lengths = world()
    whole = model(seen, {1: (ids, lengths)})[1].split(lengths.flatten().tolist())
    stepper = model.stepper(seen, 1)
    logits, state = stepper.start()
    # Three hypotheses from the second word on: the state of one is the state of all until then.
    state = {name: value.expand(-1, 3, *value.shape[2:]) for name, value in state.items()}
    steps = [logits.expand(-1, 3, -1)]
    for place in range(ids.shape[2] - 1):
        logits, state = stepper.step(ids[..., place], state)
        steps.append(logits)
    made = torch.stack(steps, 2)  # (P, K, T, V)
    compared = 0
    for number, (p, k) in enumerate((p, k) for p in range(5) for k in range(3)):
        size = int(lengths[p, k])
        spoken = torch.arange(VOCABULARY) > 2  # the others are silent where words are chosen
        torch.testing.assert_close(made[p, k, :size, spoken], whole[number][:, spoken])
        assert torch.isinf(made[p, k, :, ~spoken]).all()
        compared += size
    assert compared == lengths.sum() > 30


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_captions_one_by_one(kind: str) -> None:
    model = make(kind)
    seen, ids, lengths = world()
    together = model(seen, {0: (ids, lengths)})[0]
    alone = [
        model(seen[p : p + 1], {0: (ids[p, k, : lengths[p, k]][None, None], lengths[p, k][None, None])})[0]
        for p in range(5)
        for k in range(3)
        if lengths[p, k]
    ]
    assert len(alone) == 14
    torch.testing.assert_close(together, torch.cat(alone))
    words = torch.cat([ids[p, k, : lengths[p, k]] for p in range(5) for k in range(3)])
    single = [
        F.cross_entropy(own, part, reduction="sum")
        for own, part in zip(alone, words.split([len(own) for own in alone]), strict=True)
    ]
    torch.testing.assert_close(F.cross_entropy(together, words, reduction="sum"), torch.stack(single).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_a_word_does_not_see_what_comes_after_it(kind: str) -> None:
    model = make(kind)
    seen, ids, _ = world()
    lengths = torch.full((5, 3), ids.shape[2])
    before = model(seen, {0: (ids, lengths)})[0].view(5, 3, -1, VOCABULARY)
    changed = ids.clone()
    changed[..., 3] = (ids[..., 3] + 1) % VOCABULARY
    after = model(seen, {0: (changed, lengths)})[0].view_as(before)
    torch.testing.assert_close(after[..., :4, :], before[..., :4, :])
    assert not torch.allclose(after[..., 4, :], before[..., 4, :])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_a_batch_decodes_as_each_picture_alone(kind: str, way: str) -> None:
    model = make(kind)
    seen = world()[0]

    def run(pictures: torch.Tensor) -> decode.Decoded:
        stepper = model.stepper(pictures, 0)
        return decode.greedy(stepper, END, 8) if way == "greedy" else decode.beam(stepper, END, 8, width=3)

    together = run(seen)
    for p in range(5):
        one = run(seen[p : p + 1])
        size = one.ids.shape[2]
        assert torch.equal(together.ids[p, :, :size], one.ids[0])
        assert not together.ids[p, :, size:].any()
        torch.testing.assert_close(together.scores[p], one.scores[0])
    assert not torch.isin(together.ids, torch.tensor([1, 2])).any()


def test_attention_of_each_word_is_a_distribution_that_the_picture_moves() -> None:
    model = make("headed transformer")
    seen, ids, _ = world()
    weights = model.attend(seen, ids[:, 0], 1)
    assert weights is not None
    assert weights.shape == (5, 6, REGIONS)
    torch.testing.assert_close(weights.sum(-1), torch.ones(5, 6))
    moved = model.attend(seen.flip(1), ids[:, 0], 1)
    assert moved is not None
    assert not torch.allclose(weights, moved)
    assert make("show-tell").attend(seen, ids[:, 0], 0) is None


def test_languages_start_apart_and_regions_have_places() -> None:
    model = make("transformer")
    seen, ids, lengths = world()
    both = model(seen, {0: (ids, lengths), 1: (ids, lengths)})
    assert not torch.allclose(both[0], both[1])
    torch.testing.assert_close(both[1], model(seen, {1: (ids, lengths)})[1])
    assert not torch.allclose(both[0], model(seen.flip(1), {0: (ids, lengths)})[0])


@pytest.mark.parametrize("kind", KINDS)
def test_first_loss_is_about_the_log_of_the_vocabulary(kind: str) -> None:
    model = make(kind)
    seen, ids, lengths = world()
    words = torch.cat([ids[p, k, : lengths[p, k]] for p in range(5) for k in range(3)])
    loss = F.cross_entropy(model(seen, {0: (ids, lengths)})[0], words)
    assert loss.item() == pytest.approx(math.log(VOCABULARY), abs=0.5)


def test_tied_words_share_one_matrix() -> None:
    model = make("tied show-tell")
    assert model.output.weight is model.embedding.weight
    with pytest.raises(ValueError, match="embedding = width"):
        ShowTell(WIDTH, VOCABULARY, 8, 6, tied=True)
