"""Drawing models: gradients stay on their side, guidance 1 is no guidance, and the samplers follow the flow."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tuwen import losses
from tuwen.models.text_to_image import (
    METHODS,
    Conditioning,
    Critic,
    Decoder,
    FlowUNet,
    Generator,
    Painter,
    Sampling,
    SmallEncoder,
    integrate,
    times,
)

SIZE, VOCABULARY, TOLD = 16, 11, 8


def encoder() -> SmallEncoder:
    torch.manual_seed(0)
    return SmallEncoder(VOCABULARY, TOLD, layers=1, heads=2, limit=7)


def painter(kind: str, matches: int = 6) -> Painter:
    generator = Decoder(TOLD, SIZE, 3) if kind == "published" else Generator(TOLD, SIZE, 3, 8)
    critic = Critic(TOLD, SIZE, 8, judges=True, matches=matches)
    return Painter(
        encoder(), generator, size=SIZE, conditioning=Conditioning(TOLD, TOLD) if kind == "published" else None,
        critic=critic, judges=True, matches=bool(matches), penalised=True,
    )  # fmt: skip


def flow(**changes: object) -> FlowUNet:
    model = FlowUNet(encoder(), SIZE, patch=2, widths=(8, 16), blocks=(1, 1), heads=2, **changes)  # type: ignore[arg-type]
    return model.eval()


def stir(model: nn.Module) -> None:
    """Weights that begin at zero let nothing through: move them."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for value in model.parameters():
            value += 0.05 * torch.randn(value.shape, generator=draw)


def world(count: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    pictures = torch.rand(count, 3, SIZE, SIZE, generator=draw) * 2 - 1
    lengths = torch.randint(2, 6, (count,), generator=draw)
    lengths[0] = 6
    ids = torch.randint(4, VOCABULARY, (count, 6), generator=draw)
    return pictures, ids.masked_fill(torch.arange(6) >= lengths[:, None], 0), lengths


def reached(part: torch.Tensor, model: nn.Module) -> set[str]:
    """The children of a model that a loss part's gradient moves."""
    model.zero_grad()
    part.backward(retain_graph=True)
    return {
        name.split(".")[0]
        for name, p in model.named_parameters()
        if p.grad is not None and float(p.grad.abs().sum()) > 0
    }


@pytest.mark.parametrize("kind", ["published", "gan"])
def test_each_player_moves_its_own_weights_only(kind: str) -> None:
    model = painter(kind)
    stir(model)
    pictures, ids, lengths = world()
    out = model(pictures, ids, lengths)
    drawers = {"text", "generator", *(["conditioning"] if kind == "published" else [])}
    expected = {
        "drawn": drawers,
        "fooled": drawers,
        "drawn_match": drawers,
        "real": {"critic"},
        "wrong": {"critic"},
        "fake": {"critic"},
        "slope": {"critic"},
        "true_match": {"critic", "text"},
    }
    for name, players in expected.items():
        assert reached(out[name].float().square().sum(), model) == players, name
    assert len(expected) == len(out) - (2 if kind == "published" else 0)
    # What fools it is what it judges: the same numbers by two ways.
    torch.testing.assert_close(out["fooled"], out["fake"])


def test_every_weight_learns() -> None:
    pictures, ids, lengths = world()
    counted = 0
    for model in (painter("published"), painter("gan"), flow(eye=Critic(TOLD, SIZE, 8, judges=False, matches=6))):
        stir(model)
        model.train()
        out = model(pictures.clone(), ids, lengths)
        sum((part.float().square().sum() for part in out.values() if part.requires_grad), torch.zeros(())).backward()
        still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert still in ([], ["nothing"])  # of hidden sentences: none may have been drawn
        counted += len(list(model.parameters()))
    assert counted > 150


def test_the_slope_is_the_gradient_at_true_pairs() -> None:
    model = painter("gan", matches=0)
    stir(model)
    pictures, ids, lengths = world(2)
    slope = model(pictures, ids, lengths)["slope"]
    assert model.critic is not None
    told = model.text(ids, lengths).mean.detach()

    def judged(p: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return model.critic(p[None], s[None])[0]  # type: ignore[misc]

    pairs = (torch.func.grad(judged, (0, 1))(p, s) for p, s in zip(pictures.detach(), told, strict=True))
    torch.testing.assert_close(slope, torch.stack([sum(g.norm() for g in pair) for pair in pairs]))  # type: ignore[misc]


@pytest.mark.parametrize("method", METHODS)
def test_guidance_of_one_is_no_guidance(method: str) -> None:
    model = flow(sampling=Sampling(4, method, 2.0, 1.0))  # type: ignore[arg-type]
    stir(model)
    _, ids, lengths = world()
    noise = torch.randn(6, *model.noise_shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        told = model.text(ids, lengths)
        plain = integrate(
            lambda x, t: model.guess(x, torch.full((6,), t), told),
            noise,
            4,
            method=method,
            shift=2.0,  # type: ignore[arg-type]
        )
        assert torch.equal(model.draw(ids, lengths, noise, guidance=1.0), plain.clamp(-1, 1))
        near = model.draw(ids, lengths, noise, guidance=1.0 + 1e-9)  # by the way of both, words and none
        torch.testing.assert_close(near, plain.clamp(-1, 1), atol=1e-4, rtol=1e-4)
        assert not torch.allclose(model.draw(ids, lengths, noise, guidance=3.0), plain.clamp(-1, 1), atol=1e-3)
        nothing = model.draw(ids, lengths, noise, guidance=0.0)
        torch.testing.assert_close(nothing, model.draw(ids.roll(1, 0), lengths.roll(1), noise, guidance=0.0))


def test_a_draft_stays_where_it_is_to_stay() -> None:
    model = flow()
    stir(model)
    ids, lengths = torch.tensor([[1, 2, 3], [4, 5, 0]]), torch.tensor([3, 2])
    noise = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4))
    pixels, where = torch.full((2, 3, SIZE, SIZE), 0.5), torch.zeros(2, 1, SIZE, SIZE, dtype=torch.bool)
    with torch.inference_mode():
        free = model.draw(ids, lengths, noise, draft=(pixels, where))
        where[1, :, :4] = True
        drawn = model.draw(ids, lengths, noise, draft=(pixels, where))
    torch.testing.assert_close(drawn[0], free[0])
    torch.testing.assert_close(drawn[1, :, :4], pixels[1, :, :4])
    assert not torch.allclose(drawn[1, :, 4:], free[1, :, 4:])  # the rest is drawn to fit it


@pytest.mark.parametrize("steps", [1, 2, 12])
def test_a_draft_is_where_the_flow_begins(steps: int) -> None:
    noise, draft = torch.randn(2, 1, 3), torch.randn(2, 1, 3)
    begun: list[tuple[torch.Tensor, float]] = []

    def guess(x: torch.Tensor, t: float) -> torch.Tensor:
        begun.append((x, t))
        return torch.zeros_like(x)

    integrate(guess, noise, steps, shift=3.0, draft=draft)
    x, t = begun[0]
    assert t == {1: 0.0, 2: 0.25, 12: pytest.approx(0.4)}[steps]
    torch.testing.assert_close(x, (1 - t) * noise + t * draft)


@pytest.mark.parametrize("method", METHODS)
def test_more_steps_come_nearer_to_the_flow(method: str) -> None:
    """Data N(m, s^2): the best guess is known, and so is where the flow takes each noise: m + s x noise."""
    m, s = 0.7, 0.3

    def guess(x: torch.Tensor, t: float) -> torch.Tensor:
        return m + s * s * t / ((1 - t) ** 2 + s * s * t * t) * (x - t * m)

    noise = torch.linspace(-2, 2, 9)[:, None].double()

    def error(steps: int, way: str) -> float:
        made = integrate(guess, noise, steps, method=way, shift=2.0)  # type: ignore[arg-type]
        return float((made - (m + s * noise)).abs().max())

    errors = [error(n, method) for n in (4, 8, 16, 32, 64)]
    assert errors[-1] < 0.15 * errors[0], errors
    if method == "multistep":  # its ends are of first order, so its errors fall unevenly
        assert all(error(n, "multistep") < error(n, "euler") for n in (8, 16, 32, 64))
    else:
        assert all(later < earlier for earlier, later in itertools.pairwise(errors)), errors
        assert math.log2(errors[-2] / errors[-1]) > (0.8 if method == "euler" else 1.5), errors


def test_times_are_even_or_nearer_to_the_noise() -> None:
    assert times(4) == [0, 0.25, 0.5, 0.75, 1]
    late = times(4, 3.0)
    assert late[0] == 0
    assert late[-1] == 1
    assert late[2] == pytest.approx(0.25)


def test_a_first_flow_says_nothing_and_pays_for_it() -> None:
    model = flow().train()
    pictures, ids, lengths = world()
    out = model(pictures, ids, lengths)
    assert not out["guess"].any()  # its last layer begins at zero
    expected = (pictures.square().flatten(1).mean(1) / (1 - out["time"].clamp(max=0.95)) ** 2).mean()
    torch.testing.assert_close(losses.flow_matching(out["guess"], pictures, out["time"]), expected)
    # The error of the speed, by its definition.
    noise, t = torch.randn_like(pictures), torch.tensor([0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
    at = t[:, None, None, None]
    noisy, guess = (1 - at) * noise + at * pictures, torch.randn_like(pictures)
    speed = F.mse_loss((guess - noisy) / (1 - at), pictures - noise)
    torch.testing.assert_close(losses.flow_matching(guess, pictures, t), speed)


def test_times_of_a_batch_lie_in_equal_parts_of_the_logit_normal() -> None:
    model = flow(centre=-1.0, spread=0.5)
    torch.manual_seed(0)
    drawn = model.draw_times(50, torch.device("cpu"))
    share = torch.special.ndtr((torch.logit(drawn) + 1.0) / 0.5)  # uniform
    assert torch.equal((share * 50).floor().long().sort().values, torch.arange(50))
    assert not torch.equal(drawn, drawn.sort().values)


def test_padding_and_neighbours_change_nothing() -> None:
    _, ids, lengths = world()
    shown = 0
    for model in (painter("published").eval(), painter("gan").eval(), flow()):
        stir(model)
        noise = torch.randn(6, *model.noise_shape, generator=torch.Generator().manual_seed(3))
        more = {"steps": 3} if isinstance(model, FlowUNet) else {}
        with torch.no_grad():
            together = model.draw(ids, lengths, noise, **more)
            for row in range(6):
                alone = model.draw(
                    ids[row : row + 1, : lengths[row]], lengths[row : row + 1], noise[row : row + 1], **more
                )
                torch.testing.assert_close(alone[0], together[row], atol=1e-4, rtol=1e-4)
                shown += 1
        assert not torch.allclose(together[0], together[1], atol=1e-3)
        assert together.abs().max() <= 1
    assert shown == 18


@pytest.mark.parametrize("size", [16, 32, 64, 128])
def test_sizes(size: int) -> None:
    ids, lengths = torch.full((1, 2), 5), torch.tensor([2])
    for model in (
        Painter(encoder(), Decoder(TOLD, size), size=size),
        Painter(encoder(), Generator(TOLD, size, 3, 8), size=size),
        FlowUNet(encoder(), size, patch=size // 16, widths=(8, 8), blocks=(1, 1), heads=2),
    ):
        with torch.no_grad():
            drawn = model.eval().draw(ids, lengths, torch.randn(1, *model.noise_shape))
        assert drawn.shape == (1, 3, size, size)


def test_a_critic_that_says_nothing() -> None:
    nothing = torch.zeros(4)
    assert losses.judge_true_and_false(nothing, nothing, nothing, "bce").item() == pytest.approx(2 * math.log(2))
    assert losses.judge_true_and_false(nothing, nothing, nothing, "hinge").item() == 2
    assert losses.fool(nothing, "bce").item() == pytest.approx(math.log(2))
    assert losses.fool(nothing + 3, "hinge").item() == -3
    assert losses.slope_penalty(torch.tensor([1.0, 2.0])).item() == pytest.approx((1 + 64) / 2)
    wrong = torch.tensor([5.0, -9.0, -9.0, -9.0])  # the first wrong sentence is of the same group: no mistake
    apart = torch.tensor([False, True, True, True])
    spared = losses.judge_true_and_false(nothing + 9, wrong, nothing - 9, "hinge", apart)
    assert spared.item() == 0
    assert losses.judge_true_and_false(nothing + 9, wrong, nothing - 9, "hinge").item() == pytest.approx(6 / 4 / 2)


def test_the_kl_of_a_gaussian() -> None:
    mean, log_variance = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.2, -0.4]])
    assert losses.gaussian_kl(torch.zeros(2, 3), torch.zeros(2, 3)).item() == 0
    normal = torch.distributions.Normal
    known = torch.distributions.kl_divergence(normal(mean, (0.5 * log_variance).exp()), normal(0.0, 1.0)).mean()
    torch.testing.assert_close(losses.gaussian_kl(mean, log_variance), known)
