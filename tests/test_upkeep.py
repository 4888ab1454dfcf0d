"""An index that is damaged says so and is mended; a watched folder is indexed when it changes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_embedder import FakeEmbedder, draw, draw_many

from tuwen import upkeep
from tuwen.errors import DataError, StoreError
from tuwen.indexing import index_folder
from tuwen.lance import FRAGMENTS
from tuwen.noting import put_notes
from tuwen.searching import Query, find, set_caption
from tuwen.store import CAPTIONS, FILES, NOTES, TABLES, TEXTS, THUMBNAILS, VECTORS, open_store, read_state, writer
from tuwen.upkeep import repair, verify


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `pictures`, and its index `db` with captions and a correction."""
    place = tmp_path_factory.mktemp("upkeep")
    draw_many(place / "pictures", 6)
    row = {"file_name": "p000.png", "captions": ["a red thing"]}
    (place / "pictures" / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    index_folder(place / "pictures", place / "db", FakeEmbedder())
    set_caption(place / "db", find(open_store(place / "db"), FakeEmbedder(), Query("blue", k=1)).hits[0].id, "so blue")
    index_folder(place / "pictures", place / "db", FakeEmbedder())
    return place


@pytest.fixture
def db(world: Path, tmp_path: Path) -> Path:
    return shutil.copytree(world / "db", tmp_path / "db")


def test_a_sound_index_has_no_problems(db: Path, world: Path) -> None:
    health = verify(db)
    assert (health.pictures, health.problems, health.notes) == (6, [], [])
    with pytest.raises(StoreError, match="no index there"):
        verify(db.with_name("nowhere"))
    file = world / "pictures" / "p005.png"
    kept, stat = file.read_bytes(), file.stat()
    draw(file, "white", seed=600)
    assert "1 files changed since" in verify(db).notes[0]
    file.unlink()
    assert "1 files are not there any more" in verify(db).notes[0]
    file.write_bytes(kept)
    os.utime(file, ns=(stat.st_mtime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("table", TABLES)
def test_a_table_that_lost_its_data_is_named_and_mended(db: Path, table: str) -> None:
    before = {name: open_store(db).count(name) for name in TABLES}
    assert all(before.values())
    data = list(db.glob(f"{table}*.lance/data/*.lance"))
    assert data
    for path in data:
        path.write_bytes(path.read_bytes()[:40])
    assert table in [problem["table"] for problem in verify(db).problems]
    health, reports = repair(db, FakeEmbedder())
    assert table in health.damaged
    assert verify(db).problems == []
    after = {name: open_store(db).count(name) for name in TABLES}
    assert len(reports) == 1
    lost = (NOTES, TEXTS, CAPTIONS) if table == NOTES else ()
    assert after == {name: count - (name in lost) for name, count in before.items()}
    assert bool(list(db.glob("*.damaged"))) is (table == NOTES)  # what people wrote is set aside, never deleted


def test_vectors_that_are_wrong_are_made_again(db: Path) -> None:
    with writer(db) as store:
        key = next(store.scan(VECTORS, ["key"]))["key"]
        store.put(VECTORS, [{"key": key, "vector": np.full(9, 2, np.float32)}])
        other = [row["key"] for row in store.scan(THUMBNAILS, ["key"])][:2]
        store.delete(THUMBNAILS, other)
        store.put(VECTORS, [{"key": "orphan", "vector": np.eye(9, dtype=np.float32)[0]}])
    health = verify(db)
    told = {problem["table"]: problem["detail"] for problem in health.problems}
    assert told == {VECTORS: "1 vectors are not of unit length", THUMBNAILS: "2 pictures have no thumbnail"}
    assert "sweeps them" in " ".join(health.notes)
    embedder = FakeEmbedder()
    repair(db, embedder)
    assert sum(embedder.batches) == 1
    assert verify(db).problems == []
    assert not [note for note in verify(db).notes if "sweeps" in note]


def test_an_unreadable_index_json_is_written_anew(db: Path) -> None:
    (db / "index.json").write_text("{")
    assert [problem["table"] for problem in verify(db).problems] == ["index.json"]
    embedder = FakeEmbedder()
    repair(db, embedder)
    assert embedder.batches == []  # the vectors were whole
    assert verify(db).problems == []
    assert read_state(db).folders


def test_an_emptied_folder_costs_a_repair_nothing_else(db: Path, world: Path, tmp_path: Path) -> None:
    empty = tmp_path / "a"
    draw(empty / "x.png", "red", seed=77)
    index_folder(empty, db, FakeEmbedder())
    (empty / "x.png").unlink()
    for path in db.glob(f"{FILES}.lance/data/*.lance"):
        path.write_bytes(b"")
    _, reports = repair(db, FakeEmbedder())
    assert [report.warnings[:1] for report in reports if report.warnings] == [
        [f"{empty}: no picture in it (JPEG, PNG, WebP, GIF, TIFF, BMP, HEIC, AVIF)"]
    ]
    assert (verify(db).pictures, verify(db).problems) == (6, [])


def test_corrections_are_compacted_by_the_next_run(db: Path, world: Path) -> None:
    for number in range(FRAGMENTS + 2):
        with writer(db, brief=True) as store:
            put_notes(store, [(f"content {number}", "a red thing", "en", "user")])
    assert open_store(db)._pieces(NOTES) >= FRAGMENTS
    index_folder(world / "pictures", db, FakeEmbedder())
    assert open_store(db)._pieces(NOTES) < FRAGMENTS
    assert open_store(db).count(NOTES) == FRAGMENTS + 3


def test_a_repair_without_any_folder_says_what_to_name(db: Path, tmp_path: Path) -> None:
    state = json.loads((db / "index.json").read_text())
    (db / "index.json").write_text(json.dumps({**state, "folders": {str(tmp_path / "gone"): {}}}))
    for path in db.glob(f"{FILES}.lance/data/*.lance"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="name one: tuwen index PICTURES --repair"):
        repair(db, FakeEmbedder())
    draw(tmp_path / "other" / "x.png", "red")
    repair(db, FakeEmbedder(), folder=tmp_path / "other")
    assert (verify(db).pictures, verify(db).problems) == (1, [])


def test_a_watch_acts_at_once_and_on_what_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, db = tmp_path / "pictures", tmp_path / "pictures" / "tuwen.db"
    acted: list[int] = []
    seen: dict[str, bool] = {}

    def changes(place: Path, watch_filter: object, **options: object) -> Iterator[set[object]]:
        assert place == folder
        names = (
            "a.png",
            "sub/b.JPG",
            "metadata.jsonl",
            "new folder",
            "notes.txt",
            ".x.png",
            ".h/a.png",
            "tuwen.db/a.png",
        )
        seen.update({name: watch_filter(None, str(folder / name)) for name in names})  # type: ignore[operator]
        yield set()  # nothing changed, but the watch is on
        yield set()
        yield {"a change"}

    monkeypatch.setitem(sys.modules, "watchfiles", SimpleNamespace(watch=changes))
    upkeep.watch(folder, db, lambda: acted.append(1))
    assert len(acted) == 2
    assert [name for name, taken in seen.items() if taken] == ["a.png", "sub/b.JPG", "metadata.jsonl", "new folder"]
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(DataError, match="pip install watchfiles"):
        upkeep.watch(folder, db, lambda: None)
