"""A folder into an index and out again: what changed is told apart, nothing is done twice, a kill costs little."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fake_describer import FakeDescriber
from fake_embedder import FakeEmbedder, draw, draw_many

from tuwen import images, intake
from tuwen.errors import DataError, ModelError, StoreError
from tuwen.indexing import IndexReport, caption_index, estimate, index_folder
from tuwen.listing import Patterns
from tuwen.searching import Hit, Query, find, search_captions, thumbnail
from tuwen.store import (
    CAPTIONS,
    FILES,
    NOTES,
    THUMBNAILS,
    VECTORS,
    LanceStore,
    open_store,
    read_model,
    read_state,
)
from tuwen.upkeep import repair, verify

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

    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where a shell began us in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            index(tmp_path / "many", Interrupted())
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(state(tmp_path / "tuwen.db")) == 16
    assert counts(index(tmp_path / "many")) == (24, 0, 0, 0, 16, 0)


RUN = """
import sys
from pathlib import Path
from fake_embedder import FakeEmbedder
import lancedb
from tuwen import indexing, intake, lance

# Many commits and compactions for a kill to fall into.
intake.BATCH, intake.COMMIT_ROWS, lance.COMPACT_EVERY = 8, 16, 12
print("begun", flush=True)
indexing.index_folder(Path(sys.argv[1]), Path(sys.argv[2]), FakeEmbedder())
"""


def test_kill_9_at_ten_random_moments_loses_a_batch_at_most_and_never_the_index(
    tmp_path: Path, decoded: list[str]
) -> None:
    many, db = tmp_path / "many", tmp_path / "db"
    draw_many(many, 300)
    places = (Path(__file__).parent, Path(intake.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    moments = np.random.default_rng(7).uniform(0, 0.25, 10)
    kept, killed, cut = 0, 0, 0
    for moment in moments:
        run = subprocess.Popen(
            [sys.executable, "-c", RUN, str(many), str(db)], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert run.stdout is not None
        assert run.stdout.readline() == "begun\n"
        if killed % 2:  # every other one dies only after it wrote something: those before it may die too early for that
            while run.poll() is None and len(_rows(db)) <= kept:
                time.sleep(0.002)
        time.sleep(moment)
        run.kill()
        run.wait()
        run.stdout.close()
        killed += run.returncode == -signal.SIGKILL
        rows = _rows(db)
        assert len(rows) >= kept  # what was committed stays
        assert len(rows) == len(set(rows))
        kept = len(rows)
        cut += 0 < kept < 300
    assert killed + (kept == 300) >= 5  # on a fast machine the last runs have nothing left to do
    assert cut > 0
    embedder = FakeEmbedder()
    assert counts(index_folder(many, db, embedder)) == (300 - kept, 0, 0, 0, kept, 0)
    index_folder(many, tmp_path / "uncut", FakeEmbedder())
    assert state(db) == state(tmp_path / "uncut")
    assert len(state(db)) == 300
    # Nothing changed: nothing is decoded. A folder renamed: nothing is embedded.
    decoded.clear()
    embedder = FakeEmbedder()
    assert counts(index_folder(many, db, embedder)) == (0, 0, 0, 0, 300, 0)
    assert counts(index_folder(many.rename(tmp_path / "renamed"), db, embedder)) == (0, 0, 300, 0, 0, 0)
    assert (decoded, embedder.batches) == ([], [])
    assert verify(db).problems == []


def _rows(db: Path) -> list[str]:
    if not (db / "index.json").exists():  # killed before it made one
        return []
    return [row["path"] for row in open_store(db).scan(FILES, ["path"])]


def test_patterns_are_remembered_until_others_are_given(pictures: Path, tmp_path: Path) -> None:
    def run(**how: object) -> tuple[int, int, int, int, int, int]:
        return counts(index_folder(pictures, tmp_path / "db", FakeEmbedder(), **how))

    draw(pictures / "sub" / "P.PNG", "blue", seed=77)
    assert run(patterns=Patterns(exclude=("sub",))) == (10, 0, 0, 0, 0, 0)
    assert run() == (0, 0, 0, 0, 10, 0)
    assert run(patterns=Patterns(include=("sub/*",), exclude=("it's*",))) == (1, 0, 0, 10, 0, 0)
    assert run(patterns=Patterns()) == (11, 0, 0, 0, 1, 0)
    with pytest.raises(DataError, match="patterns"):
        run(patterns=Patterns(include=("*.gif",)))
    for pattern, path, fits in (
        ("*.png", "a/b.png", True), ("a/*.png", "a/b.png", True), ("b", "a/b/c.png", True), ("a/b", "a/b/c.png", True),
        ("b/c.png", "a/b/c.png", False), ("*.PNG", "a.png", False), ("a?", "ab/c.png", True), ("/a/", "a/c.png", True),
    ):  # fmt: skip
        assert Patterns(include=(pattern,)).take(path) is fits, (pattern, path)


class Wide(FakeEmbedder):
    """Another model: its vectors are longer."""

    def __init__(self, name: str = "wide") -> None:
        super().__init__(name, "f00d")
        self.dim += 1

    def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
        return np.concatenate([super().embed_pixels(pixels), np.zeros((len(pixels), 1), np.float32)], 1)

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        return np.concatenate([super().embed_texts(texts), np.zeros((len(texts), 1), np.float32)], 1)


def test_another_model_grows_beside_the_old_one_until_it_is_whole(
    pictures: Path, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = tmp_path / "tuwen.db"
    index(pictures)
    draw_many(tmp_path / "more", 20)
    index(tmp_path / "more")
    before = state(db)
    count, seconds = estimate(open_store(db), Wide())
    assert count == len({content for content, _ in before.values()})
    assert seconds > 0
    monkeypatch.setattr(intake, "BATCH", 4)

    class Cut(Wide):
        def embed_pixels(self, pixels: np.ndarray) -> np.ndarray:
            if len(self.batches) == 4:
                raise KeyboardInterrupt
            return super().embed_pixels(pixels)

    with pytest.raises(KeyboardInterrupt):
        index_folder(pictures, db, Cut(), change=True)
    assert (read_model(db).name, read_state(db).coming.name) == ("colours", "wide")
    assert state(db) == before  # the old vectors serve, and an indexer of the old model still works
    assert counts(index(pictures)) == (0, 0, 0, 0, 11, 0)
    assert find(open_store(db), FakeEmbedder(), Query("red")).hits
    wide = Wide()
    report = index_folder(pictures, db, wide, change=True)
    assert (report.changed, read_model(db).name, read_state(db).coming) == ("colours", "wide", None)
    assert 0 < sum(wide.batches) < count  # the other folder too, but not what the cut run had done
    assert {path: content for path, (content, _) in state(db).items()} == {p: c for p, (c, _) in before.items()}
    assert len(list(db.glob("vectors_*"))) == 1
    assert find(open_store(db), wide, Query("red")).hits
    with pytest.raises(StoreError, match=r"'wide'.*'colours'"):
        index(pictures)


def test_a_drive_that_is_not_there_keeps_its_pictures_and_patterns(
    pictures: Path, index: Index, tmp_path: Path
) -> None:
    drive, db = tmp_path / "drive", tmp_path / "tuwen.db"
    for number in range(5):
        draw(drive / f"d{number}.png", "green", "blue", seed=700 + number)
    draw(drive / "private" / "x.png", "red", seed=900)
    index_folder(drive, db, FakeEmbedder(), patterns=Patterns(exclude=("private",)))
    index(pictures)
    drive.rename(tmp_path / "away")
    index(pictures)  # without its folder
    drive.mkdir()  # and with an empty one in its place
    report = index_folder(pictures, db, Wide(), change=True)
    assert report.removed == 0
    assert "5 pictures" in report.warnings[-1]
    drive.rmdir()
    (tmp_path / "away").rename(drive)
    assert counts(index_folder(drive, db, Wide()))[-2] == 5  # and not six: `private` stays out


def test_captions_are_made_for_what_has_none(index: Index, tmp_path: Path) -> None:
    write_data_set(tmp_path / "data", tmp_path / "far")
    draw(tmp_path / "data" / "images" / "new.png", "yellow", seed=9)
    index(tmp_path / "data")
    db, describer = tmp_path / "tuwen.db", FakeDescriber()
    done, failed = caption_index(db, describer, ["en", "zh"], FakeEmbedder())
    assert (done, failed) == (4, [])  # English of one, Chinese of three
    store = open_store(db)
    hit = find(store, FakeEmbedder(), Query("yellow thing", mode="words")).hits[0]
    assert (Path(hit.file).name, hit.caption) == ("new.png", "a yellow thing")
    assert {row["source"] for row in store.scan(NOTES)} == {"model:colours"}
    assert "a yellow thing" in {row["text"] for row in store.scan(CAPTIONS)}
    assert caption_index(db, describer, ["en", "zh"]) == (0, [])
    assert counts(index(tmp_path / "data")) == (0, 0, 0, 0, 4, 1)  # an index run leaves them


def test_an_index_of_format_1_is_read_and_brought_up(index: Index, tmp_path: Path, decoded: list[str]) -> None:
    write_data_set(tmp_path / "data", tmp_path / "far")
    index(tmp_path / "data")
    db = tmp_path / "tuwen.db"
    for table in ("texts", "thumbnails"):
        shutil.rmtree(db / f"{table}.lance")
    model = read_model(db)
    old = {"format": 1, "name": model.name, "fingerprint": model.fingerprint, "dim": 9, "size": 8, "view": "squash"}
    (db / "index.json").write_text(json.dumps(old))
    store = open_store(db)
    assert find(store, FakeEmbedder(), Query("red")).hits
    assert find(store, FakeEmbedder(), Query("red", mode="words")).hits == []
    id = find(store, FakeEmbedder(), Query("red", k=1)).hits[0].id
    assert thumbnail(store, id)[:2] == b"\xff\xd8"  # from its file
    decoded.clear()
    assert counts(index(tmp_path / "data")) == (0, 0, 0, 0, 3, 1)
    assert decoded == []
    assert read_state(db).format == 2
    assert len(find(open_store(db), FakeEmbedder(), Query("thing", mode="words")).hits) == 2
    assert [problem["table"] for problem in verify(db).problems] == [THUMBNAILS]
    repair(db, FakeEmbedder())
    assert verify(db).problems == []
