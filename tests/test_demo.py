"""The demo: at least twelve photographs from packages, both languages, a page, and no success that was not seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from fake_answerer import FakeAnswerer
from fake_describer import FakeDescriber
from fake_drawer import FakeDrawer
from fake_embedder import FakeEmbedder, draw_many
from PIL import Image
from test_report import read
from typer.testing import CliRunner

import tuwen.pipelines
from tuwen import checkpoint, demo
from tuwen.cli import demo as commands
from tuwen.errors import DataError
from tuwen.pipelines import Drawing
from tuwen.records import guess_language
from tuwen.scenes import Scene, Thing, draw_scene
from tuwen.scenes.request import understand

pytest.importorskip("skimage")
pytest.importorskip("sklearn")


def test_questions_come_in_both_languages() -> None:
    names = {name for _, _, name, _ in demo.SAMPLES}
    for asked in (demo.ASKED, demo.OWN):
        assert len(asked) >= 6
        assert [(guess_language(a.en), guess_language(a.zh)) for a in asked] == [("en", "zh")] * len(asked)
        assert all(set(a.meant or ()) <= names for a in asked)


def test_samples_are_photographs_from_installed_packages(tmp_path: Path) -> None:
    credits = demo.collect(tmp_path)
    assert len(credits) >= 12
    assert {path.name for path in tmp_path.iterdir()} == set(credits)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    demo.collect(tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps


def test_too_few_samples_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SAMPLES", [*demo.SAMPLES[:3], ("no_such_package", "x", "y.png", "z")])
    with pytest.raises(DataError, match=r"only 3 .*tuwen\[demo\]"):
        demo.collect(tmp_path / "few")


def test_the_demo_says_what_it_saw_twice_alike(tmp_path: Path) -> None:
    seen = demo.run_demo(FakeEmbedder(floor=0.5), tmp_path / "demo")
    page = (tmp_path / "demo" / "report.html").read_text()
    assert seen["pictures"] >= 12
    assert len(seen["queries"]) == 2 * len(demo.ASKED)
    found = [query for query in seen["queries"] if query["hits"]]
    assert 0 < len(found) < len(seen["queries"])  # "red" finds some; "cat" is no colour, and finds nothing
    for query in seen["queries"]:
        assert all(hit["score"] >= 0.5 for hit in query["hits"])
        shown = [Path(hit["file"]).name for hit in query["hits"]]
        if query["rank"] is not None and query["rank"] <= len(shown):
            assert shown[query["rank"] - 1] in query["meant"]
        if not shown:
            assert query["rank"] is None
    assert Path(seen["like"]["hits"][0]["file"]).name == demo.LIKE
    reader = read(tmp_path / "demo" / "report.html")
    assert page.count("data:image/jpeg") == seen["pictures"]
    assert all(query["query"] in reader.text for query in seen["queries"])
    assert reader.text.count("No match") == len(seen["queries"]) - len(found)
    again = demo.run_demo(FakeEmbedder(floor=0.5), tmp_path / "demo")
    assert again["index"]["unchanged"] == seen["pictures"]
    assert {**again, "index": 0} == {**seen, "index": 0}
    assert (tmp_path / "demo" / "report.html").read_text() == page


def test_own_pictures_and_a_newer_model(tmp_path: Path) -> None:
    draw_many(tmp_path / "mine", 5)
    (tmp_path / "mine" / "broken.png").write_bytes(b"no")
    seen = demo.run_demo(FakeEmbedder(), tmp_path / "demo", tmp_path / "mine")
    assert (seen["pictures"], len(seen["index"]["failed"])) == (5, 1)
    assert not (tmp_path / "demo" / "pictures").exists()
    assert demo.tally(seen["queries"], "en") == (0, 0, 0)
    assert "picture meant" not in read(tmp_path / "demo" / "report.html").text
    newer = demo.run_demo(FakeEmbedder(fingerprint="newer"), tmp_path / "demo", tmp_path / "mine")
    assert newer["index"]["added"] == 5
    draw_many(tmp_path / "other", 3)
    assert demo.run_demo(FakeEmbedder(), tmp_path / "demo", tmp_path / "other")["pictures"] == 3


def test_the_first_pictures_are_described_in_both_languages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_many(tmp_path / "mine", 14)
    (tmp_path / "mine" / "a-broken.png").write_bytes(b"no")
    seen = demo.run_demo(FakeEmbedder(), tmp_path / "demo", tmp_path / "mine", FakeDescriber())
    assert [Path(row["file"]).name for row in seen["captions"]] == [f"p{n:03}.png" for n in range(12) for _ in "ez"]
    assert [row["lang"] for row in seen["captions"]] == ["en", "zh"] * 12
    english, chinese = (seen["captions"][n]["texts"][0]["text"] for n in (2, 3))
    assert (english, chinese) == ("a red thing", "红色的东西")  # half red, half green: the first of the two
    text = read(tmp_path / "demo" / "report.html").text
    assert (text.count("a red thing"), text.count("described by colours")) == (
        sum(row["texts"][0]["text"] == "a red thing" for row in seen["captions"]),
        1,
    )
    assert (tmp_path / "demo" / "report.html").read_text().count("data:image/jpeg") == 14
    monkeypatch.setattr(
        tuwen.pipelines, "load", lambda name, device=None: {"captioning": FakeDescriber}.get(name, FakeEmbedder)()
    )
    for shipped, told in ((["captioning", "retrieval"], 12), (["retrieval"], 0)):
        monkeypatch.setattr(checkpoint, "shipped_models", lambda shipped=shipped: shipped)
        commands.demo(tmp_path / "mine", tmp_path / "demo", "retrieval", False)
        assert capsys.readouterr().out.count(" thing  ·  ") == told
    assert "Described" not in read(tmp_path / "demo" / "report.html").text


def test_the_samples_are_asked_about_in_both_languages(tmp_path: Path) -> None:
    names = {name for _, _, name, _ in demo.SAMPLES}
    assert len(demo.QUESTIONS) == 10
    assert {one.file for one in demo.QUESTIONS} <= names
    assert all((guess_language(one.en), guess_language(one.zh)) == ("en", "zh") for one in demo.QUESTIONS)
    answerer = FakeAnswerer()
    seen = demo.run_demo(FakeEmbedder(), tmp_path / "demo", answerer=answerer)
    there = [one for one in demo.QUESTIONS if (tmp_path / "demo" / "pictures" / one.file).is_file()]
    assert [row["question"] for row in seen["answers"]] == [one.en for one in there] + [one.zh for one in there]
    assert [row["right"] for row in seen["answers"]] == [
        row["best"][0]["text"] in one.right for row, one in zip(seen["answers"], there * 2, strict=True)
    ]
    text = read(tmp_path / "demo" / "report.html").text
    assert "answered by colours" in text
    assert all(row["question"] in text for row in seen["answers"])
    assert text.count(" ✗") + text.count(" ✓") >= len(seen["answers"])
    draw_many(tmp_path / "mine", 9)
    own = demo.run_demo(FakeEmbedder(), tmp_path / "demo", tmp_path / "mine", answerer=answerer)["answers"]
    assert len(own) == 2 * demo.ASKED_OF * len(demo.OWN_QUESTIONS)
    assert {row["right"] for row in own} == {None}
    assert len({row["file"] for row in own}) == demo.ASKED_OF
    assert "Asked" not in read_again(tmp_path)


def read_again(folder: Path) -> str:
    """The page of a demo without an answering model."""
    demo.run_demo(FakeEmbedder(), folder / "demo", folder / "mine")
    text: str = read(folder / "demo" / "report.html").text
    return text


def test_the_demo_prints_answers_where_a_model_is_shipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_many(tmp_path / "mine", 2)
    kinds = {"vqa": FakeAnswerer, "captioning": FakeDescriber}
    monkeypatch.setattr(tuwen.pipelines, "load", lambda name, device=None: kinds.get(name, FakeEmbedder)())
    for shipped, told in ((["retrieval", "vqa"], 8), (["retrieval"], 0)):
        monkeypatch.setattr(checkpoint, "shipped_models", lambda shipped=shipped: shipped)
        commands.demo(tmp_path / "mine", tmp_path / "demo", "retrieval", False)
        printed = capsys.readouterr().out
        assert sum(both[0] in printed for both in demo.OWN_QUESTIONS) == (2 if told else 0)
        assert sum("图中" in line and "%" in line for line in printed.splitlines()) == told // 2


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer()
    commands.register(app)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuwen.pipelines, "load", lambda name, device=None: FakeEmbedder())
    monkeypatch.setattr(checkpoint, "shipped_models", lambda: ["retrieval"])
    draw_many(tmp_path / "mine", 3)
    told = CliRunner().invoke(app, ["demo", "mine"])
    assert told.exit_code == 0, told.exception
    assert "report: demo/report.html" in told.output
    assert "16 of 16 queries found nothing" in told.output
    answer = json.loads(CliRunner().invoke(app, ["demo", "mine", "--json"]).stdout)
    assert (answer["pictures"], answer["report"]) == (3, "demo/report.html")
    wrong = CliRunner().invoke(app, ["demo", "nowhere"])
    assert isinstance(wrong.exception, DataError)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "split": "train", "loss": 2}\n')
    assert CliRunner().invoke(app, ["report", "run"]).output.strip() == "run/report.html"
    assert "Training loss" in read(tmp_path / "run" / "report.html").text


def test_sentences_are_drawn_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [guess_language(words) for words in demo.DRAWN] == ["en"] * 4 + ["zh"] * 4
    assert all(understand(words) is not None for words in demo.DRAWN)
    draw_many(tmp_path / "mine", 3)

    class Half(FakeDrawer):
        """Draws the first of all sentences, whatever is asked."""

        def __init__(self) -> None:
            self.name = "half"

        def draw(self, prompts: list[str]) -> list[Drawing]:
            things = (Thing("circle", "red", "large", 0.4, 0.3, 0.24), Thing("star", "blue", "small", 0.5, 0.8, 0.12))
            return [Drawing(draw_scene(Scene(things, "grey"), 64), prompt, 0) for prompt in prompts]

    seen = demo.run_demo(FakeEmbedder(), tmp_path / "demo", tmp_path / "mine", drawer=Half())  # type: ignore[arg-type]
    assert [one["right"] for one in seen["drawn"]] == [True] + [False] * 7
    for one in seen["drawn"]:
        with Image.open(one["file"]) as picture:
            assert picture.size == (256, 256)
    text = read(tmp_path / "demo" / "report.html").text
    assert all(words in text for words in demo.DRAWN)
    assert (text.count(" ✓"), text.count(" ✗")) == (1 + 1, 7 + 2)  # the note names both, in two languages
    commands.tell(seen)
    assert "1 of 8 drawings show all that was asked" in capsys.readouterr().out
    assert seen["about_drawn"] == []
    asked = demo.run_demo(
        FakeEmbedder(), tmp_path / "demo", tmp_path / "mine", drawer=Half(), geometer=FakeAnswerer()  # type: ignore[arg-type]
    )["about_drawn"]  # fmt: skip
    assert [one["question"] for one in asked] == [question for _, question, _ in demo.ABOUT_DRAWN]
    assert [one["file"] for one in asked] == [seen["drawn"][number]["file"] for number, _, _ in demo.ABOUT_DRAWN]
    assert [one["right"] for one in asked] == [False, None, None, None, None]  # who knows where the drawing is wrong?
    assert "Asked about the drawings" in read(tmp_path / "demo" / "report.html").text
