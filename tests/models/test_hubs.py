"""Hubness inside the vectors: against slow sums, in ONNX, and without a bank."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tuwen import graphs
from tuwen.layers import l2_normalise
from tuwen.models.retrieval import EXTRA, Hubs
from tuwen.models.retrieval.export import sentence_side
from tuwen.tasks.retrieval import build_model

WIDTH, BETA, WEIGHT = 12, 7.0, 0.4


def units(count: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(WIDTH, generator=draw)
    return l2_normalise(torch.randn(count, WIDTH, generator=draw) + centre)


def filled(axes: int = WIDTH, weight: float = WEIGHT) -> Hubs:
    hubs = Hubs(WIDTH, 30, 20, axes, axes, BETA, weight)
    hubs.fill(units(30, 1), units(20, 2))
    return hubs


def slow_near(vector: Tensor, bank: Tensor) -> float:
    return math.log(sum(math.exp(BETA * float(vector @ item)) for item in bank) / len(bank)) / BETA


def test_the_dot_product_is_the_corrected_similarity() -> None:
    hubs, pictures, sentences = filled(), units(5, 3), units(6, 4)
    got = hubs.mark_pictures(pictures) @ hubs.mark_sentences(sentences).T * (1 + 2 * WEIGHT)
    for i, picture in enumerate(pictures):
        for j, sentence in enumerate(sentences):
            near = slow_near(picture, units(20, 2)) + slow_near(sentence, units(30, 1))
            assert got[i, j].item() == pytest.approx(float(picture @ sentence) - WEIGHT * near, abs=1e-5)
    plain = pictures @ sentences.T
    assert not torch.equal(plain.argsort(1), got.argsort(1))  # it does change a ranking


@pytest.mark.parametrize("axes", [2, WIDTH])
def test_vectors_keep_unit_length(axes: int) -> None:
    hubs, rows = filled(axes, weight=2.0), torch.cat([units(50, 5), torch.eye(WIDTH), -torch.eye(WIDTH)])
    for marked in (hubs.mark_pictures(rows), hubs.mark_sentences(rows)):
        assert marked.shape == (len(rows), WIDTH + EXTRA)
        torch.testing.assert_close(marked.norm(dim=1), torch.ones(len(rows)))


def test_a_bank_of_one_item_near_itself_is_no_root_of_a_negative_number() -> None:
    hubs, one = Hubs(WIDTH, 1, 1, 4, 4, 50.0), units(1, 6)
    hubs.fill(one, one)
    marked = hubs.mark_pictures(one)
    assert torch.isfinite(marked).all()
    assert marked.norm().item() == pytest.approx(1)


def test_few_axes_are_nearly_enough_where_the_bank_lies_flat() -> None:
    flat = units(40, 7)
    flat[:, 4:] = 0
    flat = l2_normalise(flat)
    few, all_axes = Hubs(WIDTH, 40, 40, 4, 4, BETA), Hubs(WIDTH, 40, 40, WIDTH, WIDTH, BETA)
    for hubs in (few, all_axes):
        hubs.fill(flat, flat)
    rows = units(9, 8)
    torch.testing.assert_close(few.mark_pictures(rows), all_axes.mark_pictures(rows), rtol=0, atol=1e-5)


def test_pictures_among_themselves_keep_their_order_and_are_1_where_they_are_the_same() -> None:
    rows = units(8, 9)
    marked = filled(weight=1e-3).mark_pictures(rows)
    assert torch.equal((marked @ marked.T).argsort(1), (rows @ rows.T).argsort(1))
    torch.testing.assert_close((marked * marked).sum(1), torch.ones(8))


def test_an_empty_bank_changes_no_ranking() -> None:
    hubs, pictures, sentences = Hubs(WIDTH, 30, 20, 4, 4), units(5, 3), units(6, 4)
    got = hubs.mark_pictures(pictures) @ hubs.mark_sentences(sentences).T
    torch.testing.assert_close(got * 2, pictures @ sentences.T)


def model_of(weight: float) -> torch.nn.Module:
    torch.manual_seed(0)
    hubs = {"weight": weight, "picture_axes": 6, "sentence_axes": 5}
    made = {
        "model": {"width": WIDTH, "text": {"embedding": 6, "width": 12, "pooling": "gpo"}, "hubs": hubs},
        "in_width": 5, "vocabulary": 20, "pad": 0, "max_tokens": 16, "classes": 0, "side": [],
    }  # fmt: skip
    return build_model(made | ({"hubs": [30, 20]} if weight else {})).eval()


def test_a_model_without_them_is_as_before_and_one_with_them_as_wide_as_it_says() -> None:
    off, on = model_of(0.0), model_of(0.5)
    ids, lengths = torch.randint(1, 20, (3, 7)), torch.tensor([7, 2, 4])
    assert {name for name in on.state_dict() if name not in off.state_dict()} == {
        f"hubs.{side}.{part}" for side in ("pictures", "sentences") for part in ("mean", "axes", "items")
    }
    plain = off.embed_sentences(ids, lengths)
    assert torch.equal(on.embed_sentences(ids, lengths, plain=True), plain)
    assert plain.shape == (3, WIDTH)
    assert on.embed_sentences(ids, lengths).shape == (3, WIDTH + EXTRA)


def test_the_exported_graph_equals_the_module_and_the_file_holds_the_banks(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = model_of(0.5)
    model.hubs.fill(units(30, 1), units(20, 2))
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    again = model_of(0.5)
    again.load_state_dict(load_file(tmp_path / "m.safetensors"))
    ids, lengths = torch.randint(1, 20, (4, 7)), torch.tensor([7, 2, 4, 1])
    expected = model.embed_sentences(ids, lengths).detach().numpy()
    np.testing.assert_array_equal(again.embed_sentences(ids, lengths).detach().numpy(), expected)
    assert np.ptp(expected[:, WIDTH + 1]) > 1e-3  # how near each sentence lies to the pictures
    side, inputs = sentence_side(again, max_tokens=16)
    graphs.export(side, tuple(inputs.values()), tuple(inputs), tmp_path / "g.onnx", axes={"ids": {1: "time"}})
    got = graphs.open_graph(tmp_path / "g.onnx").run(None, {"ids": ids.numpy(), "lengths": lengths.numpy()})[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)
