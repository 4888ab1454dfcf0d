"""The captioning task: the four proofs, both stages, exact resume, and what TensorBoard shows."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tuwen import checkpoint, losses, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, parse_recipe
from tuwen.errors import ConfigError, DataError
from tuwen.tasks import restore_model, start_task
from tuwen.tasks.captioning import CaptioningTask

Make = Callable[..., Path]


def recipe(kind: str = "transformer", **changes: object) -> Recipe:
    tree: dict[str, object] = {
        "task": "captioning",
        "data": {"captions": 2},
        "model": {
            "image": {"tower": "features:toy"},
            "decoder": {"kind": kind, "width": 16, "heads": 2, "feedforward": 24, "layers": 1},
            "decoding": {"limit": 14},
        },
        "train": {"epochs": 2, "batch_size": 4, "lr": 0.01},
    }
    for key, value in changes.items():
        part, _, leaf = key.partition("__")
        tree[part] = {**tree.get(part, {}), leaf: value} if leaf else value  # type: ignore[dict-item]
    return parse_recipe(tree, "test")


@pytest.fixture
def make_toy(make_toy: Make) -> Make:
    """The toy data with four regions a picture, of which one shows it (four times as strongly: for the mean)."""

    def make(*args: object, **kwargs: object) -> Path:
        folder = make_toy(*args, **kwargs)
        shown = np.load(folder / "toy.npy")
        regions = np.random.default_rng(0).normal(0, 0.02, (len(shown), 4, shown.shape[1])).astype(np.float32)
        regions[:, 2] = 4 * shown
        np.save(folder / "toy.npy", regions)
        return folder

    return make


def task_of(made: Recipe, data: Path) -> CaptioningTask:
    task = start_task(made, datasets.load(data))
    assert isinstance(task, CaptioningTask)
    return task


def step(task: CaptioningTask) -> dict[str, torch.Tensor]:
    return task.losses(task.model, task.train[0], 0.0)


@pytest.mark.parametrize("kind", ["transformer", "show-tell"])
def test_first_loss_and_gradients(make_toy: Make, kind: str) -> None:
    task = task_of(recipe(kind), make_toy())
    assert task.languages == ["en", "zh"]
    loss = step(task)["cross_entropy"]
    assert loss.item() == pytest.approx(math.log(task.tokenizer.size), abs=0.5)
    loss.backward()
    reached = [name for name, p in task.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(reached) == len(list(task.model.named_parameters())) > 5


@pytest.mark.parametrize("kind", ["transformer", "show-tell"])
def test_a_tiny_set_is_learned_by_heart(make_toy: Make, kind: str) -> None:
    data = make_toy(6, splits=("train",))
    made = recipe(kind, data__captions=1, data__langs=["en"], train__batch_size=6)
    made.model.decoder.width = 48  # type: ignore[attr-defined]
    dataset = datasets.load(data)
    for picture in dataset.pictures:  # one sentence each: two could not both be right
        picture.captions = picture.captions[:1]
    seen = np.load(data / "toy.npy")
    np.save(data / "toy.npy", np.concatenate([seen, seen]))  # a row for each row below
    rows = [picture.model_copy(update={"split": split}) for split in ("train", "val") for picture in dataset.pictures]
    task = CaptioningTask(made, datasets.Dataset(dataset.folder, dataset.manifest, rows))  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(task.model.parameters(), lr=0.02)
    for epoch in range(250):
        task.train.set_epoch(epoch)
        for index in range(len(task.train)):
            loss = torch.stack(list(task.losses(task.model, task.train[index], 0.0).values())).sum()
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    task.model.eval()
    assert task.describe(task.model, task.val, 0) == [picture.captions[0].text for picture in dataset.pictures]
    scores = task.validate(task.model)
    assert scores["cider"] > 100
    assert scores["likelihood"] > -0.2


def test_a_run_cut_in_two_is_the_uncut_run(make_toy: Make, tmp_path: Path) -> None:
    data = make_toy()
    made = recipe(
        model__decoder={"width": 16, "heads": 2, "feedforward": 24, "layers": 1, "dropout": 0.1}, train__ema=0.9
    )
    train.fit(made, data, tmp_path / "whole")
    cut = train.Run.train

    def stop_early(self: train.Run, stop: Callable[[], bool] = lambda: False) -> None:
        cut(self, lambda: self.state.step >= 3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.Run, "train", stop_early)
        with pytest.raises(KeyboardInterrupt):
            train.fit(made, data, tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "last" / "state.json").read_text())["step"] == 3
    train.fit(made, data, tmp_path / "cut", resume=True)
    whole, again = (checkpoint.read_tensors(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_what_was_saved_is_what_is_loaded(make_toy: Make, tmp_path: Path) -> None:
    data = make_toy()
    made = recipe(train__epochs=1)
    train.fit(made, data, tmp_path / "run")
    config = checkpoint.read_config(tmp_path / "run", task="captioning")
    model = restore_model(config).eval()
    checkpoint.load_state(model, checkpoint.read_tensors(tmp_path / "run" / "model.safetensors"), "run")
    task = task_of(recipe(start=str(tmp_path / "run")), data)
    seen = task.val.pictures.gather(torch.arange(3).numpy(), None)
    ids, lengths = torch.tensor([[[5, 6, 3]]] * 3), torch.full((3, 1), 3)
    task.model.eval()
    assert torch.equal(model(seen, {0: (ids, lengths)})[0], task.model(seen, {0: (ids, lengths)})[0])
    assert config["languages"] == ["en", "zh"]


# Self-critical training


def test_the_second_stage_raises_its_reward(make_toy: Make, tmp_path: Path) -> None:
    data = make_toy()
    train.fit(recipe(train__epochs=6), data, tmp_path / "first")
    made = recipe(start=str(tmp_path / "first"), loss={"cross_entropy": 0, "reinforce": 1, "samples": 6})
    task = task_of(made, data)
    optimiser = torch.optim.Adam(task.model.parameters(), lr=0.003)
    rewards = []
    for epoch in range(25):
        task.train.set_epoch(epoch)
        for index in range(len(task.train)):
            parts = task.losses(task.model, task.train[index], 0.0)
            assert set(parts) == {"reinforce"}
            parts["reinforce"].backward()
            optimiser.step()
            optimiser.zero_grad()
            rewards.append(task.reward)
    assert sum(rewards[-10:]) / 10 > 1.1 * sum(rewards[:10]) / 10 > 0


def test_a_caption_that_stops_short_is_worth_less(make_toy: Make) -> None:
    task = task_of(recipe(), make_toy())
    pairs = task.train.pairs
    caption = next(i for i, lang in enumerate(pairs.langs) if lang == "en")
    whole = pairs.ids[caption].tolist()
    assert whole[-1] == task.tokenizer.eos_id
    cider = task._rewards["en"]
    full, short = cider.score([int(pairs.owner[caption])] * 2, [whole, whole[:-1]])
    assert full > short > 0


def test_end_words_are_put_back() -> None:
    ids, lengths = torch.tensor([[[5, 6, 0, 0], [7, 8, 9, 4]]]), torch.tensor([[2, 4]])
    task = CaptioningTask.__new__(CaptioningTask)
    task.recipe = recipe(model__decoding={"limit": 4})  # type: ignore[assignment]
    task.built = {"end": 3}
    task.tokenizer = type("Words", (), {"pad_id": 0})()
    ids, lengths = task._with_end(ids, lengths)
    assert ids.tolist() == [[[5, 6, 3, 0, 0], [7, 8, 9, 4, 0]]]  # the second was cut at the limit: it has no end
    assert lengths.tolist() == [[3, 4]]


def test_policy_gradient_against_its_loop() -> None:
    torch.manual_seed(0)
    rewards = torch.rand(4, 5)
    gains = losses.advantages(rewards)
    for p in range(4):
        for k in range(5):
            others = [rewards[p, j] for j in range(5) if j != k]
            assert gains[p, k].item() == pytest.approx((rewards[p, k] - sum(others) / 4).item(), abs=1e-6)
    sizes = torch.tensor([2, 1, 3])
    chosen = torch.randn(6)
    slow, place = 0.0, 0
    for gain, size in zip([0.5, -1.0, 2.0], sizes.tolist(), strict=True):
        for _ in range(size):
            slow -= gain * chosen[place].item() / 6
            place += 1
    assert losses.reinforce(chosen, sizes, torch.tensor([0.5, -1.0, 2.0])).item() == pytest.approx(slow, abs=1e-6)


def test_unknown_words_are_neither_learned_nor_said(make_toy: Make) -> None:
    task = task_of(recipe(tokenizer={"kind": "word", "min_count": 12}), make_toy())
    unknown = task.tokenizer.unk_id
    words = torch.cat([torch.from_numpy(row) for row in task.train.pairs.ids])
    assert (words == unknown).sum() > 5
    step(task)["cross_entropy"].backward()
    assert task.model.output.bias.grad is not None
    captions = task._by_language(task.train[0])
    for index, (ids, lengths) in captions.items():
        logits = task.model(task.train[0]["pictures"], {index: (ids, lengths)})[index]
        loss = task._cross_entropy(logits, ids, lengths)
        kept = ids[ids != unknown]
        assert (ids == unknown).any()
        assert kept.numel()
        moved = logits.clone()
        flat = ids.flatten(0, 1)[torch.arange(ids.shape[2]) < lengths.flatten()[:, None]]
        moved[flat == unknown] = 0.0  # what is predicted there counts for nothing
        torch.testing.assert_close(task._cross_entropy(moved, ids, lengths), loss)
    task.model.eval()
    assert not any("<unk>" in text for lang in (0, 1) for text in task.describe(task.model, task.val, lang))


def test_own_words_stay_whole(make_toy: Make, tmp_path: Path) -> None:
    data, words = make_toy(), tmp_path / "words.txt"
    words.write_text("绿色在右边\n红色在左边\n", encoding="utf-8")
    known = task_of(recipe(tokenizer={"kind": "word", "dictionary": str(words)}), data).tokenizer
    assert "红色在左边" in known.pieces("红色在左边")
    assert "红色在左边" not in task_of(recipe(), data).tokenizer.pieces("红色在左边")
    with pytest.raises(DataError, match=r"gone\.txt: can't read"):
        task_of(recipe(tokenizer={"kind": "word", "dictionary": str(tmp_path / "gone.txt")}), data)


def test_tensorboard_shows_what_the_model_says_now(make_toy: Make) -> None:
    task = task_of(recipe(), make_toy())
    shown = task.show(task.model.eval())
    texts = [value for value in shown.values() if isinstance(value, str)]
    pictures = [value for value in shown.values() if not isinstance(value, str)]
    assert len(texts) == len(pictures) == 4
    assert all("**en now:**" in text and "**zh now:**" in text and "en: a " in text for text in texts)
    assert all(value.shape == (224, 224, 3) and value.dtype == torch.uint8 for value in pictures)


def test_a_loss_without_weight_is_refused() -> None:
    with pytest.raises(ConfigError, match="no loss has a weight above 0"):
        recipe(loss={"cross_entropy": 0})
    with pytest.raises(ConfigError, match=r"unknown task 'captionning'.*captioning"):
        parse_recipe({"task": "captionning"}, "test")
