"""Tuning: what it learns, what it says of it, and that a run cut in two is the uncut one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clips
import torch
from own_captions import EVIL, Stranger, make_own

from tuwen import checkpoint, evaluate, losses, pipelines, train
from tuwen import dataset as datasets
from tuwen.config import AdapterRecipe, dump_recipe, load_recipe
from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.holdout import hold_out, same_sentence
from tuwen.models.retrieval import Adapter
from tuwen.pipelines.adapted import _mapped
from tuwen.tasks import start_task
from tuwen.tune import KEYS, embed, in_words, make_recipe, tune, write_parts
from tuwen.tune_page import write_tuned


@pytest.fixture
def stranger(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model that needs no weights."""
    load = pipelines.load
    monkeypatch.setattr(
        pipelines,
        "load",
        lambda name="retrieval", device=None: Stranger() if name == "stranger" else load(name, device),
    )
    return "stranger"


def test_it_learns_a_folders_own_words_and_says_so(stranger: str, tmp_path: Path) -> None:
    data, out = make_own(tmp_path / "own"), tmp_path / "tuned"
    result = tune(data, stranger, out)
    assert result["verdict"] == "improved"
    assert result["recommended"] == str(out)
    assert (result["n_train"], result["n_val"], result["n_test"]) == (39, 10, 21)
    for key in ("i2t_r5", "t2i_r5"):
        assert result["after"][key] > result["before"][key] + 10
        assert result["interval"][key][0] > 0
    assert json.loads((out / "tune.json").read_text()) == json.loads(json.dumps(result))
    assert "Improved" in (out / "README.md").read_text()
    # What stands in the run scores the same by `eval`, before and after, and shares no sentence between its parts.
    parts = datasets.load(out / "data")
    for name, state in ((stranger, "before"), (str(out), "after")):
        again = evaluate.score(pipelines.load(name), parts, "test")["metrics"]
        assert {key: round(again[key], 2) for key in KEYS} == {key: result[state][key] for key in KEYS}
    learnt, scored = (
        {same_sentence(c.text) for p in parts.pictures if (p.split == "test") == held for c in p.captions}
        for held in (False, True)
    )
    assert (len(learnt), len(scored)) == (98, 42)
    assert not learnt & scored


def test_captions_of_other_pictures_bring_nothing(stranger: str, tmp_path: Path) -> None:
    result = tune(make_own(tmp_path / "own", shuffled=True), stranger, tmp_path / "tuned")
    assert result["verdict"] != "improved"
    assert result["recommended"] == "stranger"
    assert "Keep stranger" in result["words"][0]


def test_what_got_better_and_worse_is_by_rule(stranger: str, tmp_path: Path) -> None:
    data, out = make_own(tmp_path / "own"), tmp_path / "tuned"
    result = tune(data, stranger, out, epochs=3)
    moved = [one["before"] - one["after"] for one in result["better"]]
    fallen = [one["after"] - one["before"] for one in result["worse"]]
    assert moved == sorted(moved, reverse=True)
    assert fallen == sorted(fallen, reverse=True)
    assert min([*moved, *fallen]) > 0
    assert sum(result["pictures"].values()) == 21
    assert len(moved) == min(12, result["pictures"]["better"]) > 0
    page = write_tuned(out).read_text(encoding="utf-8")
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    for one in result["better"]:
        assert f"{one['before']} → {one['after']}" in page
        assert one["title"] in page
    assert page.count("data:image/jpeg") == len({one["file"] for one in result["better"] + result["worse"]})
    with pytest.raises(DataError, match="no run of `tuwen tune`"):
        write_tuned(data)


def test_a_tuning_cut_in_two_equals_the_uncut_one(tmp_path: Path) -> None:
    held = hold_out(datasets.read(make_own(tmp_path / "own")))
    made = make_recipe(Stranger(), held, "run", 6.0, 0)
    write_parts(held.data, tmp_path / "parts", *embed(Stranger(), held.data))
    dataset = datasets.load(tmp_path / "parts")
    train.fit(made, tmp_path / "parts", tmp_path / "whole")
    accelerator = train.start_accelerator(made.train.precision)
    run = train.Run(made, start_task(made, dataset), accelerator, tmp_path / "cut", dataset.fingerprint())
    run.create()
    asked = iter(range(1000))
    with pytest.raises(KeyboardInterrupt):
        run.train(stop=lambda: run.state.step >= 5 and next(asked) >= 0)
    result = train.fit(made, tmp_path / "parts", tmp_path / "cut", resume=True)
    assert result["steps"] == 12
    assert result["best_step"] in (5, 10, 12)
    whole, resumed = (checkpoint.read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_adapter_begins_as_its_base_and_gradients_reach_it() -> None:
    torch.manual_seed(0)
    adapter = Adapter(8, rate=0.2)
    x = torch.nn.functional.normalize(torch.randn(6, 8), dim=-1)
    image, text = adapter.eval()(x, x)
    torch.testing.assert_close(image, x)
    loss = losses.info_nce(image @ text.T * 0, torch.eye(6, dtype=torch.bool), adapter.scale)
    assert loss.item() == pytest.approx(math.log(6))
    image, text = adapter.train()(x, x.flip(0))
    losses.info_nce(image @ text.T, torch.eye(6, dtype=torch.bool), adapter.scale).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_the_pipeline_maps_as_the_module_does() -> None:
    torch.manual_seed(1)
    adapter = Adapter(8).eval()
    torch.nn.init.normal_(adapter.picture.weight)
    x = torch.nn.functional.normalize(torch.randn(5, 8), dim=-1)
    with torch.no_grad():
        wanted = adapter.embed_pictures(x).numpy()
        found = _mapped(x.numpy(), adapter.picture.weight.numpy().T)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("family", sorted(tiny_clips.FAMILIES))
def test_hub_models_are_tuned_by_an_adapter(family: str, tmp_path: Path) -> None:
    folder, out = tmp_path / family, tmp_path / "tuned"
    tiny_clips.make(family, folder)
    data = make_own(tmp_path / "own", 50)
    result = tune(data, f"hf:{folder}", out, epochs=2)
    assert result["from"] == f"hf:{folder}"
    assert (result["n_train"], result["n_val"], result["n_test"]) == (20, 10, 20)
    tuned, base = pipelines.load(str(out)), pipelines.load(f"hf:{folder}")
    assert tuned.task == "retrieval"
    assert tuned.fingerprint != base.fingerprint
    moved = tuned.embed_texts(["a red thing"])  # type: ignore[union-attr]
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)
    assert not np.allclose(moved, base.embed_texts(["a red thing"]))  # type: ignore[union-attr]
    tiny_clips.make(family, folder, seed=1)
    with pytest.raises(ModelError, match="tune again"):
        pipelines.load(str(out))


def test_wrong_requests_are_refused_before_anything_is_written(
    stranger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, data, out = make_own(tmp_path / "few", 49), make_own(tmp_path / "own"), tmp_path / "tuned"
    with pytest.raises(DataError, match="49 pictures with human captions: tuning needs at least 50"):
        tune(few, stranger, out)
    monkeypatch.setattr(Stranger, "precomputed", True, raising=False)
    with pytest.raises(ConfigError, match="can't look at pictures"):
        tune(data, stranger, out)
    assert not out.exists()
    out.mkdir()
    (out / "note.txt").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        tune(data, stranger, out)
    assert [path.name for path in out.iterdir()] == ["note.txt"]


SAID: list[tuple[str, str, str]] = [
    ("improved", "run", "Improved: +3.0 points"),
    ("worse", "retrieval", "Keep retrieval"),
    ("no gain to be seen", "retrieval", "would have shown"),
    ("the data is too small to tell", "retrieval", "too small to tell"),
]


@pytest.mark.parametrize(("verdict", "recommended", "said"), SAID)
def test_every_verdict_is_said_plainly_in_both_languages(verdict: str, recommended: str, said: str) -> None:
    mean = {"gain": 3.0, "interval": [1.0, 5.0], "smallest_seen": 2.5}
    result: dict[str, Any] = {"verdict": verdict, "recommended": recommended, "mean_recall": mean, "n_test": 40}
    english, chinese = in_words(result)
    assert said in english
    assert recommended in english
    assert recommended in chinese
    assert "40 " in english


def test_recipes_of_an_adapter_survive_a_file(tmp_path: Path) -> None:
    held = hold_out(datasets.read(make_own(tmp_path / "own")))
    made = make_recipe(Stranger(), held, "run", None, 3)
    assert isinstance(made, AdapterRecipe)
    (tmp_path / "r.yaml").write_text(dump_recipe(made))
    assert load_recipe(str(tmp_path / "r.yaml")) == made
    assert made.seed == 3
