"""The top of a frozen tower, trained: its last blocks learn with the model, and another run can begin with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tuwen import checkpoint, pipelines, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, parse_recipe
from tuwen.errors import ConfigError, ModelError
from tuwen.records import Question
from tuwen.tasks import start_task
from tuwen.tasks.retrieval import RetrievalTask

Make = Callable[..., Path]
IMAGE = {"tower": "lite0", "size": 64, "features": "map", "tail": 1}


def retrieval(epochs: float = 2, **image: object) -> Recipe:
    tree: dict[str, Any] = {
        "model": {
            "width": 24,
            "image": {**IMAGE, "pooling": "attention", "heads": 2, "region_dropout": 0.3, **image},
            "text": {"embedding": 16, "width": 24, "pooling": "mean"},
        },
        "data": {"captions": 1},
        "loss": {"info_nce": 1.0},
        "train": {"epochs": epochs, "batch_size": 8, "lr": 0.01, "tail_lr": 0.1},
    }
    return parse_recipe(tree, "test")


def other(task: str, **image: object) -> Recipe:
    """A recipe of another task above the same tower."""
    parts: dict[str, Any] = {
        "vqa": {
            "answers": {"min_count": 1},
            "model": {"width": 16, "fusion": {"layers": 1, "heads": 2, "feedforward": 16}},
        },
        "captioning": {"model": {"decoder": {"width": 16, "heads": 2, "feedforward": 24, "layers": 1}}},
    }[task]
    tree: dict[str, Any] = {"task": task, "train": {"epochs": 1, "batch_size": 8, "lr": 0.01}, **parts}
    tree["model"]["image"] = {**IMAGE, **image}
    return parse_recipe(tree, "test")


@pytest.fixture
def data(make_toy: Make) -> Path:
    folder = make_toy()
    dataset = datasets.load(folder)
    for i, picture in enumerate(dataset.pictures):
        picture.qa = [Question(question="what is it?", answers=["thing" if i % 2 else "other"])]
    datasets.save(dataset)
    return folder


def top_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The trained top by name, without where it stands in the model."""
    return {name.split("head.", 1)[1]: value for name, value in tensors.items() if "head." in name}


def read_top(run: Path) -> dict[str, torch.Tensor]:
    return top_of(checkpoint.read_tensors(run / checkpoint.WEIGHTS))


def test_the_last_blocks_learn_and_a_picture_is_embedded_as_in_training(data: Path, tmp_path: Path) -> None:
    train.fit(retrieval(), data, tmp_path / "run")
    began, learnt = start_task(retrieval(), datasets.load(data)), read_top(tmp_path / "run")
    assert isinstance(began, RetrievalTask)
    first = top_of(began.model.state_dict())
    moved = {name for name in first if not torch.equal(first[name], learnt[name])}
    assert moved == {name for name in first if "_depthwise_conv" not in name}  # these stay: their gradient is dear
    pipeline = pipelines.as_embedder(pipelines.load(str(tmp_path / "run")))
    part = datasets.load(data).select("val")
    checkpoint.load_state(began.model, checkpoint.read_tensors(tmp_path / "run" / checkpoint.WEIGHTS), "run")
    with torch.inference_mode():
        cached = began.model.eval().embed_pictures(began.val.pictures.gather(np.arange(len(part)), None))
    seen = pipeline.embed_images([part.path(picture) for picture in part.pictures])
    np.testing.assert_allclose(seen, cached.numpy(), atol=5e-3)  # the cache is in fp16


@pytest.mark.parametrize("task", ["vqa", "captioning"])
def test_another_task_begins_with_the_top_of_a_run_and_trains_it(task: str, data: Path, tmp_path: Path) -> None:
    train.fit(retrieval(epochs=1), data, tmp_path / "base")
    asked = other(task, top=str(tmp_path / "base"))
    base = read_top(tmp_path / "base")
    began = top_of(start_task(asked, datasets.load(data)).model.state_dict())
    assert base.keys() == began.keys()
    assert all(torch.equal(base[name], began[name]) for name in base)
    train.fit(asked, data, tmp_path / "run")
    assert any(
        not torch.equal(base[name], value) for name, value in read_top(tmp_path / "run").items() if "tail" in name
    )
    pipelines.load(str(tmp_path / "run"))


def test_a_top_of_another_tower_is_refused(data: Path, tmp_path: Path) -> None:
    train.fit(retrieval(epochs=0), data, tmp_path / "base")
    with pytest.raises(ModelError, match="another tower, or with another tail"):
        start_task(other("vqa", top=str(tmp_path / "base"), tail=0), datasets.load(data))
    with pytest.raises(ConfigError, match="features=map, or leave them out"):
        other("vqa", features="grid")
