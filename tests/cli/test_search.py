"""`tuwen index` and `tuwen search`: what they print, what they refuse, and that they take the index's own model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_describer import FakeDescriber
from fake_embedder import FakeEmbedder, draw, draw_many
from typer.testing import CliRunner

import tuwen.pipelines
from tuwen.cli import index, search
from tuwen.errors import DataError, ModelError, PictureError, StoreError, TuwenError

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in `tmp_path`; an error that `tuwen` would print as one line is raised here."""
    app = typer.Typer()
    index.register(app)
    search.register(app)
    monkeypatch.chdir(tmp_path)

    def load(name: str, device: str | None = None) -> FakeEmbedder:
        if name == "missing":
            raise ModelError("no model missing")
        return FakeEmbedder(name, f"{name}-fingerprint")

    monkeypatch.setattr(tuwen.pipelines, "load", load)

    def call(*arguments: str, code: int = 0) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        if isinstance(result.exception, TuwenError):
            assert "\n" not in str(result.exception)
            raise result.exception
        assert result.exit_code == code, (result.output, result.exception)
        if "--json" not in arguments:
            return result.output
        answer = json.loads(result.stdout)
        assert {"version", "warnings"} <= set(answer)
        return answer

    return call


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    draw_many(folder, 8)
    draw(folder / "two.png", "red", "blue", seed=99)
    (folder / "broken.png").write_bytes(b"no")
    return folder


def test_index_json_holds_the_contract(run: Run, pictures: Path, tmp_path: Path) -> None:
    first = run("index", "pictures", "--json")
    keys = {"db", "added", "updated", "moved", "removed", "unchanged", "failed", "seconds", "pictures_per_second"}
    assert keys <= set(first)
    assert (first["db"], first["added"], first["unchanged"]) == (str(tmp_path / "tuwen.db"), 9, 0)
    assert [set(failure) for failure in first["failed"]] == [{"file", "why"}]
    assert first["failed"][0]["file"] == "broken.png"
    again = run("index", "pictures", "--json")
    assert (again["added"], again["unchanged"], len(again["failed"])) == (0, 9, 1)


def test_search_json_holds_the_contract_in_two_languages(run: Run, pictures: Path) -> None:
    run("index", "pictures")
    english = run("search", "red and blue", "-k", "3", "--json")["hits"]
    assert [set(hit) for hit in english] == [{"file", "score", "rank", "caption", "id", "width", "height", "date"}] * 3
    assert [hit["rank"] for hit in english] == [1, 2, 3]
    assert Path(english[0]["file"]) == pictures / "two.png"
    assert english[0]["caption"] is None
    assert run("search", "红色和蓝色", "-k", "3", "--json")["hits"] == english


def test_no_match_all_and_unknown_words(run: Run, pictures: Path) -> None:
    run("index", "pictures")
    nothing = run("search", "xyzzy plugh", "--json")
    assert nothing["hits"] == []
    assert "xyzzy, plugh" in nothing["warnings"][0]
    assert run("search", "red", "--json")["warnings"] == []
    assert "does not know the words: thing" in run("search", "red thing", "--json")["warnings"][0]
    assert len(run("search", "xyzzy", "--all", "-k", "4", "--json")["hits"]) == 4
    told = run("search", "xyzzy")
    assert "no match" in told
    assert "--all" in told


def test_people_see_a_table_and_paths_from_here(run: Run, pictures: Path) -> None:
    told = run("index", "pictures")
    assert "9 added" in told
    assert "broken.png" in told
    rows = run("search", "red blue", "-k", "2").splitlines()
    assert len([row for row in rows if "█" in row]) == 2
    assert "pictures/two.png" in rows[0]


def test_search_by_picture_and_for_captions(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    draw(data / "a.png", "red", seed=1)
    draw(data / "b.png", "blue", seed=2)
    rows = [{"file_name": "a.png", "captions": ["red", "a red [bold] one"]}, {"file_name": "b.png", "captions": ["蓝"]}]
    (data / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run("index", "data")
    hits = run("search", "--image", "data/b.png", "--json")["hits"]
    assert [Path(hit["file"]).name for hit in hits] == ["b.png", "a.png"]  # no threshold for pictures
    assert (hits[0]["caption"], hits[0]["score"]) == ("蓝", pytest.approx(1, abs=1e-4))
    captions = run("search", "--image", "data/a.png", "--for", "captions", "-k", "2", "--json")["hits"]
    assert [set(hit) for hit in captions] == [{"text", "score", "rank", "file"}] * 2
    assert {hit["text"] for hit in captions} == {"red", "a red [bold] one"}
    assert "a red [bold] one" in run("search", "--image", "data/a.png", "--for", "captions")


def test_captions_of_an_index_without_any(run: Run, pictures: Path) -> None:
    run("index", "pictures")
    answer = run("search", "--image", "pictures/two.png", "--for", "captions", "--json")
    assert answer["hits"] == []
    assert "no captions" in answer["warnings"][0]


def test_page_of_hits(run: Run, pictures: Path, tmp_path: Path) -> None:
    run("index", "pictures")
    run("search", "<b>red</b>", "--html", "hits.html", "-k", "4")
    page = (tmp_path / "hits.html").read_text()
    assert page.count("data:image/jpeg") == 4
    assert "&lt;b&gt;red" in page
    assert "<b>red" not in page
    run("search", "--image", "pictures/two.png", "--html", "hits.html", "-k", "4")
    assert (tmp_path / "hits.html").read_text().count("data:image/jpeg") == 4  # the query is one of the hits


def test_the_index_keeps_its_own_model(run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("index", "pictures", "--model", "mine")
    asked: list[str] = []
    load = tuwen.pipelines.load
    monkeypatch.setattr(tuwen.pipelines, "load", lambda name, device=None: asked.append(name) or load(name))
    assert run("search", "red", "--json")["model"] == "mine"
    assert run("index", "pictures", "--json")["unchanged"] == 9
    assert asked == ["mine", "mine"]
    monkeypatch.setattr(tuwen.pipelines, "load", lambda name, device=None: FakeEmbedder(name, "retrained"))
    with pytest.raises(StoreError, match="'mine'"):
        run("search", "red")
    with pytest.raises(StoreError, match=r"--model mine .* 9 pictures are embedded anew, about \d+ seconds"):
        run("index", "pictures")
    changed = run("index", "pictures", "--model", "mine", "--json")
    assert (changed["changed"], changed["decoded"], changed["unchanged"]) == ("mine", 9, 9)
    assert len(run("search", "red", "-k", "3", "--json")["hits"]) > 0


def test_a_run_is_noted_by_its_whole_path(run: Run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    run("index", "pictures", "--model", "run")
    assert json.loads((tmp_path / "tuwen.db" / "index.json").read_text())["name"] == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "error", "why"),
    [
        (("search", "red"), StoreError, "tuwen index PICTURES"),
        (("index", "nowhere"), DataError, "no such folder"),
        (("index", "."), DataError, "no picture"),
        (("index", ".", "--model", "missing"), ModelError, "missing"),
    ],
)
def test_wrong_requests_are_one_line_and_write_nothing(
    run: Run, tmp_path: Path, arguments: tuple[str, ...], error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_query_picture_that_is_none(run: Run, pictures: Path) -> None:
    run("index", "pictures")
    for name in ("pictures/broken.png", "gone.png"):
        with pytest.raises(PictureError, match=name):
            run("search", "--image", name)


@pytest.mark.parametrize(
    "arguments",
    [(), ("red", "--similar", "a.png"), ("red", "--for", "captions"), (" ",), ("red", "-k", "0"), ("a", "b")],
)
def test_usage(run: Run, arguments: tuple[str, ...]) -> None:
    run("search", *arguments, code=2)


@pytest.mark.parametrize(
    "arguments",
    [(), ("pictures", "--verify", "--repair"), ("pictures", "--watch", "--verify"), ("p", "--caption", ""),
     ("p", "--watch", "--caption", "en"), ("p", "--repair", "--exclude", "x")],
)  # fmt: skip
def test_usage_of_index(run: Run, arguments: tuple[str, ...]) -> None:
    run("index", *arguments, code=2)


def test_hits_out_of_an_index(run: Run, pictures: Path, tmp_path: Path) -> None:
    run("index", "pictures", "--exclude", "p00[0-3]*")
    assert run("search", "red", "--all", "-k", "99", "--json")["more"] is False
    first = run("search", "red and blue", "-k", "2", "--all", "--csv", "hits.csv", "--copy", "out", "--json")
    assert (len(first["hits"]), first["more"]) == (2, True)
    assert len(list((tmp_path / "out").iterdir())) == 2
    assert (tmp_path / "hits.csv").read_text("utf-8-sig").splitlines()[0].startswith("rank,score,file")
    second = run("search", "red and blue", "-k", "2", "--offset", "2", "--all", "--json")["hits"]
    assert {hit["id"] for hit in second}.isdisjoint(hit["id"] for hit in first["hits"])
    assert "more: --offset 2" in run("search", "red and blue", "-k", "2", "--all")
    for like in (first["hits"][0]["id"], first["hits"][0]["file"]):
        hits = run("search", "--similar", like, "-k", "3", "--json")["hits"]
        assert len(hits) == 3
        assert first["hits"][0]["id"] not in {hit["id"] for hit in hits}
        later = run("search", "--similar", like, "--after", "2000-01-01", "-k", "3", "--json")["hits"]
        assert [hit["rank"] for hit in later] == [1, 2, 3]
        assert first["hits"][0]["id"] not in {hit["id"] for hit in later}
    with pytest.raises(DataError, match="neither a file nor the id"):
        run("search", "--similar", "nothing")
    assert run("search", "red", "--folder", "nowhere", "--all", "--json")["hits"] == []
    assert run("search", "red", "--before", "1999-12-31", "--all", "--json")["hits"] == []
    assert "no duplicates" in run("duplicates") or run("duplicates", "--json")["groups"]


def test_captions_made_and_found_by_their_words(run: Run, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = tuwen.pipelines.load
    fakes = {"captioning": FakeDescriber()}
    monkeypatch.setattr(tuwen.pipelines, "load", lambda name, device=None: fakes.get(name) or load(name, device))
    assert run("index", "pictures", "--caption", "en", "--json")["captioned"] == 9
    hits = run("search", "red", "--by", "words", "-k", "1", "--json")["hits"]
    assert (len(hits), hits[0]["caption"]) == (1, "a red thing")
    assert run("index", "pictures", "--caption", "en", "--json")["captioned"] == 0


def test_care_of_an_index(run: Run, pictures: Path, tmp_path: Path) -> None:
    run("index", "pictures")
    assert "9 pictures, sound" in run("index", "--verify")
    for path in (tmp_path / "tuwen.db").glob("vectors_*.lance/data/*.lance"):
        path.write_bytes(b"")
    told = run("index", "--verify", "--json", code=1)
    assert [problem["table"] for problem in told["problems"]] == ["vectors"]
    with pytest.raises(StoreError, match="--repair mends it"):
        run("search", "red")
    assert "1 problems mended, 9 pictures embedded anew" in run("index", "--repair")
    assert "sound" in run("index", "--verify")


def test_a_search_imports_neither_torch_nor_transformers(run: Run, pictures: Path, tmp_path: Path) -> None:
    run("index", "pictures", "--model", "mine")
    code = """
import sys
import tuwen.pipelines
from fake_embedder import FakeEmbedder
tuwen.pipelines.load = lambda name, device=None: FakeEmbedder(name, f"{name}-fingerprint")
from tuwen.cli.search import search
search("red", json=True)
print(sorted({"torch", "transformers", "matplotlib"} & set(sys.modules)), file=sys.stderr)
"""
    places = (Path(__file__).parents[1], Path(tuwen.__file__).parents[1])
    paths = {"PYTHONPATH": os.pathsep.join(map(str, places)), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=paths, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["hits"]) > 0
    assert done.stderr.strip() == "[]"
