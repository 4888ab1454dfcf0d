"""A folder into an index and out again: what changed is told apart, nothing is done twice, a kill costs little."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_embedder import FakeEmbedder, draw, draw_many

from tuwen import images, intake
from tuwen.errors import DataError, ModelError, StoreError
from tuwen.indexing import IndexReport, index_folder
from tuwen.searching import Hit, Query, find, search_captions
from tuwen.store import CAPTIONS, FILES, VECTORS, LanceStore, open_store

Index = Callable[..., IndexReport]


def search_text(
    store: LanceStore, embedder: FakeEmbedder, text: str, k: int = 10, everything: bool = False
) -> list[Hit]:
    return find(store, embedder, Query(text, k=k, everything=everything)).hits


def search_image(store: LanceStore, embedder: FakeEmbedder, image: Path, k: int = 10) -> list[Hit]:
    return find(store, embedder, Query(image=image, k=k)).hits


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    draw_many(folder, 10)
    draw(folder / "sub" / "deep er" / "it's 红.png", "red", seed=500)
    return folder


@pytest.fixture
def index(tmp_path: Path) -> Index:
    def run(folder: Path, embedder: FakeEmbedder | None = None) -> IndexReport:
        return index_folder(folder, tmp_path / "tuwen.db", embedder or FakeEmbedder())

    return run


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    for name in ("load", "load_both"):
        load = getattr(images, name)
        monkeypatch.setattr(
            images, name, lambda path, *rest, load=load: names.append(Path(path).name) or load(path, *rest)
        )
    return names


def counts(report: IndexReport) -> tuple[int, int, int, int, int, int]:
    r = report
    return r.added, r.updated, r.moved, r.removed, r.unchanged, len(r.failed)


def state(db: Path) -> dict[str, tuple[str, bytes]]:
    """Every file of an index with its content id and its vector; and no vector beyond these."""
    store = open_store(db)
    vectors = {row["key"]: np.array(row["vector"], np.float32) for row in store.scan(VECTORS)}
    rows = [row for row in store.scan(FILES) if row["state"] == "ok"]
    assert set(vectors) == {row["content"] for row in rows}
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["path"]: (row["content"], vectors[row["content"]].tobytes()) for row in rows}


def test_a_new_folder_and_what_its_rows_say(pictures: Path, index: Index, tmp_path: Path) -> None:
    from PIL import ExifTags, Image

    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", "One"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2021:03:04 05:06:07"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "S", 2: (33.0, 30.0, 0.0), 3: "E", 4: (151.0, 0.0, 0.0)})
    Image.new("RGB", (20, 10), (10, 200, 10)).save(pictures / "photo.jpg", exif=exif)
    assert counts(index(pictures)) == (12, 0, 0, 0, 0, 0)
    rows = {row["path"]: row for row in open_store(tmp_path / "tuwen.db").scan(FILES)}
    assert len(rows) == 12
    row = rows["photo.jpg"]
    assert (row["width"], row["height"], row["format"], row["camera"]) == (20, 10, "JPEG", "Acme One")
    assert (row["date"], row["latitude"], row["longitude"]) == ("2021-03-04T05:06:07", -33.5, 151.0)
    assert (row["size"], row["folder"], row["state"]) == ((pictures / "photo.jpg").stat().st_size, str(pictures), "ok")
    assert rows["sub/deep er/it's 红.png"]["content"] == images.content_id(pictures / "sub/deep er/it's 红.png")


def test_vectors_are_those_of_the_pipeline(pictures: Path, index: Index, tmp_path: Path) -> None:
    index(pictures)
    found = state(tmp_path / "tuwen.db")
    assert len(found) == 11
    for path, (_, vector) in found.items():
        direct = FakeEmbedder().embed_images([pictures / path])[0]
        np.testing.assert_allclose(np.frombuffer(vector, np.float32), direct, atol=1e-6)


def test_a_second_run_decodes_nothing(pictures: Path, index: Index, decoded: list[str]) -> None:
    index(pictures)
    assert len(decoded) == 11
    decoded.clear()
    embedder = FakeEmbedder()
    report = index(pictures, embedder)
    assert (counts(report), report.decoded) == ((0, 0, 0, 0, 11, 0), 0)
    assert (decoded, embedder.batches) == ([], [])


def test_added_updated_moved_removed_and_copied(
    pictures: Path, index: Index, decoded: list[str], tmp_path: Path
) -> None:
    index(pictures)
    decoded.clear()
    draw(pictures / "new.png", "green", "white", seed=900)
    draw(pictures / "p001.png", "blue", seed=901)
    (pictures / "p002.png").unlink()
    (pictures / "p003.png").rename(pictures / "sub" / "renamed.png")
    (pictures / "copy.png").write_bytes((pictures / "p004.png").read_bytes())
    os.utime(pictures / "p005.png", ns=(1, 1))
    assert counts(index(pictures)) == (2, 1, 1, 1, 8, 0)
    assert sorted(decoded) == ["new.png", "p001.png"]
    files = {p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png")}
    assert set(state(tmp_path / "tuwen.db")) == files
    decoded.clear()
    assert counts(index(pictures)) == (0, 0, 0, 0, 12, 0)
    assert decoded == []


def test_a_renamed_folder_embeds_nothing(pictures: Path, index: Index, decoded: list[str], tmp_path: Path) -> None:
    index(pictures)
    decoded.clear()
    (pictures / "sub").rename(pictures / "other")
    assert counts(index(pictures)) == (0, 0, 1, 0, 10, 0)
    moved = pictures.rename(tmp_path / "elsewhere")
    assert counts(index(moved)) == (0, 0, 11, 0, 0, 0)
    assert decoded == []
    assert len(state(tmp_path / "tuwen.db")) == 11


def test_two_folders_in_one_index(pictures: Path, index: Index, tmp_path: Path) -> None:
    index(pictures)
    draw(tmp_path / "more" / "x.png", "white", seed=700)
    assert counts(index(tmp_path / "more")) == (1, 0, 0, 0, 0, 0)
    assert len(state(tmp_path / "tuwen.db")) == 12
    assert counts(index(pictures)) == (0, 0, 0, 0, 11, 0)


def test_unreadable_files_are_told_and_tried_again_only_when_changed(
    pictures: Path, index: Index, decoded: list[str], tmp_path: Path
) -> None:
    whole = (pictures / "p000.png").read_bytes()
    (pictures / "cut.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "empty.jpg").touch()
    (pictures / "text.jpg").write_text("not a picture")
    report = index(pictures)
    assert counts(report)[::5] == (11, 3)
    assert [failure["file"] for failure in report.failed] == ["cut.png", "empty.jpg", "text.jpg"]
    assert all(failure["why"] and str(pictures) not in failure["why"] for failure in report.failed)
    decoded.clear()
    again = index(pictures)
    assert (again.failed, again.unchanged, decoded) == (report.failed, 11, [])
    draw(pictures / "cut.png", "white", seed=950)
    mended = index(pictures)
    assert (counts(mended), decoded) == ((0, 1, 0, 0, 11, 2), ["cut.png"])
    (pictures / "cut.png").write_bytes(b"broken now")  # its vector goes
    assert counts(index(pictures)) == (0, 0, 0, 0, 11, 3)
    assert len(state(tmp_path / "tuwen.db")) == 11


def test_hidden_folders_links_and_the_index_itself_are_passed_over(
    pictures: Path, index: Index, tmp_path: Path
) -> None:
    draw(pictures / ".hidden" / "a.png", "red", seed=801)
    draw(pictures / ".b.png", "red", seed=802)
    outside = draw(tmp_path / "outside" / "secret.png", "red", seed=803)
    (pictures / "round").symlink_to(pictures)
    (pictures / "out").symlink_to(outside.parent)
    (pictures / "secret.png").symlink_to(outside)
    (pictures / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (pictures / "inside.png").symlink_to(pictures / "p000.png")
    report = index(pictures)
    assert (counts(report), report.decoded) == ((12, 0, 0, 0, 0, 0), 11)
    assert [text for text in report.warnings if text.startswith("4 symbolic links")]
    inner = index_folder(pictures, pictures / "db", FakeEmbedder())
    draw(pictures / "db" / "x.png", "red", seed=804)
    assert (inner.added, counts(index_folder(pictures, pictures / "db", FakeEmbedder()))[4]) == (12, 12)


def test_a_folder_that_cannot_be_listed_loses_nothing(
    pictures: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(pictures)
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = index(pictures)
    assert (report.removed, report.unchanged, len(report.warnings)) == (0, 10, 1)


def test_wrong_places_write_nothing(pictures: Path, index: Index, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    for place, why in (
        ("none", "no such folder"),
        ("empty", "no picture in it"),
        ("empty/notes.txt", "no such folder"),
    ):
        with pytest.raises(DataError, match=why):
            index(tmp_path / place)
    assert not (tmp_path / "tuwen.db").exists()
    index(pictures)
    for path in pictures.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="no picture"):  # a drive that is not mounted looks like this
        index(pictures)
    assert len(state(tmp_path / "tuwen.db")) == 11
    with pytest.raises(StoreError, match=r"'colours'.*'other'.*--model other"):
        index(draw(tmp_path / "one" / "a.png", "red").parent, FakeEmbedder("other", "beef"))


def write_data_set(folder: Path, elsewhere: Path) -> None:
    draw(folder / "images" / "a.png", "red", seed=1)
    draw(folder / "images" / "b.png", "blue", seed=2)
    draw(elsewhere / "c.png", "green", "white", seed=3)
    draw(elsewhere / "unlisted.png", "black", seed=4)
    rows = [
        {"file_name": "images/a.png", "captions": ["a red thing", "红色的东西"]},
        {"file_name": "images/b.png", "captions": ["a blue thing", "one more blue thing"]},
        {"file_name": "c.png", "root": "far", "captions": ["green and white"]},
        {"file_name": "gone.png", "captions": ["a purple thing"]},
    ]
    folder.joinpath("metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder.joinpath("dataset.json").write_text(json.dumps({"format": 1, "roots": {"far": str(elsewhere)}}))


def test_a_data_set_keeps_its_captions(index: Index, tmp_path: Path, decoded: list[str]) -> None:
    data, far, db = tmp_path / "data", tmp_path / "far", tmp_path / "tuwen.db"
    write_data_set(data, far)
    report = index(data)
    assert counts(report) == (3, 0, 0, 0, 0, 1)
    assert report.failed[0]["file"] == "gone.png"
    store, embedder = open_store(db), FakeEmbedder()
    hits = search_text(store, embedder, "green white", k=1)
    assert (hits[0].file, hits[0].caption) == (str(far / "c.png"), "green and white")
    assert search_text(store, embedder, "红", k=1)[0].caption == "红色的东西"
    assert search_text(store, embedder, "red", k=1)[0].caption == "a red thing"
    found = search_captions(store, embedder, data / "images" / "a.png", k=3)
    assert {hit.text for hit in found[:2]} == {"a red thing", "红色的东西"}
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert found[0].file == str(data / "images" / "a.png")
    vectors = embedder.embed_texts([hit.text for hit in found])
    query = embedder.embed_images([data / "images" / "a.png"])[0]
    np.testing.assert_allclose([hit.score for hit in found], vectors @ query, atol=1e-5)
    # Other words for the same picture: its row and its captions change, nothing is decoded.
    decoded.clear()
    lines = (data / "metadata.jsonl").read_text().replace("one more blue thing", "a deep blue thing")
    (data / "metadata.jsonl").write_text(lines)
    assert counts(index(data)) == (0, 1, 0, 0, 2, 1)
    assert decoded == []
    texts = {row["text"] for row in store.scan(CAPTIONS)}
    assert texts == {"a red thing", "红色的东西", "a blue thing", "a deep blue thing", "green and white"}


def test_a_bad_line_is_named_and_nothing_written(index: Index, tmp_path: Path) -> None:
    write_data_set(tmp_path / "data", tmp_path / "far")
    with (tmp_path / "data" / "metadata.jsonl").open("a") as file:
        file.write("{oops\n")
    with pytest.raises(DataError, match=r"metadata\.jsonl:5"):
        index(tmp_path / "data")
    assert not (tmp_path / "tuwen.db").exists()


def test_search_orders_cuts_off_and_counts_copies_once(pictures: Path, index: Index, tmp_path: Path) -> None:
    (pictures / "a copy.png").write_bytes((pictures / "p002.png").read_bytes())
    index(pictures)
    store, embedder = open_store(tmp_path / "tuwen.db"), FakeEmbedder(floor=0.6)
    everything = search_text(store, embedder, "a red picture", k=100, everything=True)
    assert [hit.rank for hit in everything] == list(range(1, 12))  # 12 files, 11 contents
    assert [hit.score for hit in everything] == sorted((hit.score for hit in everything), reverse=True)
    sure = search_text(store, embedder, "a red picture", k=100)
    assert sure == [hit for hit in everything if hit.score >= 0.6]
    assert 0 < len(sure) < 11
    assert search_text(store, embedder, "quarterly tax return") == []
    assert len(search_text(store, embedder, "quarterly tax return", k=3, everything=True)) == 3
    same = search_image(store, embedder, pictures / "p003.png", k=2)
    assert (same[0].file, same[0].score) == (str(pictures / "p003.png"), pytest.approx(1, abs=1e-5))
    first = search_image(store, embedder, pictures / "p002.png", k=1)[0]
    assert first.file == str(pictures / "a copy.png")
    (pictures / "a copy.png").unlink()  # not indexed anew: the copy that is still there is shown
    assert search_image(store, embedder, pictures / "p002.png", k=1)[0].file == str(pictures / "p002.png")


def test_orphans_hide_nothing_and_are_swept(pictures: Path, index: Index, tmp_path: Path) -> None:
    index(pictures)
    store, embedder = open_store(tmp_path / "tuwen.db"), FakeEmbedder()
    query = embedder.embed_texts(["red"])[0]
    store.put(VECTORS, [{"key": f"orphan{n}", "vector": query} for n in range(100)])
    hits = search_text(store, embedder, "red", k=4)
    assert len(hits) == 4
    assert hits[0].file == str(pictures / "sub/deep er/it's 红.png")
    index(pictures)
    assert len(state(tmp_path / "tuwen.db")) == 11


def test_lost_vectors_come_back(pictures: Path, index: Index, tmp_path: Path, decoded: list[str]) -> None:
    index(pictures)
    before = state(tmp_path / "tuwen.db")
    store = open_store(tmp_path / "tuwen.db")
    store.delete(VECTORS, [before["p001.png"][0]])
    decoded.clear()
    assert (counts(index(pictures)), decoded) == ((0, 0, 0, 0, 11, 0), ["p001.png"])
    next(p for p in (tmp_path / "tuwen.db").glob("vectors_*")).rename(tmp_path / "lost")
    assert index(pictures).decoded == 11
    assert state(tmp_path / "tuwen.db") == before


def test_a_model_that_fails_keeps_what_was_done(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_many(tmp_path / "many", 50)
    monkeypatch.setattr(intake, "BATCH", 8)

    class Failing(FakeEmbedder):
        def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
            good = super().embed_pixels(pixels)
            return good if len(self.batches) < 4 else good * np.nan

    with pytest.raises(ModelError, match="no finite vectors"):
        index(tmp_path / "many", Failing())
    assert len(state(tmp_path / "tuwen.db")) == 24
    assert counts(index(tmp_path / "many")) == (26, 0, 0, 0, 24, 0)


def test_ctrl_c_commits_what_is_done(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_many(tmp_path / "many", 40)
    monkeypatch.setattr(intake, "BATCH", 8)

    class Interrupted(FakeEmbedder):
        def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
            if len(self.batches) == 2:
                signal.raise_signal(signal.SIGINT)
            return super().embed_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        index(tmp_path / "many", Interrupted())
    assert len(state(tmp_path / "tuwen.db")) == 16
    assert counts(index(tmp_path / "many")) == (24, 0, 0, 0, 16, 0)


TOLD = """
import sys
from pathlib import Path
from fake_embedder import FakeEmbedder
from tuwen import indexing, intake

class Told(FakeEmbedder):
    def embed_pixels(self, pixels):
        print("batch", flush=True)
        sys.stdin.readline()  # goes on when told to
        return super().embed_pixels(pixels)

intake.BATCH, intake.COMMIT_ROWS = 4, 8
indexing.index_folder(Path(sys.argv[1]), Path(sys.argv[2]), Told())
"""


def test_kill_9_loses_a_batch_at_most_and_never_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many, db = tmp_path / "many", tmp_path / "db"
    draw_many(many, 60)
    index_folder(many, tmp_path / "uncut", FakeEmbedder())
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    kept = 0
    for batches in (1, 3, 6):  # dies in the first batch, in a commit, and in later runs
        run = subprocess.Popen(
            [sys.executable, "-c", TOLD, str(many), str(db)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdin is not None
        assert run.stdout is not None
        for _ in range(batches):
            assert run.stdout.readline() == "batch\n"
            run.stdin.write("\n")
            run.stdin.flush()
        time.sleep(0.004 * batches)  # somewhere between embedding and the end of the commit
        run.kill()
        assert run.wait() == -signal.SIGKILL
        run.stdin.close()
        run.stdout.close()
        rows = list(open_store(db).scan(FILES, ["path"]))
        assert len(rows) >= kept + 8 * ((batches - 1) // 2)  # whatever was committed, two batches at a time
        kept = len(rows)
    assert 0 < kept < 60
    embedder = FakeEmbedder()
    assert counts(index_folder(many, db, embedder)) == (60 - kept, 0, 0, 0, kept, 0)
    assert state(db) == state(tmp_path / "uncut")
    assert len(state(db)) == 60
