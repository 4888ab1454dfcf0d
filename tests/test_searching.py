"""Searching: both kinds of query, filters, fused lists, pages, corrections, duplicates, what is handed out."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from fake_embedder import COLOURS, FakeEmbedder, draw, draw_many
from PIL import ExifTags, Image

from tuwen import dataset, handout, images
from tuwen.errors import DataError, StoreError
from tuwen.hits import best_caption
from tuwen.indexing import index_folder
from tuwen.searching import (
    Filter,
    Query,
    corrected,
    duplicates,
    export_corrections,
    find,
    fuse,
    read_picture,
    search_captions,
    set_caption,
    similar,
    thumbnail,
)
from tuwen.store import CAPTIONS, TEXTS, LanceStore, open_store, writer

CAPTIONED = {
    "a.png": ["a red thing near the sea", "海边的红色东西"],
    "b.png": ["a blue thing in the snow", "雪地上的蓝色东西"],
    "c.png": ["nothing but green", "绿色"],
}


def names(hits: list) -> list[str]:
    return [Path(hit.file).name for hit in hits]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three captioned pictures, four without words in two folders with dates, cameras and formats."""
    folder = tmp_path_factory.mktemp("searching") / "pictures"
    for name, colour in zip(CAPTIONED, ("red", "blue", "green"), strict=True):
        draw(folder / name, colour, seed=ord(name[0]))
    rows = [json.dumps({"file_name": name, "captions": words}, ensure_ascii=False) for name, words in CAPTIONED.items()]
    (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for n, colour in enumerate(("red", "yellow", "purple", "white")):
        exif = Image.Exif()
        exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme", f"Cam {n % 2}"
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"202{n}:05:06 07:08:09"
        where = folder / ("trip 2020/it's" if n < 2 else "home")
        where.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16 + 16 * n, 20), COLOURS[colour]).save(where / f"{colour}.jpg", exif=exif)
    for path in folder.rglob("*.png"):
        os.utime(path, (86400 * 365 * 40, 86400 * 365 * 40))  # written in December 2009
    index_folder(folder, folder.parent / "db", FakeEmbedder())
    return folder


@pytest.fixture
def db(pictures: Path, tmp_path: Path) -> Path:
    """An index of these pictures."""
    return shutil.copytree(pictures.parent / "db", tmp_path / "db")


@pytest.fixture
def store(db: Path) -> LanceStore:
    return open_store(db)


@pytest.mark.parametrize(
    ("passing", "found"),
    [
        (Filter(folder="home"), {"purple.jpg", "white.jpg"}),
        (Filter(folder="it's"), {"red.jpg", "yellow.jpg"}),
        (Filter(folder="trip 2020/it's/"), {"red.jpg", "yellow.jpg"}),
        (Filter(folder="om"), set()),
        (Filter(folder="trip_2020"), set()),  # no pattern
        (Filter(after=date(2021, 5, 6)), {"yellow.jpg", "purple.jpg", "white.jpg"}),
        (Filter(before=date(2021, 5, 6)), {"red.jpg", "yellow.jpg", "a.png", "b.png", "c.png"}),
        (Filter(after=date(2009, 1, 1), before=date(2010, 1, 1)), {"a.png", "b.png", "c.png"}),
        (Filter(camera="acme cam 1"), {"yellow.jpg", "white.jpg"}),
        (Filter(format="jpg", min_side=17), {"yellow.jpg", "purple.jpg", "white.jpg"}),
        (Filter(format="PNG", min_side=17), set()),
        (Filter(camera="cam 0", after=date(2022, 1, 1)), {"purple.jpg"}),
        (Filter(camera="x' OR 1=1 --"), set()),
    ],
)
def test_filters(store: LanceStore, passing: Filter, found: set[str]) -> None:
    for mode in ("vector", "hybrid"):
        hits = find(store, FakeEmbedder(), Query("red", filter=passing, everything=True, k=20, mode=mode)).hits
        assert set(names(hits)) == found


def test_a_whole_folder_is_a_filter_too(store: LanceStore, pictures: Path) -> None:
    for folder, count in ((pictures, 7), (pictures / "home", 2), (pictures.with_name("pict"), 0)):
        found = find(store, FakeEmbedder(), Query("red", filter=Filter(str(folder)), everything=True, k=20))
        assert len(found.hits) == count


def test_a_filter_that_many_pass_is_searched_as_one_that_few_do(
    store: LanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = Query("yellow", filter=Filter(format="jpeg"), everything=True, k=3)
    few = find(store, FakeEmbedder(), query).hits
    monkeypatch.setattr("tuwen.searching.FEW", 1)
    monkeypatch.setattr("tuwen.searching.SPARE", 0)
    assert find(store, FakeEmbedder(), query).hits == few
    assert names(few)[0] == "yellow.jpg"


def test_pages_hold_every_hit_once_in_either_order(store: LanceStore) -> None:
    for order in ("score", "date"):
        pages = [
            find(store, FakeEmbedder(), Query("red", everything=True, k=3, offset=at, order=order)) for at in (0, 3, 6)
        ]
        assert [page.more for page in pages] == [True, True, False]
        hits = [hit for page in pages for hit in page.hits]
        assert [hit.rank for hit in hits] == list(range(1, 8))
        assert len({hit.id for hit in hits}) == 7
        if order == "date":
            assert names(hits)[:4] == ["white.jpg", "purple.jpg", "yellow.jpg", "red.jpg"]
            assert hits[0].date == "2023-05-06T07:08:09"
            assert hits[5].date is None  # but it counts as written in 2009


def test_words_of_captions_in_two_languages(store: LanceStore) -> None:
    for words, name in (("snow", "b.png"), ("SEA", "a.png"), ("雪地", "b.png"), ("海边", "a.png")):
        hits = find(store, FakeEmbedder(), Query(words, mode="words")).hits
        assert names(hits) == [name]
        assert hits[0].score > 0
    assert find(store, FakeEmbedder(), Query('no" AND (such*', mode="words")).hits == []
    with pytest.raises(DataError, match="no words"):
        find(store, FakeEmbedder(), Query(image=Path("x.png"), mode="words"))


def test_hybrid_is_the_fusion_of_both_lists(store: LanceStore) -> None:
    assert fuse([("a", 9.0), ("b", 1.0)], [("b", 5.0)]) == [("b", 1 / 62 + 1 / 61), ("a", 1 / 61)]
    embedder = FakeEmbedder()
    vector = find(store, embedder, Query("a red thing in the snow", k=20)).hits
    words = find(store, embedder, Query("a red thing in the snow", k=20, mode="words")).hits
    both = find(store, embedder, Query("a red thing in the snow", k=20, mode="hybrid")).hits
    assert {hit.id for hit in both} == {hit.id for hit in vector} | {hit.id for hit in words}
    place = [{hit.id: hit.rank for hit in some} for some in (vector, words)]
    for hit in both:
        assert hit.score == pytest.approx(sum(1 / (60 + ranks[hit.id]) for ranks in place if hit.id in ranks), abs=1e-6)


def test_words_and_a_picture_weighted_and_without(store: LanceStore, tmp_path: Path) -> None:
    embedder, blue = FakeEmbedder(), draw(tmp_path / "query.png", "blue", seed=5)
    for weight, first in ((0.0, "yellow.jpg"), (1.0, "b.png")):
        assert names(find(store, embedder, Query("yellow", blue, weight)).hits)[0] == first
    middle = names(find(store, embedder, Query("yellow", blue, 0.5)).hits)
    assert {*middle[:2]} == {"yellow.jpg", "b.png"}
    plain = find(store, embedder, Query("red and blue", everything=True, k=20)).hits
    less = find(store, embedder, Query("red and blue", without="blue", everything=True, k=20)).hits
    assert names(plain).index("b.png") < 3
    assert names(less).index("b.png") > names(plain).index("b.png")
    assert names(less)[0] in ("a.png", "red.jpg")
    assert find(store, embedder, Query("xyzzy", without="blue")).hits == []  # the floor is of the words


def test_warnings_and_refusals(store: LanceStore) -> None:
    embedder = FakeEmbedder()
    assert find(store, embedder, Query("red")).warnings == []
    assert "knows none of these words" in find(store, embedder, Query("xyzzy")).warnings[0]
    assert "tuwen models get best" in find(store, embedder, Query("xyzzy")).warnings[0]
    embedder.languages = ["en"]
    assert "not taught Chinese" in find(store, embedder, Query("红")).warnings[0]
    with pytest.raises(DataError, match="neither words nor a picture"):
        find(store, embedder, Query("  "))


def test_similar_leaves_itself_out_and_pages(store: LanceStore) -> None:
    first = find(store, FakeEmbedder(), Query("red", k=1)).hits[0]
    found = similar(store, first.id, k=3)
    assert first.id not in {hit.id for hit in found.hits}
    assert found.more
    assert {names([first])[0], names(found.hits)[0]} == {"a.png", "red.jpg"}
    rest = similar(store, first.id, k=9, offset=3)
    assert ([hit.rank for hit in rest.hits], rest.more) == ([4, 5, 6], False)
    with pytest.raises(DataError, match="no such picture"):
        similar(store, "../../etc/passwd")


def test_a_picture_and_its_thumbnail(store: LanceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = np.random.default_rng(0).integers(0, 256, (300, 700, 3), np.uint8)
    (tmp_path / "more").mkdir()
    Image.fromarray(big).save(tmp_path / "more" / "big.png")
    index_folder(tmp_path / "more", store.folder, FakeEmbedder())
    id = images.content_id(tmp_path / "more" / "big.png")
    row = read_picture(store, id)
    assert (row["width"], row["height"], row["format"], row["files"]) == (700, 300, "PNG", [row["file"]])
    asked: list[object] = []
    monkeypatch.setattr(images, "thumbnail", lambda *a: asked.append(a) or b"big")
    for side, size in ((320, (320, 137)), (64, (64, 28))):
        with Image.open(io.BytesIO(thumbnail(store, id, side))) as image:
            assert (image.format, image.size) == ("JPEG", size)
    assert asked == []  # from the store
    assert thumbnail(store, id, 600) == b"big"
    for side in (0, 15, 5000):
        with pytest.raises(DataError, match="a thumbnail of"):
            thumbnail(store, id, side)
    with pytest.raises(DataError, match="no such picture"):
        thumbnail(store, "x' OR '1'='1")


def test_duplicates_come_in_groups(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    noise = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    for n, square in enumerate(noise):
        whole = Image.fromarray(square).resize((96, 96), Image.Resampling.BICUBIC)
        folder.mkdir(exist_ok=True)
        whole.save(folder / f"{n} large.png")
        whole.resize((48, 48)).save(folder / f"{n} small.jpg", quality=90)
    (folder / "copy.png").write_bytes((folder / "0 large.png").read_bytes())
    draw(folder / "flat.png", "red")
    index_folder(folder, tmp_path / "db", FakeEmbedder())
    groups = duplicates(open_store(tmp_path / "db"))
    assert [names(group) for group in groups] == [
        ["0 large.png", "copy.png", "0 small.jpg"],
        ["1 large.png", "1 small.jpg"],
    ]
    assert [hit.rank for hit in groups[0]] == [1, 2, 3]
    assert groups[0][0].score == groups[0][1].score == 1
    assert 0.9 < groups[0][2].score < 1


def test_corrections_are_kept_found_and_brought_out(
    db: Path, store: LanceStore, pictures: Path, tmp_path: Path
) -> None:
    embedder = FakeEmbedder()
    white = find(store, embedder, Query("white", k=1)).hits[0]
    assert white.caption is None
    with pytest.raises(DataError, match="correct some"):
        export_corrections(store, tmp_path / "out")
    set_caption(db, white.id, "an igloo ", "en")
    set_caption(db, white.id, "一间冰屋")
    assert find(store, embedder, Query("white", k=1)).hits[0].caption == "an igloo"
    assert find(store, embedder, Query("白", k=1)).hits[0].caption == "一间冰屋"
    assert names(find(store, embedder, Query("igloo", mode="words")).hits) == ["white.jpg"]
    set_caption(db, white.id, "an ice house", "en")
    assert find(store, embedder, Query("igloo", mode="words")).hits == []
    assert names(find(store, embedder, Query("冰屋", mode="words")).hits) == ["white.jpg"]
    captions = read_picture(store, white.id)["captions"]
    assert {(c["text"], c["source"]) for c in captions} == {("an ice house", "human"), ("一间冰屋", "human")}
    index_folder(pictures, db, embedder)  # a later run keeps them, and gives them vectors
    assert {row["text"] for row in store.scan(CAPTIONS)} >= {"an ice house", "一间冰屋"}
    assert {hit.text for hit in search_captions(store, embedder, Path(white.file), 20)} >= {"an ice house"}
    rows = corrected(store)
    assert [(Path(row["file"]).name, len(row["captions"]), row["made"]) for row in rows] == [("white.jpg", 2, [])]
    made = dataset.load(export_corrections(store, tmp_path / "out"))
    assert [(made.path(picture), [c.text for c in picture.human()]) for picture in made.pictures] == [
        (Path(white.file), ["an ice house", "一间冰屋"])
    ]
    for id, text, why in ((white.id, " ", "1 to 2,000"), (white.id, "x" * 2001, "2,001"), ("0" * 64, "a", "no such")):
        with pytest.raises(DataError, match=why):
            set_caption(db, id, text)


def test_a_correction_keeps_what_the_data_set_gave(db: Path, store: LanceStore) -> None:
    red = find(store, FakeEmbedder(), Query("sea", mode="words")).hits[0]
    set_caption(db, red.id, "a nameless shape", "en")
    assert find(store, FakeEmbedder(), Query("sea", mode="words")).hits[0].caption == "a nameless shape"
    set_caption(db, red.id, "a red thing near the sea", "en")  # what was given: it stays when this goes
    set_caption(db, red.id, "another", "en")
    assert {"a red thing near the sea", "another"} <= {row["text"] for row in store.scan(TEXTS)}
    assert (
        best_caption(
            [{"text": "m", "lang": "en", "source": "model:x"}, {"text": "g", "lang": "en", "source": "human"}], "en"
        )
        == "g"
    )


def test_a_correction_waits_for_an_indexer_and_then_says_so(
    db: Path, store: LanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuwen.noting.WAIT", 0.1)
    id = find(store, FakeEmbedder(), Query("red", k=1)).hits[0].id
    with writer(db), pytest.raises(StoreError, match="another `tuwen index`"):
        set_caption(db, id, "words")


def test_a_table_runs_nothing() -> None:
    assert handout.safe_cell('=HYPERLINK("http://x")') == '\'=HYPERLINK("http://x")'
    assert [handout.safe_cell(value) for value in (None, -0.5, "a = b", "-x")] == ["", -0.5, "a = b", "'-x"]


def test_hits_are_handed_out(store: LanceStore, tmp_path: Path) -> None:
    hits = find(store, FakeEmbedder(), Query("a red thing", everything=True, k=3)).hits
    for linked in (False, True):
        folder = tmp_path / f"out {linked}"
        assert handout.put_files(hits, folder, linked) == 3
        assert handout.put_files(hits, folder, linked) == 3  # again: the same files
        there = sorted(folder.iterdir())
        assert [path.name for path in there] == [f"{hit.rank:03} {Path(hit.file).name}" for hit in hits]
        assert [path.is_symlink() for path in there] == [linked] * 3
        assert there[0].read_bytes() == Path(hits[0].file).read_bytes()
    (tmp_path / "out False" / there[0].name).write_bytes(b"mine")
    with pytest.raises(DataError, match="another file is there"):
        handout.put_files(hits, tmp_path / "out False")
    assert (tmp_path / "out False" / there[0].name).read_bytes() == b"mine"
    with pytest.raises(DataError, match="not a folder"):
        handout.put_files(hits, tmp_path / "query.png" if (tmp_path / "query.png").write_text("x") else tmp_path)
    handout.write_table(hits, tmp_path / "hits.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "hits.csv").read_text("utf-8-sig"))))
    assert [row["file"] for row in rows] == [hit.file for hit in hits]
    assert [row["caption"] for row in rows] == [hit.caption or "" for hit in hits]


def test_many_pictures_page_through_without_a_gap(tmp_path: Path) -> None:
    draw_many(tmp_path / "many", 90)
    index_folder(tmp_path / "many", tmp_path / "db", FakeEmbedder())
    store, seen = open_store(tmp_path / "db"), []
    for offset in range(0, 90, 40):
        seen += find(store, FakeEmbedder(), Query("green", everything=True, k=40, offset=offset)).hits
    assert len({hit.id for hit in seen}) == len(seen) == 90
    assert [hit.score for hit in seen] == sorted((hit.score for hit in seen), reverse=True)
