"""The answering task: the four proofs, batches by picture, held-out pictures, region files."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tuwen import checkpoint, config, tasks, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, load_recipe, parse_recipe
from tuwen.config.vqa import VqaRecipe
from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.metrics import vqa as metrics
from tuwen.records import Question
from tuwen.tasks import restore_model, start_task
from tuwen.tasks.asking import hold_out, keep_asked, tell_apart
from tuwen.tasks.vqa import VqaTask

Make = Callable[..., Path]
COLOURS = ["red", "green", "blue", "yellow", "purple", "black"]
PLACES = ["left", "right", "top", "bottom"]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(config.KINDS, "vqa", VqaRecipe)
    monkeypatch.setitem(tasks.TASKS, "vqa", VqaTask)


@pytest.fixture
def make_asked(make_toy: Make) -> Make:
    """The toy data with questions instead of captions, and four regions a picture, of which one shows it."""

    def make(n: int = 24, *args: Any, regions: bool = False, **kwargs: Any) -> Path:
        folder = make_toy(n, *args, **kwargs)
        shown = np.load(folder / "toy.npy")
        seen = np.random.default_rng(0).normal(0, 0.02, (n, 4, shown.shape[1])).astype(np.float32)
        seen[:, 2] = 2 * shown
        np.save(folder / "toy.npy", seen)
        data = datasets.load(folder)
        for i, picture in enumerate(data.pictures):
            colour, place = COLOURS[i % 6], PLACES[(i // 6) % 4]
            picture.captions = []
            picture.qa = [
                Question(question="what colour is it?", answers=[colour], question_type="what"),
                Question(question="where is the thing?", answers=[place] * 9 + ["a " + place], question_type="where"),
                Question(question=f"is it {COLOURS[(i * 5) % 6]}?", answers=["yes" if i * 5 % 6 == i % 6 else "no"]),
                Question(question="东西是什么颜色的？", answers=[colour]),
                Question(question="never answered?"),
            ]
            if regions:
                count = 2 + i % 3
                boxes = np.tile(np.array([0, 0, 4, 8], np.float32), (count, 1))
                np.savez(folder / f"{i}.npz", features=seen[i, 4 - count :], boxes=boxes)
                picture.regions = f"{i}.npz"
        datasets.save(data)
        return folder

    return make


def recipe(kind: str = "fusion", **changes: Any) -> VqaRecipe:
    tree: dict[str, Any] = {
        "task": "vqa",
        "answers": {"min_count": 1},
        "data": {"questions": 2},
        "model": {
            "kind": kind,
            "width": 16,
            "image": {"tower": "features:toy"},
            "question": {"embedding": 12},
            "attention": {"dropout": 0.0},
            "fusion": {"layers": 2, "heads": 2, "feedforward": 24, "gates": 2, "pointers": 2, "dropout": 0.0},
            "classifier": {"dropout": 0.0},
        },
        "loss": {"bce": 1.0},
        "train": {"epochs": 2, "batch_size": 8, "lr": 0.01},
    }
    for key, value in changes.items():
        place, (*parents, leaf) = tree, key.split("__")
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    made = parse_recipe(tree, "test")
    assert isinstance(made, VqaRecipe)
    return made


def task_of(made: Recipe, data: Path) -> VqaTask:
    task = start_task(made, datasets.load(data))
    assert isinstance(task, VqaTask)
    return task


def fit(task: VqaTask, epochs: int, rate: float) -> None:
    optimiser = torch.optim.Adam(task.model.parameters(), lr=rate)
    for epoch in range(epochs):
        task.train.set_epoch(epoch)
        for index in range(len(task.train)):
            torch.stack(list(task.losses(task.model, task.train[index], 0.0).values())).sum().backward()
            optimiser.step()
            optimiser.zero_grad()


# The four proofs


@pytest.mark.parametrize("kind", ["joint", "fusion"])
@pytest.mark.parametrize("loss", ["bce", "cross_entropy"])
def test_first_loss_and_gradients(make_asked: Make, kind: str, loss: str) -> None:
    task = task_of(recipe(kind, loss={loss: 1.0}), make_asked())
    assert task.languages == ["en", "zh"]
    count = len(task.vocabulary)
    assert count == 4 + len(PLACES) + 2  # two of the six colours are of the validation split alone
    parts = task.losses(task.model, task.train[0], 0.0)
    assert set(parts) == {loss}
    closed = count * math.log(2) if loss == "bce" else count * math.log(count)
    assert parts[loss].item() == pytest.approx(closed, rel=0.12)
    parts[loss].backward()
    named = list(task.model.named_parameters())
    assert not [name for name, p in named if p.grad is None or not p.grad.abs().sum() > 0]
    assert len(named) > 10


@pytest.mark.parametrize(("kind", "loss"), [("joint", "bce"), ("fusion", "bce"), ("fusion", "cross_entropy")])
def test_a_tiny_set_is_learned_by_heart(make_asked: Make, kind: str, loss: str) -> None:
    data = make_asked(8, splits=("train",))
    seen = np.load(data / "toy.npy")
    np.save(data / "toy.npy", np.concatenate([seen, seen]))  # a row for each row below
    dataset = datasets.load(data)
    rows = [p.model_copy(update={"split": split}) for split in ("train", "val") for p in dataset.pictures]
    wide = {"model__width": 64} if kind == "joint" else {}
    made = recipe(kind, loss={loss: 1.0, "times_answers": False}, train__batch_size=16, **wide)
    task = VqaTask(made, datasets.Dataset(dataset.folder, dataset.manifest, rows))
    fit(task, 60, 0.01 if kind == "joint" else 0.02)
    scores = task.validate(task.model.eval())
    assert scores["accuracy"] == scores["upper_bound"] == scores["train/accuracy"] == 100
    assert scores["exact"] == 100
    assert scores["majority"] < 40
    assert {"answer_type/yes/no", "answer_type/other", "question_type/what", "lang/zh"} <= set(scores)
    blind = VqaTask(
        recipe(kind, loss={loss: 1.0, "times_answers": False}, train__batch_size=16, model__blind=True),
        datasets.Dataset(dataset.folder, dataset.manifest, rows),
    )
    fit(blind, 20, 0.02)
    assert blind.validate(blind.model.eval())["accuracy"] < 70  # words alone don't tell


def test_a_run_cut_in_two_is_the_uncut_run(make_asked: Make, tmp_path: Path) -> None:
    data = make_asked()
    made = recipe(model__fusion__dropout=0.1, model__image__region_dropout=0.2, train__ema=0.9)
    train.fit(made, data, tmp_path / "whole")
    cut = train.Run.train

    def stop_early(self: train.Run, stop: Callable[[], bool] = lambda: False) -> None:
        cut(self, lambda: self.state.step >= 5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Run, "train", stop_early)
        with pytest.raises(KeyboardInterrupt):
            train.fit(made, data, tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "last" / "state.json").read_text())["step"] == 5
    train.fit(made, data, tmp_path / "cut", resume=True)
    whole, again = (checkpoint.read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("kind", ["joint", "fusion"])
def test_what_was_saved_is_what_is_loaded(make_asked: Make, tmp_path: Path, kind: str) -> None:
    data = make_asked()
    train.fit(recipe(kind, train__epochs=0.5), data, tmp_path / "run")
    kept = checkpoint.read_config(tmp_path / "run", task="vqa")
    model = restore_model(kept).eval()
    checkpoint.load_state(model, checkpoint.read_tensors(tmp_path / "run" / "model.safetensors"), "run")
    task = task_of(recipe(kind, start=str(tmp_path / "run")), data)
    assert kept["answers"] == task.vocabulary.to_dict()
    assert kept["languages"] == ["en", "zh"]
    assert kept["validation_split"] == "the data's own val split"
    said = [task.answer(each, task.val) for each in (model, task.model.eval())]
    assert said[0][0] == said[1][0]
    assert np.array_equal(said[0][1], said[1][1])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"accuracy", "upper_bound", "majority", "train/accuracy", "ece"} <= set(lines[-1])


# Data


def test_every_question_comes_once_an_epoch_beside_its_picture(make_asked: Make) -> None:
    task = task_of(recipe(train__batch_size=16), make_asked())
    batches, asked = task.train, task.train.asked
    assert batches.count == len(asked) == 16 * 4  # what nobody answered is left out
    assert len(batches) == 4
    for epoch in (0, 1):
        batches.set_epoch(epoch)
        assert sorted(batches.order) == list(range(64))
        pictures = [int(asked.owner[q]) for q in batches.order]
        assert [pictures[i] == pictures[i + 1] for i in range(0, 64, 2)] == [True] * 32  # two of a picture together
        for index in range(4):
            batch, chosen = batches[index], batches.order[index * 16 : (index + 1) * 16]
            rows = np.unique(asked.owner[chosen])
            assert len(batch["pictures"]) == len(rows) <= 8  # each picture once
            assert rows[batch["owner"].numpy()].tolist() == asked.owner[chosen].tolist()
            worth = [dict(asked.targets[q]) for q in chosen]
            assert batch["scores"].shape == (16, len(task.vocabulary))
            assert all(batch["scores"][i, a] == pytest.approx(w) for i, own in enumerate(worth) for a, w in own.items())
            assert batch["scores"].gt(0).sum() == sum(map(len, worth))
    first = batches.order.copy()
    batches.set_epoch(0)
    assert batches.order != first
    shares = [type(batches)(asked, 12, 2, 16, 0, 0, rank, 2) for rank in (0, 1)]
    assert Counter(shares[0].order) == Counter(shares[1].order)
    assert len(shares[0][1]["ids"]) == 8
    with pytest.raises(DataError, match="does not divide among 3 processes"):
        type(batches)(asked, 12, 2, 16, 0, 0, 0, 3)


def test_validation_pictures_are_held_out_whole(make_asked: Make) -> None:
    data = datasets.load(make_asked(40, splits=("train", "train", "test")))
    task = VqaTask(recipe(data__held_out=0.25), data)
    assert task.split.startswith("7 of 27 train pictures")
    train = data.select("train")
    learnt, held = hold_out(train, 0.25, 0)
    assert {p.file_name for p in learnt.pictures}.isdisjoint(p.file_name for p in held.pictures)
    assert len(task.val) == 28
    assert [data.pictures[row].file_name for row in held.rows] == [p.file_name for p in held.pictures]
    other = hold_out(train, 0.25, 1)[1]
    assert {p.file_name for p in other.pictures} != {p.file_name for p in held.pictures}
    for picture in data.pictures[:6]:
        picture.group = "one"
    learnt, held = hold_out(train, 0.25, 0)
    assert len({"one" in {p.group for p in part.pictures} for part in (learnt, held)}) == 2
    for picture in data.pictures:
        picture.qa = []
    assert not len(keep_asked(data))
    with pytest.raises(DataError, match="0 training pictures with answered questions"):
        VqaTask(recipe(), data)


def test_pictures_that_people_asked_about_are_held_out_of_a_mixture(make_asked: Make) -> None:
    data = datasets.load(make_asked(40, splits=("train", "train", "val")))
    for picture in data.pictures:
        if picture.split == "val" or picture.file_name.endswith(("0.png", "1.png")):
            for question in picture.qa:
                question.source = "questions"
    parts, rule = tell_apart(data, 0.25, 0)
    asked = [p for p in data.pictures if p.split == "train" and p.qa[0].source == "human"]
    assert rule.startswith(f"{round(len(asked) * 0.25)} of {len(asked)} train pictures")
    names = {split: {p.file_name for p in part.pictures} for split, part in parts.items()}
    assert names["train"].isdisjoint(names["val"])
    assert names["train"] | names["val"] == {p.file_name for p in data.pictures}
    held = [p for p in parts["val"].pictures if p.split == "train"]
    assert held
    assert {p.qa[0].source for p in held} == {"human"}
    assert {p.file_name for p in data.pictures if p.split == "val"} < names["val"]


def test_made_questions_teach_but_are_not_what_is_scored(make_asked: Make) -> None:
    data = datasets.load(make_asked())
    for picture in data.pictures:
        picture.qa[0].source = "questions"
    task = VqaTask(recipe(), data)
    assert len(task.train.asked) == 16 * 4
    assert len(task.val) == 8 * 3
    human = VqaTask(recipe(data__sources=["human"]), data)
    assert len(human.train.asked) == 16 * 3
    for picture in data.pictures:
        picture.qa = picture.qa[:1]
    assert len(VqaTask(recipe(), data).val) == 8  # where nobody else asked


def test_ten_annotators_give_soft_targets(make_asked: Make) -> None:
    task = task_of(recipe(), make_asked())
    where = next(q for q, asked in enumerate(task.train.asked.questions) if asked.question_type == "where")
    place = task.train.asked.answers[where][0]
    assert task.train.asked.targets[where] == [(task.vocabulary.find(place), 1.0)]  # "a left" is "left"
    question = task.train.asked.questions[where]
    question.answers = ["left"] * 2 + ["top"] * 7 + ["sky"]
    assert dict(task.vocabulary.targets(question.answers)) == pytest.approx(
        {task.vocabulary.find("left"): 0.6, task.vocabulary.find("top"): 1.0}
    )


def test_rare_answers_bound_the_score(make_asked: Make) -> None:
    task = task_of(recipe(answers__min_count=8), make_asked())
    assert set(task.vocabulary.answers) == {"yes", "no", "red", "green", "yellow", "purple"}
    scores = task.validate(task.model.eval())
    # Of the validation pictures only what is asked with yes or no can be answered: one question in four.
    assert scores["upper_bound"] == 25
    assert scores["accuracy"] <= 25
    assert scores["upper_bound"] == 100 * metrics.upper_bound(task.val.answers, task.vocabulary).mean()
    with pytest.raises(DataError, match="no answer is the commonest of 99 questions"):
        task_of(recipe(answers__min_count=99), make_asked(name="again"))


@pytest.mark.parametrize("kind", ["joint", "fusion"])
def test_regions_come_from_the_file_of_each_picture(make_asked: Make, kind: str) -> None:
    data = make_asked(regions=True)
    task = task_of(recipe(kind, model__image={"tower": "regions", "regions": 3}), data)
    batch = task.train[0]
    assert batch["pictures"].shape[1:] == (3, 12)
    assert set(batch["mask"].sum(1).tolist()) <= {2, 3}
    assert batch["boxes"].max() == 1
    assert torch.equal(batch["boxes"][0, 0], torch.tensor([0, 0, 0.5, 1]))  # xyxy as shares of 8 x 8
    assert not batch["pictures"][~batch["mask"]].any()
    torch.stack(list(task.losses(task.model, batch, 0.0).values())).sum().backward()
    assert not [name for name, p in task.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert 0 <= task.validate(task.model.eval())["accuracy"] <= 100
    np.savez(data / "0.npz", features=np.zeros((2, 12)))
    with pytest.raises(DataError, match=r"0.npz: not readable as regions"):
        task.train.asked.pictures.gather(np.array([0]), None)


def test_words_begin_with_vectors_of_others(make_asked: Make, tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("colour " + " ".join(["0.5"] * 12) + "\n")
    task = task_of(recipe("joint", model__question={"embedding": 12, "vectors": str(path)}), make_asked())
    ids, _ = task.tokenizer.encode(["colour"])
    table = task.model.embedding.weight.detach()
    assert torch.equal(table[int(ids[0, 0])], torch.full((12,), 0.5))
    assert (table == 0.5).all(1).sum() == 1
    assert task.config()["pretrained"] == {"words": "glove.txt"}


def test_tensorboard_shows_questions_with_both_answers(make_asked: Make) -> None:
    task = task_of(recipe(), make_asked())
    shown = task.show(task.model.eval())
    texts = [value for value in shown.values() if isinstance(value, str)]
    assert len(texts) == 4
    assert all(text.count("gt: ") == text.count("now: ") == 4 for text in texts)


# Recipes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": {"bce": 0}}, "no loss has a weight"),
        ({"model__width": 15}, "no multiple of heads"),
        ({"model__members": 2, "model__kinds": ["joint"]}, "names 1 kinds"),
        ({"model__image": {"finetune": True, "features": "pooled"}}, "features=grid"),
        ({"model__image": {"tower": "regions", "features": "pooled"}}, "leave finetune"),
    ],
)
def test_settings_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


UPDOWN: dict[str, Any] = {
    "tokenizer.kind": "word",
    "answers.min_count": 9,
    "answers.rule": "official",
    "answers.worth": "official",
    "data.max_tokens": 14,
    "model.kind": "joint",
    "model.width": 1024,
    "model.image.regions": 36,
    "model.question.kind": "gru",
    "model.question.embedding": 300,
    "model.question.layers": 1,
    "model.question.bidirectional": False,
    "model.attention.kind": "product",
    "model.attention.dropout": 0.2,
    "model.classifier.hidden": None,  # twice the width
    "model.classifier.dropout": 0.5,
    "loss.bce": 1.0,
    "loss.times_answers": True,
    "train.optimiser": "adamax",
    "train.batch_size": 512,
    "train.clip": 0.25,
    "train.schedule": "step",
    "train.ema": 0.0,
}


def test_published_settings_stand_in_the_recipe() -> None:
    made = load_recipe("vqa-updown")
    wrong = {}
    for key, value in UPDOWN.items():
        read: Any = made
        for part in key.split("."):
            read = getattr(read, part)
        if read != value:
            wrong[key] = (read, value)
    assert not wrong
    assert len(UPDOWN) > 20


@pytest.mark.parametrize("name", ["vqa-updown", "vqa-easy", "vqa-daquar", "vqa-scenes"])
def test_recipes_take_a_step(make_asked: Make, name: str) -> None:
    small = ["model.width=24", "model.image.tower=features:toy", "model.image.features=grid", "batch_size=8"]
    small += ["data.flip=false", "answers.min_count=1", "question.embedding=6", "data.zooms=0"]
    small += ["question.vectors=null", "tokenizer.size=60", "tokenizer.min_count=1", "classifier.hidden=8"]
    task = task_of(load_recipe(name, small), make_asked())
    parts = task.losses(task.model.train(), task.train[0], 0.0)
    torch.stack(list(parts.values())).sum().backward()
    assert all(torch.isfinite(part) and part.item() > 0 for part in parts.values())


# Members


def batch_of(task: VqaTask) -> dict[str, torch.Tensor]:
    return task.val.batch(list(range(len(task.val))), len(task.vocabulary), task.tokenizer.pad_id, None)


def logits_of(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model(batch["pictures"], batch["ids"], batch["lengths"], owner=batch["owner"])
    return out


@pytest.mark.parametrize("second", ["fusion", "joint"])
def test_joined_runs_answer_by_the_mean_of_their_log_probabilities(
    make_asked: Make, tmp_path: Path, second: str
) -> None:
    data = make_asked()
    runs = {tmp_path / "a": "fusion", tmp_path / "b": second}
    for seed, (run, kind) in enumerate(runs.items()):
        train.fit(recipe(kind, loss={"cross_entropy": 1.0}, seed=seed, data__held_out=0.25), data, run)
    joined = {"start": ",".join(map(str, runs)), "model__members": 2, "model__kinds": list(runs.values())}
    made = recipe(loss={"cross_entropy": 1.0}, train__epochs=0, **joined)
    train.fit(made, data, tmp_path / "both")
    model = restore_model(checkpoint.read_config(tmp_path / "both")).eval()
    checkpoint.load_state(model, checkpoint.read_tensors(tmp_path / "both" / "model.safetensors"), "both")
    alone = []
    for run in runs:
        one = restore_model(checkpoint.read_config(run)).eval()
        checkpoint.load_state(one, checkpoint.read_tensors(run / "model.safetensors"), str(run))
        alone.append(one)
    batch = batch_of(task_of(made, data))
    first, second, both = (logits_of(one, batch) for one in (*alone, model))
    assert not torch.allclose(first, second, atol=1e-2)
    torch.testing.assert_close(both, (first.log_softmax(1) + second.log_softmax(1)) / 2)
    given = (batch["pictures"], batch["ids"], batch["lengths"])
    with torch.no_grad():
        maps = [one.attend(*given, owner=batch["owner"]) for one in (*alone, model)]
    torch.testing.assert_close(maps[2], (maps[0] + maps[1]) / 2)


@pytest.mark.parametrize("kinds", [["joint", "joint"], ["fusion", "fusion"], ["fusion", "joint"]])
def test_each_member_learns_by_itself(make_asked: Make, kinds: list[str]) -> None:
    """The four proofs for several: closed first loss, gradients of its own loss alone, a small set by heart."""
    several = {"model__members": 2, "model__kinds": kinds, "model__width": 64}
    made = recipe(loss={"cross_entropy": 1.0, "times_answers": False}, **several)
    task = task_of(made, make_asked())
    batch = task.train[0]
    task.model.train()
    loss = task.losses(task.model, batch, 0.0)["cross_entropy"]
    assert float(loss.detach()) == pytest.approx(2 * math.log(len(task.vocabulary)), rel=0.2)
    loss.backward()
    members = task.model.members  # type: ignore[union-attr]
    together = [{name: p.grad for name, p in member.named_parameters()} for member in members]
    assert all(grad is not None for grads in together for grad in grads.values())
    for member, grads in zip(members, together, strict=True):
        member.zero_grad()
        task.losses(member, batch, 0.0)["cross_entropy"].backward()
        for name, p in member.named_parameters():
            torch.testing.assert_close(p.grad, grads[name], msg=name)
        member.zero_grad()
    fit(task, 60, 0.01)
    said, _, _ = task.answer(task.model.eval(), task.train.asked)
    assert metrics.accuracy(said, task.train.asked.answers).mean() > 0.95


def test_members_that_know_other_answers_are_refused(make_asked: Make, tmp_path: Path) -> None:
    data = make_asked()
    train.fit(recipe(), data, tmp_path / "a")
    train.fit(recipe(answers={"min_count": 1, "size": 3}), data, tmp_path / "b")
    made = recipe(start=f"{tmp_path / 'a'},{tmp_path / 'b'}", model__members=2)
    with pytest.raises(ModelError, match="other answers"):
        start_task(made, datasets.load(data))
    with pytest.raises(ConfigError, match="made of 1"):
        start_task(recipe(start=str(tmp_path / "a"), model__members=2), datasets.load(data))
