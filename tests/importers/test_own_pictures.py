"""Own pictures: tables of pairs, sidecars, bare folders, and what Hugging Face tools write."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from tuwen import dataset
from tuwen.errors import DataError
from tuwen.importers import run_import

PAIRS = [["A dog.", "一只狗"], ["A cat, asleep"]]
RECORDS = [{"image": "a.jpg", "en": "A dog.", "zh": "一只狗"}, {"image": "b.jpg", "caption": ["A cat, asleep"]}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.tsv", "a.jpg\tA dog.\na.jpg\t一只狗\nb.jpg\tA cat, asleep\n"),
        ("pairs.tsv", "file\tcaption\na.jpg\tA dog.\na.jpg\t一只狗\n\nb.jpg\tA cat, asleep\n"),
        ("pairs.csv", 'file,caption\r\na.jpg,A dog.\r\na.jpg,一只狗\r\nb.jpg,"A cat, asleep"\r\n'),
        ("pairs.csv", "\ufefffile_name,caption_en,caption_zh\na.jpg,A dog.,一只狗\nb.jpg,\"A cat, asleep\",\n"),
        ("pairs.csv", 'image;text\na.jpg;A dog.\na.jpg;一只狗\nb.jpg;A cat, asleep\n'),
        ("captions.txt", "./a.jpg\tA dog.\t一只狗\n./b.jpg\tA cat, asleep\n"),
        ("pairs.jsonl", "\n".join(map(json.dumps, RECORDS))),
        ("pairs.json", json.dumps({"annotations": RECORDS})),
        ("pairs.json", json.dumps({"train": RECORDS[:1], "test": RECORDS[1:]})),
        ("pairs.csv", "img_name,caption\na.jpg,A dog.\na.jpg,一只狗\nb.jpg,\"A cat, asleep\"\n"),
        ("pairs.json", json.dumps({"a.jpg": ["A dog.", "一只狗"], "b.jpg": "A cat, asleep"})),
    ],
)  # fmt: skip
def test_tables(tmp_path, paint, put, rows, name, text):
    paint("src", "a.jpg", "b.jpg")
    src = put(f"src/{name}", text)
    for source in (src, src.parent):
        report = run_import("text-pairs", source, tmp_path / "data")
        assert (report.pictures, report.captions, report.languages) == (2, 3, {"en": 2, "zh": 1})
    assert [row["captions"] for row in rows().values()] == PAIRS


def test_columns_of_a_table(tmp_path, paint, put, rows):
    paint("pictures", "x/a.jpg")
    src = put("t.csv", "id,caption,path,split,group\nk,Hello,x/a.jpg,validation,p1\n,No file,,,\nm,,x/b.jpg,,\n")
    report = run_import("text-pairs", src, tmp_path / "data", tmp_path / "pictures")
    row = rows()["a.jpg"]
    assert {key: row[key] for key in ("id", "split", "group")} == {"id": "k", "split": "val", "group": "p1"}
    assert {item["why"] for item in report.skipped} == {"no file name", "no caption in the line"}


def test_a_lone_quotation_mark_swallows_nothing(tmp_path, paint, put):
    paint("src", "a.jpg", "b.jpg", "c.jpg")
    src = put("src/t.csv", 'file,caption\na.jpg,"open\nb.jpg,A cat\nc.jpg,5" pipe\n')
    assert run_import("text-pairs", src, tmp_path / "data").added == 3


def test_a_lone_quotation_mark_leaves_the_quotes_of_other_lines(tmp_path, paint, put, rows):
    paint("src", "a.jpg", "b.jpg", "c.jpg")
    src = put("src/t.csv", 'file,caption\na.jpg,"A dog, ""Rex"""\nb.jpg,5" pipe, "x" y\nc.jpg,"open\n')
    run_import("text-pairs", src, tmp_path / "data")
    assert [row["captions"] for row in rows().values()] == [['A dog, "Rex"'], ['5" pipe, "x" y'], ['"open']]


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ("""['A dog', "It's"]""", ["A dog", "It's"]),
        ('["A dog", "一只狗"]', ["A dog", "一只狗"]),
        ("[laughs] a dog [barks]", ["[laughs] a dog [barks]"]),
        ("[1, 2]", ["[1, 2]"]),
    ],
)
def test_a_list_of_captions_in_a_cell(tmp_path, paint, put, rows, cell, captions):
    paint("src", "a.jpg")
    run_import("text-pairs", put("src/t.tsv", f"image\tcaption\na.jpg\t{cell}\n"), tmp_path / "data")
    assert rows()["a.jpg"]["captions"] == captions


def test_tables_named_by_split(tmp_path, paint, put):
    paint("src/images", "a.jpg", "b.jpg")
    put("src/train.tsv", "a.jpg\tOne\n")
    put("src/val.tsv", "b.jpg\tTwo\n")
    assert run_import("text-pairs", tmp_path / "src", tmp_path / "data").splits == {"train": 1, "val": 1}
    put("src/more.tsv", "b.jpg\tTwo\n")
    with pytest.raises(DataError, match="several tables"):
        run_import("text-pairs", tmp_path / "src", tmp_path / "data")


def test_sidecars(tmp_path, paint, put, rows):
    paint("src", "train/x.jpg", "val/y.png", "val/z.jpg")
    put("src/train/x.txt", "A dog.\r\n\r\n一只狗\r\n")
    put("src/val/y.txt", "  \n")
    put("src/val/lost.txt", "Where am I?\n")
    report = run_import("text-pairs", tmp_path / "src", tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (2, 2, {"train": 1, "val": 1})
    assert rows()["x.jpg"]["captions"] == ["A dog.", "一只狗"]
    assert {item["why"]: item["examples"] for item in report.skipped} == {
        "empty caption": ["val/y.png"],
        "no .txt beside the picture": ["val/z.jpg"],
        "no picture beside the .txt": ["val/lost.txt"],
    }


def test_texts_and_pictures_in_two_folders(tmp_path, paint, put, rows):
    paint("src/images", "x.jpg", "y.webp")
    for name in ("x", "y", "z"):
        put(f"src/captions/{name}.txt", f"About {name}\n")
    for src in (tmp_path / "src" / "captions", tmp_path / "src"):
        report = run_import("text-pairs", src, tmp_path / "data")
        assert (report.pictures, report.captions, report.skipped[0]["examples"]) == (2, 2, ["z"])
    assert rows()["y.webp"]["captions"] == ["About y"]


@pytest.mark.parametrize(
    ("encoding", "text"), [("gb18030", "一只狗在跑步"), ("cp1252", "A café"), ("utf-16", "一只狗 café")]
)
def test_encodings(tmp_path, paint, put, rows, encoding, text):
    paint("src", "a.jpg")
    run_import("text-pairs", put("src/t.csv", f"file,caption\r\na.jpg,{text}\r\n".encode(encoding)), tmp_path / "data")
    assert rows()["a.jpg"]["captions"] == [text]


def test_a_name_in_two_folders_is_never_guessed(tmp_path, paint, put):
    images = paint("pool", "one/a.jpg", "two/a.jpg", "deep/er/only.jpg")
    lists = {
        "a.jpg\tWhich?\nonly.jpg\tThis\n": ["a.jpg"],
        "three/a.jpg\tNo such\ntwo/a.jpg\tThis\n": ["three/a.jpg"],
        "wrong/only.jpg\tNo such\none/a.jpg\tThis\n": ["wrong/only.jpg"],
        "er/ONLY.JPG\tThis\none/b.jpg\tNo such\n": ["one/b.jpg"],
    }
    for number, (text, absent) in enumerate(lists.items()):
        report = run_import("text-pairs", put("t.tsv", text), tmp_path / f"data{number}", images)
        assert (report.added, report.skipped[0]["examples"]) == (1, absent)


@pytest.mark.parametrize(
    ("listed", "there"), [("caf\u00e9.jpg", "cafe\u0301.jpg"), ("x/cafe\u0301.jpg", "x/caf\u00e9.jpg")]
)
def test_an_accent_is_one_sign_or_two(tmp_path, paint, put, listed, there):
    images = paint("pool", there, "cafe.jpg")
    assert run_import("text-pairs", put("t.tsv", f"{listed}\tA dog\n"), tmp_path / "data", images).added == 1


def test_folder(tmp_path, paint, put, rows):
    src = paint("album", "a.jpg", "2020/summer/b.PNG", "2020/.hidden/c.jpg", "test/d.webp")
    put("album/notes.txt", "hello")
    report = run_import("folder", src, src / "data")
    assert (report.added, report.captions, report.splits) == (3, 0, {})
    assert report.skipped == [{"why": "not a picture", "count": 1, "examples": ["notes.txt"]}]
    assert rows(src / "data")["b.PNG"]["file_name"] == "2020/summer/b.PNG"
    assert run_import("folder", src, src / "data").pictures == 3
    with pytest.raises(DataError, match="not a folder"):
        run_import("folder", src / "a.jpg", tmp_path / "x")


@pytest.mark.parametrize("format", ["folder", "text-pairs"])
def test_a_link_that_leads_nowhere_is_reported(tmp_path, paint, put, rows, format):
    src = paint("album", "a.jpg")
    put("album/a.txt", "A dog\n")
    (src / "gone.jpg").symlink_to(tmp_path / "none.jpg")
    (src / "linked.jpg").symlink_to(src / "a.jpg")
    report = run_import(format, src, tmp_path / "data")
    assert {"why": "a link to a file that is missing", "count": 1, "examples": ["gone.jpg"]} in report.skipped
    assert set(rows()) == ({"a.jpg", "linked.jpg"} if format == "folder" else {"a.jpg"})


def test_folder_of_splits_into_itself(tmp_path, paint, rows):
    src = paint("album", "train/a.jpg", "validation/b.jpg", "c.jpg")
    assert run_import("folder", src, src).splits == {"train": 1, "val": 1}
    assert "root" not in rows(src)["a.jpg"]  # the pictures lie inside the data set
    assert run_import("folder", src, src).added == 0


def test_imagefolder(tmp_path, paint, put, rows):
    paint("hf", "train/a.jpg", "validation/b.jpg")
    lines = (
        '{"file_name": "a.jpg", "text": "A dog", "stars": 3}\n{"text": "No file"}\n{"file_name": "", "text": "Nor"}\n'
    )
    put("hf/train/metadata.jsonl", lines)
    put("hf/validation/metadata.csv", "image_file_name,caption\nb.jpg,一只猫\n")
    report = run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (2, 2, {"train": 1, "val": 1})
    assert rows()["a.jpg"]["stars"] == 3
    assert rows()["a.jpg"]["captions"] == ["A dog"]
    assert [(item["why"], item["count"]) for item in report.skipped] == [("no file_name", 2)]


def test_our_own_rows_through_imagefolder(tmp_path, paint, put, rows):
    paint("hf", "a.jpg")
    row = {
        "file_name": "a.jpg",
        "captions": ["x", {"text": "y", "lang": "fr"}],
        "qa": [{"question": "what?", "answers": ["a", "b"]}],
        "group": "g",
    }
    put("hf/metadata.jsonl", row)
    run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    found = rows()["a.jpg"]
    assert {key: found[key] for key in ("captions", "qa", "group")} == {
        key: row[key] for key in ("captions", "qa", "group")
    }


def test_columns_of_structure_survive(tmp_path, paint, put, rows):
    paint("hf", "a.jpg")
    kept = {
        "scene": {"shapes": [{"kind": "circle", "at": [1, 2]}], "seed": 3},
        "objects": [{"bbox": [0, 0, 1, 1]}],
        "caption_boxes": [[0, 1]],
        "key": "x1",
        "answers": ["to no question"],
    }
    lost = {"root": "r", "regions": "r.npz", "features": {"resnet": 3}, "qa": ["no question"]}
    put("hf/metadata.jsonl", {"file_name": "a.jpg", "text": "A dog", **kept, **lost})
    report = run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    assert {item["why"].split("'")[1]: item["examples"] for item in report.skipped} == {key: ["a.jpg"] for key in lost}
    for folder in ("data", "again"):
        found = rows(tmp_path / folder)["a.jpg"]
        assert {key: found[key] for key in kept} == kept
        assert found["captions"] == ["A dog"]
        dataset.save(dataset.load(tmp_path / "data"), tmp_path / "again")


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(out, "JPEG")
    return out.getvalue()


def test_parquet_shards(tmp_path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "hf" / "data").mkdir(parents=True)
    pictures = [{"bytes": jpeg(i), "path": f"{i}.jpg"} for i in (0, 0, 1)] + [{"bytes": b"no picture", "path": None}]
    table = {"image": pictures, "caption": ["One", "One again", "Two", "None"], "label": [1, 1, 2, 3]}
    pq.write_table(pa.table(table), tmp_path / "hf" / "data" / "validation-00000-of-00001.parquet")
    report = run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (2, 3, {"val": 2})
    assert [row["captions"] for row in rows().values()] == [["One", "One again"], ["Two"]]
    assert report.skipped[0]["why"] == "no picture (its bytes are none)"
    loaded = dataset.load(tmp_path / "data")
    assert [loaded.path(p).read_bytes() for p in loaded.pictures] == [jpeg(0), jpeg(1)]
    assert run_import("huggingface", tmp_path / "hf", tmp_path / "data").captions_added == 0


def test_parquet_as_the_hub_converts_it(tmp_path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, split in enumerate(("train", "validation")):
        table = {"image": [{"bytes": jpeg(number), "path": None}], "sentences_raw": [["One", "Two"]]}
        (tmp_path / "hf" / "default" / split).mkdir(parents=True)
        pq.write_table(pa.table(table), tmp_path / "hf" / "default" / split / "0000.parquet")
    report = run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    assert (report.captions, report.splits) == (4, {"train": 1, "val": 1})


def test_parquet_of_questions_and_of_lists_by_key(tmp_path, rows):
    """VQA's columns are of the question; a list of structs may be stored as a struct of lists, a picture as bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    said = {"answer": ["dog", "a dog"], "answer_id": [1, 2]}
    table = {
        "image": [jpeg(0)] * 2,
        "question": ["what?", "is it?"],
        "answers": [said, None],
        "question_type": ["what", "is"],
        "multiple_choice_answer": ["dog", "yes"],
        "sentences": [{"raw": ["A dog", "One"], "tokens": [["a"], ["one"]]}, None],
    }
    (tmp_path / "hf").mkdir()
    pq.write_table(pa.table(table), tmp_path / "hf" / "train.parquet")
    report = run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    [row] = rows().values()
    assert row["captions"] == ["A dog", "One"]
    assert [(q["question_type"], q.get("answers"), q["multiple_choice_answer"]) for q in row["qa"]] == [
        ("what", ["dog", "a dog"], "dog"),
        ("is", None, "yes"),
    ]
    assert report.skipped == []


def test_columns_of_parquet_that_cannot_be_kept_are_reported(tmp_path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = [{"bytes": jpeg(0), "path": "0.jpg"}] * 2
    table = {
        "image": pictures,
        "caption": ["One", "Two"],
        "raw_bytes": [b"1", None],
        "boxes": [[1, 2]] * 2,
        "n": [1, 2],
    }
    (tmp_path / "hf").mkdir()
    pq.write_table(pa.table(table), tmp_path / "hf" / "train.parquet")
    report = run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    [row] = rows().values()
    assert (row["captions"], row["boxes"], row["n"], "raw_bytes" in row) == (["One", "Two"], [1, 2], 1, False)
    assert {item["why"]: item["count"] for item in report.skipped} == {
        "column 'raw_bytes' is not kept: a bytes that JSON has no form for": 1,
        "column 'n' differs between rows of one picture (the first is kept)": 1,
    }


def test_save_to_disk(tmp_path, paint, rows):
    datasets = pytest.importorskip("datasets")
    folder = paint("pool", "a.png", "b.png")
    features = datasets.Features({"picture": datasets.Image(), "captions": datasets.Sequence(datasets.Value("string"))})
    made = {
        split: datasets.Dataset.from_dict({"picture": [str(folder / name)], "captions": [[text, "一只狗"]]}, features)
        for split, name, text in (("train", "a.png", "A dog"), ("validation", "b.png", "A cat"))
    }
    datasets.DatasetDict(made).save_to_disk(str(tmp_path / "hf"))
    report = run_import("huggingface", tmp_path / "hf", tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (2, 4, {"train": 1, "val": 1})
    loaded = dataset.load(tmp_path / "data")
    assert sorted(loaded.path(p).read_bytes() for p in loaded.pictures) == sorted(
        (folder / n).read_bytes() for n in ("a.png", "b.png")
    )
    assert sorted(c.text for _, c in loaded.captions("en")) == ["A cat", "A dog"]


def test_one_split_of_save_to_disk(tmp_path, paint):
    datasets = pytest.importorskip("datasets")
    folder = paint("pool", "a.png")
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"image": [str(folder / "a.png")], "text": ["A dog"]}, features)
    datasets.DatasetDict(validation=made).save_to_disk(str(tmp_path / "hf"))
    assert run_import("huggingface", tmp_path / "hf" / "validation", tmp_path / "data").splits == {"val": 1}


def test_a_folder_without_tables(tmp_path, paint):
    with pytest.raises(DataError, match="FORMAT 'folder'"):
        run_import("huggingface", paint("hf", "a.jpg"), tmp_path / "data")
