"""Regions of a detector against its plain forward pass, and the job that writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clips
import torch
from PIL import Image
from tiny_answerers import TEXTS, make_run
from tiny_detectors import FAMILIES, LABELS, MEAN, QUERIES, SIDE, SIZES, STD, WIDTH, make

from tuwen import dataset as datasets
from tuwen import detecting, pipelines
from tuwen.check import check
from tuwen.cli import run
from tuwen.config import parse_recipe
from tuwen.detecting import Detector
from tuwen.errors import DataError, ModelError
from tuwen.records import Manifest, Picture, Question
from tuwen.regions import Regions, read_regions
from tuwen.tasks import start_task
from tuwen.tasks.regions import open_regions


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For models this small, threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(seed: int, width: int = 48, height: int = SIDE) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six pictures: one is another's copy, one is turned by its EXIF, one is broken."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    for name, seed in (("a", 0), ("b", 1), ("copy", 0), ("last", 2)):
        draw(seed).save(folder / "images" / f"{name}.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    draw(3, 64, 32).save(folder / "images" / "turned.jpg", exif=exif)
    (folder / "images" / "broken.png").write_bytes(b"no")
    names = ["a.png", "b.png", "copy.png", "turned.jpg", "broken.png", "last.png"]
    pictures = [Picture(file_name=f"images/{name}", split="train") for name in names]
    datasets.save(datasets.Dataset(folder, Manifest(name="data"), pictures))
    return folder


def rows(folder: Path) -> dict[str, Any]:
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return {Path(row["file_name"]).name: row for row in map(json.loads, lines)}


@pytest.mark.parametrize("family", FAMILIES)
def test_regions_are_those_of_the_plain_forward_pass(tmp_path: Path, family: str) -> None:
    model = make(family, tmp_path / "model")
    detector = Detector(f"hf:{tmp_path / 'model'}", "cpu")
    assert detector.name == f"hf:{tmp_path / 'model'}"
    width, height = SIZES.get(family, (48, SIDE))
    alone = family in ("conditional_detr", "rt_detr")  # no class says that nothing is there
    compared = 0
    for seed in range(3):
        picture = draw(seed, width, height)  # of the size that the detector sees: nothing is resized
        x = (np.asarray(picture, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        with torch.inference_mode():
            out = model(pixel_values=torch.from_numpy(x.transpose(2, 0, 1).copy())[None])
        assert out.logits.shape[2] == (LABELS if alone else LABELS + 1)
        sure, boxes = [], []
        for query in range(QUERIES):
            row = [float(value) for value in out.logits[0, query]]
            if alone:
                sure.append(max(1 / (1 + np.exp(-value)) for value in row))
            else:
                sure.append(max(np.exp(value) for value in row[:-1]) / sum(np.exp(value) for value in row))
            x0, y0, wide, high = (float(value) for value in out.pred_boxes[0, query])
            whole = (width, height, width, height)
            ends = (x0 - wide / 2, y0 - high / 2, x0 + wide / 2, y0 + high / 2)
            boxes.append([min(max(end, 0), 1) * most for end, most in zip(ends, whole, strict=True)])
        order = sorted(range(QUERIES), key=lambda query: -sure[query])[:4]
        found = detector.detect(picture, 4)
        states = out.last_hidden_state[0, -QUERIES:].numpy()
        np.testing.assert_allclose(found.boxes, [boxes[query] for query in order], atol=1e-3)
        np.testing.assert_allclose(found.features, states[order], atol=1e-4)
        assert (found.size, found.features.dtype, found.features.shape) == ((width, height), np.float32, (4, WIDTH))
        assert len({round(float(value), 3) for value in found.features[:, 0]}) > 1  # it tells its boxes apart
        compared += 4
    assert compared == 12
    assert len(detector.detect(draw(0, width, height), 100).boxes) == QUERIES


def test_a_data_set_gets_regions(tmp_path: Path, data: Path) -> None:
    make("detr", tmp_path / "tiny")
    result = detecting.write(data, str(tmp_path / "tiny"), most=4, device="cpu")
    assert (result["found"], result["kept"], result["replaced"]) == (4, 1, 0)  # the copy is looked at once
    assert [(Path(one["file"]).name, "not a picture" in one["why"]) for one in result["failed"]] == [
        ("broken.png", True)
    ]
    found = rows(data)
    assert "regions" not in found["broken.png"]
    assert found["a.png"]["regions"] == found["copy.png"]["regions"] != found["b.png"]["regions"]
    assert found["a.png"]["regions"].startswith(f"{result['folder']}/")
    turned = read_regions(data / found["turned.jpg"]["regions"])
    assert turned.size == (32, 64)
    assert turned.boxes[:, 2:].max(0).tolist() <= [32, 64]
    kept = datasets.read(data)
    part = datasets.Dataset(data, kept.manifest, [p for p in kept.pictures if p.regions])
    batch = open_regions(part, 36).read(np.arange(5))
    assert (batch["pictures"].shape, batch["mask"].sum().item()) == ((5, 4, WIDTH), 20)
    assert 0 <= batch["boxes"].min() <= batch["boxes"].max() <= 1

    again = detecting.write(data, str(tmp_path / "tiny"), most=4)
    assert (again["found"], again["kept"], again["folder"]) == (0, 5, result["folder"])
    make("detr", tmp_path / "other", seed=1)
    other = detecting.write(data, str(tmp_path / "other"), most=4)
    assert (other["found"], other["replaced"]) == (4, 5)
    assert json.loads((data / other["folder"] / "source.json").read_text())["most"] == 4
    assert other["folder"] != result["folder"]


def test_a_model_of_detected_regions_is_asked_about_any_picture(tmp_path: Path, data: Path) -> None:
    """Training notes the detector; asked about a file, the model looks through it, as it did in training."""
    make("detr", tmp_path / "tiny")
    detecting.write(data, str(tmp_path / "tiny"), most=4)
    held = datasets.read(data)
    for picture in held.pictures:
        picture.qa = [Question(question="what colour is the dog?", answers=["red"])] if picture.regions else []
    held.pictures[0].split = held.pictures[1].split = "val"
    datasets.save(held)
    image, parts = {"tower": "regions"}, {"layers": 1, "heads": 2, "feedforward": 8}
    model = {"kind": "fusion", "width": 8, "image": image, "question": {"embedding": 8}, "fusion": parts}
    tree = {
        "task": "vqa",
        "answers": {"min_count": 1},
        "model": model,
        "loss": {"bce": 1.0},
        "train": {"batch_size": 2},
    }
    told = start_task(parse_recipe(tree, "test"), datasets.load(data)).config()["detector"]
    assert told["detector"] == f"hf:{tmp_path / 'tiny'}"
    assert (told["most"], told["fingerprint"]) == (4, Detector(str(tmp_path / "tiny")).fingerprint)

    make_run(tmp_path / "run", "fusion", "regions", WIDTH)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"detector": told}))
    pipeline = pipelines.load(str(tmp_path / "run"), device="cpu")
    assert isinstance(pipeline, pipelines.Vqa)
    part = datasets.load(data)
    rows = [0, 3, 5, 3]  # the second stands on its side
    asked = [TEXTS[0], TEXTS[1], TEXTS[2], TEXTS[0]]
    kept = dict(pipeline.answer_part(part, rows, asked, k=3, attend=True))
    failed: list[dict[str, str]] = []
    paths = [part.path(part.pictures[row]) for row in rows]
    broken = data / "images" / "broken.png"
    fresh = dict(pipeline.answer_each([*paths, broken], [*asked, TEXTS[0]], 3, failed=failed))
    assert (sorted(fresh), [one["file"] for one in failed]) == ([0, 1, 2, 3], [str(broken)])
    for place, answer in kept.items():
        own = fresh[place]
        assert [one.text for one in own.best] == [one.text for one in answer.best]
        assert [one.score for one in own.best] == pytest.approx([one.score for one in answer.best], abs=1e-4)
        assert own.attention is not None
        assert answer.attention is not None
        np.testing.assert_allclose(own.attention.boxes, answer.attention.boxes, atol=1e-2)
    assert len({answer.best[0].score for answer in kept.values()}) > 1

    make("detr", tmp_path / "tiny", seed=1)
    with pytest.raises(ModelError, match="not the detector that found the regions of"):
        pipelines.as_answerer(pipelines.load(str(tmp_path / "run"))).answer([paths[0]], ["what?"])


def test_a_stopped_run_goes_on(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("detr", tmp_path / "tiny")
    before = (data / "metadata.jsonl").read_bytes()
    detect, looked = Detector.detect, []

    def stop(self: Detector, picture: Image.Image) -> Regions:
        looked.append(picture.size)
        if len(looked) == 3:
            raise KeyboardInterrupt
        return detect(self, picture)

    monkeypatch.setattr(Detector, "detect", stop)
    with pytest.raises(KeyboardInterrupt):
        detecting.write(data, str(tmp_path / "tiny"))
    assert (data / "metadata.jsonl").read_bytes() == before
    assert len(list((data / "regions").rglob("*.npz"))) == 2
    result = detecting.write(data, str(tmp_path / "tiny"))
    assert (result["found"], result["kept"], len(looked)) == (2, 3, 5)
    assert all("regions" in row for name, row in rows(data).items() if name != "broken.png")


def test_check_tells_what_regions_lack(tmp_path: Path, data: Path) -> None:
    assert not [one for one in check(data).warnings if one.kind == "regions_missing"]  # nobody has any
    make("detr", tmp_path / "tiny")
    detecting.write(data, str(tmp_path / "tiny"), 4)
    found = rows(data)
    report = check(data)
    assert [one.file for one in report.warnings if one.kind == "regions_missing"] == ["images/broken.png"]
    assert [one.kind for one in report.errors] == ["broken"]  # the picture itself
    (data / found["a.png"]["regions"]).unlink()
    (data / found["b.png"]["regions"]).write_bytes(b"no")
    np.savez(data / found["last.png"]["regions"], boxes=np.zeros((1, 4)), features=np.zeros((1, 7)))
    errors = [(one.kind, one.file) for one in check(data).errors if one.file.startswith("regions")]
    assert errors == [
        ("missing", found["a.png"]["regions"]),
        ("broken", found["b.png"]["regions"]),
        ("missing", found["a.png"]["regions"]),
        ("region_widths", found["last.png"]["regions"]),
    ]


def test_command(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("yolos", tmp_path / "tiny")
    order = ["regions", str(data), "--detector", f"hf:{tmp_path / 'tiny'}", "--most", "3"]
    assert run(order) == 0
    told = capsys.readouterr()
    assert f"regions of 4 pictures by hf:{tmp_path / 'tiny'}, 1 were there" in told.out
    assert "broken.png" in told.err
    assert run([*order, "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert (body["found"], body["kept"], len(body["failed"]), len(body["warnings"])) == (0, 5, 1, 1)
    assert len(read_regions(data / rows(data)["a.png"]["regions"]).boxes) == 3


def no_detector(folder: Path) -> None:
    tiny_clips.make("clip", folder)


def pickle_only(folder: Path) -> None:
    weights = make("detr", folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def no_sight(folder: Path) -> None:
    make("detr", folder)
    (folder / "preprocessor_config.json").unlink()


def of_timm(folder: Path) -> None:
    make("detr", folder)
    config = json.loads((folder / "config.json").read_text())
    config["backbone_config"] = {"model_type": "timm_backbone", "backbone": "resnet50"}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("prepare", "why"),
    [
        (no_detector, "a clip, not a detector as DETR"),
        (pickle_only, "a pickle could run code"),
        (no_sight, r"no preprocessor_config.json, .* copy it to"),
        (of_timm, "pip install timm, or take an RT-DETR"),
    ],
)
def test_what_is_refused(
    tmp_path: Path,
    data: Path,
    prepare: Callable[[Path], None],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prepare(tmp_path / "model")
    monkeypatch.setattr(detecting, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=why):
        detecting.write(data, str(tmp_path / "model"))


def test_requests_that_make_no_sense(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["regions", str(data), "--detector", str(tmp_path / "none")]) == 1
    assert "there is no such folder" in capsys.readouterr().err
    assert run(["regions", str(data), "--detector", "hf:someone/detr"]) == 1
    assert "fetch it with `tuwen models get someone/detr`" in capsys.readouterr().err
    make("detr", tmp_path / "tiny")
    lost = datasets.read(data)
    lost.pictures = [picture for picture in lost.pictures if "broken" in picture.file_name]
    lost.rows = [0]
    datasets.save(lost)
    with pytest.raises(DataError, match=r"broken.png: .*no picture of .* can be read"):
        detecting.write(data, str(tmp_path / "tiny"))
