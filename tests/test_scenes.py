"""The made data set: pictures, captions and questions against an independent reader of the truth."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from scene_reader import answer, fits, ground, mentions, noun, plain, relation, side
from typer.testing import CliRunner

import tuwen.scenes
from tuwen.cli.scenes import register
from tuwen.dataset import load
from tuwen.errors import DataError
from tuwen.records import Picture
from tuwen.scenes import COLOURS, GROUNDS, SHAPES, UNSEEN_KINDS, draw_scene, make_row, split_of, write_scenes

N = 600
HEART = 180 * math.pi / 18.2**2  # the area of the curve; its farthest point is 18.2 from the centre
AREAS = {
    "circle": math.pi,
    "square": 2.0,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 5 * 0.45 * math.sin(math.pi / 5),
    "heart": HEART,
    "ring": math.pi * (1 - 0.55**2),
    "cross": 2 * (4 * 0.949 * 0.316) - 4 * 0.316**2,
    "hexagon": 3 * math.sqrt(3) / 2,
}


@pytest.fixture(scope="module")
def rows() -> list[tuple[Any, Picture, dict[str, Any]]]:
    made = [make_row(number, seed=11) for number in range(N)]
    return [(scene, picture, json.loads(json.dumps(picture.scene))) for scene, picture in made]  # type: ignore[attr-defined]


def test_scenes_are_as_designed(rows: list[Any]) -> None:
    sizes = {"large": (0.22, 0.28), "small": (0.10, 0.14)}
    numbers: Counter[int] = Counter()
    for _, _, scene in rows:
        things = scene["objects"]
        numbers[len(things)] += 1
        assert scene["ground"] in GROUNDS
        for i, a in enumerate(things):
            low, high = sizes[a["size"]]
            assert low <= a["r"] <= high
            assert min(a["x"], a["y"], 1 - a["x"], 1 - a["y"]) >= a["r"]
            for j, b in enumerate(things[i + 1 :], i + 1):
                assert math.hypot(a["x"] - b["x"], a["y"] - b["y"]) > a["r"] + b["r"]
                true = [w for w in ("left of", "right of", "above", "below") if side(a, w, b)]
                assert true
                assert [r for k, r, m in scene["relations"] if (k, m) == (i, j)] == true
    assert set(numbers) == {1, 2, 3, 4}
    assert min(numbers.values()) > N / 6


def test_pixels_show_the_scene(rows: list[Any]) -> None:
    """Each centre (of a ring: the middle of its band, all around) has the colour; the area shows nothing is hidden."""
    looked: Counter[str] = Counter()
    for scene, _, truth in rows[:300]:
        pixels = np.asarray(draw_scene(scene, 64), np.float64)
        assert pixels.shape == (64, 64, 3)
        assert (pixels[0, 0] == GROUNDS[truth["ground"]]).all()
        for thing in truth["objects"]:
            reach = 0.775 * thing["r"] if thing["shape"] == "ring" else 0.0
            for dx, dy in ((1, 0), (0, 1), (-1, 0), (0, -1)):
                x, y = int((thing["x"] + reach * dx) * 64), int((thing["y"] + reach * dy) * 64)
                palette = {**COLOURS, "ground": GROUNDS[truth["ground"]]}
                near = min(palette, key=lambda name: float(np.abs(pixels[y, x] - palette[name]).sum()))
                assert near == thing["colour"], (thing, pixels[y, x])
            looked[thing["shape"]] += 1
        # Of every colour as much as the shapes' areas say, mixed edge pixels in their parts.
        for colour in {t["colour"] for t in truth["objects"]}:
            area = sum(AREAS[t["shape"]] * t["r"] ** 2 for t in truth["objects"] if t["colour"] == colour) * 64**2
            if len({t["colour"] for t in truth["objects"]}) == 1:
                shift = np.array(COLOURS[colour], np.float64) - GROUNDS[truth["ground"]]
                seen = float(((pixels - GROUNDS[truth["ground"]]) @ shift / (shift @ shift)).sum())
                assert seen == pytest.approx(area, rel=0.05), (truth, area)
                looked["areas"] += 1
    assert set(looked) == {*SHAPES, "areas"}
    assert looked["areas"] > 50


def test_captions_are_true(rows: list[Any]) -> None:
    looked: Counter[str] = Counter()
    for _, picture, scene in rows:
        things = scene["objects"]
        langs = Counter(caption.lang for caption in picture.captions)
        assert langs == {"en": 5, "zh": 5}
        assert len({caption.text for caption in picture.captions}) == 10
        for caption in picture.captions:
            text = caption.text
            named = [(n, key) for n, key in mentions(text) if key[2] is not None]
            assert sum(n for n, _ in named) == len(things), (text, scene)  # every thing is mentioned
            for n, key in named:
                assert sum(fits(key, thing) for thing in things) == n, (text, scene)
            for n, key in mentions(text):
                if key[2] is None:  # "three shapes"
                    assert n == len(things), (text, scene)
                    looked["counts " + caption.lang] += 1
            if "background" in text or "背景" in text:
                assert ground(text) == scene["ground"], text
                looked["ground " + caption.lang] += 1
            if fact := relation(text):
                first, word, second = fact
                pairs = [(a, b) for a in things if fits(first, a) for b in things if fits(second, b)]
                assert pairs, (text, scene)
                assert all(side(a, word, b) for a, b in pairs), (text, scene)
                looked["relation " + caption.lang] += 1
            assert text[-1] == ("." if caption.lang == "en" else "。")
            assert not any(bad in text for bad in ("there is two", "there are a ", "is three", "  ", "{", "None"))
    assert min(looked.values()) > N / 2, looked
    assert len(looked) == 6


def test_first_captions_use_a_relation_where_there_are_two_kinds(rows: list[Any]) -> None:
    several = [(p, s) for _, p, s in rows if len({(t["colour"], t["shape"]) for t in s["objects"]}) > 1]
    assert len(several) > N / 2
    told = [any(relation(c.text) for c in p.captions if c.lang == lang) for p, _ in several for lang in ("en", "zh")]
    assert sum(told) > 0.9 * len(told)  # a few have no relation that holds for whole groups


def test_questions_are_true(rows: list[Any]) -> None:
    types: Counter[str] = Counter()
    for _, picture, scene in rows:
        assert len(picture.qa) == 10
        assert len({q.question for q in picture.qa}) == len({q.id for q in picture.qa}) == 10
        assert sum(not q.question.isascii() for q in picture.qa) == 4
        for q in picture.qa:
            assert answer(scene, q.question) == plain(q.answers[0]), (q, scene)
            assert q.question.isascii() == q.answers[0].isascii() or q.answers[0].isdigit()
            types[str(q.question_type)] += 1
    assert set(types) == {"counting", "colour", "shape", "relation", "yes/no", "size", "ground"}
    assert min(types.values()) > N / 2


def test_answers_are_balanced(rows: list[Any]) -> None:
    answers: dict[str, Counter[str]] = {}
    for _, picture, _ in rows:
        for q in picture.qa:
            answers.setdefault(str(q.question_type), Counter())[plain(q.answers[0])] += 1
    total = {kind: sum(counts.values()) for kind, counts in answers.items()}
    share = {kind: max(counts.values()) / total[kind] for kind, counts in answers.items()}
    assert share["yes/no"] < 0.55
    assert share["colour"] < 0.18
    assert share["shape"] < 0.18
    assert share["ground"] < 0.32
    assert share["counting"] < 0.35
    assert share["size"] < 0.65
    assert share["relation"] < 0.3


def test_unseen_kinds_are_kept_from_train(rows: list[Any]) -> None:
    colours = list(COLOURS)
    kinds = {(s, c) for s in SHAPES for c in colours if (SHAPES.index(s) + colours.index(c)) % 7 == 0}
    assert set(UNSEEN_KINDS) == kinds
    assert len(kinds) == 10
    splits: Counter[str] = Counter()
    for number, (_, picture, scene) in enumerate(rows):
        shown = {(t["shape"], t["colour"]) for t in scene["objects"]} & kinds
        assert picture.split == split_of(number)
        assert bool(shown) == (picture.split == "unseen")
        splits[str(picture.split)] += 1
        if picture.split != "unseen":  # nor is one spoken of, not even to say that it isn't there
            texts = [c.text for c in picture.captions] + [q.question for q in picture.qa]
            said = {(key[2], key[1]) for text in texts for _, key in mentions(text)}
            assert not said & kinds
    assert splits == {"train": N * 0.7, "val": N * 0.1, "test": N * 0.1, "unseen": N * 0.1}


def test_the_reader_can_fail() -> None:
    thing = {"shape": "star", "colour": "red", "size": "large", "x": 0.3, "y": 0.5, "r": 0.25}
    other = {"shape": "ring", "colour": "blue", "size": "small", "x": 0.8, "y": 0.5, "r": 0.1}
    scene = {"ground": "sand", "objects": [thing, other]}
    assert answer(scene, "is the red star to the left of the blue ring?") == "yes"
    assert answer(scene, "蓝色圆环是否在红色五角星的左边？") == "no"
    assert answer(scene, "what colour is the ring?") == "blue"
    assert noun("红色的大五角星") == noun("large red star") == ("large", "red", "star")
    assert relation("Two red stars are over a ring.") == ((None, "red", "star"), "over", (None, None, "ring"))
    assert relation("蓝色圆环的左侧有两个红色的大五角星。") == (
        ("large", "red", "star"),
        "左侧",
        (None, "blue", "ring"),
    )
    assert mentions("两个红色的大五角星和一个蓝色圆环") == [(2, ("large", "red", "star")), (1, (None, "blue", "ring"))]
    for bad in ("how old is the star?", "what colour is the shape?"):
        with pytest.raises(AssertionError):
            answer(scene, bad)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_seed_same_bytes_and_a_smaller_set_is_the_beginning(tmp_path: Path) -> None:
    made = write_scenes(tmp_path / "a", 20, size=32, seed=3)
    assert made.splits() == {"train": 14, "val": 2, "test": 2, "unseen": 2}
    write_scenes(tmp_path / "b", 20, size=32, seed=3)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    write_scenes(tmp_path / "c", 10, size=32, seed=3)
    lines = (tmp_path / "a" / "metadata.jsonl").read_bytes().splitlines()
    assert (tmp_path / "c" / "metadata.jsonl").read_bytes().splitlines() == lines[:10]
    small = bytes_of(tmp_path / "c" / "images")
    assert len(small) == 10
    assert small.items() <= bytes_of(tmp_path / "a" / "images").items()
    write_scenes(tmp_path / "d", 20, size=32, seed=4)
    assert (tmp_path / "d" / "metadata.jsonl").read_bytes() != (tmp_path / "a" / "metadata.jsonl").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d"]  # nothing is left beside


def test_written_folder_is_a_data_set(tmp_path: Path) -> None:
    write_scenes(tmp_path / "a", 12, size=32)
    dataset = load(tmp_path / "a")
    assert len(dataset) == 12
    assert all(dataset.path(picture).is_file() for picture in dataset.pictures)
    assert sum(len(picture.human()) for picture in dataset.pictures) == 120
    row = json.loads((tmp_path / "a" / "metadata.jsonl").read_text("utf-8").splitlines()[0])
    assert set(row) == {"id", "file_name", "split", "captions", "qa", "scene"}
    assert set(row["scene"]["objects"][0]) == {"shape", "colour", "size", "x", "y", "r"}


def test_kept_replaced_and_refused(tmp_path: Path) -> None:
    dest = tmp_path / "a"
    dest.mkdir()  # an empty folder is no obstacle
    write_scenes(dest, 10, size=32)
    before = (dest / "metadata.jsonl").stat().st_ino
    write_scenes(dest, 10, size=32)
    assert (dest / "metadata.jsonl").stat().st_ino == before  # kept
    assert len(write_scenes(dest, 11, size=16)) == 11
    assert len(load(dest)) == len(list((dest / "images").iterdir())) == 11  # replaced, whole

    (dest / "notes.txt").write_text("mine")
    write_scenes(dest, 11, size=16)  # the same again loses nothing
    with pytest.raises(DataError, match=r"notes\.txt: would be lost"):
        write_scenes(dest, 12, size=16)
    (dest / "notes.txt").unlink()
    with (dest / "metadata.jsonl").open("a") as file:
        file.write('{"file_name": "images/mine.png"}\n')
    with pytest.raises(DataError, match="changed since"):
        write_scenes(dest, 12, size=16)
    assert len((dest / "metadata.jsonl").read_text("utf-8").splitlines()) == 12


@pytest.mark.parametrize("name", ["metadata.jsonl", "photo.jpg"])
def test_other_folders_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(DataError, match="not made by"):
        write_scenes(tmp_path / "mine", 10)
    with pytest.raises(DataError, match=re.escape(name)):
        write_scenes(tmp_path / "mine" / name, 10)
    with pytest.raises(DataError, match="at least 1"):
        write_scenes(tmp_path / "new", 0)
    assert bytes_of(tmp_path) == {f"mine/{name}": b"mine"}


def test_interrupted_writing_leaves_the_old_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path / "a", 10, size=16)
    before = bytes_of(tmp_path)
    drawn: list[int] = []

    def draw(scene: Any, size: int) -> Any:
        drawn.append(size)
        if len(drawn) > 5:
            raise KeyboardInterrupt
        return draw_scene(scene, size)

    monkeypatch.setattr(tuwen.scenes, "draw_scene", draw)
    with pytest.raises(KeyboardInterrupt):
        write_scenes(tmp_path / "a", 20, size=16)
    assert len(drawn) == 6
    assert bytes_of(tmp_path) == before


def test_command(tmp_path: Path) -> None:
    app = typer.Typer()
    app.callback()(lambda: None)
    register(app)
    done = CliRunner().invoke(app, ["scenes", str(tmp_path / "a"), "-n", "10", "--size", "16", "--seed", "5", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    splits = {"train": 7, "val": 1, "test": 1, "unseen": 1}
    assert {k: report[k] for k in ("pictures", "splits", "size", "seed", "warnings")} == {
        "pictures": 10, "splits": splits, "size": 16, "seed": 5, "warnings": [],
    }  # fmt: skip
    assert report["folder"] == str(tmp_path / "a")
    assert len(load(Path(report["folder"]))) == 10
    assert (
        "10 pictures of 16 pixels"
        in CliRunner().invoke(app, ["scenes", report["folder"], "-n", "10", "--size", "16", "--seed", "5"]).stdout
    )
    assert CliRunner().invoke(app, ["scenes", str(tmp_path / "b"), "-n", "0"]).exit_code == 2


def test_fewer_things_when_asked(tmp_path: Path) -> None:
    few = write_scenes(tmp_path / "few", 40, size=16, things=2)
    counts = {len(picture.scene["objects"]) for picture in few.pictures if picture.scene}
    assert counts == {1, 2}
    every = write_scenes(tmp_path / "few", 40, size=16)  # another request makes the folder anew
    assert max(len(picture.scene["objects"]) for picture in every.pictures if picture.scene) == 4
