"""What every import does: joining by picture, splits, copies, and nothing written on an error."""

from __future__ import annotations

import json
import re

import pytest

import tuwen.importers
from tuwen import dataset
from tuwen.errors import DataError
from tuwen.importers import IMPORTERS, run_import


@pytest.fixture
def bring(tmp_path, put):
    """Import a table of pairs, given as text, into `tmp_path/data`."""

    def call(text: str, dest: str = "data", **options):
        return run_import("text-pairs", put("lists/pairs.tsv", text), tmp_path / dest, **options)

    return call


def tree(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


LAYOUTS = """ai-challenger coco cuhk-pedes daquar easy-vqa flickr8k flickr8k-cn folder huggingface karpathy precomputed
regions text-pairs vqa2"""


def test_every_published_layout_has_an_importer():
    assert list(IMPORTERS) == LAYOUTS.split()


def test_requests_that_are_refused(tmp_path, paint, put):
    images = paint("p", "a.jpg")
    src = put("t.tsv", "b.jpg\tHello\n")
    cases = [
        (("flickr8", src, "data"), {}, "did you mean 'flickr8k'"),
        (("text-pairs", tmp_path / "no.tsv", "data"), {}, r"no\.tsv: no such file"),
        (("text-pairs", src, src), {}, "name a folder"),
        (("text-pairs", src, "data"), {"images": tmp_path / "none"}, "none: no such folder.*--images"),
        (("text-pairs", src, "data"), {"images": images}, r"none of its 1 pictures \(such as b\.jpg\).*--images DIR"),
        (("folder", put("empty/x.txt", "").parent, "data"), {}, "no picture to import: not a picture"),
    ]
    before = tree(tmp_path)
    for arguments, options, why in cases:
        with pytest.raises(DataError, match=why) as error:
            run_import(arguments[0], arguments[1], tmp_path / arguments[2], **options)
        assert "\n" not in str(error.value)
        assert tree(tmp_path) == before
    assert not (tmp_path / "data").exists()


def test_one_directory_is_one_root_whatever_it_is_called(tmp_path, paint, bring, rows):
    images = paint("album/images", "a.jpg", "b.jpg")
    (tmp_path / "link").symlink_to(images)
    bring("a.jpg\tA dog\n", images=images)
    manifest = tmp_path / "data" / "dataset.json"
    assert json.loads(manifest.read_text())["roots"] == {"album": str(images)}
    renamed = manifest.read_text().replace('"album"', '"mine"')
    manifest.write_text(renamed)
    metadata = tmp_path / "data" / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace('"album"', '"mine"'))
    report = bring("a.jpg\t一只狗\na.jpg\tA  dog\nb.jpg\tA cat\n", images=tmp_path / "link")
    assert (report.added, report.merged, report.captions_added) == (1, 1, 2)
    assert rows()["a.jpg"]["captions"] == ["A dog", "一只狗"]
    assert {row["root"] for row in rows().values()} == {"mine"}
    assert json.loads(manifest.read_text())["roots"] == {"mine": str(images)}


def test_two_directories_of_one_name(tmp_path, paint, bring):
    for folder in ("one/images", "two/images"):
        paint(folder, "a.jpg")
    (tmp_path / "x" / "one").mkdir(parents=True)
    (tmp_path / "one" / "images").rename(tmp_path / "x" / "one" / "images")
    paint("one/images", "a.jpg")
    for images in ("one/images", "x/one/images", "two/images"):
        bring("a.jpg\tA dog\n", images=tmp_path / images)
    loaded = dataset.load(tmp_path / "data")
    assert list(loaded.manifest.roots) == ["one", "one-2", "two"]
    assert len({loaded.path(picture) for picture in loaded.pictures}) == 3


def test_splits_that_are_there_stay(tmp_path, paint, bring, rows):
    images = paint("p", "a.jpg", "b.jpg", "c.jpg")
    bring("a.jpg\tOne\n", images=images, split="validation")
    report = bring("a.jpg\tTwo\nb.jpg\tTwo\n", images=images, split="test")
    assert (report.splits, report.kept_splits) == ({"val": 1, "test": 1}, 1)
    assert report.skipped[-1]["examples"] == ["a.jpg"]
    header = "file\tcaption\tsplit\n"
    report = bring(f"{header}a.jpg\tThree\ttrain\nb.jpg\tThree\ttest\nc.jpg\tThree\t\n", images=images, split="test")
    assert report.splits == {"val": 1, "test": 2}
    assert report.skipped[0]["why"] == "of split train, not test"
    assert rows()["a.jpg"]["captions"] == ["One", "Two"]
    with pytest.raises(DataError, match="is of split 'unseen'"):
        bring(f"{header}a.jpg\tThree\ttrain\n", images=images, split="unseen")


def test_rows_without_a_split_can_get_one_later(tmp_path, paint, bring):
    images = paint("p", *(f"{i}.jpg" for i in range(8)))
    bring("".join(f"{i}.jpg\tOne\n" for i in range(8)), images=images)
    drawn = [picture.split for picture in dataset.load(tmp_path / "data").pictures]
    assert drawn == [picture.split for picture in dataset.load(tmp_path / "data").pictures]
    assert None not in drawn
    assert bring("".join(f"{i}.jpg\tOne\n" for i in range(8)), images=images, split="test").splits == {"test": 8}


def test_copies(tmp_path, paint, bring, rows):
    images = paint("p", "a.jpg", "deep/b.jpg")
    text = "a.jpg\tOne\ndeep/b.jpg\tTwo\n"
    bring(text, images=images, split="train", copy=True)
    loaded = dataset.load(tmp_path / "data")
    assert loaded.manifest.roots == {}
    assert [p.file_name for p in loaded.pictures] == ["images/p/a.jpg", "images/p/deep/b.jpg"]
    assert [loaded.path(p).read_bytes() for p in loaded.pictures] == [
        (images / n).read_bytes() for n in ("a.jpg", "deep/b.jpg")
    ]
    report = bring("a.jpg\t一\n", images=images)  # the original and its copy are one picture
    assert (report.added, report.merged) == (0, 1)
    images.rename(tmp_path / "gone")
    report = bring("a.jpg\t二\n")  # without the originals the copies are found
    assert (report.added, report.merged) == (0, 1)
    assert rows()["a.jpg"]["captions"] == ["One", "一", "二"]


def test_a_later_copy_takes_the_place_of_the_pointer(tmp_path, paint, bring, rows):
    images = paint("p", "a.jpg")
    bring("a.jpg\tOne\n", images=images)
    bring("a.jpg\tTwo\n", images=images, copy=True)
    row = rows()["a.jpg"]
    assert ("root" in row, row["file_name"], row["captions"]) == (False, "images/p/a.jpg", ["One", "Two"])
    assert dataset.load(tmp_path / "data").path(dataset.load(tmp_path / "data").pictures[0]).is_file()


@pytest.mark.parametrize("known", [True, False])
def test_a_failure_at_the_last_moment_leaves_no_trace(tmp_path, paint, bring, monkeypatch, known):
    images = paint("p", "a.jpg", "b.jpg")
    if known:
        bring("a.jpg\tOne\n", images=images, copy=True)
    (tmp_path / "lists").mkdir(exist_ok=True)
    (tmp_path / "lists" / "pairs.tsv").write_text("b.jpg\tTwo\n")
    before, calls = tree(tmp_path), []

    def fail(*_):
        calls.append(1)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tuwen.importers, "save", fail)
    with pytest.raises(DataError, match="No space left"):
        bring("b.jpg\tTwo\n", images=images, copy=True)
    assert calls
    assert tree(tmp_path) == before
    assert (tmp_path / "data").exists() == known
    assert not list(tmp_path.rglob(".tuwen-import-*"))


def test_a_broken_data_set_is_not_joined(tmp_path, paint, bring, put):
    images = paint("p", "a.jpg")
    put("data/metadata.jsonl", '{"file_name": "a.jpg"}\n{"file_name": 3}\n')
    before = tree(tmp_path / "data")
    with pytest.raises(DataError, match=re.escape("metadata.jsonl:2: file_name")):
        bring("a.jpg\tOne\n", images=images)
    assert tree(tmp_path / "data") == before


def test_what_a_data_set_says_of_itself_survives(tmp_path, paint, bring, rows):
    images = paint("p", "a.jpg")
    bring("a.jpg\tOne\n", images=images)
    manifest = tmp_path / "data" / "dataset.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "name": "mine", "licence": "none", "x": None}))
    metadata = tmp_path / "data" / "metadata.jsonl"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "stars": [], "note": None}) + "\n")
    bring("a.jpg\tTwo\n", images=images)
    kept = json.loads(manifest.read_text())
    assert (kept["name"], kept["licence"], kept["x"]) == ("mine", "none", None)
    assert (rows()["a.jpg"]["stars"], rows()["a.jpg"]["note"]) == ([], None)
