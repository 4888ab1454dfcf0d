"""Votes on drawn pictures: what is asked, what is kept, and a server that takes them from this machine alone."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_drawer import FakeDrawer
from PIL import Image

from tuwen import cli, pipelines, rating, report, votes
from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.rating import Handler
from tuwen.scenes import write_scenes
from tuwen.votes import Item, add_vote, make_items, read_items, read_votes, summarise

MODEL = FakeDrawer.fingerprint


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "s", 30, size=32, seed=3)


@pytest.fixture
def items(scenes: Dataset, tmp_path: Path) -> list[Item]:
    return make_items(tmp_path, FakeDrawer(scenes), scenes, "train", count=8, seed=40)


def test_samples_follow_a_rule_and_have_controls(scenes: Dataset, items: list[Item], tmp_path: Path) -> None:
    assert read_items(tmp_path, MODEL) == items
    assert read_items(tmp_path, "another") == []
    part = scenes.select("train").pictures
    for lang in ("en", "zh"):
        own = [item for item in items if item.lang == lang]
        assert [item.kind for item in own] == ["drawn"] * 8 + ["other"] * 2 + ["real"] * 2
        assert [item.prompt for item in own[:8]] == [part[n].human(lang)[n % 5].text for n in range(8)]
        assert [item.seed for item in own] == [*range(40, 48), 50, 51, None, None]
        assert [item.prompt for item in own[8:10]] == [part[n].human(lang)[n % 5].text for n in (11, 10)]  # swapped
        real = Image.open(votes.items_folder(tmp_path, MODEL) / own[-1].file)
        assert real.tobytes() == Image.open(scenes.path(part[9])).convert("RGB").tobytes()
    with pytest.raises(DataError, match="fewer than 31 pictures"):
        make_items(tmp_path, FakeDrawer(scenes), scenes, "train", count=21)
    (votes.items_folder(tmp_path, MODEL) / votes.ITEMS).write_text("{}\n")
    with pytest.raises(DataError, match="damaged; delete the folder"):
        read_items(tmp_path, MODEL)


def test_the_last_vote_of_each_person_stands(items: list[Item], tmp_path: Path) -> None:
    for item, who, vote in (
        (items[0], "Ann", "good"),
        (items[0], "Bo", "bad"),
        (items[0], " Ann ", "bad"),  # another mind
        (items[1], "Ann", "good"),
        (items[2], "Ann", "good"),
        (items[2], "Ann", None),  # taken back
        (items[8], "Ann", "bad"),
        (items[10], "Bo", "good"),
    ):
        add_vote(tmp_path, item, vote, who, MODEL)  # type: ignore[arg-type]
    kept = read_votes(tmp_path, MODEL)
    assert {(row["who"], row["item"]): row["vote"] for row in kept} == {
        ("Ann", items[0].id): "bad", ("Bo", items[0].id): "bad", ("Ann", items[1].id): "good",
        ("Ann", items[8].id): "bad", ("Bo", items[10].id): "good",
    }  # fmt: skip
    assert len((tmp_path / votes.VOTES).read_text().splitlines()) == 8  # nothing is lost
    found = summarise(kept)
    assert (found["votes"], found["people"]) == (5, 2)
    assert found["drawn"]["good"] == pytest.approx(100 / 3)
    assert found["drawn"]["interval"][0] <= 33.4 <= found["drawn"]["interval"][1]
    assert found["real"]["good"] == 100
    assert found["other"]["good"] == 0
    assert read_votes(tmp_path, "another") == []
    add_vote(tmp_path, items[0], "good", "Ann", "another")
    assert [row["model"] for row in read_votes(tmp_path)] == ["another"]  # the last that was rated
    assert summarise([])["drawn"] is None


def test_a_torn_line_is_cut_away_and_a_foreign_one_is_named(items: list[Item], tmp_path: Path) -> None:
    add_vote(tmp_path, items[0], "good", "Ann", MODEL)
    with (tmp_path / votes.VOTES).open("a") as file:
        file.write('{"when": "2026-')
    assert len(read_votes(tmp_path, MODEL)) == 1
    add_vote(tmp_path, items[1], "bad", "Ann", MODEL)
    assert [row["vote"] for row in read_votes(tmp_path, MODEL)] == ["good", "bad"]
    with (tmp_path / votes.VOTES).open("a") as file:
        file.write('{"vote": "perhaps"}\n')
    with pytest.raises(DataError, match=r"votes\.jsonl:3: no vote"):
        read_votes(tmp_path)


def test_many_at_once_lose_nothing(items: list[Item], tmp_path: Path) -> None:
    def vote(who: str) -> None:
        for item in items:
            add_vote(tmp_path, item, "good", who, MODEL)

    people = [threading.Thread(target=vote, args=(f"p{n}",)) for n in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(read_votes(tmp_path, MODEL)) == 4 * len(items)


def ask(run: Path, items: list[Item], request: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
    """Status and body of one request to the handler, over a pair of sockets that no network sees."""
    near, far = socket.socketpair()
    data = json.dumps(body).encode() if body is not None else b""
    lines = {"Host": "127.0.0.1:7861", "Connection": "close", "Content-Length": str(len(data))}
    lines |= {"Content-Type": "application/json"} if body is not None else {}
    lines |= {name.replace("_", "-"): value for name, value in headers.items()}
    with near, far:
        near.sendall(
            f"{request} HTTP/1.1\r\n{''.join(f'{k}: {v}' + chr(13) + chr(10) for k, v in lines.items())}\r\n".encode()
        )
        near.sendall(data)
        page = rating.render("m", items, MODEL).encode()
        own = {item.id: item for item in items}
        Handler(far, ("", 0), SimpleNamespace(run=run, items=own, fingerprint=MODEL, page=page))  # type: ignore[arg-type]
        far.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: near.recv(1 << 16), b""))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"no-store" in head
    return int(head.split()[1]), rest


def test_the_server_takes_votes(items: list[Item], tmp_path: Path) -> None:
    status, page = ask(tmp_path, items, "GET /")
    assert status == 200
    assert b"</html>" in page
    assert b'"kind"' not in page  # who rates must not know
    assert b"other" not in page.split(b"const items")[1].split(b"\n")[0]
    status, picture = ask(tmp_path, items, f"GET /pictures/{items[0].id}.png")
    assert picture == (votes.items_folder(tmp_path, MODEL) / items[0].file).read_bytes()
    assert ask(tmp_path, items, "POST /votes", {"item": items[0].id, "vote": "good", "who": "Ann"})[0] == 200
    assert read_votes(tmp_path, MODEL)[0]["vote"] == "good"
    assert json.loads(ask(tmp_path, items, "GET /summary")[1])["drawn"]["n"] == 1
    assert ask(tmp_path, items, "POST /votes", {"item": items[0].id, "vote": None, "who": "Ann"})[0] == 200
    assert read_votes(tmp_path, MODEL) == []


@pytest.mark.parametrize(
    ("request_", "body", "headers", "status"),
    [
        ("GET /", None, {"Host": "evil.example"}, 403),
        ("POST /votes", {"item": "en0000", "vote": "good"}, {"Host": "evil.example:7861"}, 403),
        ("POST /votes", {"item": "en0000", "vote": "good"}, {"Content_Type": "text/plain"}, 415),
        ("POST /votes", {"item": "en0000", "vote": "good", "who": "x" * 5000}, {}, 415),
        ("POST /votes", {"item": "none", "vote": "good"}, {}, 400),
        ("POST /votes", {"item": "en0000", "vote": "fine"}, {}, 400),
        ("POST /votes", ["en0000"], {}, 400),
        ("POST /other", {"item": "en0000", "vote": "good"}, {}, 400),
        ("GET /pictures/../../votes.jsonl", None, {}, 404),
        ("GET /pictures/none.png", None, {}, 404),
    ],
)
def test_the_server_refuses(
    items: list[Item], tmp_path: Path, request_: str, body: Any, headers: dict[str, str], status: int
) -> None:
    assert ask(tmp_path, items, request_, body, **headers)[0] == status
    assert not (tmp_path / votes.VOTES).exists()


def test_words_cannot_break_out_of_the_page(items: list[Item]) -> None:
    evil = replace(items[0], prompt="</script><script>alert(1)</script>")
    html = rating.render("<b>", [evil], MODEL)
    assert html.count("<script>") == 1
    assert "<title>&lt;b&gt;" in html


def test_report_tells_the_votes(items: list[Item], tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "split": "train", "loss": 1.0}\n')
    add_vote(tmp_path, items[0], "good", "Ann", MODEL)
    add_vote(tmp_path, items[1], "bad", "Bo", MODEL)
    html = report.write_run(tmp_path).read_text(encoding="utf-8")
    assert "<b>50.0%</b>" in html
    assert "of drawn pictures are good (9.5–90.5), n = 2, 2 people" in html


def test_command(
    scenes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Closed:
        url = "http://127.0.0.1:1"

        def __init__(self, run: Path, items: list[Item], fingerprint: str, name: str, port: int) -> None:
            self.given = (run, items, fingerprint, port)

        def __enter__(self) -> Closed:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def serve_forever(self) -> None:
            run, items, fingerprint, port = self.given
            assert port == 7861
            for item in items:
                add_vote(run, item, "good", "Ann", fingerprint)
            raise KeyboardInterrupt

    monkeypatch.setattr(pipelines, "load", lambda name, device=None: FakeDrawer(scenes))
    monkeypatch.setattr(rating, "Server", Closed)
    command = ["report", str(tmp_path), "--rate"]
    assert cli.run(command) == 1
    assert "add --data DATA" in capsys.readouterr().err
    first = [*command, "--data", str(scenes.folder), "--split", "train", "-n", "4"]
    assert cli.run(first) == 0
    told = capsys.readouterr().out
    assert "rate 16 pictures at http://127.0.0.1:1" in told
    assert "drawn: 100.0% good (67.6–100.0), n = 8" in told
    assert cli.run(command) == 0  # the same samples again
    assert cli.run(first) == 1
    assert "samples are made already" in capsys.readouterr().err
