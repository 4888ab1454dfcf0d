"""The published matching system (CMPM/CMPC): its recipes against the table, the models they build, person search."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tuwen import cli, pipelines
from tuwen import dataset as datasets
from tuwen.config import load_recipe
from tuwen.records import Caption, Manifest, Picture
from tuwen.tasks.retrieval import RetrievalTask

SYSTEM: dict[str, Any] = {  # FACTS, section 1, and the public code where it names that as the source
    "seed": 223,
    "tokenizer.kind": "word",
    "tokenizer.min_count": 3,
    "tokenizer.splits": ["train"],
    "data.langs": ["en"],
    "data.captions": 1,  # pairs
    "data.max_words": None,
    "data.max_tokens": 100,
    "data.view": "squash",
    "data.flip": True,
    "model.width": 512,  # feature_size
    "model.image.size": 224,
    "model.image.features": "pooled",
    "model.image.pretrained": True,
    "model.image.hidden": 0,  # a 1x1 convolution is linear
    "model.image.finetune": True,
    "model.image.dropout": 0.001,  # keep 0.999
    "model.text.kind": "lstm",
    "model.text.embedding": 512,
    "model.text.width": 512,  # a side
    "model.text.layers": 1,
    "model.text.bidirectional": True,
    "model.text.bias": False,
    "model.text.pooling": "max",
    "model.text.init": "xavier",
    "loss.cmpm": 1.0,
    "loss.cmpc": 1.0,
    "loss.sdm": 0.0,
    "loss.hinge": 0.0,
    "loss.info_nce": 0.0,
    "train.optimiser": "adam",
    "train.lr": 2e-4,
    "train.clip": 0.0,
    "train.ema": 0.0,
}
CUHK: dict[str, Any] = {
    **SYSTEM,
    "train.epochs": 50,
    "train.batch_size": 16,
    "train.tower_lr": 1.0,
    "train.schedule": "constant",
}
PUBLISHED: dict[str, dict[str, Any]] = {
    "matching-cuhk-mobilenet": {**CUHK, "model.image.tower": "mobilenet-v1", "model.image.init": "normal"},
    "matching-cuhk-resnet50": {**CUHK, "model.image.tower": "resnet50", "model.image.init": "xavier"},
    "matching-flickr-resnet152": {
        **SYSTEM,
        "model.image.tower": "resnet152",
        "model.image.init": "xavier",
        "train.epochs": 45,
        "train.batch_size": 32,
        "train.schedule": "step",
        "train.step_epochs": 15,
        "train.gamma": 0.1,
        "train.floor": 2e-5,
    },
}
WIDTHS = {"matching-cuhk-mobilenet": 1024, "matching-cuhk-resnet50": 2048, "matching-flickr-resnet152": 2048}
PEOPLE = ("red", "green", "blue", "white", "black", "grey")
COATS = [(220, 20, 20), (20, 160, 20), (20, 20, 220), (250, 250, 250), (10, 10, 10), (120, 120, 120)]


def sentences(person: int, shot: int) -> list[str]:
    return [f"A person in a {PEOPLE[person % 6]} coat walks.", f"The {PEOPLE[person % 6]} coat, picture {shot}."]


def draw_person(path: Path, person: int, shot: int) -> None:
    pixels = np.full((32, 16, 3), 90 + 20 * shot, np.uint8)
    pixels[8 + shot : 26, 3:13] = COATS[person % 6]
    pixels[0, 0] = person
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_people(folder: Path, grouped: bool = True, shots: int = 2) -> datasets.Dataset:
    """Six people of `shots` pictures each, two captions a picture: four in train, two in val."""
    pictures = []
    for person in range(6):
        for shot in range(shots):
            name = f"images/{person}-{shot}.png"
            draw_person(folder / name, person, shot)
            pictures.append(
                Picture(
                    file_name=name,
                    split="train" if person < 4 else "val",
                    group=f"person-{person}" if grouped else None,
                    captions=[Caption(text=text) for text in sentences(person, shot)],
                )
            )
    datasets.save(datasets.Dataset(folder, Manifest(name="people"), pictures), folder)
    return datasets.load(folder)


def start(name: str, people: datasets.Dataset, *overrides: str) -> Any:
    """A recipe's task with a random tower over small pictures; Any, so that tests may look into its modules."""
    small = ["model.image.pretrained=false", "model.image.size=32", "tokenizer.min_count=1", "batch_size=4"]
    return RetrievalTask(load_recipe(name, [*small, *overrides]), people)


def read(recipe: object, key: str) -> Any:
    for part in key.split("."):
        recipe = getattr(recipe, part)
    return recipe


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> datasets.Dataset:
    return save_people(tmp_path_factory.mktemp("matching") / "people")


@pytest.fixture(scope="module", params=PUBLISHED)
def built(request: pytest.FixtureRequest, people: datasets.Dataset) -> tuple[str, Any]:
    return request.param, start(request.param, people)


# The recipes


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_stand_in_the_recipe(name: str) -> None:
    made, table = load_recipe(name), PUBLISHED[name]
    wrong = {key: (read(made, key), value) for key, value in table.items() if read(made, key) != value}
    assert not wrong
    assert len(table) > 35
    text = (Path(__file__).parent.parent / "recipes" / f"{name}.yaml").read_text()
    for disagreement in ("keep 0.999", "padding", "the paper's code", "the teaching code"):
        assert disagreement in text


# The model that each builds


def test_shapes_are_the_published_ones(built: tuple[str, Any]) -> None:
    name, task = built
    model, text = task.model, task.model.sentence
    assert (model.picture.linear.in_features, model.picture.linear.out_features) == (WIDTHS[name], 512)
    assert model.tower is not None
    assert model.tower.pooled_width == WIDTHS[name]
    assert model.picture.mlp is None
    assert model.picture.gpo is None
    assert type(text.rnn) is torch.nn.LSTM
    assert (text.rnn.hidden_size, text.rnn.num_layers, text.rnn.bidirectional) == (512, 1, True)
    assert not text.rnn.bias
    assert not [key for key, _ in text.rnn.named_parameters() if "bias" in key]
    assert (text.project.in_features, text.project.out_features) == (1024, 512)
    assert text.pooling == "max"
    assert tuple(model.classifier.shape) == (4, 512)  # the people of train


def test_dropout_keeps_999_of_1000(built: tuple[str, Any]) -> None:
    picture = built[1].model.picture
    assert picture.dropout.p == pytest.approx(1 - 0.999)
    kept = picture.dropout.train()(torch.ones(200_000)).ne(0).float().mean().item()
    assert 0.998 < kept < 0.9996


def test_starting_values_are_the_published_ones(built: tuple[str, Any]) -> None:
    name, task = built
    model, text = task.model, task.model.sentence
    if name == "matching-cuhk-mobilenet":
        assert model.picture.linear.weight.std().item() == pytest.approx(0.09, rel=0.02)
    else:
        assert model.picture.linear.weight.std().item() == pytest.approx(math.sqrt(2 / (2048 + 512)), rel=0.02)
    assert text.project.weight.std().item() == pytest.approx(math.sqrt(2 / (1024 + 512)), rel=0.02)  # Xavier
    vocabulary = task.tokenizer.size
    assert text.embedding.weight[1:].std().item() == pytest.approx(math.sqrt(2 / (vocabulary + 512)), rel=0.05)
    weights = dict(text.rnn.named_parameters())
    assert len(weights) == 4  # two matrices a direction
    for weight in weights.values():
        bound = math.sqrt(6 / (weight.shape[0] + weight.shape[1]))  # Xavier-uniform
        assert 0.98 * bound < weight.abs().max().item() <= bound
    assert model.classifier.abs().max().item() <= math.sqrt(6 / (4 + 512))


def test_id_zero_is_padding_and_no_word(built: tuple[str, Any]) -> None:
    task = built[1]
    assert task.tokenizer.pad_id == task.built["pad"] == 0
    assert all((ids > 0).all() for ids in task.train.pairs.ids)
    embedding = task.model.sentence.embedding
    assert embedding.padding_idx == 0
    assert not embedding.weight[0].any()


def test_a_batch_of_one_trains_every_part(built: tuple[str, Any]) -> None:
    task = built[1]
    task.train.batch_size = 1
    try:
        batch = task.train[0]
    finally:
        task.train.batch_size = 4
    task.model.tower.fixed_batchnorm = True  # as with pretrained weights: a batch of one has no statistics of its own
    model = task.model.train()
    image, text, _ = model(batch["pictures"], batch["ids"], batch["lengths"])
    assert image.shape == text.shape == (1, 512)
    parts = task.losses(model, batch, 0.0)
    assert list(parts) == ["cmpm", "cmpc"]
    assert parts["cmpm"].item() == pytest.approx(0, abs=1e-5)  # alone in its batch it is found
    assert parts["cmpc"].item() > 0.1
    assert all(part.isfinite() for part in parts.values())
    last = [p for p in model.tower.parameters() if p.ndim > 1][-1]  # its first would take seconds of ResNet-152
    ends = [last, model.classifier, model.picture.linear.weight, model.sentence.rnn.weight_hh_l0_reverse]
    for gradient in torch.autograd.grad(torch.stack(list(parts.values())).sum(), ends):
        assert gradient.any()


def test_mobilenet_is_relu6_and_averages_its_seven_by_seven_grid(people: datasets.Dataset) -> None:
    tower = start("matching-cuhk-mobilenet", people, "model.image.size=224").model.tower
    kinds = {type(module).__name__ for module in tower.modules()}
    assert "ReLU6" in kinds
    assert "ReLU" not in kinds
    convolutions = [m.weight for m in tower.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == 27
    together = torch.cat([weight.detach().flatten() for weight in convolutions])
    assert together.std().item() == pytest.approx(0.09, rel=0.02)  # 0.09, not transformers' 0.02
    with torch.inference_mode():
        pixels = torch.randint(0, 256, (1, 224, 224, 3), dtype=torch.uint8)
        grid, pooled = tower(pixels), tower.pooled(pixels)
    assert grid.shape == (1, 49, 1024)
    torch.testing.assert_close(pooled, grid.mean(1))


def test_one_direction_gives_512(people: datasets.Dataset) -> None:
    text = start("matching-cuhk-mobilenet", people, "model.text.bidirectional=false").model.sentence.eval()
    assert text.rnn.num_layers == 1
    assert not text.rnn.bidirectional
    assert (text.project.in_features, text.project.out_features) == (512, 512)
    assert text(torch.tensor([[4, 5, 6]]), torch.tensor([3])).shape == (1, 512)


def test_the_seed_decides_every_weight(people: datasets.Dataset) -> None:
    torch.manual_seed(1)
    first = start("matching-cuhk-mobilenet", people).model.state_dict()
    torch.manual_seed(2)  # what ran before does not count
    second = start("matching-cuhk-mobilenet", people).model.state_dict()
    other = start("matching-cuhk-mobilenet", people, "seed=1").model.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    matrices = [key for key, value in first.items() if value.ndim > 1 and value.numel() > 100]
    assert len(matrices) > 30
    assert not [key for key in matrices if torch.equal(first[key], other[key])]


# Identities


def test_identities_come_from_the_group(people: datasets.Dataset) -> None:
    task = start("matching-cuhk-mobilenet", people, "batch_size=8")
    pairs, batch = task.train.pairs, task.train[0]
    assert pairs.groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert task.built["classes"] == 4
    assert sorted(batch["labels"].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert torch.equal(batch["caption_labels"], batch["labels"][batch["owner"]])
    assert task.val.groups.tolist() == [0, 0, 1, 1]


def test_without_a_group_a_picture_is_its_own_identity(tmp_path: Path) -> None:
    task = start("matching-cuhk-mobilenet", save_people(tmp_path / "alone", grouped=False), "batch_size=8")
    assert task.train.pairs.groups.tolist() == list(range(8))
    assert task.built["classes"] == 8
    assert sorted(task.train[0]["labels"].tolist()) == list(range(8))


# The embedded tower's recipe, and its neighbours in the table of losses


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([], ["cmpm", "cmpc"]),
        (["loss.cmpc=0"], ["cmpm"]),
        (["loss.sdm=1", "loss.cmpm=0", "loss.cmpc=0", "model.scale=50"], ["sdm"]),
        (["loss.hinge=1", "loss.cmpm=0", "loss.cmpc=0"], ["hinge"]),
    ],
)
def test_lite2_trains_with_each_loss_of_the_table(
    make_toy: Callable[..., Path], overrides: list[str], parts: list[str]
) -> None:
    names = [*overrides, "model.image.tower=features:toy", "tokenizer.min_count=1", "batch_size=8"]
    task: Any = RetrievalTask(load_recipe("matching-lite2", names), datasets.load(make_toy()))
    made = task.losses(task.model.train(), task.train[0], 0.0)
    assert list(made) == parts
    torch.stack(list(made.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert task.model.picture.linear.weight.grad.any()
    assert (task.model.classifier is not None) == ("cmpc" in parts)
    assert (task.model.log_scale.grad is not None) == ("sdm" in parts)  # only SDM has a temperature to learn
    assert task.languages == ["en"]


# Person search


def write_cuhk_pedes(folder: Path) -> dict[str, list[int]]:
    """A folder as CUHK-PEDES comes: pictures, `reid_raw.json`; the people of each split."""
    splits = {"train": [1, 2, 3, 4], "val": [5, 6], "test": [7, 8, 9]}
    rows = []
    for split, persons in splits.items():
        for person in persons:
            for shot in range(2 if split == "train" else 3):
                name = f"CUHK01/{person:04d}{shot:03d}.png"
                draw_person(folder / "imgs" / name, person, shot)
                captions = sentences(person, shot)
                tokens = [text.lower().strip(".").replace(",", "").split() for text in captions]
                row = {"split": split, "captions": captions, "file_path": name, "id": person}
                rows.append({**row, "processed_tokens": tokens})
    (folder / "reid_raw.json").write_text(json.dumps(rows))
    return splits


def by_identity(similarity: np.ndarray, rows: list[int], columns: list[int]) -> tuple[float, float]:
    """Recall@1 and mAP@R of rows that look for columns of their person, in percent: slowly, from the definition."""
    hits, precisions = [], []
    for values, person in zip(similarity, rows, strict=True):
        right = [columns[i] == person for i in np.argsort(-values, kind="stable")]
        wanted = sum(right)
        hits.append(right[0])
        precisions.append(sum(sum(right[: k + 1]) / (k + 1) for k in range(wanted) if right[k]) / wanted)
    return 100 * float(np.mean(hits)), 100 * float(np.mean(precisions))


def test_person_search_from_import_to_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = write_cuhk_pedes(tmp_path / "CUHK-PEDES")
    data, out, scores = tmp_path / "data", tmp_path / "run", tmp_path / "scores.json"
    assert cli.run(["import", "cuhk-pedes", str(tmp_path / "CUHK-PEDES"), str(data)]) == 0
    read_back = datasets.load(data)
    assert read_back.splits() == {"train": 8, "val": 6, "test": 9}
    assert {p.group for p in read_back.select("test").pictures} == {f"person-{i}" for i in splits["test"]}
    # 64 px, because at 32 all of lite2's features are 0
    small = ["model.image.size=64", "tokenizer.min_count=1", "epochs=1", "batch_size=4", "data.flip=false"]
    assert cli.run(["train", "matching-lite2", *small, "--data", str(data), "--out", str(out)]) == 0
    assert cli.run(["eval", str(out), "--data", str(data), "--split", "test", "--json", str(scores)]) == 0
    assert "Traceback" not in capsys.readouterr().err
    result = json.loads(scores.read_text())
    metrics = result["metrics"]
    assert result["n"] == 9
    for way in ("i2t", "t2i"):
        for key in ("r1", "r5", "r10", "map_r"):
            assert 0 <= metrics[f"{way}_{key}"] <= 100
    # Nine pictures of three people, 18 captions: what the scores must be by person, not by picture
    pipeline, test = pipelines.load(str(out)), read_back.select("test")
    persons = [int(str(p.group).removeprefix("person-")) for p in test.pictures]
    owners = [i for i, picture in enumerate(test.pictures) for _ in picture.captions]
    texts = [caption.text for picture in test.pictures for caption in picture.captions]
    images = pipeline.embed_images([test.path(p) for p in test.pictures])
    similarity = images @ pipeline.embed_texts(texts).T + np.random.default_rng(0).normal(0, 1e-9, (9, 18))
    spoken = [persons[i] for i in owners]
    assert (metrics["i2t_r1"], metrics["i2t_map_r"]) == pytest.approx(
        by_identity(similarity, persons, spoken), abs=0.01
    )
    back = by_identity(similarity.T, spoken, persons)
    assert (metrics["t2i_r1"], metrics["t2i_map_r"]) == pytest.approx(back, abs=0.01)
    alone = by_identity(similarity.T, owners, list(range(9)))
    assert alone[0] < back[0], "by picture it would be another score"
