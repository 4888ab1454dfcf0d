"""A re-ranker trained above a small retrieval model: what it sees, what it brings, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from own_captions import make_own
from PIL import Image

from tuwen import checkpoint, evaluate, pipelines, train
from tuwen import dataset as datasets
from tuwen.cli import run as command
from tuwen.config import Recipe, parse_recipe
from tuwen.errors import DataError, ModelError
from tuwen.pipelines import Reranker
from tuwen.reranking import rerank
from tuwen.searching import Hit
from tuwen.tasks import start_task
from tuwen.tasks.reranker import TOP, RerankerTask, hardest

ATTRIBUTES = [(0, 4), (4, 7), (7, 10), (10, 12)]  # of the features `own`: each gets a region


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of five regions: each attribute on its own, and noise."""
    folder = make_own(tmp_path_factory.mktemp("own") / "own", n=72)
    own = np.load(folder / "own.npy")
    grid = np.random.default_rng(0).normal(0, 0.1, (72, 5, 12)).astype(np.float32)
    for region, (first, end) in enumerate(ATTRIBUTES):
        grid[:, region, first:end] = own[:, first:end]
    np.save(folder / "own.npy", grid)
    np.save(folder / "flat.npy", own)
    rows = datasets.read(folder)
    rows.manifest.features["flat"] = "flat.npy"
    for i, picture in enumerate(rows.pictures):
        picture.split = "val" if i % 3 == 2 else "train"
    datasets.save(rows)
    return folder


def make_base(data: Path, folder: Path, features: str = "own", hubs: float = 0.0) -> Path:
    tree = {
        "name": folder.name,
        "data": {"captions": 1},
        "model": {
            "width": 24,
            "image": {"tower": f"features:{features}", "features": "grid"},
            "text": {"embedding": 16, "width": 24, "pooling": "mean"},
            "hubs": {"weight": hubs, "pictures": 20, "sentences": 20},
        },
        "loss": {"info_nce": 1.0},
        "train": {"epochs": 3, "batch_size": 24, "lr": 3e-3},
    }
    train.fit(parse_recipe(tree, "base"), data, folder)
    return folder


@pytest.fixture(scope="module")
def base(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(data, tmp_path_factory.mktemp("runs") / "base", hubs=0.5)


def recipe(base: Path, **settings: float) -> Recipe:
    model = {"base": str(base), "width": 16, "heads": 2, "hidden": 8, "region_dropout": 0.0, "word_dropout": 0.0}
    settings = {"epochs": 30, "batch_size": 16, "lr": 1e-2, "evaluate_every": 30, **settings}
    loss = {"candidates": 8, "near": 2, "held": 8}
    return parse_recipe({"task": "reranker", "name": "again", "model": model, "loss": loss, "train": settings}, "test")


@pytest.fixture(scope="module")
def run(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "again"
    train.fit(recipe(base), data, out)
    return out


def test_it_begins_near_chance_and_learns(run: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    costs = [line["ranking"] for line in lines if line["split"] == "train"]
    assert costs[-1] < 0.8 * costs[0]
    assert {"weight", "held/0.0", "gain/rsum", "en/t2i_r1"} <= set(lines[-1])


def test_held_pictures_stand_in_no_batch(base: Path, data: Path) -> None:
    task = start_task(recipe(base), datasets.load(data))
    assert isinstance(task, RerankerTask)
    assert len(task.held) == 8
    seen = set()
    for epoch in range(3):
        task.train.set_epoch(epoch)
        for index in range(len(task.train)):
            seen |= set(task.train[index]["rows"].tolist())
    assert len(seen) > 30
    assert not seen & set(task.held.tolist())


def test_neighbours_are_others_that_the_captions_find(base: Path, data: Path) -> None:
    task = start_task(recipe(base), datasets.load(data))
    assert isinstance(task, RerankerTask)
    near = task.train.neighbours
    assert near is not None
    assert near.shape == (48, 2)
    usable = task.train.usable
    assert (near[usable] != usable[:, None]).all()
    pipeline = pipelines.load(str(base))
    part = datasets.load(data).select("train")
    texts = [part.pictures[i].captions[0].text for i in usable]
    vectors = pipeline.embed_texts(texts)[:, :24] * np.sqrt(2)  # without their hubs
    similar = vectors @ task.vectors.numpy().T
    similar[np.arange(len(usable)), usable] = -9
    np.testing.assert_array_equal(np.sort(near[usable]), np.sort(np.argsort(-similar, 1)[:, :2]))


def test_the_pipeline_scores_as_the_training_did_and_eval_tells_before_and_after(
    run: Path, base: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = checkpoint.read_config(run)["validation"]
    result = evaluate.score(pipelines.load(str(run)), datasets.load(data), "val")
    swap = 100 / 10  # half precision may swap two hits of one of the ten pictures, or of one of their 20 captions
    for key, most in (("i2t_r1", swap), ("t2i_r1", swap / 2), ("rsum", 1.5 * swap)):
        assert result["metrics"][key] == pytest.approx(trained[key], abs=most)
    plain = evaluate.score(pipelines.load(str(base)), datasets.load(data), "val")
    assert result["rerank"]["en"]["before"] == plain["per_language"]["en"]
    assert "first 20 hits" in result["protocol"]["reranker"]
    out = tmp_path / "scores.json"
    asked = ["eval", str(base), "--data", str(data), "--split", "val", "--rerank", str(run), "--json", str(out)]
    assert command(asked) == 0
    assert "re-ranked, en: mean recall" in capsys.readouterr().out
    assert json.loads(out.read_text())["metrics"] == result["metrics"]


def test_what_does_not_fit_is_refused(run: Path, base: Path, data: Path, tmp_path: Path) -> None:
    other = make_base(data, tmp_path / "other")
    flat = make_base(data, tmp_path / "flat", "flat")
    with pytest.raises(ModelError, match=r"re-ranks what .* finds, not other"):
        pipelines.load_reranker(str(run), pipelines.as_embedder(pipelines.load(str(other))))
    with pytest.raises(ModelError, match="no re-ranker"):
        pipelines.load_reranker(str(base), pipelines.as_embedder(pipelines.load(str(base))))
    with pytest.raises(ModelError, match="needs a grid"):
        start_task(recipe(flat), datasets.load(data))
    with pytest.raises(DataError, match="--folds does not go with a re-ranker"):
        evaluate.score(pipelines.load(str(run)), datasets.load(data), "val", folds=2)
    config = checkpoint.read_config(run)
    with pytest.raises(ModelError, match="bring that model back"):
        Reranker(run, {**config, "fingerprint": "0" * 16}, pipelines.load(str(base)))  # type: ignore[arg-type]


def test_with_a_tower_it_looks_at_pictures_as_it_was_trained_to(data: Path, tmp_path: Path) -> None:
    image = {"tower": "lite0", "size": 64, "features": "map", "pooling": "attention", "heads": 2}
    text = {"embedding": 16, "width": 24, "pooling": "mean"}
    train.fit(
        parse_recipe(
            {
                "name": "seeing",
                "model": {"width": 24, "image": image, "text": text},
                "loss": {"info_nce": 1.0},
                "train": {"epochs": 0},
            },
            "base",
        ),
        data,
        tmp_path / "seeing",
    )
    train.fit(recipe(tmp_path / "seeing", epochs=0), data, tmp_path / "run")
    base = pipelines.as_embedder(pipelines.load(str(tmp_path / "seeing")))
    reranker = pipelines.load_reranker(str(tmp_path / "run"), base)
    task = start_task(recipe(tmp_path / "seeing"), datasets.load(data))
    assert isinstance(task, RerankerTask)
    part = datasets.load(data).select("val")
    paths = [part.path(picture) for picture in part.pictures[:3]]
    with torch.no_grad():
        features = task.val.pictures.gather(np.arange(3), None)
        trained = reranker.cross.read_regions(task.base.picture.head(features))  # type: ignore[union-attr, operator]
    seen = reranker.read_images(paths)
    assert seen.shape == (3, 2, 2, 4, 8)  # pictures, keys and values, heads, regions, width
    torch.testing.assert_close(seen.float(), trained, rtol=0, atol=5e-3)
    hits = [Hit(str(path), 0.5, rank, None, str(rank)) for rank, path in enumerate(paths, 1)]
    reranker.cross.weight.fill_(1.0)
    got = rerank(hits, "a tiny red thing", reranker)
    scores = reranker.score(seen, reranker.read_texts(["a tiny red thing"]), np.arange(3), np.zeros(3, np.int64))
    assert [hit.id for hit in got] == [str(place + 1) for place in np.argsort(-scores, kind="stable")]
    assert scores.std() > 0


def test_the_hardest_are_the_own_captions_and_then_the_nearest() -> None:
    similar = torch.tensor([[0.1, 0.9, 0.5, 0.7], [0.2, 0.3, 0.8, 0.4]])
    positive = torch.tensor([[True, False, False, False], [False, False, False, True]])
    assert hardest(similar, positive, 3).tolist() == [[0, 1, 3], [3, 2, 1]]
    assert hardest(similar, positive, 9).shape == (2, 4)


@dataclass
class Judge:
    """Likes bright pictures."""

    top: int = 3
    weight: float = 0.01

    def read_images(self, pictures: list[Path]) -> torch.Tensor:
        from tuwen import images
        from tuwen.images import View

        return torch.tensor([[float(images.load(path, 8, View()).mean())] for path in pictures])

    def read_texts(self, texts: list[str]) -> list[str]:
        return texts

    def score(self, regions: torch.Tensor, words: object, pictures: np.ndarray, sentences: np.ndarray) -> np.ndarray:
        assert len(pictures) == len(sentences) == len(regions)
        return regions[pictures, 0].numpy()


def test_the_first_hits_come_in_a_new_order(tmp_path: Path) -> None:
    hits = []
    for rank, shade in enumerate((10, 200, 100, 250), 1):
        path = tmp_path / f"{shade}.png"
        Image.new("RGB", (8, 8), (shade,) * 3).save(path)
        hits.append(Hit(str(path), 1 - rank / 100, rank, None, str(shade)))
    got = rerank(hits, "bright", Judge())  # type: ignore[arg-type]
    assert [hit.id for hit in got] == ["200", "100", "10", "250"]  # the fourth is not looked at
    assert [hit.rank for hit in got] == [1, 2, 3, 4]
    assert sum(hit.score for hit in got[:3]) == pytest.approx(sum(hit.score for hit in hits[:3]))
    (tmp_path / "200.png").write_bytes(b"no picture")
    assert {hit.id: hit.score for hit in rerank(hits, "bright", Judge())}["200"] == 0.98  # type: ignore[arg-type]
    assert rerank([], "bright", Judge()) == []  # type: ignore[arg-type]
    assert TOP == 20
