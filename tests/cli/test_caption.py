"""`tuwen caption`: what it prints and writes, what it refuses, and that people's own captions stay."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_describer import FakeDescriber
from fake_embedder import FakeEmbedder, draw
from PIL import Image
from tiny_captioners import make_run

import tuwen.pipelines
from tuwen import cli, dataset, viz
from tuwen.pipelines import Described

Run = Callable[..., Any]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeDescriber:
    """Answers to every name but `retrieval`, which finds pictures."""
    describer, load = FakeDescriber(), tuwen.pipelines.load
    fakes = {"retrieval": FakeEmbedder(), "missing": None}
    monkeypatch.setattr(
        tuwen.pipelines, "load", lambda name, device=None: fakes.get(name, describer) or load(name, device)
    )
    return describer


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
    draw(folder / "a.png", "blue", seed=2)
    draw(folder / "below" / "deep" / "c.PNG", "green", "green", "white", seed=3)
    draw(folder / ".hidden" / "d.png", "black", seed=4)
    (folder / "notes.txt").write_text("no picture")
    return folder


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["texts"][0]["text"] for row in rows]


def test_json_holds_the_contract_in_two_languages(run: Run, model: FakeDescriber, pictures: Path) -> None:
    answer = run("caption", "pics", "--json")
    assert {"version", "warnings", "captions", "model", "failed"} == set(answer)
    assert [row["file"] for row in answer["captions"]] == ["pics/a.png", "pics/b.png", "pics/below/deep/c.PNG"]
    assert texts(answer["captions"]) == ["a blue thing", "a red thing", "a green thing"]
    assert [set(row) for row in answer["captions"]] == [{"file", "lang", "texts", "attention"}] * 3
    for row in answer["captions"]:
        assert (row["lang"], row["attention"], len(row["texts"])) == ("en", None, 3)
        scores = [one["score"] for one in row["texts"]]
        assert scores == sorted(scores, reverse=True)
        assert all([word["word"] for word in one["words"]] == one["text"].split() for one in row["texts"])
    chinese = run("caption", "pics", "--lang", "zh", "--json", "--beams", "2")["captions"]
    assert texts(chinese) == ["蓝色的东西", "红色的东西", "绿色的东西"]
    assert {(row["lang"], len(row["texts"])) for row in chinese} == {("zh", 2)}
    run("caption", "pics/b.png", "--samples", "2", "--seed", "7")
    assert model.asked[-1] == {"lang": "en", "beams": None, "samples": 2, "seed": 7}


def test_people_see_a_line_a_picture(run: Run, model: FakeDescriber, pictures: Path) -> None:
    out, err = run("caption", "pics/b.png", "pics", "pics/b.png")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["pics/b.png", "pics/a.png", "pics/below/deep/c.PNG"]  # each once
    assert lines[0].endswith("  a red thing")
    assert err == []
    out, _ = run("caption", "pics/b.png", "--samples", "2")
    assert out.splitlines()[0] == "pics/b.png"
    assert out.splitlines()[1] == "  a red thing"
    assert len(out.splitlines()) == 3


def test_a_broken_picture_among_good_ones_is_told(run: Run, model: FakeDescriber, pictures: Path) -> None:
    (pictures / "aa.png").write_bytes(b"no")
    out, err = run("caption", "pics", "pics/none.png")
    assert len(out.splitlines()) == 3
    assert len(err) == 2
    assert err[0].startswith("warning: pics/aa.png: not a picture")
    assert err[1] == "warning: pics/none.png: there is no such file"
    answer = run("caption", "pics", "--json")
    assert [failure["file"] for failure in answer["failed"]] == ["pics/aa.png"]
    assert answer["warnings"][0].startswith("pics/aa.png: ")
    assert len(answer["captions"]) == 3


WRONG = {
    "a missing file": (["none.png"], 1, "none.png: there is no such file"),
    "no picture at all": (["pics/notes.txt"], 1, "pics/notes.txt: not a picture"),
    "an empty folder": (["empty"], 1, "empty: no picture in this folder"),
    "a language it does not speak": (["pics", "--lang", "fr"], 1, "describes pictures in en and zh, not in 'fr'"),
    "a model of another task": (["pics", "--model", "retrieval"], 1, "a retrieval model, but captioning is needed"),
    "a model that is not here": (["pics", "--model", "missing"], 1, "no model missing: name a run's folder"),
    "another ending": (["pics", "--out", "x.txt"], 1, "x.txt: captions are written as .json, .csv or metadata.jsonl"),
    "no such folder": (["pics", "--out", "no/x.csv"], 1, "no/x.csv: there is no folder no"),
    "beams and samples": (["pics", "--beams", "3", "--samples", "2"], 2, "give --beams or --samples"),
    "no beam": (["pics", "--beams", "0"], 2, "Invalid value for '--beams'"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_line(run: Run, model: FakeDescriber, pictures: Path, tmp_path: Path, wrong: str) -> None:
    (tmp_path / "empty").mkdir()
    arguments, code, told = WRONG[wrong]
    out, err = run("caption", *arguments, code=code)
    assert out == ""
    assert told in " ".join(line.strip("│ ") for line in err)
    assert len(err) == 1 or code == 2
    assert not list(tmp_path.glob("x.*"))


def test_several_broken_pictures_and_no_good_one(run: Run, model: FakeDescriber, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no")
    out, err = run("caption", "a.png", "b.png", code=1)
    assert out == ""
    assert [line.split(":")[0] for line in err] == ["warning", "warning", "error"]
    assert "none of 2 pictures" in err[2]


def test_finding_refuses_a_model_that_describes(run: Run, model: FakeDescriber, pictures: Path) -> None:
    for command in (["index", "pics", "--model", "mine"], ["demo", "pics", "--model", "mine"]):
        _, err = run(*command, code=1)
        assert err == [
            "error: colours: a captioning model, but retrieval is needed here: name another with --model, "
            "as retrieval, a run's folder or hf:REPO"
        ]


def test_json_and_csv_files(run: Run, model: FakeDescriber, pictures: Path, tmp_path: Path) -> None:
    out, _ = run("caption", "pics", "--lang", "zh", "--out", "said.json")
    assert out == "said.json: captions of 3 pictures\n"
    printed = run("caption", "pics", "--lang", "zh", "--json")["captions"]
    for row in printed:
        del row["attention"]
    assert json.loads((tmp_path / "said.json").read_text("utf-8"))["captions"] == printed
    run("caption", "pics", "--lang", "zh", "--beams", "2", "--out", "said.csv")
    data = (tmp_path / "said.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    table = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
    assert len(table) == 6
    assert (table[0]["file"], table[0]["lang"], table[0]["rank"], table[0]["text"]) == (
        *("pics/a.png", "zh", "1"),
        "蓝色的东西",
    )


def test_a_bare_folder_becomes_a_data_set(run: Run, model: FakeDescriber, pictures: Path) -> None:
    out, _ = run("caption", "pics", "--out", "pics/metadata.jsonl")
    assert "3 new captions; 3 pictures added, 0 were there" in out
    data = dataset.read(pictures)
    assert [picture.file_name for picture in data.pictures] == ["a.png", "b.png", "below/deep/c.PNG"]
    assert [(c.text, c.lang, c.source) for c in data.pictures[0].captions] == [("a blue thing", "en", "model:colours")]
    assert all(data.path(picture).is_file() for picture in data.pictures)
    assert [p.split for p in data.pictures] == [None] * 3
    again, _ = run("caption", "pics", "--out", "pics/metadata.jsonl")
    assert "0 new captions; 0 pictures added, 3 were there" in again
    assert dataset.read(pictures).pictures == data.pictures


def test_what_people_wrote_stays(run: Run, model: FakeDescriber, pictures: Path) -> None:
    rows = [
        {"file_name": "b.png", "split": "test", "captions": ["my red square", "a red thing"], "mine": 7},
        {"file_name": "a.png", "captions": [{"text": "corrected by hand", "lang": "en", "source": "model:colours"}]},
    ]
    (pictures / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("caption", "pics", "--lang", "zh", "--samples", "2", "--out", "pics/metadata.jsonl")
    run("caption", "pics", "--out", "pics/metadata.jsonl")
    data = dataset.read(pictures)
    assert [picture.file_name for picture in data.pictures] == ["b.png", "a.png", "below/deep/c.PNG"]
    first, second, third = data.pictures
    assert [c.text for c in first.human()] == ["my red square", "a red thing"]
    assert (first.split, first.model_extra) == ("test", {"mine": 7})
    assert [(c.text, c.source) for c in first.captions][2:3] == [("红色的东西", "model:colours")]
    assert len(first.captions) == len(second.captions) + 1 == len(third.captions) + 2 == 5
    assert second.captions[0].text == "corrected by hand"


def test_pictures_elsewhere_get_a_root(run: Run, model: FakeDescriber, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run("caption", "pics", "--out", "data/metadata.jsonl")
    run("caption", "pics/below", "--lang", "zh", "--out", "data/metadata.jsonl")  # another root of the same picture
    data = dataset.read(tmp_path / "data")
    assert len(data) == 3
    assert {data.path(picture) for picture in data.pictures} == {
        pictures / name for name in ("a.png", "b.png", "below/deep/c.PNG")
    }
    assert [len(picture.captions) for picture in data.pictures] == [1, 1, 2]
    assert all(caption.source == "model:colours" for _, caption in data.captions(human=False))


def test_stopped_in_the_middle_keeps_what_is_done(
    run: Run, model: FakeDescriber, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = model.describe

    def stop(*arguments: Any, **how: Any) -> Iterator[Described]:
        for number, one in enumerate(whole(*arguments, **how)):
            if number == 2:
                raise KeyboardInterrupt
            yield one

    monkeypatch.setattr(model, "describe", stop)
    out, err = run("caption", "pics", "--out", "said.json", code=130)
    assert "captions of 2 pictures" in out
    assert any("said.json holds the first 2 of 3 pictures" in line for line in err)
    assert len(json.loads((tmp_path / "said.json").read_text())["captions"]) == 2
    assert run("caption", "pics", code=130)[0] == ""


def test_attention_is_drawn_a_panel_a_word(run: Run, model: FakeDescriber, pictures: Path, tmp_path: Path) -> None:
    draw(pictures / "below" / "a.png", "white", seed=9)
    answer = run("caption", "pics", "--attention", "seen", "--json")
    drawn = [row["attention"] for row in answer["captions"]]
    assert drawn == ["seen/a.png", "seen/b.png", "seen/a-2.png", "seen/c.png"]
    sheet = np.asarray(Image.open(tmp_path / "seen" / "a-2.png"))
    side, step = 16, 16 + viz.GAP  # the pictures are smaller than a panel, and stay so
    assert sheet.shape == (viz.LABEL + 8 + side + 2 * viz.GAP, 4 * step + viz.GAP, 3)  # the picture and three words
    top = viz.GAP + viz.LABEL + 8
    plain, first = (sheet[top : top + side, left : left + side] for left in (viz.GAP, viz.GAP + step))
    assert plain[1:, 1:].min() == 250
    assert first[1, 1].min() > 240  # where the map is high
    assert first[-1, -1].max() < 0.4 * 250


def test_without_a_chinese_font_the_panels_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.ones((2, 2, 2), np.float32)
    picture = Image.new("RGB", (20, 20), "red")
    monkeypatch.setattr(viz, "CHINESE_FONTS", {})
    chinese, numbers = (viz.attention_sheet(picture, words, maps) for words in (["狗", "跑"], ["1", "2"]))
    assert chinese == numbers
    assert chinese != viz.attention_sheet(picture, ["a", "b"], maps)


def test_a_run_of_our_own_from_its_folder(run: Run, pictures: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    make_run(tmp_path / "plain", "show-tell")
    answer = run("caption", "pics", "--model", "run", "--lang", "zh", "--beams", "2", "--attention", "seen", "--json")
    assert answer["model"] == "run"
    assert [len(row["texts"]) for row in answer["captions"]] == [2, 2, 2]
    assert len(list((tmp_path / "seen").iterdir())) == 3
    _, err = run("caption", "pics", "--model", "plain", "--attention", "none", code=1)
    assert len(err) == 1
    assert "it has no attention to show" in err[0]
    assert not (tmp_path / "none").exists()
    _, err = run("index", "pics", "--model", "run", code=1)
    assert "run: a captioning model, but retrieval is needed here" in err[0]
