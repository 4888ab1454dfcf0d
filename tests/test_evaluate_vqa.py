"""Scores of answering models: against slow ways, beside a blind model and the majority, by type and language; pages."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_answerer import FakeAnswerer
from PIL import Image

import tuwen
from tuwen import card, checkpoint, cli, evaluate, gallery, pipelines, report, train
from tuwen import dataset as datasets
from tuwen.config import parse_recipe
from tuwen.dataset import Dataset
from tuwen.errors import DataError, ModelError
from tuwen.evaluate import sureness
from tuwen.metrics import vqa as metrics
from tuwen.pipelines import Answer, Scored, Vqa
from tuwen.pipelines.pictures import Source
from tuwen.records import Question, guess_language
from tuwen.tasks.asking import tell_apart

Make = Callable[..., Path]
COLOURS = ["red", "green", "blue", "yellow", "purple", "black"]
ZH = ["红色", "绿色", "蓝色", "黄色", "紫色", "黑色"]
PLACES = ["left", "right", "top", "bottom"]


@pytest.fixture(autouse=True)
def no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading one takes seconds; its own tests do."""
    monkeypatch.setattr(metrics, "wordnet_similarity", lambda: lambda one, other: 0.95 * (one[0] == other[0]))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Says(FakeAnswerer):
    """Says what `said` holds for a file's name and a question, with that confidence."""

    def __init__(self, said: dict[tuple[str, str], tuple[str, float]], name: str = "says") -> None:
        super().__init__(name)
        self.said = said

    def answer_each(
        self, pictures: Sequence[Source], questions: Sequence[str], k: int = 3, **how: Any
    ) -> Iterator[tuple[int, Answer]]:
        self.asked.append(list(questions))
        for place in reversed(range(len(questions))):  # in whatever order
            text, score = self.said.get((Path(str(pictures[place])).name, questions[place]), ("nothing", 0.1))
            yield place, Answer(questions[place], score >= 0.5, [Scored(text, score)], None, str(pictures[place]))


def ask(folder: Path, made: Callable[[int], bool] = lambda i: False) -> Dataset:
    """The toy data with questions in place of captions, in two languages; those of pictures `made` are a tool's."""
    data = datasets.load(folder)
    for i, picture in enumerate(data.pictures):
        colour, place = i % 6, PLACES[(i // 6) % 4]
        yes = "yes" if i * 5 % 6 == i % 6 else "no"
        source = "questions" if made(i) else "human"
        picture.captions = []
        picture.qa = [
            Question(question="what colour is it?", answers=[COLOURS[colour]], question_type="colour", source=source),
            Question(
                question="where is it?", answers=[place] * 9 + [f"a {place}"], question_type="where", source=source
            ),
            Question(question=f"is it {COLOURS[i * 5 % 6]}?", answers=[yes], source=source),
            Question(question="它是什么颜色的？", answers=[ZH[colour]], question_type="colour", source=source),
            Question(question="nobody answered?"),
        ]
    datasets.save(data)
    return datasets.load(folder)


@pytest.fixture
def world(make_toy: Make) -> Dataset:
    return ask(make_toy(24, splits=("train", "test")))


def truth(data: Dataset, split: str) -> dict[tuple[str, str], tuple[str, float]]:
    return {
        (Path(picture.file_name).name, question.question): (question.answers[0], 0.9)
        for picture in data.select(split).pictures
        for question in picture.qa
        if question.answers
    }


def recipe(**changes: Any) -> Any:
    tree: dict[str, Any] = {
        "task": "vqa",
        "name": "toy",
        "answers": {"min_count": 1},
        "data": {"questions": 2, "held_out": 0.3},
        "model": {
            "kind": "joint",
            "width": 32,
            "image": {"tower": "features:toy"},
            "question": {"embedding": 12},
            "classifier": {"dropout": 0.0},
            "attention": {"dropout": 0.0},
        },
        "loss": {"bce": 0, "cross_entropy": 1.0, "times_answers": False},
        "train": {"epochs": 12, "batch_size": 16, "lr": 0.01},
    }
    tree["model"] |= changes
    return parse_recipe(tree, "test")


def test_scores_are_those_of_what_it_says(world: Dataset) -> None:
    said = truth(world, "test")
    for key, luck in zip(sorted(said), np.random.default_rng(0).random(len(said)), strict=True):
        if luck < 0.3:
            said[key] = ("nothing", 0.4)
    fake = Says(said)
    result = evaluate.score(fake, world, "test")
    assert {"task", "model", "data", "split", "n", "metrics", "per_language", "protocol"} <= result.keys()
    assert (result["task"], result["split"], result["n"], result["machine_text"]) == ("vqa", "test", 48, 0)
    assert [len(call) for call in fake.asked] == [48]
    rows = [(p, q) for p in world.select("test").pictures for q in p.qa if q.answers]
    for lang in ("en", "zh", None):
        own = [(p, q) for p, q in rows if lang in (None, guess_language(q.question))]
        texts = [said[Path(p.file_name).name, q.question] for p, q in own]
        right = np.array([metrics.official_accuracy(t, q.answers) for (t, _), (_, q) in zip(texts, own, strict=True)])
        got = result["per_language"][lang] if lang else result["metrics"]
        assert got["accuracy"] == pytest.approx(100 * right.mean())
        assert 40 < got["accuracy"] < 95
        score = np.array([s for _, s in texts])
        assert got["ece"] == pytest.approx(100 * metrics.calibration_error(score, right))
        assert got["sure"] == pytest.approx(100 * (score >= 0.5).mean())
        assert got["sure_accuracy"] == 100
        assert got["upper_bound"] is got["language_only"] is None
        kinds = got["by_type"]["question_type"]
        for kind in kinds:
            mean = np.mean([r for r, (_, q) in zip(right, own, strict=True) if q.question_type == kind])
            assert kinds[kind] == pytest.approx(100 * mean)
        low, high = result["intervals"][lang or "all"]["accuracy"]
        assert low < got["accuracy"] < high
    assert set(result["metrics"]["by_type"]["question_type"]) == {"colour", "where"}
    assert set(result["metrics"]["by_type"]["answer_type"]) == {"other", "yes/no"}
    assert result["per_language"]["zh"]["wups9"] is None


def test_the_majority_is_each_language_s_commonest_training_answer(world: Dataset) -> None:
    result = evaluate.score(Says({}), world, "test")
    train = [q for p in world.select("train").pictures for q in p.qa if q.answers]
    common_answers = {}
    for lang in ("en", "zh"):
        own = [q.answers[0] for q in train if guess_language(q.question) == lang]
        common_answers[lang] = min(set(own), key=lambda text: (-own.count(text), text))
    assert result["protocol"]["majority"] == common_answers
    test = [q for p in world.select("test").pictures for q in p.qa if q.answers]
    right = [metrics.official_accuracy(common_answers[guess_language(q.question)], q.answers) for q in test]
    assert result["metrics"]["majority"] == pytest.approx(100 * np.mean(right))
    assert result["per_language"]["zh"]["majority"] < result["per_language"]["en"]["majority"]
    alone = replace(world, pictures=world.select("test").pictures, rows=world.select("test").rows)
    assert evaluate.score(Says({}), alone, "test")["metrics"]["majority"] is None


def test_made_questions_are_counted_apart(make_toy: Make) -> None:
    data = ask(make_toy(12, splits=("test",)), made=lambda i: i % 3 == 0)
    said = truth(data, "test")
    people, made = (evaluate.score(Says(said), data, "test", made=made) for made in (None, True))
    assert (people["n"], people["machine_text"], people["protocol"]["sources"]) == (32, 16, {"human": 32})
    assert (made["n"], made["machine_text"], made["protocol"]["sources"]) == (16, 0, {"questions": 16})
    for picture in data.pictures:
        for question in picture.qa:
            question.source = "questions"
    assert evaluate.score(Says(said), data, "test")["n"] == 48  # nobody asked any
    with pytest.raises(DataError, match="no answered question of this kind"):
        evaluate.score(Says(said), data, "test", made=False)
    assert evaluate.score(Says(said), data, "test", "zh")["n"] == 12
    with pytest.raises(DataError, match="no answered question in fr"):
        evaluate.score(Says(said), data, "test", "fr")


def test_languages_it_does_not_know_are_left_out(world: Dataset) -> None:
    fake = Says(truth(world, "test"))
    fake.languages = ["zh"]
    result = evaluate.score(fake, world, "test")
    assert (result["n"], set(result["per_language"])) == (12, {"zh"})


def test_options_of_other_tasks_are_refused(world: Dataset) -> None:
    with pytest.raises(DataError, match="--beams is for captioning, and this is a vqa model"):
        evaluate.score(Says({}), world, "test", beams=3)
    with pytest.raises(DataError, match=r"says: it sees the pictures: train a baseline with model\.blind=true"):
        evaluate.score(Says({}), world, "test", baseline=Says({}))
    with pytest.raises(DataError, match="held nothing out, for it is no run"):
        evaluate.score(Says({}), world, "held-out")
    assert set(evaluate.SCORERS) == set(evaluate.SHOWN) > set(evaluate.COUNTED)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A data set whose `train` alone has questions, a run on it and a blind one, trained to their scores and cards."""
    folder = tmp_path_factory.mktemp("runs")
    data = folder / "toy"
    (data / "images").mkdir(parents=True)
    draw, pictures, seen = np.random.default_rng(0), [], []
    for i in range(48):
        Image.new("RGB", (8, 8), (5 * i, 40 * (i % 6), 0)).save(data / "images" / f"{i}.png")
        split = "test" if i % 8 == 7 else "train"
        pictures.append({"file_name": f"images/{i}.png", "split": split})
        regions = draw.normal(0, 0.02, (4, 12))
        regions[2, i % 6] += 2
        regions[2, 6 + (i // 6) % 4] += 2
        seen.append(regions)
    np.save(data / "toy.npy", np.array(seen, np.float32))
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pictures))
    (data / "dataset.json").write_text(json.dumps({"format": 1, "name": "toy", "features": {"toy": "toy.npy"}}))
    ask(data)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, blind in (("run", False), ("blind", True)):
        train.run(recipe(blind=blind), data, folder / name)
    torch.set_num_threads(before)
    return data, folder / "run", folder / "blind"


def test_a_run_is_scored_on_what_it_held_out(runs: tuple[Path, Path, Path]) -> None:
    data, run, blind = runs
    dataset, pipeline, baseline = datasets.load(data), tuwen.load(str(run)), tuwen.load(str(blind))
    assert isinstance(pipeline, Vqa)
    result = evaluate.score(pipeline, dataset, "held-out", baseline=baseline)
    held = tell_apart(dataset, 0.3, 0)[0]["val"]
    assert result["n"] == 4 * len(held) == 4 * 13
    assert result["protocol"]["held_out"].startswith("13 of 42 train pictures")
    kept = checkpoint.read_config(run)["validation"]
    assert result["metrics"]["accuracy"] == pytest.approx(kept["accuracy"], abs=2)  # of all languages' answers there
    assert result["metrics"]["upper_bound"] == pytest.approx(kept["upper_bound"], abs=1e-2)
    asked = [(row, q) for row, p in enumerate(held.pictures) for q in p.qa if q.answers]
    rows, texts = [row for row, _ in asked], [q.question for _, q in asked]
    answers = [q.answers for _, q in asked]
    accuracy = []
    for one in (pipeline, baseline):
        assert isinstance(one, Vqa)
        said = {place: answer.best[0].text for place, answer in one.answer_part(held, rows, texts)}
        accuracy.append(metrics.accuracy([said[place] for place in range(len(asked))], answers))
    assert result["metrics"]["accuracy"] == pytest.approx(100 * accuracy[0].mean())
    assert result["metrics"]["language_only"] == pytest.approx(100 * accuracy[1].mean())
    beside = result["baseline"]
    assert beside["difference"] == pytest.approx(100 * (accuracy[0] - accuracy[1]).mean())
    assert 0 < beside["interval"][0] < beside["difference"] < beside["interval"][1]
    assert isinstance(baseline, Vqa)
    baseline.config["validation_split"] = "others"
    with pytest.raises(DataError, match="held out other pictures"):
        evaluate.score(pipeline, dataset, "held-out", baseline=baseline)
    dataset.manifest.name = "another"
    with pytest.raises(DataError, match="not the data that toy learnt from"):
        evaluate.score(pipeline, dataset, "held-out")


def test_a_finished_run_knows_when_it_is_sure(runs: tuple[Path, Path, Path], tmp_path: Path) -> None:
    data, run, _ = runs
    pipeline, dataset = tuwen.load(str(run)), datasets.load(data)
    assert isinstance(pipeline, Vqa)
    found = checkpoint.read_config(run)["calibration"]
    assert (pipeline.temperature, pipeline.threshold) == (found["temperature"], found["threshold"])
    assert found["fitted_on"] + found["checked_on"] == 52
    assert abs(found["fitted_on"] - found["checked_on"]) == 4  # by whole pictures
    assert found["sure_accuracy"] is None or 0 <= found["sure_accuracy"] <= 100
    before = (run / "config.json").read_text()
    again = sureness.calibrate(pipeline, dataset)
    assert again == found
    assert (run / "config.json").read_text() == before
    scores = json.loads((run / "scores.json").read_text())
    assert (scores["held-out"]["n"], scores["test"]["n"], scores["calibration"]) == (52, 24, found)
    told = (run / "README.md").read_text()
    assert "A Tuwen vqa model for questions in en, zh." in told
    assert "## Scores on held-out (52 questions)" in told
    assert "## Scores on test (24 questions)" in told
    assert f"temperature {found['temperature']:.2f}" in told
    assert "training questions: 168 of people, 0 made" in told
    assert "Accuracy by question type: colour" in told
    provenance = run / "provenance.json"
    kept = provenance.read_text()
    provenance.write_text("{}")
    with pytest.raises(ModelError, match="train again"):
        sureness.tell_parts(pipeline, dataset)
    provenance.write_text(kept)
    page = report.write_run(run, tmp_path / "report.html").read_text()
    for text in ("Accuracy, and what bounds it", "Accuracy by language", "accuracy zh, test, n = 24", "train/accuracy"):
        assert text in page
    summary = json.loads((run / "scores.json").read_text())
    summary["test"]["baseline"] = {"accuracy": 10.0, "difference": 3.0, "interval": [1.0, 5.0], "model": "b"}
    assert "it gains 3.0 points, 95% interval 1.0 to 5.0" in card.write(run, dataset, summary)


def test_eval_prints_a_table_and_writes_the_published_folders(
    runs: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, blind = runs
    scores, out = tmp_path / "s.json", tmp_path / "page"
    command = ["eval", str(run), "--data", str(data), "--json", str(scores), "--baseline", str(blind)]
    assert cli.run([*command, "--visualise", "8", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    lines = {
        words[0]: words[1:] for line in printed.out.splitlines() if len(words := line.replace("│", " ").split()) > 1
    }
    result = json.loads(scores.read_text(encoding="utf-8"))
    assert {"version", "warnings", "task", "metrics", "per_language", "protocol"} <= result.keys()
    for key in ("accuracy", "upper_bound", "wups9", "ece", "by_type", "language_only", "majority", "exact"):
        assert key in result["metrics"], key
    for key in evaluate.SHOWN["vqa"]:
        assert len(lines[key]) >= 3, key  # en, zh, all
    assert lines["accuracy"][0] == f"{result['per_language']['en']['accuracy']:.1f}"
    assert "over toy, which is blind" in printed.out
    assert "split test, 24 questions" in printed.out
    assert "question: where" in printed.out
    html = (out / gallery.ANSWERS).read_text(encoding="utf-8")
    assert html.count('<article class="card like">') == 8
    part = datasets.load(data).select("test")
    folders = sorted(path for path in out.iterdir() if path.is_dir())
    assert [path.name for path in folders] == [f"{n:04d}" for n in range(1, 9)]
    for number, folder in enumerate(folders):
        assert {path.name for path in folder.iterdir()} == {"original.jpg", "topdown_att.jpg", "qa.txt"}
        row, turn = number % 6, number // 6  # the first question of each of six pictures, then the second
        question = part.pictures[row].qa[turn]
        told = (folder / "qa.txt").read_text(encoding="utf-8").splitlines()
        assert told[0] == f"question: {question.question}"
        assert told[1] == f"gt: {question.answers[0]}"
        assert told[2].startswith("answer: ")
        assert Image.open(folder / "topdown_att.jpg").size == Image.open(folder / "original.jpg").size == (8, 8)


def test_a_run_is_shipped_as_halves_with_its_own_scores(
    runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, blind = runs
    script = Path(tuwen.__file__).parents[1] / "scripts" / "ship.py"
    monkeypatch.setattr(checkpoint, "SHIPPED", tmp_path / "weights")
    monkeypatch.setattr("sys.argv", ["ship.py", str(run), "vqa", "--data", str(data), "--baseline", str(blind)])
    runpy.run_path(str(script), run_name="__main__")
    assert "held-out en accuracy" in capsys.readouterr().out
    shipped = tmp_path / "weights" / "vqa"
    assert (shipped / "model.safetensors").stat().st_size < 0.6 * (run / "model.safetensors").stat().st_size
    pipeline = tuwen.load("vqa")
    assert isinstance(pipeline, Vqa)
    assert (pipeline.name, pipeline.folder) == ("vqa", shipped)
    assert checkpoint.shipped_models() == ["vqa"]
    told = (shipped / "README.md").read_text()
    assert "# vqa" in told
    assert "Over a blind model (language only" in told
    dataset = datasets.load(data)
    accuracy = evaluate.score(pipeline, dataset, "test")["metrics"]["accuracy"]
    assert f"| all | {accuracy:.1f} |" in told
    assert cli.run(["models", "--json"]) == 0
    [model] = json.loads(capsys.readouterr().out)["models"]
    assert (model["name"], model["task"], model["languages"]) == ("vqa", "vqa", ["en", "zh"])


def test_eval_warns_of_made_questions(
    make_toy: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ask(make_toy(6, splits=("test",)), made=lambda i: i > 2)
    fake = Says(truth(data, "test"))
    monkeypatch.setattr(pipelines, "load", lambda name, device=None: fake)
    command = ["eval", "says", "--data", str(data.folder)]
    assert cli.run(command) == 0
    assert "12 questions written by a tool are left out" in capsys.readouterr().err
    assert cli.run([*command, "--made", "--visualise", "2", "--out", str(tmp_path / "page")]) == 0
    printed = capsys.readouterr()
    assert "a tool wrote these questions, nobody asked them" in printed.err
    assert "12 questions" in printed.out
    assert {path.name for path in (tmp_path / "page" / "0001").iterdir()} == {"original.jpg", "qa.txt"}
    assert cli.run([*command, "--made", "--folds", "3"]) == 1
    assert "--folds is for retrieval" in capsys.readouterr().err


def test_questions_take_turns_by_picture() -> None:
    assert gallery.turns([0, 0, 0, 1, 2, 2]) == [0, 3, 4, 1, 5, 2]
    assert gallery.turns([]) == []
