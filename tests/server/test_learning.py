"""The loop: corrected captions, a data set, `tuwen tune`, before and after."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from fake_server import Client, World, wait_for
from fastapi.testclient import TestClient

from tuwen.server.routes import learning
from tuwen.server.tuning import Tuner

SCORES = {"i2t_r1": 10.0, "rsum": 100.0}
# Stands for `python -m tuwen`: notes what it was asked, logs a step, waits for leave, and writes what tune writes.
FAKE = """
import json, sys, time
from pathlib import Path
asked = sys.argv[1:]
out = Path(asked[asked.index("--out") + 1])
out.mkdir()
(out / "asked.json").write_text(json.dumps(asked))
(out / "metrics.jsonl").write_text('{"step": 5, "split": "val"}\\n{"step": 10')
data = Path(asked[asked.index("--data") + 1])
rows = (data / "metadata.jsonl").read_text().splitlines()
for _ in range(2000):
    if (out.parent / "go").exists():
        break
    time.sleep(0.01)
if "fail" in (out.parent / "go").read_text():
    sys.exit("warning: something\\nerror: too few captions; write more")
scores = {"i2t_r1": 10.0, "rsum": 100.0}
result = {"before": scores, "after": scores, "interval": {"i2t_r1": [-1, 2], "rsum": [0, 3]}, "verdict": "improved",
          "words": ["Improved.", "有提高。"], "n_train": len(rows), "n_test": 3, "more": 1}
(out / "tune.json").write_text(json.dumps(result))
(out / "report.html").write_text("page")
"""


@pytest.fixture
def tuned(world: World, client: Client, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A server whose tuning is quick, over an index with two corrected captions; two are enough."""
    script = world.folder / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(learning, "LEAST", 2)
    c = client(world, tuner=Tuner(world.db, (sys.executable, str(script))))
    for n in range(2):
        c.put(f"/api/pictures/{world.id(n)}/caption", json={"text": f"Mine, number {n}."})
    return c


def test_corrections_are_tuned_on_with_before_and_after(tuned: TestClient, world: World) -> None:
    assert tuned.get("/api/tune").json()["state"] == "idle"
    begun = tuned.post("/api/tune", json={"lang": "en", "epochs": 2, "seed": 7})
    assert begun.status_code == 202
    assert begun.json()["state"] == "running"
    assert begun.json()["pictures"] == 2
    assert wait_for(lambda: tuned.get("/api/tune").json()["step"] == 5)
    second = tuned.post("/api/tune", json={})
    assert second.status_code == 409
    assert "running already" in second.json()["error"]
    (world.folder / "go").write_text("")
    assert wait_for(lambda: tuned.get("/api/tune").json()["state"] == "done")
    done = tuned.get("/api/tune").json()
    run = world.folder / "tuwen.db.tuned-1"
    assert (done["before"], done["verdict"], done["n_train"], done["run"]) == (SCORES, "improved", 2, str(run))
    assert done["interval"]["rsum"] == [0, 3]
    assert done["words"] == ["Improved.", "有提高。"]
    assert done["use"] == f"tuwen index {world.pictures} --db {world.db} --model {run}"
    assert done["report"] == str(run / "report.html")
    asked = json.loads((run / "asked.json").read_text())
    assert asked[:5] == ["tune", "--data", f"{world.db}.lessons", "--from", "colours"]
    assert asked[-7:] == ["--seed", "7", "--json", "--lang", "en", "--epochs", "2.0"]


def test_a_server_that_starts_again_still_knows_the_last_run(tuned: TestClient, world: World, client: Client) -> None:
    (world.folder / "go").write_text("")
    tuned.post("/api/tune", json={})
    assert wait_for(lambda: tuned.get("/api/tune").json()["state"] == "done")
    again = client(world).get("/api/tune").json()
    assert (again["state"], again["verdict"]) == ("done", "improved")
    tuned.post("/api/tune", json={})
    assert wait_for(lambda: tuned.get("/api/tune").json()["run"].endswith("tuned-2"))


def test_why_a_tuning_failed_is_said_in_its_own_line(tuned: TestClient, world: World) -> None:
    (world.folder / "go").write_text("fail")
    tuned.post("/api/tune", json={})
    assert wait_for(lambda: tuned.get("/api/tune").json()["state"] == "failed")
    assert tuned.get("/api/tune").json()["error"] == "too few captions; write more"


def test_a_tuning_can_be_stopped_and_begun_again(tuned: TestClient, world: World) -> None:
    tuned.post("/api/tune", json={})
    assert wait_for(lambda: tuned.get("/api/tune").json()["step"] == 5)
    tuned.delete("/api/tune")
    assert wait_for(lambda: tuned.get("/api/tune").json()["state"] == "failed")
    assert tuned.get("/api/tune").json()["error"] == "it was stopped"
    assert tuned.post("/api/tune", json={}).status_code == 202
    tuned.delete("/api/tune")


def test_a_server_that_stops_takes_its_tuning_with_it(tuned: TestClient, world: World) -> None:
    tuned.post("/api/tune", json={})
    desk = tuned.app.state.desk  # type: ignore[attr-defined]
    process = desk.tuner._process
    assert process.poll() is None
    desk.stop()
    assert process.poll() is not None


def test_too_few_captions_are_told_before_anything_starts(client: Client, world: World) -> None:
    c = client(world)
    c.put(f"/api/pictures/{world.id(0)}/caption", json={"text": "Mine."})
    answer = c.post("/api/tune", json={})
    assert answer.status_code == 422
    assert "tuning needs 50" in answer.json()["error"]
    assert not list(world.folder.glob("tuwen.db.tuned*"))


def test_the_exported_data_set_is_one_that_tune_reads(client: Client, world: World) -> None:
    from tuwen import dataset
    from tuwen.holdout import hold_out

    c = client(world)
    for n in range(2):
        c.put(f"/api/pictures/{world.id(n)}/caption", json={"text": f"我的第{n}张。", "lang": "zh"})
    made = c.post("/api/corrections/export").json()
    assert (made["pictures"], made["captions"]) == (2, 2)
    with pytest.raises(Exception, match="2 pictures with human captions"):  # it gets as far as counting them
        hold_out(dataset.read(Path(made["data"])))


def test_a_data_sets_own_captions_are_tuned_on_too_and_a_correction_replaces_them(
    client: Client, tmp_path: Path
) -> None:
    from fake_embedder import FakeEmbedder, draw

    from tuwen import dataset
    from tuwen.dataset import Dataset
    from tuwen.indexing import index_folder
    from tuwen.records import Caption, Manifest, Picture
    from tuwen.searching import export_corrections
    from tuwen.store import open_store

    world = World(tmp_path)
    given = [Caption(text="one"), Caption(text="two"), Caption(text="一"), Caption(text="made", source="model:m")]
    pictures = []
    for n, colour in enumerate(("red", "green", "blue")):
        draw(world.pictures / f"p{n:03}.png", colour)
        pictures.append(Picture(file_name=f"p{n:03}.png", captions=given if n < 2 else []))
    dataset.save(Dataset(world.pictures, Manifest(), pictures), world.pictures)
    index_folder(world.pictures, world.db, FakeEmbedder())
    client(world).put(f"/api/pictures/{world.id(0)}/caption", json={"text": "Mine.", "lang": "en"})
    made = dataset.read(export_corrections(open_store(world.db), tmp_path / "out", given=True))
    texts = {Path(p.file_name).name: [c.text for c in p.captions] for p in made.pictures}
    assert texts == {"p000.png": ["Mine.", "一"], "p001.png": ["one", "two", "一"]}
