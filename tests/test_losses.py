"""Losses against slow, obvious loops, and what must hold of every one of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tuwen import losses
from tuwen.losses import contrastive, ranking

quick = settings(deadline=None, max_examples=25, derandomize=True, database=None)
sizes = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10_000))


def make_sim(pictures: int, captions: int, seed: int) -> tuple[Tensor, Tensor]:
    """Cosines of random embeddings in float64 and a mask with several positives, rows and columns without any
    too.
    """
    generator = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(pictures, 4, generator=generator, dtype=torch.float64), dim=1)
    text = F.normalize(torch.randn(captions, 4, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.randint(0, 3, (pictures,), generator=generator)
    return image @ text.T, losses.same_label(labels, torch.randint(0, 3, (captions,), generator=generator))


def slow_hinge(sim: Tensor, positive: Tensor, margin: float, hardest: bool) -> float:
    total = 0.0
    pictures, captions = sim.shape
    for i in range(pictures):
        for c in range(captions):
            if not positive[i, c]:
                continue
            row = [max(0.0, margin + float(sim[i, j] - sim[i, c])) for j in range(captions) if not positive[i, j]]
            column = [max(0.0, margin + float(sim[j, c] - sim[i, c])) for j in range(pictures) if not positive[j, c]]
            for hinges in (row, column):
                total += (max(hinges, default=0.0)) if hardest else sum(hinges)
    return total


def slow_nce(sim: Tensor, positive: Tensor, scale: float, smoothing: float) -> float:
    directions = []
    for logits, mask in ((sim * scale, positive), (sim.T * scale, positive.T)):
        rows = []
        for row, wanted in zip(logits.tolist(), mask.tolist(), strict=True):
            costs = []
            for c, is_positive in enumerate(wanted):
                if not is_positive:
                    continue
                candidates = [row[c]] + [s for s, other in zip(row, wanted, strict=True) if not other]
                log_sum = math.log(sum(math.exp(s) for s in candidates))
                even = sum(log_sum - s for s in candidates) / len(candidates)
                costs.append((1 - smoothing) * (log_sum - row[c]) + smoothing * even)
            if costs:
                rows.append(sum(costs) / len(costs))
        directions.append(sum(rows) / len(rows) if rows else 0.0)
    return sum(directions) / 2


def slow_matching(logits: Tensor, positive: Tensor) -> float:
    """KL(p || q + 1e-8), row by row, one direction."""
    rows = []
    for row, wanted in zip(logits.tolist(), positive.tolist(), strict=True):
        if not any(wanted):
            continue
        whole = sum(math.exp(s) for s in row)
        q = [is_positive / sum(wanted) for is_positive in wanted]
        p = [math.exp(s) / whole for s in row]
        rows.append(sum(a * (math.log(a) - math.log(b + 1e-8)) for a, b in zip(p, q, strict=True)))
    return sum(rows) / len(rows) if rows else 0.0


@quick
@given(sizes, st.sampled_from([0.05, 0.2, 1.0]), st.booleans())
def test_hinge_equals_the_triple_loop(size: tuple[int, int, int], margin: float, hardest: bool) -> None:
    sim, positive = make_sim(*size)
    slow = slow_hinge(sim, positive, margin, hardest)
    fast = (losses.hinge_hardest if hardest else losses.hinge_sum)(sim, positive, margin, "sum")
    assert float(fast) == pytest.approx(slow, abs=1e-9)
    mean = losses.hinge(sim, positive, margin, hardest=float(hardest))
    assert float(mean) == pytest.approx(slow / max(1, int(positive.sum())), abs=1e-9)


def test_the_loops_met_many_positives_and_empty_rows() -> None:
    # The tests above mean little unless the random masks hold the hard cases.
    masks = [make_sim(5, 7, seed)[1] for seed in range(50)]
    assert any((mask.sum(1) > 1).any() for mask in masks)
    assert any((mask.sum(1) == 0).any() and mask.any() for mask in masks)


def test_hinge_with_one_caption_a_picture_is_the_original_code() -> None:
    sim, _ = make_sim(6, 6, 1)
    own = sim.diag()
    diagonal = torch.eye(6, dtype=torch.bool)
    captions = (0.2 + sim - own[:, None]).clamp(min=0).masked_fill(diagonal, 0)
    pictures = (0.2 + sim - own[None, :]).clamp(min=0).masked_fill(diagonal, 0)
    torch.testing.assert_close(losses.hinge_sum(sim, diagonal, reduction="sum"), captions.sum() + pictures.sum())
    hardest = captions.max(1).values.sum() + pictures.max(0).values.sum()
    torch.testing.assert_close(losses.hinge_hardest(sim, diagonal, reduction="sum"), hardest)


def test_hinge_blends_and_refuses_what_is_no_share() -> None:
    sim, positive = make_sim(5, 7, 4)
    every, hardest = losses.hinge_sum(sim, positive), losses.hinge_hardest(sim, positive)
    assert every > hardest > 0
    torch.testing.assert_close(losses.hinge(sim, positive, hardest=0.25), 0.75 * every + 0.25 * hardest)
    with pytest.raises(ValueError, match="hardest"):
        losses.hinge(sim, positive, hardest=1.5)
    with pytest.raises(ValueError, match="reduction"):
        losses.hinge(sim, positive, reduction="total")  # type: ignore[arg-type]


def test_collapsed_model_sits_at_twice_the_margin() -> None:
    sim, positive = torch.full((4, 8), 0.9), losses.same_label(torch.arange(4), torch.arange(4).repeat(2))
    assert float(losses.hinge_hardest(sim, positive, margin=0.2)) == pytest.approx(0.4)


@quick
@given(sizes, st.sampled_from([1.0, 7.0]), st.sampled_from([0.0, 0.1]))
def test_info_nce_equals_the_triple_loop(size: tuple[int, int, int], scale: float, smoothing: float) -> None:
    sim, positive = make_sim(*size)
    fast = losses.info_nce(sim, positive, scale, smoothing)
    assert float(fast) == pytest.approx(slow_nce(sim, positive, scale, smoothing), abs=1e-7)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_info_nce_with_one_positive_is_cross_entropy(smoothing: float) -> None:
    sim, _ = make_sim(6, 6, 2)
    target = torch.arange(6)
    both = [F.cross_entropy(logits * 9, target, label_smoothing=smoothing) for logits in (sim, sim.T)]
    fast = losses.info_nce(sim, torch.eye(6, dtype=torch.bool), 9, smoothing)
    torch.testing.assert_close(fast, sum(both) / 2, atol=1e-7, rtol=0)


def test_info_nce_of_captions_with_themselves_ignores_the_diagonal() -> None:
    # Five captions of two pictures against themselves: a caption is not its own positive.
    emb = F.normalize(torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)
    owner = torch.tensor([0, 0, 0, 1, 1])
    own = torch.eye(5, dtype=torch.bool)
    positive = losses.same_label(owner) & ~own
    sim = emb @ emb.T
    without = torch.stack([row[~own[i]] for i, row in enumerate(sim)])  # (5, 4), the diagonal cut out
    wanted = torch.stack([row[~own[i]] for i, row in enumerate(positive)])
    logits, costs = without * 5, []
    for i in range(5):
        negatives = logits[i][~wanted[i]].exp().sum()
        costs.append(torch.stack([(negatives + s.exp()).log() - s for s in logits[i][wanted[i]]]).mean())
    torch.testing.assert_close(losses.info_nce(sim, losses.same_label(owner), 5, ignore=own), torch.stack(costs).mean())


def test_learned_scale_gets_a_gradient() -> None:
    sim, positive = make_sim(5, 7, 3)
    log_scale = torch.zeros((), dtype=torch.float64, requires_grad=True)
    losses.info_nce(sim, positive, log_scale.exp()).backward()
    assert log_scale.grad is not None
    assert log_scale.grad.abs() > 1e-4


def test_n_pair_is_the_paper_and_its_penalty_the_squared_norm() -> None:
    image, text = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor([[0.3, 1.0], [2.0, -0.2]])
    s = (image @ text.T).tolist()
    pairs = [s[0][1] - s[0][0], s[1][0] - s[1][1], s[1][0] - s[0][0], s[0][1] - s[1][1]]
    slow = sum(math.log(1 + math.exp(d)) for d in pairs) / 4
    assert float(losses.n_pair(image @ text.T, torch.eye(2, dtype=torch.bool))) == pytest.approx(slow, abs=1e-6)
    assert float(losses.norm_penalty(image, text)) == pytest.approx((5 + 1.25 + 1.09 + 4.04) / 4)


def test_soft_nce_is_cross_entropy_and_least_at_the_teacher() -> None:
    teacher, _ = make_sim(5, 7, 6)
    targets = (8 * (teacher - teacher.max())).exp()
    slow = 0.0
    student, _ = make_sim(5, 7, 7)
    for logits, weights in ((8 * student, targets), (8 * student.T, targets.T)):
        share = weights / weights.sum(1, keepdim=True)
        slow += float(-(share * logits.log_softmax(1)).sum(1).mean()) / 2
    assert float(losses.soft_nce(student, targets, 8)) == pytest.approx(slow)
    assert losses.soft_nce(teacher, targets, 8) < losses.soft_nce(student, targets, 8)
    leaning = teacher.clone().requires_grad_()
    losses.soft_nce(leaning, targets, 8).backward()
    assert leaning.grad is not None
    assert leaning.grad.abs().max() < 1e-12
    assert float(losses.soft_nce(student, torch.zeros(5, 7))) == 0


def test_distillation_is_soft_nce_in_each_language_and_still_at_the_teacher() -> None:
    teacher, student = make_sim(5, 7, 6)[0].clamp(-1, 1), make_sim(5, 7, 7)[0].clamp(-1, 1)
    zh = torch.tensor([True, False, True, True, False, False, True])
    each = [losses.soft_nce(student[:, own], (10 * teacher[:, own]).exp(), 10) for own in (~zh, zh)]
    assert float(losses.soft_nce_by_language(student, teacher, zh)) == pytest.approx(float(sum(each)) / 2, rel=1e-5)
    alone = losses.soft_nce_by_language(student, teacher, torch.zeros(7, dtype=torch.bool))
    assert float(alone) == pytest.approx(float(losses.soft_nce(student, (10 * teacher).exp(), 10)), rel=1e-5)
    leaning = teacher.clone().requires_grad_()
    losses.soft_nce_by_language(leaning, teacher, zh).backward()
    assert leaning.grad is not None
    assert leaning.grad.abs().max() < 1e-6


@quick
@given(sizes)
def test_cmpm_and_sdm_equal_the_triple_loop(size: tuple[int, int, int]) -> None:
    pictures, captions, seed = size
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(pictures, 4, generator=generator, dtype=torch.float64)
    text = torch.randn(captions, 4, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (pictures,), generator=generator)
    text_labels = torch.randint(0, 3, (captions,), generator=generator)
    positive = labels[:, None] == text_labels[None, :]
    on_text = torch.stack([torch.stack([x @ z / z.norm() for z in text]) for x in image])
    on_image = torch.stack([torch.stack([z @ x / x.norm() for x in image]) for z in text])
    slow = slow_matching(on_text, positive) + slow_matching(on_image, positive.T)
    assert float(losses.cmpm(image, text, labels, text_labels)) == pytest.approx(slow, abs=1e-9)
    cosines = torch.stack([torch.stack([x @ z / (x.norm() * z.norm()) for z in text]) for x in image]) / 0.1
    slow = slow_matching(cosines, positive) + slow_matching(cosines.T, positive.T)
    assert float(losses.sdm(image, text, labels, text_labels, temperature=0.1)) == pytest.approx(slow, abs=1e-9)


def test_cmpm_targets_are_a_distribution() -> None:
    # All of one identity and all embeddings equal: p = q, so the divergence is 0; with targets that sum to sqrt(k), as
    # public code has them, it would be -log sqrt(k).
    emb = torch.ones(4, 3)
    assert float(losses.cmpm(emb, emb, torch.zeros(4))) == pytest.approx(0, abs=1e-6)


def test_cmpc_equals_the_loop() -> None:
    generator = torch.Generator().manual_seed(5)
    image, text = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 1, 0])
    slow = 0.0
    for x_all, z_all in ((image, text), (text, image)):
        for x, z, label in zip(x_all, z_all, labels.tolist(), strict=True):
            unit = z / z.norm()
            projected = (x @ unit) * unit
            logits = [float(projected @ w / w.norm()) for w in weight]
            slow += (math.log(sum(map(math.exp, logits))) - logits[label]) / 5
    assert float(losses.cmpc(image, text, labels, weight)) == pytest.approx(slow)
    scaled = losses.cmpc(image, text, labels, 7 * weight)  # only the direction of a class vector counts
    assert float(scaled) == pytest.approx(slow)
    with pytest.raises(ValueError, match="pairs"):
        losses.cmpc(image, text[:3], labels, weight)


def by_name() -> dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]]:
    """Every loss as a function of embeddings and labels (image, text, labels, text_labels)."""

    def over_sim(
        loss: Callable[[Tensor, Tensor], Tensor],
    ) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        def run(image: Tensor, text: Tensor, labels: Tensor, text_labels: Tensor) -> Tensor:
            sim = F.normalize(image, dim=1, eps=1e-4) @ F.normalize(text, dim=1, eps=1e-4).T
            return loss(sim, losses.same_label(labels, text_labels))

        return run

    return {
        "hinge_sum": over_sim(losses.hinge_sum),
        "hinge_hardest": over_sim(losses.hinge_hardest),
        "hinge": over_sim(lambda sim, positive: losses.hinge(sim, positive, hardest=0.5)),
        "info_nce": over_sim(lambda sim, positive: losses.info_nce(sim, positive, smoothing=0.1)),
        "n_pair": over_sim(losses.n_pair),
        "soft_nce": over_sim(lambda sim, positive: losses.soft_nce(sim, positive.to(sim.dtype))),
        "cmpm": losses.cmpm,
        "sdm": losses.sdm,
    }


def make_batch(pictures: int, each: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    image = torch.randn(pictures, 6, generator=generator).to(dtype).requires_grad_()
    text = torch.randn(pictures * each, 6, generator=generator).to(dtype).requires_grad_()
    labels = torch.arange(pictures)
    return image, text, labels, labels.repeat_interleave(each)


def test_every_loss_is_under_the_common_tests() -> None:
    others = {"cmpc", "same_label", "mine_hardest", "norm_penalty", "reconstruction", "adversarial"}
    others |= {
        "advantages",
        "info_nce_by_language",
        "reinforce",
        "soft_nce_by_language",
    }  # tests/tasks/test_captioning.py, and below
    others |= {"flow_matching", "fool", "gaussian_kl", "judge_true_and_false", "slope_penalty"}  # tests/models/
    assert set(losses.__all__) == by_name().keys() | others


@pytest.mark.parametrize("name", by_name())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_and_gradients_are_finite(name: str, dtype: torch.dtype) -> None:
    batch = make_batch(4, 3, dtype)
    loss = by_name()[name](*batch)
    assert loss.dtype == torch.float32
    assert loss > 0
    loss.backward()
    for emb in batch[:2]:
        assert emb.grad is not None
        assert emb.grad.isfinite().all()
        assert emb.grad.abs().sum() > 0


@pytest.mark.parametrize("name", by_name())
@pytest.mark.parametrize(("pictures", "each"), [(1, 1), (1, 4)])
def test_all_positive_costs_nothing(name: str, pictures: int, each: int) -> None:
    # A batch of one picture has no negatives at all.
    image, text, labels, text_labels = make_batch(pictures, each)
    if name in ("cmpm", "sdm", "soft_nce"):
        text = text[:1].expand(each, -1)  # these ask for an even distribution over the positives too
    loss = by_name()[name](image, text, labels, text_labels)
    loss.backward()
    entropy = math.log(each) / 2 if name == "soft_nce" else 0  # of its targets, one direction of two
    assert float(loss.detach()) == pytest.approx(entropy, abs=1e-5)
    assert image.grad is not None
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("name", by_name())
def test_no_positive_at_all_costs_nothing(name: str) -> None:
    image, text, labels, text_labels = make_batch(3, 2)
    loss = by_name()[name](image, text, labels, text_labels + 100)
    loss.backward()
    assert float(loss.detach()) == 0
    assert image.grad is not None
    assert not image.grad.any()


@pytest.mark.parametrize("name", by_name())
def test_permuting_a_batch_permutes_nothing_else(name: str) -> None:
    image, text, labels, text_labels = make_batch(5, 3)
    loss = by_name()[name](image, text, labels, text_labels)
    grads = torch.autograd.grad(loss, (image, text))
    order, text_order = (
        torch.tensor([3, 0, 4, 1, 2]),
        torch.randperm(15, generator=torch.Generator().manual_seed(1)),
    )
    again = by_name()[name](image[order], text[text_order], labels[order], text_labels[text_order])
    torch.testing.assert_close(again, loss)
    for one, other in zip(torch.autograd.grad(again, (image, text)), grads, strict=True):
        torch.testing.assert_close(one, other)  # autograd undoes the permutation of its inputs


@pytest.mark.parametrize("name", by_name())
def test_group_mates_are_never_negatives(name: str) -> None:
    # Two pictures of one group: the caption of the one does not push the other away. `p` of soft losses may.
    image = F.normalize(torch.tensor([[1.0, 0.2], [0.9, 0.3]]), dim=1)
    text = image.flip(0).clone().requires_grad_()
    loss = by_name()[name](image, text, torch.zeros(2), torch.zeros(2))
    if name in ("cmpm", "sdm", "soft_nce"):
        assert loss < by_name()[name](image, text, torch.arange(2), torch.arange(2))
    else:
        assert float(loss.detach()) == 0


@quick
@given(sizes, st.integers(1, 4), st.integers(1, 5))
def test_mining_equals_sorting(size: tuple[int, int, int], k: int, chunk: int) -> None:
    pictures, captions, seed = size
    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(pictures, 4, generator=generator), torch.randn(captions, 4, generator=generator)
    labels = torch.randint(0, 2, (pictures,), generator=generator)
    text_labels = torch.randint(0, 2, (captions,), generator=generator)
    for_pictures, for_captions = losses.mine_hardest(image, text, labels, text_labels, k, chunk)
    sim = image @ text.T
    for found, rows, own, others in (
        (for_pictures, sim, labels, text_labels),
        (for_captions, sim.T, text_labels, labels),
    ):
        for i, row in enumerate(rows):
            negatives = [j for j in range(len(others)) if others[j] != own[i]]
            slow = sorted(negatives, key=lambda j: -float(row[j]))[:k]
            assert found[i].tolist() == slow + [-1] * (k - len(slow))


def test_reconstruction() -> None:
    decoded = torch.tensor([[1.0, 0.0], [1.0, 1.0]], requires_grad=True)
    feature = torch.tensor([[2.0, 0.0], [0.0, 3.0]], requires_grad=True)
    assert losses.reconstruction(decoded, feature).item() == pytest.approx((0 + 1 - math.sqrt(0.5)) / 2)
    loss = losses.reconstruction(decoded, feature, "mse")
    assert float(loss.detach()) == pytest.approx((1 + 0 + 1 + 4) / 4)
    loss.backward()
    assert decoded.grad is not None
    assert feature.grad is None
    with pytest.raises(ValueError, match="cosine"):
        losses.reconstruction(decoded, feature, "l1")  # type: ignore[arg-type]


def test_adversarial_teaches_the_discriminator_and_fools_it() -> None:
    torch.manual_seed(0)
    discriminator = nn.Linear(2, 1)
    image, text = torch.randn(6, 2, requires_grad=True), torch.randn(6, 2, requires_grad=True)
    plain = (-F.logsigmoid(discriminator(image)).mean() - torch.log(1 - discriminator(text).sigmoid()).mean()) / 2
    loss = losses.adversarial(discriminator, image, text, strength=0.5)
    torch.testing.assert_close(loss, plain)
    wanted = torch.autograd.grad(plain, (image, text, discriminator.weight), retain_graph=True)
    got = torch.autograd.grad(loss, (image, text, discriminator.weight))
    torch.testing.assert_close(got[0], -0.5 * wanted[0])
    torch.testing.assert_close(got[1], -0.5 * wanted[1])
    torch.testing.assert_close(got[2], wanted[2])
    with torch.no_grad():
        discriminator.weight.zero_()
        discriminator.bias.zero_()
    assert float(losses.adversarial(discriminator, image, text).detach()) == pytest.approx(math.log(2))


@pytest.mark.parametrize("loss", [ranking.hinge_sum, ranking.hinge_hardest, contrastive.info_nce, contrastive.n_pair])
def test_gradients_are_those_of_finite_differences(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    sim, positive = make_sim(4, 6, 8)
    assert torch.autograd.gradcheck(lambda s: loss(s, positive), (sim.clone().requires_grad_(),))


def test_captions_compete_within_their_language() -> None:
    sim, zh = torch.randn(4, 8), torch.arange(8) % 2 == 1
    positive = torch.arange(4)[:, None] == torch.arange(8) // 2
    each = [losses.info_nce(sim[:, way::2], torch.eye(4, dtype=torch.bool), torch.tensor(9.0), 0.1) for way in (0, 1)]
    made = losses.info_nce_by_language(sim, positive, zh, torch.tensor(9.0), 0.1)
    assert made.item() == pytest.approx((each[0] + each[1]).item() / 2, rel=1e-5)
    one = losses.info_nce_by_language(sim[:, ::2], positive[:, ::2], zh[::2], torch.tensor(9.0), 0.1)
    assert one.item() == pytest.approx(each[0].item(), rel=1e-5)
