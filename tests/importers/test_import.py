"""What every import does: joining by picture, splits, copies, and nothing written on an error."""

from __future__ import annotations

import json
import re
from pathlib import Path

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


def test_lines_end_where_json_and_python_end_them(tmp_path, paint, put, rows):
    """U+2028, U+0085 and form feeds stand unescaped in captions of the web."""
    images = paint("p", "a.jpg", "b.jpg")
    lines = '{"image": "a.jpg", "caption": "one\u2028two"}\n{"image": "b.jpg", "caption": "one\x85two"}\n'
    run_import("text-pairs", put("pairs.jsonl", lines), tmp_path / "data", images)
    assert [row["captions"] for row in rows().values()] == [["one two"], ["one two"]]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.jsonl", '{"image": "a.jpg", "caption": "A"}\n{"image": "b.jpg"}\n\n{"image"\n', r"x\.jsonl:4: not JSON"),
        ("x.json", '{"image": "a.jpg",\n "caption": \n', r"x\.json:3: not JSON"),
        ("x.json", "[" * 100_000, r"x\.json:1: not JSON .*recursion"),
        ("x.tsv", b"\x1f\x8b\x08\x00\x00", r"x\.tsv: packed; unpack it"),
        ("x.json", b"PK\x03\x04\x00\x00", r"x\.json: packed; unpack it"),
    ],
)
def test_files_that_are_cut_or_packed(tmp_path, put, name, content, why):
    with pytest.raises(DataError, match=why) as error:
        run_import("text-pairs", put(name, content), tmp_path / "data")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_src_may_hold_dest(tmp_path, paint, put):
    """A second import does not take the data set's own files for foreign ones."""
    listed = {"images": [{"filename": "a.jpg", "split": "test", "sentences": [{"raw": "A dog"}]}]}
    paint("src/images", "a.jpg")
    put("src/dataset_toy.json", listed)
    paint("hf", "train/a.jpg")
    put("hf/train/metadata.jsonl", {"file_name": "a.jpg", "text": "A dog"})
    for format, src, dest in (
        ("karpathy", "src", "src"),
        ("karpathy", "src", "src/data"),
        ("huggingface", "hf", "hf/data"),
    ):
        for added in (1, 0):
            report = run_import(format, tmp_path / src, tmp_path / dest)
            assert (report.added, report.merged, report.captions) == (added, 1 - added, 1)


def test_a_foreign_dataset_json_is_never_overwritten(tmp_path, paint, put):
    """Karpathy's archive of Flickr30k holds a file of the name that our manifest has."""
    paint("flickr30k/images", "a.jpg")
    src = put("flickr30k/dataset.json", {"images": [{"filename": "a.jpg", "sentences": [{"raw": "A dog"}]}]})
    before = tree(tmp_path)
    with pytest.raises(DataError, match=r"dataset\.json: would be overwritten; name another folder as DEST"):
        run_import("karpathy", src, src.parent)
    assert tree(tmp_path) == before
    put("flickr30k/data/dataset.json", {"format": 1, "name": ""})  # our own, of an import that was killed
    assert run_import("karpathy", src, src.parent / "data").added == 1


def test_a_folder_that_may_not_be_read_is_passed_over(tmp_path, paint, put, monkeypatch):
    paint("src/coco/images", "a.jpg")
    put("src/coco/annotations/pairs.tsv", "a.jpg\tA dog\n")
    (tmp_path / "src" / "another").mkdir()
    own = Path.iterdir

    def read(folder):
        if folder.name == "another":
            raise PermissionError(13, "Permission denied")
        return own(folder)

    monkeypatch.setattr(Path, "iterdir", read)
    assert run_import("text-pairs", tmp_path / "src", tmp_path / "data").added == 1
