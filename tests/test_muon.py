"""Muon against its mathematics: orthogonal updates, AdamW for the rest, kernels as matrices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tuwen.muon import Muon, hidden_matrices, orthogonalise

RATE, DECAY = 0.01, 0.1


class Net(nn.Module):
    """One of each kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.places = nn.Parameter(torch.randn(5, 6))
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)
        self.kernel = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.LayerNorm(6)
        self.recurrence = nn.GRU(6, 5)
        self.out = nn.Linear(5, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.words(ids) + self.places
        x = x + self.attention(x, x, x)[0]
        x = self.norm(self.kernel(x[:, None]).mean(1))
        out: torch.Tensor = self.out(self.recurrence(x)[0])
        return out


def groups_of(net: Net) -> list[dict[str, object]]:
    hidden = list(hidden_matrices(net))
    ids = {id(p) for p in hidden}
    rest = [p for p in net.parameters() if id(p) not in ids]
    return [{"params": hidden, "hidden": True, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}]


@pytest.mark.parametrize("shape", [(8, 8), (5, 20), (20, 5), (1, 7)])
def test_update_is_nearly_orthogonal(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    update = orthogonalise(matrix)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    seen = left.T @ update @ right.T
    assert values.min() > 0.02 * values.norm()  # smaller ones need more rounds
    assert torch.allclose(seen, torch.diag(seen.diagonal()), atol=1e-4)
    assert seen.diagonal().min() > 0.6
    assert seen.diagonal().max() < 1.25
    assert torch.allclose(orthogonalise(100 * matrix), update, atol=1e-4)


def test_no_gradient_gives_no_update() -> None:
    assert torch.equal(orthogonalise(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_hidden_are_the_weights_that_multiply() -> None:
    net = Net()
    names = {id(p): name for name, p in net.named_parameters()}
    assert {names[id(p)] for p in hidden_matrices(net)} == {
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "kernel.weight",
        "recurrence.weight_ih_l0",
        "recurrence.weight_hh_l0",
        "out.weight",
    }


def test_steps_equal_the_slow_ones() -> None:
    """Three steps: matrices by the written-out rule, the rest exactly as AdamW alone would."""
    torch.manual_seed(1)
    net = Net().double()  # the key's bias has no gradient but rounding, which AdamW would blow up
    slow = copy.deepcopy(net)
    fast = Muon(groups_of(net), lr=RATE, betas=(0.9, 0.98))
    matrices = list(hidden_matrices(slow))
    ids = {id(p) for p in matrices}
    adamw = torch.optim.AdamW(
        [p for p in slow.parameters() if id(p) not in ids], lr=RATE, betas=(0.9, 0.98), weight_decay=0.0
    )
    momenta = [torch.zeros_like(p) for p in matrices]
    for step in range(3):
        tokens = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(step))
        for model in (net, slow):
            model.zero_grad()
            F.cross_entropy(model(tokens).flatten(0, 1), torch.arange(20) % 3).backward()
        fast.step()
        adamw.step()
        with torch.no_grad():
            for p, momentum in zip(matrices, momenta, strict=True):
                assert p.grad is not None
                momentum.mul_(0.95).add_(0.05 * p.grad)
                ahead = (0.05 * p.grad + 0.95 * momentum).reshape(len(p), -1)
                update = orthogonalise(ahead).reshape(p.shape)
                longest = max(len(p), p[0].numel())
                p.copy_(p * (1 - RATE * DECAY) - RATE * 0.2 * longest**0.5 * update)
    compared = 0
    for (name, mine), other in zip(net.named_parameters(), slow.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6), name
        compared += mine.numel()
    assert compared == sum(p.numel() for p in Net().parameters())


def test_state_is_all_tensors_and_restores() -> None:
    """`last/` keeps the optimiser's state as tensors; a copy that takes it goes on alike."""
    torch.manual_seed(2)
    net = Net()
    first = Muon(groups_of(net), lr=RATE)

    def step(model: Net, optimiser: Muon) -> None:
        optimiser.zero_grad()
        model(torch.arange(20).view(4, 5) % 11).square().mean().backward()
        optimiser.step()

    step(net, first)
    state = copy.deepcopy(first.state_dict())
    assert all(isinstance(v, torch.Tensor) for values in state["state"].values() for v in values.values())
    other = copy.deepcopy(net)
    second = Muon(groups_of(other), lr=RATE)
    second.load_state_dict(state)
    step(net, first)
    step(other, second)
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
