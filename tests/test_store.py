"""The store: rows and vectors that survive, one writer, one model, a folder that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tuwen.errors import StoreError
from tuwen.store import CAPTIONS, FILES, VECTORS, LanceStore, Model, Row, check_model, open_store, writer

MODEL = Model("colours", "0123456789abcdef0123", 8, 16, "squash")


def unit(n: int, seed: int = 0, dim: int = 8) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors(n: int, seed: int = 0) -> list[Row]:
    return [{"key": f"k{i:05}", "vector": row} for i, row in enumerate(unit(n, seed))]


def file_row(key: str, content: str, **more: object) -> Row:
    return {
        "key": key, "folder": "/f", "path": f"{key}.png", "content": content, "mtime_ns": 2**62, "size": 5, "width": 4,
        "height": 3, "format": "PNG", "date": None, "camera": None, "latitude": None, "longitude": 0.25,
        "captions": [{"text": "it's 红", "lang": "zh", "source": "human"}], "state": "ok", "why": None, **more,
    }  # fmt: skip


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LanceStore]:
    with writer(tmp_path / "db", MODEL) as opened:
        yield opened


def test_search_equals_brute_force(store: LanceStore) -> None:
    rows, queries = vectors(300), unit(20, seed=1)
    store.put(VECTORS, rows)
    matrix = np.stack([row["vector"] for row in rows])
    for query in queries:
        cosines = matrix @ query
        order = np.argsort(-cosines)[:7]
        found = store.search(VECTORS, query, 7)
        assert [row["key"] for row, _ in found] == [rows[i]["key"] for i in order]
        np.testing.assert_allclose([score for _, score in found], cosines[order], atol=1e-5)


def test_equal_scores_come_by_key(store: LanceStore) -> None:
    one = unit(1)[0]
    store.put(VECTORS, [{"key": key, "vector": one} for key in ("c", "a", "b")])
    assert [row["key"] for row, _ in store.search(VECTORS, one, 3)] == ["a", "b", "c"]


def test_put_replaces_and_round_trips(store: LanceStore) -> None:
    row = file_row("a", "x")
    store.put(FILES, [row, file_row("b", "y")])
    store.put(FILES, [file_row("b", "z", why="it's broken", state="failed")])
    found = {row["key"]: row for row in store.scan(FILES)}
    assert found["a"] == row
    assert (found["b"]["content"], found["b"]["why"]) == ("z", "it's broken")
    assert len(found) == 2


def test_delete_and_scan_in_pieces_and_with_quotes(store: LanceStore) -> None:
    keys = [f"it's {n}" for n in range(1203)]
    store.put(VECTORS, [{"key": key, "vector": vector} for key, vector in zip(keys, unit(1203), strict=True)])
    wanted = keys[100:1200]
    assert sorted(row["key"] for row in store.scan(VECTORS, ["key"], ("key", wanted))) == sorted(wanted)
    store.delete(VECTORS, [*wanted, "not there"])
    assert sorted(row["key"] for row in store.scan(VECTORS, ["key"])) == sorted(set(keys) - set(wanted))
    assert list(store.scan(VECTORS, ["key"], ("key", []))) == []


def test_empty_store_answers(store: LanceStore) -> None:
    assert store.search(VECTORS, unit(1)[0], 3) == []
    assert list(store.scan(FILES)) == []
    store.delete(FILES, ["a"])
    store.put(CAPTIONS, [])
    store.put(VECTORS, vectors(1))
    store.delete(VECTORS, ["k00000"])
    assert store.search(VECTORS, unit(1)[0], 3) == []


def test_reader_sees_later_commits_and_outlives_compaction(store: LanceStore) -> None:
    store.put(VECTORS, vectors(5))
    reader = open_store(store.folder)
    query = unit(9)[8]
    assert len(reader.search(VECTORS, query, 9)) == 5
    store.put(VECTORS, vectors(9))
    store.compact()
    assert reader.search(VECTORS, query, 9)[0][0]["key"] == "k00008"
    assert len(list(reader.scan(VECTORS, ["key"]))) == 9


def test_folder_does_not_grow(tmp_path: Path) -> None:
    sizes = []
    for turn in range(12):
        with writer(tmp_path / "db", MODEL) as store:
            for part in range(3):
                store.put(VECTORS, vectors(200, seed=3 * turn + part))
        sizes.append(size_of(tmp_path / "db"))
    assert sizes[0] > 200 * 8 * 4
    assert sizes[-1] <= sizes[0] * 1.2


def test_ivf_above_the_limit_finds_the_same(tmp_path: Path) -> None:
    rows, queries = vectors(600), unit(20, seed=1)
    with writer(tmp_path / "db", MODEL) as store:
        store.put(VECTORS, rows)
    exact = [store.search(VECTORS, query, 5) for query in queries]
    assert store._table(VECTORS).list_indices() == []
    store = LanceStore(tmp_path / "db", MODEL, exact_below=600)
    store.compact()
    assert [index.index_type for index in store._table(VECTORS).list_indices()] == ["IvfFlat"]
    for before, query in zip(exact, queries, strict=True):
        assert [row["key"] for row, _ in store.search(VECTORS, query, 5)] == [row["key"] for row, _ in before]
    store.put(VECTORS, [{"key": "new", "vector": queries[0]}])  # found before it is indexed, and after
    assert store.search(VECTORS, queries[0], 1)[0][0]["key"] == "new"
    store.compact()
    assert store.search(VECTORS, queries[0], 1)[0][0]["key"] == "new"


def test_another_model_is_told_with_both_names(tmp_path: Path) -> None:
    with writer(tmp_path / "db", MODEL) as store:
        store.put(VECTORS, vectors(2))
    other = Model("runs/mine", "ffff", 16, 16, "squash")
    for act in (lambda: check_model(tmp_path / "db", other), lambda: writer(tmp_path / "db", other).__enter__()):
        with pytest.raises(StoreError, match=r"'colours' \(01234567.*'runs/mine' \(ffff.*--db"):
            act()
    check_model(tmp_path / "db", Model("/elsewhere/colours", MODEL.fingerprint, 8, 16, "squash"))


def test_second_writer_is_told(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tuwen.store import Model, writer\n"
        f"with writer(Path(sys.argv[1]), Model{tuple(vars(MODEL).values())!r}): print('in')\n"
    )
    with writer(tmp_path / "db", MODEL):
        with pytest.raises(StoreError, match="another `tuwen index`"), writer(tmp_path / "db", MODEL):
            pass
        other = [sys.executable, "-c", code, str(tmp_path / "db")]
        held = subprocess.run(other, capture_output=True, text=True, check=False)
        assert "another `tuwen index`" in held.stderr
        assert "in" not in held.stdout.split()
    assert subprocess.run(other, capture_output=True, text=True, check=True).stdout == "in\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "name": "a", "dim": 3}'])
def test_broken_index_json_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(StoreError, match=r"index\.json: cannot be read"):
        open_store(tmp_path)


def test_missing_foreign_and_later_places(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="tuwen index PICTURES --db"):
        open_store(tmp_path / "none")
    (tmp_path / "index.json").write_text(json.dumps({"format": 3}))
    with pytest.raises(StoreError, match="format 3"):
        open_store(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("words")
    (tmp_path / "file").write_text("words")
    for place in ("full", "file"):
        with pytest.raises(StoreError, match="something else"), writer(tmp_path / place, MODEL):
            pass
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["thesis.txt"]


def test_damaged_table_is_one_line(tmp_path: Path) -> None:
    with writer(tmp_path / "db", MODEL) as store:
        store.put(VECTORS, vectors(4))
    damaged = [p for p in (tmp_path / "db").rglob("*.lance") if p.is_file()]
    assert damaged
    for path in damaged:
        path.unlink()
    with pytest.raises(StoreError, match="--repair mends it") as told:
        open_store(tmp_path / "db").search(VECTORS, unit(1)[0], 2)
    assert "\n" not in str(told.value)


def test_searching_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, tuwen.store, tuwen.searching, tuwen.indexing, tuwen.listing, tuwen.cli.search, tuwen.report, "
        "tuwen.viz, lancedb\nprint([name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
