"""A retrieval training that starts from another run's weights and tokeniser."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from own_captions import make_own

from tuwen import checkpoint, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, parse_recipe
from tuwen.errors import ModelError
from tuwen.tasks import start_task
from tuwen.tasks.retrieval import RetrievalTask


def recipe(base: Path, **settings: float) -> Recipe:
    model = checkpoint.read_config(base)["model"]
    settings = {"epochs": 4, "batch_size": 16, **settings}
    return parse_recipe({"start": str(base), "model": model, "loss": {"info_nce": 1.0}, "train": settings}, "test")


def own(tmp_path: Path) -> Path:
    """Other data than the base learned on, with words that it does not know."""
    data = datasets.read(make_own(tmp_path / "own", seed=3))
    for i, picture in enumerate(data.pictures):
        picture.split = "val" if i % 4 == 3 else "train"
        picture.captions[0].text += " indeed"
    datasets.save(data)
    return data.folder


def test_it_begins_as_that_run_and_leaves_what_only_its_losses_needed(base: Path, tmp_path: Path) -> None:
    task = start_task(recipe(base), datasets.load(own(tmp_path)))
    began = checkpoint.read_tensors(base / "model.safetensors")
    state = task.model.state_dict()
    assert set(began) - set(state) == {"classifier"}  # of CMPC, which knew the identities of its own data
    assert all(torch.equal(state[name], began[name]) for name in state)
    assert len(state) > 5
    assert task.tokenizer.unknown("indeed a red thing") == ["indeed"]
    assert task.config()["languages"] == ["en"]


def test_a_factor_of_zero_trains_nothing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = RetrievalTask.groups

    def still(self: RetrievalTask) -> object:
        for factor, params in groups(self):
            sentence = {id(p) for p in self.model.sentence.parameters()}
            yield factor, [p for p in params if id(p) not in sentence]
            yield 0.0, [p for p in params if id(p) in sentence]

    monkeypatch.setattr(RetrievalTask, "groups", still)
    train.fit(recipe(base, lr=0.01), own(tmp_path), tmp_path / "run")
    began, now = (checkpoint.read_tensors(folder / "model.safetensors") for folder in (base, tmp_path / "run"))
    moved = {name.split(".")[0] for name in now if not torch.equal(now[name], began[name])}
    assert moved == {"picture", "log_scale"}


def test_cut_in_two_it_equals_the_uncut_run(base: Path, tmp_path: Path) -> None:
    made, data = recipe(base), own(tmp_path)
    train.fit(made, data, tmp_path / "whole")
    dataset = datasets.load(data)
    accelerator = train.start_accelerator("no")
    run = train.Run(made, start_task(made, dataset), accelerator, tmp_path / "cut", dataset.fingerprint())
    run.create()
    asked = iter(range(1000))
    with pytest.raises(KeyboardInterrupt):
        run.train(stop=lambda: run.state.step >= 5 and next(asked) >= 0)
    train.fit(made, data, tmp_path / "cut", resume=True)
    whole, resumed = (checkpoint.read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_run_of_another_shape_or_task_is_refused(base: Path, tmp_path: Path) -> None:
    data = datasets.load(own(tmp_path))
    made = recipe(base)
    wider = parse_recipe({**made.model_dump(), "model": {**made.model_dump()["model"], "width": 40}}, "test")
    with pytest.raises(ModelError, match=r"weights do not fit config\.json"):
        start_task(wider, data)
    with pytest.raises(ModelError, match="no model"):
        start_task(made.model_copy(update={"start": str(tmp_path / "none")}), data)
