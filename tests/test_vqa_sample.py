"""A sample in the layout of VQA v2 (ten answers a question) through the commands: import, train, eval, ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tuwen import cli
from tuwen import dataset as datasets
from tuwen.text.answers import replace_words, strip_punctuation

COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220), "white": (250, 250, 250)}
ASKED: dict[str, Callable[[str, int], list[str]]] = {  # question -> what ten people say of a picture of that colour
    "What color is it?": lambda name, i: [name] * 6 + [f"a {name}", f"{name}!", "dark " + name, ""],
    "How many cats?": lambda name, i: ["two", "2", "2.", "Two", "2", "3", "one", "1,000", "two cats", "2"],
    "Can't it move?": lambda name, i: ["yes"] * (i % 8 + 1) + ["dont know"] * (9 - i % 8),
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For models this small, threads only wait for one another; and no WordNet, which takes seconds to read."""
    monkeypatch.setattr("tuwen.metrics.vqa.wordnet_similarity", lambda: None)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """Twelve pictures to train on and six to validate on, with the two JSON files a part of VQA v2."""
    source = tmp_path / "vqa"
    for part, count in (("train", 12), ("val", 6)):
        folder = source / f"{part}2014"
        folder.mkdir(parents=True)
        questions, notes = [], []
        for i in range(count):
            image, name = 100 * (part == "val") + i, list(COLOURS)[i % 3]
            pixels = np.full((12, 16, 3), COLOURS[name], np.uint8)
            pixels[0, 0] = image
            Image.fromarray(pixels).save(folder / f"COCO_{part}2014_{image:012d}.jpg")
            for number, (question, say) in enumerate(ASKED.items()):
                key = 10 * image + number
                questions.append({"image_id": image, "question": question, "question_id": key})
                said = [
                    {"answer": text, "answer_id": n, "answer_confidence": "yes"} for n, text in enumerate(say(name, i))
                ]
                kind = ["other", "number", "yes/no"][number]
                about = {"question_type": question.split()[0].lower(), "answer_type": kind}
                notes.append({"image_id": image, "question_id": key, "answers": said, **about})
        body = {"questions": questions, "data_subtype": f"{part}2014"}
        (source / f"v2_OpenEnded_mscoco_{part}2014_questions.json").write_text(json.dumps(body))
        (source / f"v2_mscoco_{part}2014_annotations.json").write_text(json.dumps({"annotations": notes}))
    return source


def slow_accuracy(said: str, people: list[str]) -> float:
    """As the public code writes it, in loops: each person left out in turn, min(agreeing / 3, 1), the mean."""
    people, said = [text.replace("\n", " ").replace("\t", " ").strip() for text in people], said.strip()
    if len(set(people)) > 1:
        people, said = (
            [replace_words(strip_punctuation(text)) for text in people],
            replace_words(strip_punctuation(said)),
        )
    each = []
    for left_out in range(len(people)):
        agree = [text for place, text in enumerate(people) if place != left_out and text == said]
        each.append(min(1.0, len(agree) / 3))
    return sum(each) / len(each)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert cli.run(list(arguments)) == 0, capsys.readouterr().err
    return capsys.readouterr().out


SMALL = ["model.width=24", "model.question.embedding=16", "classifier.dropout=0", "attention.dropout=0"]
SMALL += ["answers.min_count=2", "batch_size=12", "epochs=30", "lr=0.02", "train.schedule=constant", "train.warmup=0"]


def give_regions(data: Path) -> None:
    """Each picture's own file of regions: two to four boxes, the first shows its colour."""
    held = datasets.load(data)
    (data / "regions").mkdir()
    for place, picture in enumerate(held.pictures):
        with Image.open(held.path(picture)) as opened:
            colour = np.asarray(opened.convert("RGB"), np.float32)[6, 8] / 128 - 1
        count = 2 + place % 3
        features = np.random.default_rng(place).normal(0, 0.1, (count, 8)).astype(np.float32)
        features[0, :3] = colour
        boxes = np.tile(np.array([0, 0, 16, 12], np.float32), (count, 1))
        np.savez(data / "regions" / f"{place}.npz", features=features, boxes=boxes)
        picture.regions = f"regions/{place}.npz"
    datasets.save(held)


@pytest.mark.parametrize("tower", ["grid", "regions"])
def test_a_sample_of_vqa_v2_imports_trains_and_scores(
    sample: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tower: str
) -> None:
    data, out, scores = tmp_path / "data", tmp_path / "run", tmp_path / "scores.json"
    for part in ("train", "val"):
        questions = sample / f"v2_OpenEnded_mscoco_{part}2014_questions.json"
        told = run(capsys, "import", "vqa2", str(questions), str(data), "--images", str(sample / f"{part}2014"))
    held = datasets.load(data)
    assert held.splits() == {"train": 12, "val": 6}
    assert {len(question.answers) for picture in held.pictures for question in picture.qa} == {10}
    if tower == "regions":
        give_regions(data)
        seen = ["model.image.regions=3"]
    else:
        seen = ["model.image.tower=lite0", "model.image.size=96", "model.image.features=grid"]
    told = run(capsys, "train", "vqa-updown", *seen, *SMALL, "--data", str(data), "--out", str(out))
    assert "val, 18 questions" in told
    config = json.loads((out / "config.json").read_text())
    assert config["answers"]["rule"] == "official"
    assert set(config["answers"]["answers"]) == {"2", "red", "blue", "white", "don't know", "yes"}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    validated = [line for line in lines if line["split"] == "val"]
    assert {"accuracy", "upper_bound", "train/accuracy", "answer_type/number", "question_type/what"} <= set(
        validated[-1]
    )
    run(capsys, "eval", str(out), "--data", str(data), "--split", "val", "--json", str(scores))
    result: dict[str, Any] = json.loads(scores.read_text())
    assert result["n"] == 18
    assert result["protocol"]["annotators"] == 10
    assert set(result["metrics"]["by_type"]["answer_type"]) == {"other", "number", "yes/no"}
    assert set(result["metrics"]["by_type"]["question_type"]) == {"what", "how", "can't"}
    assert result["metrics"]["majority"] < result["metrics"]["accuracy"] <= result["metrics"]["upper_bound"]
    assert result["metrics"]["accuracy"] > 60
    if tower == "grid":
        check_asking(held, out, tmp_path, capsys, result["metrics"]["accuracy"])


def check_asking(
    held: datasets.Dataset, out: Path, folder: Path, capsys: pytest.CaptureFixture[str], accuracy: float
) -> None:
    """`ask --questions` says the same answers: scored by the slow way they have the same accuracy."""
    asked = [(str(held.path(p)), q) for p in held.select("val").pictures for q in p.qa]
    rows = "".join(json.dumps({"file": file, "question": question.question}) + "\n" for file, question in asked)
    (folder / "q.jsonl").write_text(rows)
    answers = json.loads(run(capsys, "ask", "--questions", str(folder / "q.jsonl"), "--model", str(out), "--json"))[
        "answers"
    ]
    assert [(row["file"], row["question"]) for row in answers] == [(file, q.question) for file, q in asked]
    right = [slow_accuracy(row["best"][0]["text"], q.answers) for row, (_, q) in zip(answers, asked, strict=True)]
    assert 100 * sum(right) / len(right) == pytest.approx(accuracy)
