"""Answerers: nobody's answer depends on a neighbour, nor on padding; losses equal their loops."""

from __future__ import annotations

import math

import pytest
import torch

from tuwen.losses.answers import answer_bce, answer_cross_entropy
from tuwen.models.vqa import FusionTransformer, JointEmbedding
from tuwen.models.vqa.pointers import SPREAD, Pointers, grid_places
from tuwen.models.vqa.slots import Slots

WORDS, ANSWERS, REGIONS, WIDTH = 11, 7, 9, 6
KINDS = [
    "product",
    "concat",
    "lstm",
    "headed joint",
    "fusion",
    "headed fusion",
    "boxed fusion",
    "pointed fusion",
    "boxed pointed fusion",
]
Answerer = JointEmbedding | FusionTransformer
World = dict[str, torch.Tensor]


def make(kind: str, blind: bool = False) -> Answerer:
    torch.manual_seed(0)
    if "fusion" in kind:
        regions, features = 0 if "boxed" in kind else REGIONS, 10 if "headed" in kind else None
        model: Answerer = FusionTransformer(
            WIDTH, WORDS, ANSWERS, regions, features=features, width=8, embedding=6, layers=2, heads=2, feedforward=12,
            gates=2, pointers=3 if "pointed" in kind else 0, limit=9, blind=blind,
        )  # fmt: skip
        return model.eval()
    return JointEmbedding(
        WIDTH, WORDS, ANSWERS, 8, embedding=6, rnn="lstm" if kind == "lstm" else "gru", bidirectional=kind == "lstm",
        layers=2, attention="concat" if kind == "concat" else "product", features=10 if "headed" in kind else None,
        blind=blind,
    ).eval()  # fmt: skip


def world(longest: int = 6) -> World:
    """Pictures, of which the second has two regions only, and questions about them in no order."""
    draw = torch.Generator().manual_seed(1)
    pictures, questions = 3, 7
    regions = torch.randn(pictures, REGIONS, WIDTH, generator=draw)
    mask = torch.ones(pictures, REGIONS, dtype=torch.bool)
    mask[1, 2:] = False
    boxes = torch.rand(pictures, REGIONS, 4, generator=draw)
    ids = torch.randint(1, WORDS, (questions, longest), generator=draw)
    lengths = torch.randint(1, longest + 1, (questions,), generator=draw)
    lengths[0] = longest
    ids = ids.masked_fill(torch.arange(longest) >= lengths[:, None], 0)
    owner = torch.tensor([2, 0, 1, 1, 2, 1, 0])
    return {"regions": regions, "ids": ids, "lengths": lengths, "mask": mask, "boxes": boxes, "owner": owner}


def one(seen: World, q: int) -> World:
    """A question alone: its own picture, cut to the regions it has, its words without padding."""
    p, size = int(seen["owner"][q]), int(seen["lengths"][q])
    there = seen["mask"][p]
    return {
        "regions": seen["regions"][p, there][None],
        "ids": seen["ids"][q : q + 1, :size],
        "lengths": seen["lengths"][q : q + 1],
        "boxes": seen["boxes"][p, there][None],
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_questions_one_by_one(kind: str) -> None:
    model, seen = make(kind), world()
    if "fusion" in kind and "boxed" not in kind:  # these know their regions by place: all are there
        seen["mask"][:] = True
    together, looks = model(**seen), model.attend(**seen)
    assert looks is not None
    assert together.shape == (7, ANSWERS)
    torch.testing.assert_close(looks.sum(1), torch.ones(7))
    for q in range(7):
        alone = one(seen, q)
        torch.testing.assert_close(model(**alone)[0], together[q])
        own = model.attend(**alone)
        assert own is not None
        torch.testing.assert_close(own[0], looks[q, seen["mask"][seen["owner"][q]]])
        assert not looks[q, ~seen["mask"][seen["owner"][q]]].any()
    assert ((together - together[0]).abs().amax(1) > 1e-4).sum() >= 2  # they are not all the same


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind: str) -> None:
    model, seen = make(kind), world()
    want = model(**seen)
    there = seen["mask"][..., None]
    for filler in (1e4, torch.nan):
        wild = {**seen, "regions": seen["regions"].where(there, torch.tensor(filler))}
        torch.testing.assert_close(model(**wild), want)
    longer = {**seen, "ids": torch.nn.functional.pad(seen["ids"], (0, 2))}
    torch.testing.assert_close(model(**longer), want)
    words = {**seen, "ids": seen["ids"].where(seen["ids"] > 0, torch.tensor(5))}
    torch.testing.assert_close(model(**words), want)  # whatever the ids past the end


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_says_nearly_the_same(kind: str) -> None:
    model, seen = make(kind), world()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(**seen)
    assert torch.isfinite(half).all()
    torch.testing.assert_close(half.float(), model(**seen), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_questions_both_count_unless_blind(kind: str) -> None:
    model, seen = make(kind), world()
    other = {**seen, "regions": seen["regions"].flip(2) + 1}
    assert (model(**seen) - model(**other)).abs().max() > 1e-4
    asked = {**seen, "ids": seen["ids"].flip(0), "lengths": seen["lengths"].flip(0)}
    assert (model(**seen) - model(**asked)).abs().max() > 1e-4
    blind = make(kind, blind=True)
    torch.testing.assert_close(blind(**seen), blind(**other))
    assert (blind(**seen) - blind(**asked)).abs().max() > 1e-4
    assert blind.attend(**seen) is None
    assert sum(p.numel() for p in blind.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("blind", [False, True])
def test_gradients_reach_all(kind: str, blind: bool) -> None:
    model, seen = make(kind, blind).train(), world()
    answer_bce(model(**seen), torch.rand(7, ANSWERS)).backward()
    named = list(model.named_parameters())
    silent = [name for name, p in named if p.grad is None or not p.grad.abs().sum() > 0]
    assert not silent
    assert len(named) > 10


def test_the_counter_counts_where_a_mean_cannot() -> None:
    model = make("boxed fusion")
    assert isinstance(model, FusionTransformer)
    assert model.counter is not None
    seen = {name: value[:1] for name, value in world().items() if name != "owner"}
    once = {name: value[:, :1] if name in ("regions", "boxes", "mask") else value for name, value in seen.items()}
    twice = {name: value[:, [0, 0]] if name in ("regions", "boxes", "mask") else value for name, value in seen.items()}
    assert (model(**once) - model(**twice)).abs().max() > 1e-4
    model.counter = None
    torch.testing.assert_close(model(**once), model(**twice))  # softmax weights sum to one: the same thing twice is one


def test_pointers_against_their_loop() -> None:
    torch.manual_seed(0)
    seen, width = world(), 8
    model = Pointers(width, 3)
    torch.nn.init.normal_(model.taste)
    slots = Slots(3, seen["owner"], 7)
    state, words = torch.randn(7, width), torch.randn(7, 6, width)
    content, memory = torch.randn(3, REGIONS, width), torch.randn(3, REGIONS, width)
    places = torch.rand(3, REGIONS, 2)
    exist = torch.arange(6) < seen["lengths"][:, None]
    got = model(state, words, exist, content, memory, places, seen["mask"], slots)
    for q in range(7):
        p, size = int(seen["owner"][q]), int(seen["lengths"][q])
        there = seen["mask"][p]
        heard = model.words_norm(words[q, :size])
        finds, stands = [], []
        for k in range(3):
            near = torch.tensor([((t + 0.5) / size - float(model.centre.detach()[k])) / SPREAD for t in range(size)])
            read = (heard @ model.taste[k] - near**2 / 2).softmax(0) @ heard
            look = (model.key(content[p, there]) @ model.query(read) / width**0.5).softmax(0)
            finds.append(look @ model.value(memory[p, there]))
            stands.append(look @ places[p, there])
        apart = [4 * (stands[i] - stands[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        torch.testing.assert_close(got[q], model.mix(torch.cat([*finds, *apart, state[q]])))


def test_pointers_tell_which_thing_is_left_of_which() -> None:
    """`a b` and `b a` of the same picture: what is found is swapped, and the distance changes its sign."""
    model = Pointers(2, 2)
    with torch.no_grad():
        model.taste.zero_()
        for layer in (model.query, model.key, model.value):
            layer.weight.copy_(10 * torch.eye(2))
            layer.bias.zero_()
    heard: list[torch.Tensor] = []
    model.mix = torch.nn.Sequential(torch.nn.Identity())
    a, b = torch.eye(2)
    things, places = torch.stack([a, b])[None], torch.tensor([[[0.2, 0.5], [0.7, 0.5]]])  # a stands left of b
    for words in (torch.stack([a, b]), torch.stack([b, a])):
        exist = torch.ones(1, 2, dtype=torch.bool)
        heard.append(model(torch.zeros(1, 2), words[None], exist, things, things, places, None, Slots(1, None, 1))[0])
    first, second = heard
    torch.testing.assert_close(first[:4], second[[2, 3, 0, 1]])
    torch.testing.assert_close(first[4:6], torch.tensor([-4 * 0.5, 0.0]), atol=0.05, rtol=0)
    torch.testing.assert_close(second[4:6], -first[4:6])


def test_the_middles_of_a_grid() -> None:
    assert grid_places(4).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]


def test_dropped_regions_leave_one() -> None:
    model = make("boxed fusion").train()
    assert isinstance(model, FusionTransformer)
    model.region_dropout = 0.5
    seen = world()
    torch.manual_seed(0)
    kept = [model._drop_regions(seen["regions"], seen["mask"]) for _ in range(50)]
    counts = torch.stack([mask.sum(1) for mask in kept if mask is not None])
    assert counts.shape == (50, 3)
    assert counts.min() == 1
    assert not any(mask is None or (mask & ~seen["mask"]).any() for mask in kept)
    assert 4 < counts[:, 0].float().mean() < 5


def test_questions_without_owner_need_a_picture_each() -> None:
    model, seen = make("fusion"), world()
    with pytest.raises(ValueError, match="7 questions about 3 pictures"):
        model(seen["regions"], seen["ids"], seen["lengths"])


# Losses


@pytest.mark.parametrize("times", [True, False])
def test_bce_against_its_loop(times: bool) -> None:
    torch.manual_seed(0)
    logits, scores = torch.randn(4, ANSWERS), torch.rand(4, ANSWERS)
    slow = 0.0
    for b in range(4):
        for a in range(ANSWERS):
            p, s = 1 / (1 + math.exp(-logits[b, a].item())), scores[b, a].item()
            slow -= s * math.log(p) + (1 - s) * math.log(1 - p)
    slow /= 4 if times else 4 * ANSWERS
    assert answer_bce(logits, scores, times).item() == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("times", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_against_its_loop(times: bool, smoothing: float) -> None:
    torch.manual_seed(0)
    logits, scores = torch.randn(4, ANSWERS), torch.rand(4, ANSWERS)
    scores[2] = 0  # nothing known: it costs nothing and counts for nothing
    slow = 0.0
    for b in (0, 1, 3):
        norm = math.log(sum(math.exp(value) for value in logits[b].tolist()))
        total = sum(scores[b].tolist())
        for a in range(ANSWERS):
            share = (1 - smoothing) * scores[b, a].item() / total + smoothing / ANSWERS
            slow -= share * (logits[b, a].item() - norm)
    slow = slow / 3 * (ANSWERS if times else 1)
    assert answer_cross_entropy(logits, scores, smoothing, times).item() == pytest.approx(slow, rel=1e-5)
    assert answer_cross_entropy(logits, torch.zeros_like(scores), smoothing, times).item() == 0
