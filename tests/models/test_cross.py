"""The re-ranker's cross-attention: against slow loops, by pairs and by lists, and through its gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from tuwen.models.retrieval import Cross

LENGTHS = torch.tensor([4, 1, 3])


def model(**settings: float) -> Cross:
    torch.manual_seed(0)
    made = Cross(7, 5, width=6, heads=2, hidden=4, **settings)
    with torch.no_grad():
        for part in (made.out, made.gate):
            part.weight.normal_()
    return made.eval()


def inputs() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(2, 9, 7, generator=draw), torch.randn(3, 4, 5, generator=draw)


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


def slow(cross: Cross, grid: Tensor, states: Tensor) -> float:
    """One picture (N, D) and one sentence (T, D), word by word and head by head."""
    scores, gates = [], []
    grid = layer_norm(grid, (7,))
    for state in states:
        word = layer_norm(state, (5,))
        cosine, match = 0.0, []
        for head in range(2):
            part = slice(3 * head, 3 * head + 3)
            query, told = unit(cross.query(word)[part]), unit(cross.told(word)[part])
            keys = [unit(cross.key(region)[part]) for region in grid]
            values = [unit(cross.value(region)[part]) for region in grid]
            heat = float(cross.log_temperature[head].exp())
            looks = [math.exp(heat * float(query @ key)) for key in keys]
            seen = unit(sum(look / sum(looks) * value for look, value in zip(looks, values, strict=True)))
            cosine += float(cross.cosine[head]) * float(seen @ told)
            match.append(seen * told * math.sqrt(3))
        hidden = gelu(cross.seen(torch.cat(match)) + cross.word(word))
        scores.append(cosine + float(cross.out(hidden)))
        gates.append(math.exp(float(cross.gate(word))))
    return sum(gate / sum(gates) * score for gate, score in zip(gates, scores, strict=True))


def test_pairs_lists_and_all_against_all_equal_the_slow_loop() -> None:
    cross, (grids, states) = model(), inputs()
    with torch.no_grad():
        expected = torch.tensor([[slow(cross, g, s[:n]) for s, n in zip(states, LENGTHS, strict=True)] for g in grids])
        regions, words = cross.read_regions(grids), cross.read_words(states)
        torch.testing.assert_close(cross.compare(regions, words, LENGTHS), expected, rtol=1e-4, atol=1e-5)
        lists = torch.tensor([[2, 0], [1, 1]])
        (listed,) = cross(grids, states, LENGTHS, [lists])
        torch.testing.assert_close(listed, expected.gather(1, lists), rtol=1e-4, atol=1e-5)
        pairs = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([2, 1, 0, 2, 0])
        torch.testing.assert_close(
            cross.score_pairs(regions, words, LENGTHS, pairs), expected[pairs], rtol=1e-4, atol=1e-5
        )
    assert expected.std() > 0.1


def test_padding_is_never_seen() -> None:
    cross, (grids, states) = model(), inputs()
    other = states.clone()
    other[1, 1:] = 99.0
    with torch.no_grad():
        one, two = (cross(grids, s, LENGTHS, [torch.tensor([[0, 1], [1, 2]])])[0] for s in (states, other))
    torch.testing.assert_close(one, two)


def test_it_begins_as_the_mean_cosine_of_its_words() -> None:
    torch.manual_seed(0)
    cross, (grids, states) = Cross(7, 5, width=6, heads=2, hidden=4).eval(), inputs()
    with torch.no_grad():
        got = cross.compare(cross.read_regions(grids), cross.read_words(states), LENGTHS)
    assert got.abs().max() <= 20


def test_gradients_reach_every_parameter() -> None:
    cross, (grids, states) = model(region_dropout=0.4).train(), inputs()
    scores = cross(grids, states, LENGTHS, [torch.tensor([[0, 1], [1, 2]]), torch.tensor([[2], [0]])])
    assert [tuple(part.shape) for part in scores] == [(2, 2), (2, 1)]
    sum(part.square().sum() for part in scores).backward()
    assert [name for name, p in cross.named_parameters() if p.grad is None or not p.grad.any()] == []
