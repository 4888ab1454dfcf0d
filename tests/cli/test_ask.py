"""`tuwen ask`: what it prints, its JSON contract, files of questions, attention, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_answerer import FakeAnswerer
from fake_embedder import FakeEmbedder, draw
from PIL import Image
from tiny_answerers import make_run

import tuwen.pipelines
from tuwen import cli

Run = Callable[..., Any]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeAnswerer:
    """Answers to every name but `retrieval`, which finds pictures, and `blind`, which has no attention."""
    answerer, load = FakeAnswerer(), tuwen.pipelines.load
    fakes = {"retrieval": FakeEmbedder(), "blind": FakeAnswerer("blind", attention=False), "missing": None}
    monkeypatch.setattr(
        tuwen.pipelines, "load", lambda name, device=None: fakes.get(name, answerer) or load(name, device)
    )
    return answerer


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in `tmp_path`: (standard output, lines of standard error), or with --json the object."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUWEN_DEBUG", "")

    def call(*arguments: str, code: int = 0) -> Any:
        capsys.readouterr()
        assert cli.run(list(arguments)) == code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return json.loads(out) if "--json" in arguments and code == 0 else (out, err.splitlines())

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pics"
    draw(folder / "b.png", "red", seed=1)
    draw(folder / "a.png", "blue", "green", seed=2)
    draw(folder / "below" / "c.png", "green", seed=3)
    return folder


def ask_file(folder: Path, *rows: tuple[str, str], name: str = "q.jsonl") -> Path:
    path = folder / name
    text = "".join(json.dumps({"file": file, "question": question}) + "\n" for file, question in rows)
    path.write_text(text, encoding="utf-8")
    return path


def test_json_holds_the_contract(run: Run, model: FakeAnswerer, pictures: Path) -> None:
    answer = run("ask", "pics/b.png", "what colour is it?", "--json")
    assert {"version", "warnings", "answers", "model", "failed"} == set(answer)
    assert answer["warnings"] == answer["failed"] == []
    [one] = answer["answers"]
    assert set(one) == {"file", "question", "sure", "best", "attention"}
    assert (one["file"], one["question"], one["sure"]) == ("pics/b.png", "what colour is it?", True)
    assert one["best"][0]["text"] == "red"
    assert len(one["best"]) == 3
    scores = [best["score"] for best in one["best"]]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert one["attention"] == {"rows": 2, "columns": 2, "boxes": None, "weights": [0.7, 0.1, 0.1, 0.1], "file": None}
    both = run("ask", "pics", "它是什么颜色的？", "-k", "1", "--json")["answers"]
    assert [row["file"] for row in both] == ["pics/a.png", "pics/b.png", "pics/below/c.png"]
    assert [row["best"][0]["text"] for row in both] == ["绿色", "红色", "绿色"]
    assert [len(row["best"]) for row in both] == [1, 1, 1]


def test_people_see_scores_as_bars_and_what_is_not_sure(run: Run, model: FakeAnswerer, pictures: Path) -> None:
    out, err = run("ask", "pics/b.png", "pics/a.png", "what colour is it?")
    assert err == []
    lines = out.splitlines()
    assert lines[0].split("  ") == ["pics/b.png", "what colour is it?"]
    name, share, bar = lines[1].split()
    assert (name, share[-1], set(bar)) == ("red", "%", {"█"})
    assert len(bar) == round(int(share[:-1]) / 5)
    assert lines[4].startswith("pics/a.png")
    assert lines[5] == "  not sure; the best guesses:"  # half of it is blue, half green
    assert len(lines) == 9
    _, err = run("ask", "pics/b.png", "what zebra is it?")
    assert err == ["warning: model 'colours' never saw these words: zebra"]


def test_a_file_of_questions_is_answered_in_order(
    run: Run, model: FakeAnswerer, pictures: Path, tmp_path: Path
) -> None:
    rows = [("b.png", "one?"), ("below/c.png", "two?"), ("b.png", "三？"), (str(pictures / "a.png"), "four zoo?")]
    ask_file(pictures, *rows)
    answer = run("ask", "--questions", "pics/q.jsonl", "--json")
    assert [(row["file"], row["question"]) for row in answer["answers"]] == rows  # as the rows name them
    assert [row["best"][0]["text"] for row in answer["answers"]] == ["red", "green", "红色", "green"]
    assert {row["attention"] for row in answer["answers"]} == {None}
    assert answer["warnings"] == ["1 of 4 different questions hold words that model 'colours' never saw"]
    (pictures / "ids.jsonl").write_text('{"file": "b.png", "question": "x?", "id": "q7"}\n')
    assert run("ask", "--questions", "pics/ids.jsonl", "--json")["answers"][0]["id"] == "q7"
    out, _ = run("ask", "--questions", "pics/q.jsonl", "-k", "2")
    assert [line.split("  ")[1] for line in out.splitlines() if "?" in line or "？" in line] == [q for _, q in rows]


def test_a_broken_picture_is_named_and_the_others_answered(run: Run, model: FakeAnswerer, pictures: Path) -> None:
    (pictures / "x.png").write_bytes(b"no")
    ask_file(pictures, ("b.png", "one?"), ("x.png", "two?"), ("gone.png", "three?"), ("x.png", "four?"), ("a.png", "?"))
    answer = run("ask", "--questions", "pics/q.jsonl", "--json")
    assert [row["question"] for row in answer["answers"]] == ["one?", "?"]
    assert [failure["file"] for failure in answer["failed"]] == ["pics/x.png", "pics/gone.png"]
    assert answer["warnings"][0].startswith("pics/x.png: not a picture")
    out, err = run("ask", "--questions", "pics/q.jsonl")
    assert len(err) == 2
    assert err[1] == "warning: pics/gone.png: there is no such file"
    ask_file(pictures, ("x.png", "one?"), ("gone.png", "two?"))
    out, err = run("ask", "--questions", "pics/q.jsonl", code=1)
    assert out == ""
    assert "none of 2 pictures can be read" in err[-1]


WRONG = {
    "no question": (["pics/b.png"], 2, "give a picture and a question"),
    "nothing": ([], 2, "give a picture and a question"),
    "the wrong way round": (["what is it?", "pics/b.png"], 2, "the question comes last, and pics/b.png is a file"),
    "an empty question": (["pics/b.png", " "], 2, "the question is empty"),
    "no word at all": (["pics/b.png", ""], 2, "the question is empty"),
    "a question longer than a file's name": (["none.png", "what? " * 100], 1, "error: none.png: there is no such file"),
    "both": (["pics/b.png", "what?", "--questions", "q.jsonl"], 2, "or --questions F.jsonl"),
    "a missing picture": (["none.png", "what?"], 1, "error: none.png: there is no such file"),
    "an empty folder": (["empty", "what?"], 1, "empty: no picture in this folder"),
    "a missing file": (["--questions", "none.jsonl"], 1, "none.jsonl: there is no such file"),
    "a broken row": (["--questions", "broken.jsonl"], 1, "broken.jsonl:2: no question"),
    "a model of another task": (["pics/b.png", "what?", "--model", "retrieval"], 1, "but vqa is needed here"),
    "a model that is not here": (["pics/b.png", "what?", "--model", "missing"], 1, "no model missing: name a run"),
    "no attention": (["pics/b.png", "what?", "--model", "blind", "--attention", "x"], 1, "has no attention to draw"),
    "no answer": (["pics/b.png", "what?", "-k", "0"], 2, "Invalid value for '-k'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_line(run: Run, model: FakeAnswerer, pictures: Path, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text('{"file": "pics/b.png", "question": "a?"}\n{"file": "pics/b.png"}\n')
    arguments, code, told = WRONG[wrong]
    out, err = run("ask", *arguments, code=code)
    assert out == ""
    assert told in " ".join(" ".join(line.strip("│ ") for line in err).split())
    assert len(err) == 1 or code == 2
    assert not (tmp_path / "x").exists()


def test_attention_is_drawn_a_picture_a_question(run: Run, model: FakeAnswerer, pictures: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(pictures / "below" / "b.png")
    ask_file(pictures, ("b.png", "one?"), ("below/b.png", "two?"), ("b.png", "three?"))
    answer = run("ask", "--questions", "pics/q.jsonl", "--attention", "seen", "--json")
    drawn = [row["attention"]["file"] for row in answer["answers"]]
    assert drawn == ["seen/b.jpg", "seen/b-2.jpg", "seen/b-3.jpg"]
    assert len(list((tmp_path / "seen").iterdir())) == 3
    lit = np.asarray(Image.open(tmp_path / "seen" / "b-2.jpg").convert("L"), np.int64)
    assert lit.shape == (64, 64)
    assert lit[12, 12] > 200 > 120 > lit[60, 60]
    out, _ = run("ask", "pics/b.png", "what?", "--attention", "one")
    assert out.splitlines()[-1] == "  one/b.jpg"


def test_a_run_of_our_own_from_its_folder(run: Run, pictures: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    answer = run("ask", "pics/b.png", "how many dogs are there?", "--model", "run", "--json", "--attention", "seen")
    assert answer["model"] == "run"
    assert (answer["answers"][0]["attention"]["rows"], len(answer["answers"][0]["best"])) == (3, 3)
    assert (tmp_path / "seen" / "b.jpg").is_file()
    _, err = run("caption", "pics/b.png", "--model", "run", code=1)
    assert "run: a vqa model, but captioning is needed here" in err[0]
