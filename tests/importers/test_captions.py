"""The layouts of captioned pictures: karpathy, flickr8k, flickr8k-cn, coco, ai-challenger, cuhk-pedes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuwen import dataset
from tuwen.errors import DataError
from tuwen.importers import run_import


def karpathy(*names: str, split: str = "train") -> dict[str, Any]:
    sentences = [{"raw": "A dog .", "tokens": ["a", "dog"]}, {"tokens": ["a", "red", "ball"]}, {"raw": " "}]
    return {"images": [{"filename": n, "split": split, "sentences": sentences} for n in names], "dataset": "toy"}


def test_karpathy(tmp_path, paint, put, rows):
    paint("src/images", "a.jpg", "b.jpg")
    data = karpathy("a.jpg", "b.jpg", "gone.jpg")
    data["images"][1] |= {"split": "restval", "cocoid": 42, "filepath": "val2014"}
    src = put("src/dataset_toy.json", b"\xef\xbb\xbf" + json.dumps(data).encode())
    report = run_import("karpathy", src, tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (2, 4, {"train": 2})
    assert {item["why"]: item["count"] for item in report.skipped} == {"empty caption": 3, "no such picture on disk": 1}
    found = rows()
    assert found["a.jpg"]["captions"] == ["A dog .", "a red ball"]
    assert (found["b.jpg"]["id"], found["b.jpg"]["root"]) == ("42", "src")
    loaded = dataset.load(tmp_path / "data")
    assert all(loaded.path(picture).is_file() for picture in loaded.pictures)
    assert not list((tmp_path / "data").rglob("*.jpg"))  # nothing is copied unless asked


def test_karpathy_finds_coco_folders_and_takes_a_folder_as_src(tmp_path, paint, put, rows):
    paint("coco/val2014", "COCO_val2014_000000000009.jpg")
    paint("coco/train2014", "COCO_train2014_000000000025.jpg")
    data = karpathy("COCO_val2014_000000000009.jpg", "COCO_train2014_000000000025.jpg")
    data["images"][0]["filepath"], data["images"][1]["filepath"] = "val2014", "train2014"
    put("coco/dataset_coco.json", data)
    assert run_import("karpathy", tmp_path / "coco", tmp_path / "data").added == 2
    assert rows()["COCO_val2014_000000000009.jpg"]["file_name"] == "val2014/COCO_val2014_000000000009.jpg"


TOKENS = (
    "a.jpg#0\tA dog .\r\na.jpg#1\tA brown dog, running .\r\n\r\nb.jpg#0\tA cat\r\nno number here\r\nc.jpg.1#0\tLost\r\n"
)


def test_flickr8k_tokens_with_lists(tmp_path, paint, put, rows):
    paint("src/Flicker8k_Dataset", "a.jpg", "b.jpg", "u.jpg")
    put("src/Flickr8k_text/Flickr8k.token.txt", TOKENS + "u.jpg#0\tIn no list\n")
    put("src/Flickr8k_text/Flickr_8k.trainImages.txt", "a.jpg\n")
    put("src/Flickr8k_text/Flickr_8k.devImages.txt", "b.jpg\n")
    report = run_import("flickr8k", tmp_path / "src", tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (2, 3, {"train": 1, "val": 1})
    assert rows()["a.jpg"]["captions"] == ["A dog .", "A brown dog, running ."]
    why = {item["why"]: item["examples"] for item in report.skipped}
    assert (
        why["in none of the lists of splits"] == ["u.jpg", "c.jpg.1"]
        or "u.jpg" in why["in none of the lists of splits"]
    )
    assert why["not NAME#NUMBER<tab>caption"] == ["Flickr8k.token.txt:5"]


def test_flickr8k_tokens_without_lists_are_split_by_content(tmp_path, paint, put, rows):
    paint("src/Images", "a.jpg", "b.jpg")
    src = put("src/Flickr8k.token.txt", TOKENS)
    report = run_import("flickr8k", src, tmp_path / "data")
    assert (report.added, report.splits) == (2, {})
    assert all(len(row["sha256"]) == 64 and "split" not in row for row in rows().values())
    assert set(dataset.load(tmp_path / "data").splits()) <= {"train", "val", "test"}


@pytest.mark.parametrize(
    "text",
    [
        "image,caption\na.jpg,A dog\na.jpg,\"A dog, brown\"\nb.jpg,A cat, asleep\n",
        "a.jpg,A dog\na.jpg,A dog, brown\nb.jpg,A cat, asleep\n",
        "image_name| comment_number| comment\na.jpg| 0| A dog\na.jpg| 1| A dog, brown\nb.jpg| 0| A cat, asleep\n",
        "\ufeffimage,caption\r\na.jpg,A dog\r\na.jpg,A dog, brown\r\nb.jpg,A cat, asleep\r\n",
    ],
)  # fmt: skip
def test_flickr8k_csv(tmp_path, paint, put, rows, text):
    paint("src/Images", "a.jpg", "b.jpg")
    put("src/captions.txt", text)
    assert run_import("flickr8k", tmp_path / "src", tmp_path / "data").captions == 3
    assert [rows()[name]["captions"] for name in ("a.jpg", "b.jpg")] == [["A dog", "A dog, brown"], ["A cat, asleep"]]


@pytest.mark.parametrize(
    "text",
    [
        ",image,caption_number,caption\n0,a.jpg,0,A dog\n1,b.jpg,0,A cat\n",  # as pandas writes an index
        "caption,image\nA dog,a.jpg\nA cat,b.jpg\n",
        'filename,img_id,raw,sentids\na.jpg,0,"[""A dog""]",[0]\nb.jpg,1,[\'A cat\'],[1]\n',
        "image_name| comment_number| comment\na.jpg| 0| A dog\nb.jpg| 0   A cat\n",  # line 20,000 of Kaggle's Flickr30k
    ],
)
def test_flickr8k_csv_by_the_names_of_its_columns(tmp_path, paint, put, rows, text):
    paint("src/Images", "a.jpg", "b.jpg")
    put("src/results.csv", text)
    assert run_import("flickr8k", tmp_path / "src", tmp_path / "data").captions == 2
    assert [rows()[name]["captions"] for name in ("a.jpg", "b.jpg")] == [["A dog"], ["A cat"]]


def test_flickr8k_csv_may_name_the_split(tmp_path, paint, put, rows):
    paint("src/Images", "a.jpg", "b.jpg")
    put("src/captions.csv", "image,caption,split\na.jpg,A dog,train\nb.jpg,A cat,dev\n")
    assert run_import("flickr8k", tmp_path / "src", tmp_path / "data").splits == {"train": 1, "val": 1}
    assert rows()["a.jpg"]["captions"] == ["A dog"]


ODD = ("a dog, running.jpg", "caf\u00e9 #1.jpg", "狗 2.jpg", "plain.jpg")


@pytest.mark.parametrize("format", ["flickr8k", "flickr8k-cn"])
def test_split_lists_of_names_with_spaces_commas_and_signs(tmp_path, paint, put, format):
    paint("src/Images", *ODD)
    name = "Flickr8k.token.txt" if format == "flickr8k" else "flickr8kzhc.caption.txt"
    put(f"src/{name}", "".join(f"{picture}#0\tA dog\n" for picture in ODD))
    put("src/Flickr_8k.trainImages.txt", "a dog, running.jpg\ncafe\u0301 #1.jpg\n")  # é as two signs
    put("src/Flickr_8k.testImages.txt", "狗 2.jpg\n")
    report = run_import(format, tmp_path / "src", tmp_path / "data")
    assert (report.added, report.splits) == (3, {"train": 2, "test": 1})
    assert report.skipped == [{"why": "in none of the lists of splits", "count": 1, "examples": ["plain.jpg"]}]


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg\tA dog\n",
        "a.jpg#0 A dog\n",
        "a.jpg#zhc#0\n",
        "image,caption\na.jpg,A dog\n",
        "a.jpg|A dog\n",
        "image_name| comment_number| comment\n",
    ],
)
def test_captions_named_like_a_split_list_are_told_apart(tmp_path, paint, put, text):
    paint("src/Images", "a.jpg", "b.jpg")
    put("src/Flickr8k.token.txt", "a.jpg#0\tA dog\nb.jpg#0\tA cat\n")
    put("src/train.txt", text)
    report = run_import("flickr8k", tmp_path / "src", tmp_path / "data")
    assert (report.added, report.splits) == (2, {})
    assert [(item["why"][:27], item["examples"]) for item in report.skipped] == [
        ("named like a list of a spli", ["train.txt"])
    ]


def test_flickr8k_cn_joins_the_english_captions(tmp_path, paint, put, rows):
    images = paint("src/images", "a.jpg", "b.jpg")
    run_import("karpathy", put("src/dataset.json", karpathy("a.jpg", "b.jpg")), tmp_path / "data", images)
    text = "a.jpg#zhc#0 一只狗。\na.jpg#zhc#1 一只狗。\nb.jpg#zhb#0 一只猫\nbroken line\nzzz.jpg#zhc#0 没有\n"
    src = put("elsewhere/flickr8kzhc.caption.txt", text)
    for joined in (3, 0):  # a second time adds nothing; two people who say the same are kept
        report = run_import("flickr8k-cn", src, tmp_path / "data")  # the data set's own roots are searched
        assert (report.added, report.merged, report.captions_added) == (0, 2, joined)
        assert report.splits == {"train": 2}
    assert rows()["a.jpg"]["captions"] == ["A dog .", "a red ball", "一只狗。", "一只狗。"]
    assert rows()["b.jpg"]["captions"][2] == {"text": "一只猫", "lang": "zh", "source": "model:zhb"}
    assert {item["why"] for item in report.skipped} == {"not NAME#zhc#NUMBER caption", "no such picture on disk"}


@pytest.mark.parametrize(
    ("tag", "source"), [("zhc", "human"), ("zhm", "human"), ("zhb", "model:zhb"), ("enc2zh", "model:enc2zh")]
)
def test_who_wrote_a_chinese_caption(tmp_path, paint, put, tag, source):
    """`zhm` is the test parts' translation by people, on which the field scores."""
    images = paint("images", "a.jpg")
    run_import("flickr8k-cn", put("x.txt", f"a.jpg#{tag}#0 两只狗\n"), tmp_path / "data", images)
    assert [c.source for _, c in dataset.load(tmp_path / "data").captions(human=False)] == [source]


def test_coco_cn_as_its_makers_lay_it(tmp_path, paint, put, rows):
    names = ["COCO_train2014_000000000101", "COCO_val2014_000000000102", "COCO_val2014_000000000103"]
    paint("c/train2014", f"{names[0]}.jpg")
    paint("c/val2014", f"{names[1]}.jpg", f"{names[2]}.jpg")
    folder = "c/coco-cn-version1805v1.1"
    for name, split in zip(names, ("train", "val", "test"), strict=True):
        put(f"{folder}/coco-cn_{split}.txt", name + "\n")
    put(f"{folder}/imageid.human-written-caption.txt", "".join(f"{name}#0\t一只猫\n" for name in names))
    put(f"{folder}/imageid.human-written-caption.bosonseg.txt", "".join(f"{n}#0\t一:m 只:q 猫:n\n" for n in names))
    put(f"{folder}/imageid.human-written-tags.txt", "".join(f"{name} 猫 沙发\n" for name in names))
    put(f"{folder}/imageid.manually-translated-caption.txt", f"{names[2]}#zhm#0\t有一只猫\n")
    words = put(f"{folder}/imageid.machine-translated-caption.bosonseg.txt", f"{names[2]}#zhbDec#0 一:m 只:q 狗:n\n")
    report = run_import("flickr8k-cn", tmp_path / "c", tmp_path / "data")
    assert (report.captions, report.splits) == (3, {"train": 1, "val": 1, "test": 1})
    run_import("flickr8k-cn", words, tmp_path / "data")
    assert rows()[f"{names[2]}.jpg"]["captions"] == [
        "一只猫",
        {"text": "一只狗", "lang": "zh", "source": "model:zhbdec"},
    ]


@pytest.mark.parametrize(
    "files",
    [
        {
            "f/flickr30kzhbbosontrain/TextData/seg.flickr30kzhbbosontrain.caption.txt": "1#zhb#0 两:m 只:q 狗:n\n",
            "f/flickr30kzhmbosontest/TextData/seg.flickr30kzhmbosontest.caption.txt": "2#zhm#0 两:m 只:q 狗:n\n",
        },
        {"f/train/flickr30k_cna_train.txt": "1\t两只狗\n", "f/test/flickr30k_cn_test.txt": "2#0\t两只狗\n"},
    ],
)
def test_chinese_captions_in_a_file_a_split(tmp_path, paint, put, files):
    paint("f/flickr30k-images", "1.jpg", "2.jpg")
    for name, text in files.items():
        put(name, text)
    report = run_import("flickr8k-cn", tmp_path / "f", tmp_path / "data")
    assert (report.captions, report.splits) == (2, {"train": 1, "test": 1})
    assert {c.text for _, c in dataset.load(tmp_path / "data").captions(human=False)} == {"两只狗"}
    put("f/flickr8kzhc.caption.txt", "1.jpg#zhc#0 狗\n")
    put("f/seg.flickr8kzhc.caption.txt", "1.jpg#zhc#0 狗:n\n")
    with pytest.raises(DataError, match="several files fit"):
        run_import("flickr8k-cn", tmp_path / "f", tmp_path / "again")


def coco(*pictures: tuple[int, str]) -> dict[str, Any]:
    notes = [{"image_id": number, "id": i, "caption": f"About {number}\n"} for i, (number, _) in enumerate(pictures)]
    return {"images": [{"id": n, "file_name": name} for n, name in pictures], "annotations": notes}


def test_coco_parts_in_one_folder(tmp_path, paint, put, rows):
    paint("coco/val2017", "000000000001.jpg")
    paint("coco/train2017", "000000000002.jpg")
    put("coco/annotations/captions_val2017.json", coco((1, "000000000001.jpg")))
    train = coco((2, "000000000002.jpg"))
    train["annotations"] += [{"image_id": 99, "caption": "Whose?"}, {"image_id": 2, "bbox": [0, 0, 1, 1]}]
    put("coco/annotations/captions_train2017.json", train)
    put("coco/annotations/instances_val2017.json", {"images": [], "annotations": []})
    report = run_import("coco", tmp_path / "coco", tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (2, 2, {"train": 1, "val": 1})
    assert sorted(item["why"] for item in report.skipped) == [
        "annotation without a caption",
        "caption of a picture that is not listed",
    ]
    assert rows()["000000000001.jpg"]["id"] == "1"


@pytest.mark.parametrize("images", [None, "coco", "coco/val2017"])
def test_coco_parts_that_share_a_file_name(tmp_path, paint, put, images):
    for part in ("train2017", "val2017"):
        paint("coco", f"{part}/1.jpg", f"{part}/2-{part}.jpg")
    for at, part in enumerate(("train2017", "val2017")):
        put(f"coco/annotations/captions_{part}.json", coco((10 + at, "1.jpg"), (20 + at, f"2-{part}.jpg")))
    folder = tmp_path / images if images else None
    report = run_import("coco", tmp_path / "coco", tmp_path / "data", folder)
    loaded = dataset.load(tmp_path / "data")
    found = {(p.split, loaded.path(p).parent.name, p.id): [c.text for c in p.captions] for p in loaded.pictures}
    whole = {
        ("train", "train2017", "10"): ["About 10"],
        ("train", "train2017", "20"): ["About 20"],
        ("val", "val2017", "11"): ["About 11"],
        ("val", "val2017", "21"): ["About 21"],
    }
    if images == "coco/val2017":  # the pictures of train are not there: none of val is taken for them
        whole = {key: texts for key, texts in whole.items() if key[0] == "val"}
        assert report.skipped[0]["examples"] == ["train2017/1.jpg", "2-train2017.jpg"]
    assert found == whole


def test_one_part_of_coco_is_sought_in_its_own_folder(tmp_path, paint, put):
    paint("coco", "train2017/1.jpg", "val2017/1.jpg")
    run_import("coco", put("coco/annotations/captions_val2017.json", coco((1, "1.jpg"))), tmp_path / "data")
    loaded = dataset.load(tmp_path / "data")
    assert [loaded.path(p).parent.name for p in loaded.pictures] == ["val2017"]


def test_coco_names_that_no_part_tells_apart_are_reported(tmp_path, paint, put, rows):
    images = paint("pool", "1.jpg")
    put("notes/captions_a.json", coco((1, "1.jpg"), (2, "1.jpg")))
    put("notes/captions_train2017.json", coco((3, "1.jpg")))
    report = run_import("coco", tmp_path / "notes", tmp_path / "data", images)
    assert rows()["1.jpg"]["captions"] == ["About 1", "About 2"]
    assert {item["why"]: item["examples"] for item in report.skipped} == {
        "another id of a file_name of the same part (its captions are joined)": ["1.jpg (id 2)"],
        "file_name of another picture, and no part (train2017, ...) tells them apart": ["1.jpg"],
        "caption of a picture that is left out": ["captions_train2017.json: annotations[0]"],
    }


def test_coco_of_a_test_has_no_captions(tmp_path, paint, put, rows):
    paint("c/test2014", "1.jpg")
    src = put("c/annotations/image_info_test2014.json", {"images": coco((1, "1.jpg"))["images"]})
    assert run_import("coco", src, tmp_path / "data").splits == {"test": 1}
    assert "captions" not in rows()["1.jpg"]


def test_coco_two_folders_below(tmp_path, paint, put):
    paint("kaggle/coco2017/val2017", "1.jpg")
    put("kaggle/coco2017/annotations/captions_val2017.json", coco((1, "1.jpg")))
    assert run_import("coco", tmp_path / "kaggle", tmp_path / "data").splits == {"val": 1}


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("COCO_val2014_000000000042.jpg", "val2017/000000000042.jpg"),
        ("val2014/COCO_val2014_000000000042.jpg", "train2017/000000000042.jpg"),
        ("COCO_val2014_000000000042", "val2017/000000000042.jpg"),
        ("000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg"),
    ],
)
def test_names_of_2014_and_of_2017_are_one(tmp_path, paint, put, listed, there):
    images = paint("coco", there, "val2017/000000000043.jpg")
    src = put("elsewhere/captions.json", coco((42, listed)))
    run_import("coco", src, tmp_path / "data", images)
    loaded = dataset.load(tmp_path / "data")
    assert [loaded.path(p) for p in loaded.pictures] == [images / there]


def test_coco_of_boxes_is_told_apart(tmp_path, paint, put):
    images = paint("i", "a.jpg")
    data = coco((1, "a.jpg"))
    data["annotations"] = [{"image_id": 1, "bbox": [0, 0, 1, 1]}]
    with pytest.raises(DataError, match="boxes"):
        run_import("coco", put("instances.json", data), tmp_path / "data", images)


def test_ai_challenger(tmp_path, paint, put, rows):
    paint("src/caption_validation_images_20170910", "x.jpg")
    data = [{"url": "http://x", "image_id": "x.jpg", "caption": ["一个人在跑步", "跑步的人"]}, {"url": "y"}]
    put("src/caption_validation_annotations_20170910.json", data)
    report = run_import("ai-challenger", tmp_path / "src", tmp_path / "data")
    assert (report.added, report.languages, report.splits) == (1, {"zh": 2}, {"val": 1})
    assert rows()["x.jpg"]["captions"] == ["一个人在跑步", "跑步的人"]


def test_cuhk_pedes_groups_by_person(tmp_path, paint, put, rows):
    names = ["CUHK01/1.png", "CUHK01/2.png", "Market/1.png"]
    paint("src/imgs", *names)
    data = [
        {"split": "train", "captions": ["A man."], "file_path": names[0], "id": 7, "processed_tokens": [["a", "man"]]},
        {"split": "train", "processed_tokens": [["a", "tall", "man"]], "file_path": names[1], "id": 7},
        {"split": "test", "captions": ["A woman."], "file_path": names[2], "id": 8},
    ]
    report = run_import("cuhk-pedes", put("src/reid_raw.json", data), tmp_path / "data")
    assert report.splits == {"train": 2, "test": 1}
    found = dataset.load(tmp_path / "data").pictures
    assert [p.group for p in found] == ["person-7", "person-7", "person-8"]
    assert found[1].captions[0].text == "a tall man"
    bare = [{key: value for key, value in item.items() if key != "split"} for item in data]
    run_import("cuhk-pedes", put("src/caption_all.json", bare), tmp_path / "all")
    drawn = dataset.load(tmp_path / "all").pictures
    assert drawn[0].split == drawn[1].split is not None  # one person, one split


@pytest.mark.parametrize(
    ("format", "content"),
    [
        ("karpathy", "[1, 2]"),
        ("karpathy", '{"images": [{"filename": "a.jpg"}]}'),
        ("karpathy", '{"images": ['),
        ("coco", '{"images": [3], "annotations": [4]}'),
        ("ai-challenger", "{}"),
        ("cuhk-pedes", '{"a": 1}'),
        ("flickr8k", "one word a line\nlike this\n"),
        ("flickr8k-cn", "nothing\n"),
    ],
)
def test_another_layout_is_one_line(tmp_path: Path, put, format, content):
    src = put("src.json", content)
    with pytest.raises(DataError) as error:
        run_import(format, src, tmp_path / "data")
    assert str(src) in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()
