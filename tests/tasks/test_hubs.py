"""Hubs filled from training data: by a training, and on a run that had none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from own_captions import HUBS

from tuwen import checkpoint, pipelines, train
from tuwen.config import Recipe, parse_recipe
from tuwen.models.retrieval import EXTRA


def recipe(base: Path, hubs: dict[str, Any], **settings: float) -> Recipe:
    model = {**checkpoint.read_config(base)["model"], "hubs": hubs}
    settings = {"epochs": 0, "batch_size": 16, **settings}
    return parse_recipe({"start": str(base), "model": model, "loss": {"info_nce": 1.0}, "train": settings}, "test")


def test_without_an_epoch_a_run_gets_hubs_and_nothing_else(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    summary = train.fit(recipe(base, HUBS), data, out)
    assert (summary["steps"], summary["epochs"]) == (0, 0)
    began, now = (checkpoint.read_tensors(folder / "model.safetensors") for folder in (base, out))
    banks = {name for name in now if name.startswith("hubs.")}
    assert len(banks) == 6
    assert all(now[name].abs().sum() > 0 for name in banks)
    assert all(torch.equal(now[name], began[name]) for name in now.keys() - banks)
    before, after = pipelines.load(str(base)), pipelines.load(str(out))
    assert after.dim == before.dim + EXTRA
    assert after.fingerprint != before.fingerprint
    texts = ["a tiny red thing", "left and low"]
    plain, marked = before.embed_texts(texts), after.embed_texts(texts)
    np.testing.assert_allclose(marked[:, : before.dim] * np.sqrt(2), plain, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(marked, axis=1), 1, atol=1e-5)
    features = np.load(data / "own.npy")
    assert after.embed_features(features).shape == (40, after.dim)


def test_the_banks_are_of_the_model_that_is_kept(base: Path, data: Path, tmp_path: Path) -> None:
    made = recipe(base, HUBS, epochs=2, lr=0.01, ema=0.5)
    train.fit(made, data, tmp_path / "run")
    kept = checkpoint.read_tensors(tmp_path / "run" / "model.safetensors")
    again = train.fit(  # the same weights, filled once more
        parse_recipe({**made.model_dump(), "start": str(tmp_path / "run"), "train": {"epochs": 0}}, "test"),
        data,
        tmp_path / "again",
    )
    refilled = checkpoint.read_tensors(tmp_path / "again" / "model.safetensors")
    assert kept.keys() == refilled.keys()
    for name in kept:
        torch.testing.assert_close(kept[name], refilled[name], rtol=1e-4, atol=1e-5)
    assert again["steps"] == 0


def test_of_weight_0_there_are_none(base: Path, data: Path, tmp_path: Path) -> None:
    train.fit(recipe(base, {**HUBS, "weight": 0.0}), data, tmp_path / "run")
    began, now = (checkpoint.read_tensors(folder / "model.safetensors") for folder in (base, tmp_path / "run"))
    assert set(now) < set(began)  # all but CMPC's classes, which belong to other data
    assert all(torch.equal(now[name], began[name]) for name in now)
