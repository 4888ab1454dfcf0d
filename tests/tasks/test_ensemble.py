"""Members of other seeds in one index: what they say together, trained together or joined afterwards."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from own_captions import HUBS
from torch.nn import functional as F

from tuwen import checkpoint, losses, pipelines, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, RetrievalRecipe, parse_recipe
from tuwen.config.retrieval import LossConfig
from tuwen.errors import ConfigError, ModelError
from tuwen.models.retrieval import EXTRA, DualEncoder, Ensemble, grid_features, members_of, word_states
from tuwen.tasks import start_task
from tuwen.tasks.retrieval import RetrievalTask


def recipe(base: Path, start: str | None, members: int = 2, hubs: bool = False, **settings: float) -> Recipe:
    model: dict[str, Any] = {**checkpoint.read_config(base)["model"], "members": members}
    if hubs:
        model["hubs"] = HUBS
    tree = {
        "start": start,
        "data": {"captions": 1},
        "model": model,
        "loss": {"info_nce": 1.0},
        "train": {"epochs": 0, "batch_size": 10, **settings},
    }
    return parse_recipe(tree, "test")


@pytest.fixture(scope="module")
def other(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base, trained on: other weights, the same words."""
    out = tmp_path_factory.mktemp("other") / "run"
    train.fit(recipe(base, str(base), members=1, epochs=2, lr=0.01), data, out)
    return out


def test_joined_runs_rank_by_the_mean_of_their_similarities(
    base: Path, other: Path, data: Path, tmp_path: Path
) -> None:
    train.fit(recipe(base, f"{base},{other}"), data, tmp_path / "both")
    first, second, both = (pipelines.load(str(run)) for run in (base, other, tmp_path / "both"))
    features, texts = np.load(data / "own.npy"), ["a tiny red thing", "left and low", "blue"]
    sims = [one.embed_features(features) @ one.embed_texts(texts).T for one in (first, second, both)]
    assert not np.allclose(sims[0], sims[1], atol=1e-3)
    np.testing.assert_allclose(sims[2], (sims[0] + sims[1]) / 2, atol=1e-5)
    assert both.dim == first.dim + second.dim
    np.testing.assert_allclose(np.linalg.norm(both.embed_texts(texts), axis=1), 1, atol=1e-5)
    assert both.config["start"].count(",") == 1


def test_a_joined_run_is_joined_once_more_with_hubs(base: Path, other: Path, data: Path, tmp_path: Path) -> None:
    train.fit(recipe(base, f"{base},{other}"), data, tmp_path / "both")
    train.fit(recipe(base, str(tmp_path / "both"), hubs=True), data, tmp_path / "hubs")
    with pytest.raises(ConfigError, match=r"made of 2, the recipe asks for model\.members=1"):
        start_task(recipe(base, str(tmp_path / "both"), members=1), datasets.load(data))
    plain, marked = pipelines.load(str(tmp_path / "both")), pipelines.load(str(tmp_path / "hubs"))
    assert marked.dim == plain.dim + EXTRA
    texts = ["a tiny red thing", "left and low"]
    inside = marked.embed_texts(texts)[:, : plain.dim] * math.sqrt(2)
    np.testing.assert_allclose(inside, plain.embed_texts(texts), atol=1e-5)


def test_first_loss_is_the_log_of_the_candidates_for_each_member(base: Path, data: Path) -> None:
    made = recipe(base, None, members=3)
    made.model.scale = 1e-3  # type: ignore[union-attr]
    task = start_task(made, datasets.load(data))
    parts = task.losses(task.model, task.train[0], 0.0)
    assert set(parts) == {"info_nce"}
    assert float(parts["info_nce"].detach()) == pytest.approx(3 * math.log(10), rel=1e-2)


def test_each_member_learns_from_its_own_loss_alone(base: Path, data: Path) -> None:
    torch.manual_seed(0)
    task = start_task(recipe(base, None), datasets.load(data))
    assert isinstance(task, RetrievalTask)
    assert isinstance(task.model, Ensemble)
    batch = task.train[0]
    task.losses(task.model, batch, 0.0)["info_nce"].backward()
    together = [{name: p.grad for name, p in member.named_parameters()} for member in members_of(task.model)]
    assert all(grad is not None and grad.abs().sum() > 0 for grads in together for grad in grads.values())
    for member, grads in zip(members_of(task.model), together, strict=True):
        member.zero_grad()
        out = member(batch["pictures"], batch["ids"], batch["lengths"])
        task._losses(member, out, batch, 0.0)["info_nce"].backward()
        for name, p in member.named_parameters():
            torch.testing.assert_close(p.grad, grads[name], msg=name)


def test_they_overfit_and_a_run_cut_in_two_equals_the_uncut_one(base: Path, data: Path, tmp_path: Path) -> None:
    made = recipe(base, None, epochs=12, lr=0.01)
    summary = train.fit(made, data, tmp_path / "whole")
    assert summary["best_step"] > 0
    task = start_task(recipe(base, str(tmp_path / "whole")), datasets.load(data))
    before = start_task(recipe(base, None), datasets.load(data))
    trained, fresh = (
        float(one.losses(one.model.eval(), one.train[0], 0.0)["info_nce"].detach()) for one in (task, before)
    )
    assert trained < fresh / 3
    dataset = datasets.load(data)
    run = train.Run(
        made, start_task(made, dataset), train.start_accelerator("no"), tmp_path / "cut", dataset.fingerprint()
    )
    run.create()
    asked = iter(range(1000))
    with pytest.raises(KeyboardInterrupt):
        run.train(stop=lambda: run.state.step >= 7 and next(asked) >= 0)
    train.fit(made, data, tmp_path / "cut", resume=True)
    whole, resumed = (checkpoint.read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == resumed.keys()
    assert {name.split(".")[1] for name in whole} == {"0", "1"}
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ("{base}", r"made of 1, the recipe asks for model\.members=2"),
        ("{base},{base},{base}", "3 runs for 2 members"),
    ],
)
def test_as_many_runs_as_members(base: Path, data: Path, starts: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        start_task(recipe(base, starts.format(base=base)), datasets.load(data))


def test_runs_with_other_words_are_refused(base: Path, other: Path, data: Path, tmp_path: Path) -> None:
    made = recipe(base, None, members=1)
    train.fit(made, data, tmp_path / "own")  # its own vocabulary
    with pytest.raises(ModelError, match=r"tokeniser is not that of"):
        start_task(recipe(base, f"{base},{tmp_path / 'own'}"), datasets.load(data))


def test_members_share_a_frozen_tower(base: Path) -> None:
    model = {"members": 2, "image": {"tower": "lite0", "finetune": True}}
    with pytest.raises(ConfigError, match=r"members share one frozen tower"):
        parse_recipe({"model": model, "loss": {"info_nce": 1.0}}, "test")


def test_a_reranker_reads_the_first_member_and_ranks_by_all(base: Path, data: Path) -> None:
    model = start_task(recipe(base, None), datasets.load(data)).model.eval()
    first = members_of(model)[0]
    assert isinstance(first, DualEncoder)
    ids, lengths = torch.tensor([[1, 2, 3], [2, 1, 0]]), torch.tensor([3, 2])
    with torch.no_grad():
        states, vectors = word_states(model, ids, lengths)
        own, _ = word_states(first, ids, lengths)
        assert torch.equal(states, own)
        torch.testing.assert_close(vectors, model.embed_sentences(ids, lengths))
        regions = torch.randn(2, 3, 12)
        assert torch.equal(grid_features(model, regions), grid_features(first, regions))


def test_a_student_learns_how_its_teachers_compare(base: Path, other: Path, data: Path) -> None:
    made = recipe(base, None, members=1)
    assert isinstance(made, RetrievalRecipe)
    made.loss = LossConfig(info_nce=0.5, distil=1.0, distil_scale=5.0, teachers=f"{base}, {other}")
    task = start_task(made, datasets.load(data))
    assert isinstance(task, RetrievalTask)
    batch = task.train[0]
    first, second = (pipelines.load(str(run)) for run in (base, other))
    texts = [task.train.pairs.captions[int(c)] for c in batch["captions"]]
    told = sum(one.embed_features(batch["pictures"].numpy()) @ one.embed_texts(texts).T for one in (first, second)) / 2
    image, text, _ = task.model(batch["pictures"], batch["ids"], batch["lengths"])
    sim = F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    expected = losses.soft_nce_by_language(sim, torch.from_numpy(told), batch["caption_zh"], 5.0)
    parts = task.losses(task.model, batch, 0.0)
    assert set(parts) == {"info_nce", "distil"}
    assert float(parts["distil"].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_teachers_and_their_weight_go_together() -> None:
    with pytest.raises(ValueError, match=r"loss\.distil and loss\.teachers go together"):
        LossConfig(info_nce=1.0, distil=1.0)
