"""Layers against slow, obvious loops; a batch is its rows; padding is never seen."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tuwen import layers

quick = settings(deadline=None, max_examples=25, derandomize=True, database=None)
sizes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 4), st.integers(0, 10_000))


def make_set(rows: int, items: int, width: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features with infinities where the mask is false, and a mask with holes, full and empty rows."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, items, generator=generator) < torch.rand(rows, 1, generator=generator) * 1.5
    x = torch.randn(rows, items, width, generator=generator)
    return x.masked_fill(~mask[..., None], torch.inf), mask


def test_the_sets_hold_the_hard_cases() -> None:
    counts = [make_set(5, 6, 2, seed)[1].sum(1) for seed in range(40)]
    assert any((count == 0).any() for count in counts)
    assert any((count == 6).any() for count in counts)


def slow_pool(x: Tensor, mask: Tensor, pool: str, k: int = 3) -> list[list[float]]:
    out = []
    for row, exists in zip(x, mask, strict=True):
        channels = []
        for channel in row.T:
            kept = sorted((float(v) for v, e in zip(channel, exists, strict=True) if e), reverse=True)
            if pool == "topk":
                kept = kept[:k]
            if pool == "max":
                kept = kept[:1]
            channels.append(sum(kept) / len(kept) if kept else 0.0)
        out.append(channels)
    return out


@quick
@given(sizes)
def test_pooling_equals_the_loop(size: tuple[int, int, int, int]) -> None:
    x, mask = make_set(*size)
    for name, fast in (
        ("mean", layers.masked_mean(x, mask)),
        ("max", layers.masked_max(x, mask)),
        ("topk", layers.topk_mean(x, mask, 3)),
    ):
        torch.testing.assert_close(fast, torch.tensor(slow_pool(x, mask, name)))


def slow_gpo(gpo: layers.GPO, x: Tensor, mask: Tensor) -> Tensor:
    """One row at a time through a GRU of its own length; the code of each place written out."""
    out = []
    for row, exists in zip(x, mask, strict=True):
        items = row[exists]  # (n, D)
        n, width = len(items), gpo.code_width
        if n == 0:
            out.append(torch.zeros(x.shape[2]))
            continue
        codes = torch.zeros(n, width)
        for place in range(n):
            for j in range(0, width, 2):
                angle = place / 10000 ** (j / width)
                codes[place, j], codes[place, j + 1] = math.sin(angle), math.cos(angle)
        states, _ = gpo.rnn(codes[None])
        hidden = states.shape[2] // 2
        scores = gpo.score((states[0, :, :hidden] + states[0, :, hidden:]) / 2)[:, 0]
        weights = (scores / 0.1).softmax(0)
        channels = [
            sum(weights[p] * value for p, value in enumerate(sorted(channel, reverse=True))) for channel in items.T
        ]
        out.append(torch.stack([torch.as_tensor(value) for value in channels]))
    return torch.stack(out)


@quick
@given(sizes)
def test_gpo_equals_the_loop(size: tuple[int, int, int, int]) -> None:
    x, mask = make_set(*size)
    torch.manual_seed(size[3])
    gpo = layers.GPO(code_width=8, hidden=5)
    torch.testing.assert_close(gpo(x, mask), slow_gpo(gpo, x, mask), atol=1e-5, rtol=1e-4)


def test_gpo_without_a_mask_is_gpo_with_a_full_one() -> None:
    gpo, x = layers.GPO(), torch.randn(3, 9, 4)
    torch.testing.assert_close(gpo(x), gpo(x, torch.ones(3, 9, dtype=torch.bool)))


def test_gpo_coefficients_are_weights_and_its_ends_are_mean_and_max() -> None:
    gpo, x = layers.GPO(), torch.randn(2, 6, 4)
    table = gpo.coefficients(torch.arange(1, 7), 6)
    torch.testing.assert_close(table.sum(1), torch.ones(6))
    assert not table[~layers.length_mask(torch.arange(1, 7), 6)].any()
    with torch.no_grad():
        gpo.score.weight.zero_()
    torch.testing.assert_close(gpo(x), x.mean(1))
    gpo.temperature = 1e-6
    with torch.no_grad():
        gpo.score.weight.normal_()
    # At temperature 0 all weight lies on one place: the pooling picks one rank of every channel.
    place = int(gpo.coefficients(torch.tensor([6]), 6).argmax())
    torch.testing.assert_close(gpo(x), x.sort(1, descending=True).values[:, place])


def test_order_of_the_items_changes_nothing() -> None:
    torch.manual_seed(0)
    x, mask = make_set(4, 7, 3, 12)
    order = torch.randperm(7)
    attention = layers.AttentionPool(3, queries=2, hidden=4)
    for pool in (layers.masked_mean, layers.masked_max, layers.GPO(), attention):
        torch.testing.assert_close(pool(x[:, order], mask[:, order]), pool(x, mask))


def test_gradients_are_finite_and_reach_all_parameters() -> None:
    torch.manual_seed(0)
    x, mask = make_set(4, 6, 3, 12)
    mask[0] = False  # an empty row among them
    gpo, attention = layers.GPO(), layers.AttentionPool(3)
    leaf = x.masked_fill(~mask[..., None], 0).requires_grad_()
    loss = gpo(leaf, mask).square().sum() + attention(leaf, mask).square().sum() + layers.masked_max(leaf, mask).sum()
    loss.backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    assert not leaf.grad[~mask].any()  # nothing flows into padding
    parameters = [*gpo.named_parameters(), *attention.named_parameters()]
    assert len(parameters) == 8 + 1 + 3
    for name, parameter in parameters:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    x, mask = make_set(3, 5, 4, 1)
    half = x.to(dtype)
    for pool in (layers.masked_mean, layers.masked_max):
        torch.testing.assert_close(pool(half, mask).float(), pool(x, mask), atol=3e-2, rtol=3e-2)
    gpo = layers.GPO()
    assert gpo(half, mask).dtype == dtype
    torch.testing.assert_close(gpo(half, mask).float(), gpo(x, mask), atol=5e-2, rtol=5e-2)
    unit = layers.l2_normalise(torch.full((1, 400), 200.0, dtype=dtype))  # its squared norm overflows fp16
    assert unit.norm() == pytest.approx(1, abs=1e-3)
    assert layers.l2_normalise(torch.zeros(1, 3)).tolist() == [[0, 0, 0]]


def test_attention_equals_the_loop() -> None:
    torch.manual_seed(3)
    x, mask = make_set(4, 5, 3, 9)
    mask[1] = False
    pool = layers.AttentionPool(3, queries=2, hidden=4)
    for b in range(4):
        items = x[b][mask[b]]
        for q in range(2):
            scores = [float(pool.score(torch.tanh(pool.hidden(item)))[q].detach()) for item in items]
            whole = sum(map(math.exp, scores))
            slow = sum((math.exp(s) / whole * item for s, item in zip(scores, items, strict=True)), torch.zeros(3))
            torch.testing.assert_close(pool(x, mask)[b, q], slow)
    torch.testing.assert_close(pool.weights(x.masked_fill(~mask[..., None], 0), mask).sum(-1)[0], torch.ones(2))
    full = torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(pool(torch.ones(2, 5, 3)), pool(torch.ones(2, 5, 3), full))


RNNS = [
    pytest.param(
        kind, bidirectional, depth, bias, id=f"{kind.__name__}-{'two' if bidirectional else 'one'}-{depth}-{bias}"
    )
    for kind in (nn.GRU, nn.LSTM)
    for bidirectional in (False, True)
    for depth, bias in ((1, True), (1, False), (2, True))
]


@pytest.mark.parametrize(("kind", "bidirectional", "depth", "bias"), RNNS)
@pytest.mark.parametrize("padded", [False, True])
def test_a_batch_of_sentences_equals_each_alone(
    kind: type[nn.GRU] | type[nn.LSTM], bidirectional: bool, depth: int, bias: bool, padded: bool
) -> None:
    torch.manual_seed(1)
    rnn = kind(3, 4, depth, bias=bias, batch_first=True, bidirectional=bidirectional)
    lengths = torch.tensor([2, 6, 1, 4, 6])
    embedded = torch.randn(5, 7, 3)  # what lies behind a length is noise, and longer than any
    outputs, last = layers.encode_sequence(rnn, embedded, lengths, padded=padded)
    directions = 2 if bidirectional else 1
    assert outputs.shape == (5, 7, 4 * directions)
    assert last.shape == (5, 4 * directions)
    for row, length in enumerate(lengths.tolist()):
        alone, _ = rnn(embedded[row : row + 1, :length])
        torch.testing.assert_close(outputs[row, :length], alone[0])
        assert not outputs[row, length:].any()
        torch.testing.assert_close(last[row, :4], alone[0, -1, :4])  # forward: after the last word
        torch.testing.assert_close(last[row, 4:], alone[0, 0, 4:])  # backward: after the first


@pytest.mark.parametrize("padded", [False, True])
def test_an_empty_sentence_gives_zeros(padded: bool) -> None:
    rnn = nn.GRU(3, 4, batch_first=True, bidirectional=True)
    outputs, last = layers.encode_sequence(rnn, torch.randn(2, 3, 3), torch.tensor([0, 3]), padded=padded)
    assert not outputs[0].any()
    assert not last[0].any()
    assert last[1].all()
    with pytest.raises(ValueError, match="batch_first"):
        layers.encode_sequence(nn.GRU(3, 4), torch.randn(2, 3, 3), torch.tensor([1, 3]))


def test_dropping_words_keeps_their_order_and_at_least_one() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(1, 41).repeat(50, 1)
    lengths = torch.arange(50) % 41  # from none to all
    mask = layers.length_mask(lengths, 40)
    dropped, kept = layers.drop_items(ids, mask, 0.3, generator=generator)
    seen = 0
    for row, exists, length in zip(dropped, kept, lengths.tolist(), strict=True):
        words = row[exists].tolist()
        assert words == sorted(set(words))
        assert all(1 <= word <= length for word in words)
        assert bool(words) == (length > 0)
        assert exists.tolist() == [True] * len(words) + [False] * (40 - len(words))  # in front
        assert not row[~exists].any()
        seen += len(words)
    assert seen / int(mask.sum()) == pytest.approx(0.7, abs=0.05)
    _, survivors = layers.drop_items(ids, mask, 0.9999, generator=generator)
    assert survivors.sum(1).tolist() == [min(1, length) for length in lengths.tolist()]
    assert layers.drop_items(ids, mask, 0)[0] is ids


def test_dropping_regions_moves_whole_regions() -> None:
    x = torch.arange(24.0).view(2, 4, 3) + 1
    mask = torch.tensor([[True, False, True, True], [True, True, True, True]])
    moved, kept = layers.drop_items(x, mask, 0.5, generator=torch.Generator().manual_seed(4))
    assert 1 <= int(kept.sum()) < int(mask.sum())
    for row in range(2):
        originals = [tuple(region) for region in x[row][mask[row]].tolist()]
        assert all(tuple(region) in originals for region in moved[row][kept[row]].tolist())
        assert not moved[row][~kept[row]].any()


def test_fcnet_is_weight_normalised_and_ends_in_relu() -> None:
    torch.manual_seed(0)
    net = layers.FCNet([3, 5, 2], dropout=0.5).eval()
    x = torch.randn(4, 3)
    slow = x
    for linear in (net[1], net[4]):
        v, g = linear.parametrizations.weight.original1, linear.parametrizations.weight.original0
        slow = (slow @ (g * v / v.norm()).T + linear.bias).clamp(min=0)
    torch.testing.assert_close(net(x), slow)
    assert g.numel() == 1  # one norm a matrix
    assert [type(layer) for layer in net].count(nn.Dropout) == 2
    assert nn.Dropout not in [type(layer) for layer in layers.FCNet([3, 5, 2])]
    again = layers.FCNet([3, 5, 2], dropout=0.5).eval()
    again.load_state_dict(copy.deepcopy(net.state_dict()))
    torch.testing.assert_close(again(x), net(x))


def test_reversed_gradient() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    out = layers.reverse_gradient(x, 0.5)
    torch.testing.assert_close(out, x)
    (3 * out).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [-1.5, -1.5]


def test_torch_averages_weights_as_we_need_it() -> None:
    # The layers bring no moving average of their own: this is the one that recipes use, buffers included.
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), layers.FCNet([2, 2]))
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    average.update_parameters(model)  # the first update copies
    start = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in [*model.parameters(), model[1].running_mean]:
            value += 1
    average.update_parameters(model)
    moved = 0
    for name, value in average.module.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.9 * start[name] + 0.1 * model.state_dict()[name])
            moved += bool((value != start[name]).all())
    assert moved == 8  # 4 of linear and norm, the running mean, 3 of FCNet
