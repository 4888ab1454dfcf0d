"""Answers against the plain way through each part: loader, tower, model, softmax; and where a model looked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_answerers import ANSWERS, TEXTS, make_run
from tiny_captioners import SIZE, draw_pictures

import tuwen
from tuwen import answering, checkpoint, images, pipelines, viz
from tuwen import dataset as datasets
from tuwen.errors import DataError, ModelError, PictureError
from tuwen.pipelines import Answer, Gaze, Scored, Vqa
from tuwen.pipelines.answerer import group_pictures
from tuwen.text import WordTokenizer
from tuwen.towers import build_tower

ENGLISH, CHINESE = TEXTS[:3], TEXTS[3]
BOTH = {"en": {"yes", "no", "2", "red", "blue"}, "zh": {"2", "红色", "蓝色", "是"}}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For models this small, threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[Path]]:
    """A run's folder, its module, and five pictures."""
    folder = tmp_path_factory.mktemp("world")
    return folder / "run", make_run(folder / "run"), draw_pictures(folder / "pictures", 5)


@pytest.fixture
def answerer(world: tuple[Path, Any, list[Path]]) -> Vqa:
    return load(world[0])


def load(folder: Path) -> Vqa:
    pipeline = tuwen.load(str(folder), device="cpu")
    assert isinstance(pipeline, Vqa)
    assert pipelines.as_answerer(pipeline) is pipeline
    return pipeline


def regions(paths: list[Path]) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = build_tower("lite0", size=SIZE)(
            torch.from_numpy(np.stack([images.load(p, SIZE) for p in paths]))
        )
    return out


def plain_logits(module: Any, seen: torch.Tensor, question: str) -> torch.Tensor:
    ids, lengths = WordTokenizer.train(TEXTS).encode([question] * len(seen))
    with torch.no_grad():
        out: torch.Tensor = module(seen, torch.from_numpy(ids), torch.from_numpy(lengths))
    return out


@pytest.mark.parametrize("confidence", ["softmax", "sigmoid"])
def test_answers_are_those_of_the_plain_way(
    world: tuple[Path, Any, list[Path]], tmp_path: Path, confidence: str
) -> None:
    module, paths = (
        make_run(tmp_path / "run", "joint" if confidence == "sigmoid" else "fusion", confidence=confidence),
        world[2],
    )
    pipeline = load(tmp_path / "run")
    seen, looked, best = regions(paths), 0, set()
    for question, lang in ((ENGLISH[0], "en"), (CHINESE, "zh")):
        logits = plain_logits(module, seen, question)
        allowed = [place for place, answer in enumerate(ANSWERS) if answer in BOTH[lang]]
        own = logits[:, allowed]
        scores = own.softmax(1) if confidence == "softmax" else own.sigmoid()
        for row, answer in enumerate(pipeline.answer(paths, [question] * 5, k=3)):
            order = scores[row].argsort(descending=True)[:3]
            assert [one.text for one in answer.best] == [ANSWERS[allowed[i]] for i in order]
            assert [one.score for one in answer.best] == pytest.approx(scores[row, order].tolist(), abs=1e-3)
            assert (answer.question, answer.file, answer.sure) == (question, str(paths[row]), True)
            looked += 1
            best.add((answer.best[0].text, round(answer.best[0].score, 3)))
    assert looked == 10
    assert len(best) > 6  # random as it is, the model tells pictures and questions apart


def test_an_answer_is_in_the_language_of_its_question(world: tuple[Path, Any, list[Path]], tmp_path: Path) -> None:
    pipeline = load(world[0])
    for lang, question in (("en", ENGLISH[0]), ("zh", CHINESE)):
        for answer in pipeline.answer(world[2], [question] * 5, k=99):
            assert {one.text for one in answer.best} == BOTH[lang]
            assert sum(one.score for one in answer.best) == pytest.approx(1)
    make_run(tmp_path / "english", answers=["yes", "no", "2"])
    for answer in load(tmp_path / "english").answer(world[2], [CHINESE] * 5, k=99):
        assert {one.text for one in answer.best} == {"yes", "no", "2"}  # it has no Chinese


def test_each_picture_is_read_once_for_all_its_questions(
    world: tuple[Path, Any, list[Path]], answerer: Vqa, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, read = world[2], list[Any]()
    load_picture = images.load

    def note(path: Any, *how: Any) -> Any:
        read.append(path)
        return load_picture(path, *how)

    monkeypatch.setattr(images, "load", note)
    rng = np.random.default_rng(0)
    asked = [(paths[p], TEXTS[q]) for p in range(4) for q in range(4)]
    asked = [asked[i] for i in rng.permutation(16)]
    pictures, questions = [picture for picture, _ in asked], [question for _, question in asked]
    together = answerer.answer([str(pictures[0]), *pictures[1:]], questions, batch=2)
    assert len(read) == 4
    assert [answer.question for answer in together] == questions
    assert [answer.file for answer in together] == list(map(str, pictures))
    with Image.open(pictures[5]) as opened:
        alone = [answerer.answer([opened], [questions[5]]), answerer.answer([pictures[5]], [questions[5]])]
    for [one] in alone:
        assert [best.text for best in one.best] == [best.text for best in together[5].best]
        assert [best.score for best in one.best] == pytest.approx([best.score for best in together[5].best], abs=1e-4)
    assert answerer.answer([], []) == []
    same = Image.new("RGB", (9, 9))
    assert group_pictures([paths[0], same, str(paths[0]), same, Image.new("RGB", (9, 9))])[1] == [[0, 2], [1, 3], [4]]


def test_broken_pictures_are_noted_and_their_questions_left_out(
    world: tuple[Path, Any, list[Path]], answerer: Vqa, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no")
    pictures = [world[2][0], broken, world[2][1], broken, world[2][0]]
    with pytest.raises(PictureError, match=r"broken\.png: not a picture"):
        answerer.answer(pictures, TEXTS + TEXTS[:1])
    failed: list[dict[str, str]] = []
    found = dict(answerer.answer_each(pictures, TEXTS + TEXTS[:1], failed=failed))
    assert sorted(found) == [0, 2, 4]
    assert [found[place].file for place in (0, 2, 4)] == [str(pictures[place]) for place in (0, 2, 4)]
    assert [failure["file"] for failure in failed] == [str(broken)]


def test_it_is_sure_from_its_threshold_and_scores_bend_with_the_temperature(
    world: tuple[Path, Any, list[Path]],
) -> None:
    pipeline = load(world[0])
    plain = pipeline.answer(world[2], ENGLISH[:1] * 5)
    scores = sorted(answer.best[0].score for answer in plain)
    pipeline.calibrate({"temperature": 1.0, "threshold": scores[2]})
    assert [answer.sure for answer in pipeline.answer(world[2], ENGLISH[:1] * 5)] == [
        answer.best[0].score >= scores[2] for answer in plain
    ]
    pipeline.calibrate({"temperature": 4.0, "threshold": 0.0})
    for before, after in zip(plain, pipeline.answer(world[2], ENGLISH[:1] * 5), strict=True):
        assert [one.text for one in after.best] == [one.text for one in before.best]
        assert after.best[0].score < before.best[0].score
    strange = pipeline.answer(world[2][:1], ["zzz qqq"])[0]
    assert not strange.sure  # it knows none of these words
    assert strange.best
    assert pipeline.unknown_words("what zzz is it?") == ["zzz", "it"]


def test_attention_is_the_model_s_over_the_grid(world: tuple[Path, Any, list[Path]], answerer: Vqa) -> None:
    for question in (ENGLISH[0], CHINESE):
        ids, lengths = WordTokenizer.train(TEXTS).encode([question] * 5)
        with torch.no_grad():
            plain = world[1].attend(regions(world[2]), torch.from_numpy(ids), torch.from_numpy(lengths)).numpy()
        for row, answer in enumerate(answerer.answer(world[2], [question] * 5)):
            gaze = answer.attention
            assert gaze is not None
            assert (gaze.grid, gaze.boxes) == ((3, 3), None)
            np.testing.assert_allclose(gaze.weights, plain[row], atol=1e-3)
    assert {answer.attention for answer in answerer.answer(world[2], [question] * 5, attend=False)} == {None}


def test_attention_of_a_centre_crop_lies_in_the_picture(world: tuple[Path, Any, list[Path]], tmp_path: Path) -> None:
    make_run(tmp_path / "center", view="center")
    gaze = load(tmp_path / "center").answer([world[2][0]], [ENGLISH[0]])[0].attention
    assert gaze is not None
    assert gaze.boxes is not None
    assert gaze.grid is None
    side = 24 * 224 / 256  # of a picture of 40 x 24
    left, top = (40 - side) / 2, (24 - side) / 2
    assert gaze.boxes.shape == (9, 4)
    np.testing.assert_allclose(gaze.boxes[0], [left, top, left + side / 3, top + side / 3], atol=0.3)
    np.testing.assert_allclose(gaze.boxes[8, 2:], [left + side, top + side], atol=0.3)


def test_a_blind_model_looks_at_nothing(world: tuple[Path, Any, list[Path]], tmp_path: Path) -> None:
    for kind in ("joint", "fusion"):
        make_run(tmp_path / kind, kind, blind=True)
        pipeline = load(tmp_path / kind)
        assert pipeline.blind
        answers = pipeline.answer(world[2], [ENGLISH[0]] * 5)
        assert len({answer.best[0] for answer in answers}) == 1
        assert {answer.attention for answer in answers} == {None}


def test_a_model_of_features_or_regions_takes_the_data_s_own(make_toy: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_toy(6, ("val",))
    seen = np.random.default_rng(0).normal(0, 1, (6, 4, 12)).astype(np.float32)
    np.save(folder / "toy.npy", seen)
    data = datasets.load(folder)
    for i, picture in enumerate(data.pictures):
        count = 2 + i % 3
        boxes = np.array([[0, 0, 4, 8], [4, 0, 8, 8], [0, 0, 8, 4], [0, 4, 8, 8]], np.float32)[:count]
        np.savez(folder / f"{i}.npz", features=seen[i, :count], boxes=boxes)
        picture.regions = f"{i}.npz"
    rows, asked = [3, 0, 3, 5], [TEXTS[0], TEXTS[1], CHINESE, TEXTS[2]]
    for kind in ("fusion", "joint"):
        module = make_run(tmp_path / kind, kind, "features:toy", 12)
        found = dict(load(tmp_path / kind).answer_part(data, rows, asked, attend=True, batch=2))
        for place, (row, question) in enumerate(zip(rows, asked, strict=True)):
            logits = plain_logits(module, torch.from_numpy(seen[row : row + 1]), question)[0]
            wanted = [i for i, a in enumerate(ANSWERS) if a in BOTH["zh" if question == CHINESE else "en"]]
            assert found[place].best[0].text == ANSWERS[max(wanted, key=lambda i: logits[i].item())]
            assert found[place].attention.grid == (2, 2)  # type: ignore[union-attr]
            assert found[place].file == str(data.path(data.pictures[row]))
    make_run(tmp_path / "regions", "fusion", "regions", 12)
    pipeline = load(tmp_path / "regions")
    answers = dict(pipeline.answer_part(data, rows, asked, attend=True, batch=2))
    gaze = answers[0].attention
    assert gaze is not None
    assert gaze.boxes is not None
    np.testing.assert_allclose(gaze.boxes, [[0, 0, 4, 8], [4, 0, 8, 8]], atol=1e-4)
    assert gaze.weights.sum() == pytest.approx(1, abs=1e-4)
    assert len(answers[3].attention.weights) == 4  # type: ignore[union-attr]
    with pytest.raises(ModelError, match="can't look at pictures"):
        pipeline.answer([data.path(data.pictures[0])], ["what is it?"])


def test_what_cannot_be_asked(world: tuple[Path, Any, list[Path]], answerer: Vqa, tmp_path: Path) -> None:
    one = world[2][:1]
    calls: dict[str, Callable[[], Any]] = {
        "1 pictures and 2 questions": lambda: answerer.answer(one, ["a?", "b?"]),
        "a question is empty": lambda: answerer.answer(one, [" "]),
        "k is 0": lambda: answerer.answer(one, ["a?"], 0),
        "batch is 0": lambda: answerer.answer_each(one, ["a?"], batch=0),
        r"write \[picture\], \[question\]": lambda: answerer.answer(str(one[0]), ["a?"]),
    }
    for told, call in calls.items():
        with pytest.raises(ModelError, match=told):
            call()
    with pytest.raises(ModelError, match="run: a vqa model, but captioning is needed here"):
        pipelines.as_describer(answerer)
    with pytest.raises(ModelError, match="retrieval: a retrieval model, but vqa is needed here"):
        pipelines.as_answerer(tuwen.load("retrieval"))
    make_run(tmp_path / "empty")
    (tmp_path / "empty" / checkpoint.WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        tuwen.load(str(tmp_path / "empty"))


# files of questions, and pictures of attention


def test_rows_of_questions(tmp_path: Path) -> None:
    file = tmp_path / "below" / "q.jsonl"
    file.parent.mkdir()
    rows = [
        {"file": "a.png", "question": "what is it?"},
        {"file": "/x/b.png", "question": "狗在哪里？", "id": 7, "y": 0},
    ]
    file.write_text("\ufeff" + "\n\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    first, second = answering.read_rows(file)
    assert (first.file, first.path, first.question, first.id) == (
        "a.png",
        tmp_path / "below/a.png",
        "what is it?",
        None,
    )
    assert (second.path, second.id) == (Path("/x/b.png"), 7)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"file": "a", "question": "b"}\n{"file"', ":2: not JSON"),
        ('["a"]', ":1: not a JSON object"),
        ('{"question": "b"}', ":1: no file"),
        ('{"file": "a", "question": " "}', ":1: no question"),
        ('{"file": "a", "question": 3}', ":1: no question"),
        ("\n \n", ": no question in it"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "q.jsonl").write_text(text)
    with pytest.raises(DataError) as error:
        answering.read_rows(tmp_path / "q.jsonl")
    assert str(error.value).startswith(f"{tmp_path / 'q.jsonl'}{told}")
    with pytest.raises(DataError, match="there is no such file"):
        answering.read_rows(tmp_path / "none.jsonl")


def test_an_answer_as_json() -> None:
    weights = np.array([0.25, 0.75], np.float32)
    told = Answer("what?", False, [Scored("red", 0.123456)], Gaze(weights, grid=(1, 2)), "a.png")
    assert answering.as_dict(told) == {
        "file": "a.png",
        "question": "what?",
        "sure": False,
        "best": [{"text": "red", "score": 0.1235}],
        "attention": {"rows": 1, "columns": 2, "boxes": None, "weights": [0.25, 0.75], "file": None},
    }
    boxes = Answer("what?", True, [], Gaze(weights, boxes=np.array([[0, 0, 1.25, 2], [1, 1, 2, 2]], np.float32)))
    found = answering.as_dict(boxes, "b.png", "seen/b.jpg")
    assert found["attention"]["boxes"] == [[0, 0, 1.2, 2], [1, 1, 2, 2]]
    assert (found["attention"]["rows"], found["attention"]["file"], found["file"]) == (None, "seen/b.jpg", "b.png")
    json.dumps(found)


def test_the_overlay_is_bright_where_the_model_looked_and_outlines_the_strongest() -> None:
    white = Image.new("RGB", (300, 200), "white")
    grid = np.array([0.02, 0.02, 0.02, 0.9, 0.02, 0.02], np.float32)  # the second row's first of three columns
    lit = np.asarray(viz.attention_overlay(white, grid, grid=(2, 3)), np.int64)
    assert lit.shape == (200, 300, 3)
    grey = lit.min(2)
    assert grey[150, 50] > 245
    assert 255 * 0.14 < grey[20, 280] < 255 * 0.4  # compressed: never darker than 15%
    outline = (lit[..., 0] > 200) & (lit[..., 1] < 80)
    down, across = np.nonzero(outline)
    assert (down.min(), down.max(), across.min(), across.max()) == (100, 199, 0, 99)
    boxes = np.array([[0, 0, 60, 60], [200, 100, 900, 900]], np.float32)  # one runs over the edge
    other = np.asarray(viz.attention_overlay(white, np.array([0.3, 0.7], np.float32), boxes=boxes, side=150))
    assert other.shape == (100, 150, 3)
    assert other[75, 125].min() > other[15, 15].min() > other[15, 120].min()
    marked = np.nonzero((other[..., 0] > 200) & (other[..., 1] < 80))
    assert (marked[0].min(), marked[1].min(), marked[0].max(), marked[1].max()) == (50, 100, 99, 149)
