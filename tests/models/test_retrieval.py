"""The dual encoder: sentences alone and in a batch, directions, padding, export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tuwen import graphs
from tuwen.models.retrieval import AttentivePicture, DualEncoder, PictureEncoder, RecurrentEncoder
from tuwen.models.retrieval.attentive import keep_some
from tuwen.models.retrieval.export import picture_side, sentence_side
from tuwen.models.retrieval.looks import MIDDLE, make_looks
from tuwen.models.retrieval.sentence import by_length
from tuwen.tasks.retrieval import build_model
from tuwen.towers import build_tower

LENGTHS = torch.tensor([5, 1, 3, 7])


def ids(lengths: torch.Tensor = LENGTHS, pad: int = 0) -> torch.Tensor:
    rows = torch.randint(1, 20, (len(lengths), int(lengths.max())), generator=torch.Generator().manual_seed(0))
    return torch.where(torch.arange(rows.shape[1]) < lengths[:, None], rows, pad)


def config(**text: object) -> dict[str, object]:
    return {
        "model": {"width": 12, "text": {"embedding": 6, "width": 12, "heads": 3, **text}},
        "in_width": 5,
        "vocabulary": 20,
        "pad": 0,
        "max_tokens": 16,
        "classes": 0,
        "side": [],
    }


KINDS = [
    {"kind": "gru"},
    {"kind": "lstm", "bidirectional": True, "pooling": "max", "bias": False, "init": "xavier"},
    {"kind": "gru", "bidirectional": True, "pooling": "gpo", "layers": 2},
    {"kind": "lstm", "pooling": "mean"},
    {"kind": "bert", "layers": 2},
    {"kind": "bert", "pooling": "gpo"},
    {"kind": "bert", "pooling": "first"},
]


@pytest.mark.parametrize("text", KINDS)
def test_a_batch_equals_each_sentence_alone(text: dict[str, object]) -> None:
    model = build_model(config(**text)).eval()
    rows = ids()
    together = model.embed_sentences(rows, LENGTHS)
    for row, length, vector in zip(rows, LENGTHS, together, strict=True):
        alone = model.embed_sentences(row[None, :length], length[None])[0]
        torch.testing.assert_close(alone, vector, rtol=1e-5, atol=1e-6)
    assert together.shape == (4, 12)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("text", KINDS)
def test_padding_is_never_seen(text: dict[str, object]) -> None:
    model = build_model(config(**text)).eval()
    one, other = (model.embed_sentences(ids(pad=pad), LENGTHS) for pad in (0, 7))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_the_backward_direction_reads_from_the_last_word() -> None:
    encoder = RecurrentEncoder(
        20, 6, 4, kind="lstm", bidirectional=True, bias=False, pooling="max", init="xavier"
    ).eval()
    backward = torch.nn.LSTM(6, 4, bias=False, batch_first=True)
    names = ("weight_ih_l0", "weight_hh_l0")
    backward.load_state_dict({name: getattr(encoder.rnn, f"{name}_reverse").detach() for name in names})
    rows = ids()
    for row, length in zip(rows, LENGTHS.tolist(), strict=True):
        expected = backward(encoder.embedding(row[:length].flip(0))[None])[0][0].amax(0)
        got = encoder(row[None, :length], torch.tensor([length]))[0, 4:]
        torch.testing.assert_close(got, expected)


def test_a_batch_of_one_is_no_special_case() -> None:
    picture = PictureEncoder(5, 12, pooling="gpo", hidden=8, region_dropout=0.2).train()
    assert picture(torch.randn(1, 9, 5)).shape == (1, 12)
    assert picture(torch.randn(1, 1, 5)).shape == (1, 12)
    assert RecurrentEncoder(20, 6, 12, word_dropout=0.9).train()(ids()[:1], LENGTHS[:1]).shape == (1, 12)


@pytest.mark.parametrize("pooling", ["mean", "topk", "gpo"])
def test_pictures_do_not_see_each_other(pooling: str) -> None:
    picture = PictureEncoder(5, 12, pooling=pooling, hidden=8).eval()
    regions = torch.randn(3, 9, 5)
    torch.testing.assert_close(picture(regions)[1], picture(regions[1:2])[0])
    order = torch.randperm(9)
    torch.testing.assert_close(picture(regions[:, order]), picture(regions))


def test_mean_pooling_is_the_mean() -> None:
    picture = PictureEncoder(5, 12).eval()
    regions = torch.randn(3, 9, 5)
    torch.testing.assert_close(picture(regions), picture.linear(regions.mean(1)))


@pytest.mark.parametrize("text", KINDS)
def test_the_exported_sentence_side_equals_the_module(text: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = config(**text)
    model = build_model(made).eval()
    rows = ids()
    expected = model.embed_sentences(rows, LENGTHS).detach().numpy()
    side, inputs = sentence_side(model, max_tokens=16)
    path = tmp_path / "g.onnx"
    graphs.export(side, tuple(inputs.values()), tuple(inputs), path, axes={"ids": {1: "time"}})
    session = graphs.open_graph(path)
    for width in (7, 12):  # more padding than was exported with
        wide = np.zeros((4, width), np.int64)
        wide[:, :7] = rows.numpy()
        got = session.run(None, {"ids": wide, "lengths": LENGTHS.numpy()})[0]
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_the_scale_stays_under_its_limit() -> None:
    model = DualEncoder(PictureEncoder(5, 4), RecurrentEncoder(9, 3, 4), scale=90.0, max_scale=100.0)
    with torch.no_grad():
        model.log_scale += 3
    assert model.scale.item() == 100.0


def slow_attention(model: AttentivePicture, regions: torch.Tensor) -> torch.Tensor:
    """One picture, head by head, projecting every region before the mean."""
    features = model.head(regions).clamp(0, 6)
    normed = model.norm(features)
    weights = model.score(normed).softmax(0)
    part = model.value.out_features // model.heads
    slices = []
    for head in range(model.heads):
        rows = slice(head * part, (head + 1) * part)
        projected = normed @ model.value.weight[rows].T
        slices.append((weights[:, head : head + 1] * projected).sum(0) + model.value.bias[rows])

    def plain(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean()) / (x.var(unbiased=False) + 1e-5).sqrt()

    joint = torch.cat(slices) + model.mean(plain(features.mean(0))) + model.peak(plain(features.amax(0)))
    return joint + model.mlp(joint)


def test_attention_pooling_equals_the_slow_one() -> None:
    torch.manual_seed(0)
    model = AttentivePicture(5, 14, 12, heads=3).eval()
    regions = torch.randn(4, 9, 5)
    got = model(regions)
    for row, vector in zip(regions, got, strict=True):
        torch.testing.assert_close(vector, slow_attention(model, row), rtol=1e-4, atol=1e-5)


def test_dropped_regions_are_not_seen() -> None:
    model = AttentivePicture(5, 14, 12, heads=3, dropout=0.0, region_dropout=0.5).train()
    regions = torch.randn(2, 9, 5)
    torch.manual_seed(1)
    kept = keep_some(regions, 0.5)
    assert kept.shape == (2, 4, 5)
    for row, some in zip(regions, kept, strict=True):
        assert len({tuple(r) for r in some.tolist()} & {tuple(r) for r in row.tolist()}) == 4
    torch.manual_seed(1)
    for vector, some in zip(model(regions), kept, strict=True):
        torch.testing.assert_close(vector, slow_attention(model, some), rtol=1e-4, atol=1e-5)


def test_a_tower_without_its_head_and_the_head_are_the_tower() -> None:
    whole, cut = (build_tower("lite0", size=64, pretrained=False) for _ in range(2))
    cut.load_state_dict(whole.state_dict())
    for module in (whole, cut):
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                torch.manual_seed(part.num_features)
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2)
    head = cut.behead()
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(head(cut(pixels)).clamp(0, 6), whole(pixels), rtol=1e-3, atol=1e-4)
    assert cut.grid_width == head.in_features == 320
    assert cut.sha256 != whole.sha256


@pytest.mark.parametrize("chunk", [1, 2, 3, 9])
def test_sentences_by_length_come_back_in_order(chunk: int) -> None:
    def encode(ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        assert ids.shape[1] == lengths.max()
        return torch.stack([ids.sum(1), lengths], dim=1)

    assert torch.equal(by_length(encode, ids(), LENGTHS, chunk), encode(ids(), LENGTHS))


@pytest.mark.parametrize(("features", "looks"), [("pooled", 1), ("grid", 4), ("map", 2)])
def test_the_exported_picture_side_equals_the_module(features: str, looks: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tower = build_tower("lite0", size=64, pretrained=False)
    made = config()
    made["model"]["image"] = {  # type: ignore[index]
        "pooled": {"features": "pooled"},
        "grid": {"features": "grid", "pooling": "gpo", "hidden": 8},
        "map": {"features": "map", "pooling": "attention", "heads": 3},
    }[features] | {"looks": looks}
    made |= {"features": tower.behead().out_features if features == "map" else None}
    model = build_model({**made, "in_width": tower.grid_width}).eval()
    model.tower = tower
    pixels = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    expected = model.embed_pictures(pixels).detach().numpy()
    side, inputs = picture_side(model, size=64)
    graphs.export(side, tuple(inputs.values()), tuple(inputs), tmp_path / "g.onnx")
    got = graphs.open_graph(tmp_path / "g.onnx").run(None, {"pixels": pixels.numpy()})[0]
    np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())


def test_looks_are_the_picture_its_middle_and_their_mirror_images() -> None:
    ramp = torch.linspace(0, 255, 40)  # of a linear picture, a closer look is linear again
    pixels = ramp.round().to(torch.uint8)[None, None, :, None].expand(1, 40, 40, 3)
    whole, middle_mirrored, mirrored, middle = make_looks(pixels, 4)
    assert torch.equal(whole, pixels)
    assert torch.equal(mirrored, torch.from_numpy(pixels.numpy()[:, :, ::-1].copy()))
    row = middle[0, 20, :, 0]
    edge = round(40 * (1 - MIDDLE) / 2)
    inner = slice(edge + 1, -edge - 1)
    along = edge - 0.5 + (np.arange(40) + 0.5) * (40 - 2 * edge) / 40
    np.testing.assert_allclose(row[inner], np.interp(along, np.arange(40), pixels[0, 0, :, 0])[inner], atol=1.0)
    assert torch.equal(middle_mirrored, middle.flip(2))
    assert len(make_looks(pixels, 2)) == 2


@pytest.mark.parametrize("members", [1, 2])
def test_a_vector_is_the_mean_of_its_looks(members: int) -> None:
    torch.manual_seed(0)
    tower = build_tower("lite0", size=64, pretrained=False)
    made = config()
    made["model"] |= {"members": members, "image": {"features": "grid", "looks": 3}}  # type: ignore[operator]
    model = build_model({**made, "in_width": tower.grid_width}).eval()
    pixels = torch.randint(0, 256, (4, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        each = [model.embed_pictures(tower(look)) for look in make_looks(pixels, 3)]  # of features: one look
        model.tower = tower
        got = model.embed_pictures(pixels)
    slow = np.mean([vectors.numpy() for vectors in each], 0)
    np.testing.assert_allclose(got, slow / np.linalg.norm(slow, axis=1, keepdims=True), atol=1e-5)
