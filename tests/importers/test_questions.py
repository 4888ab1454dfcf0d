"""The layouts of questions: vqa2, easy-vqa, daquar."""

from __future__ import annotations

import json

import pytest

from tuwen import dataset
from tuwen.errors import DataError
from tuwen.importers import run_import
from tuwen.importers.common import guess_split


def vqa(part: str, first: int) -> tuple[dict, dict]:
    questions = [
        {"image_id": 9, "question": "What is it?", "question_id": first},
        {"image_id": 9, "question": "Is it red?", "question_id": first + 1},
    ]
    said = ["Yes", "yes", "no"]
    notes = [
        {
            "question_id": first + 1,
            "image_id": 9,
            "question_type": "is it",
            "answer_type": "yes/no",
            "multiple_choice_answer": "yes",
            "answers": [{"answer": text, "answer_id": i} for i, text in enumerate(said)],
        }
    ]
    return {"questions": questions, "data_subtype": part}, {"annotations": notes}


def test_vqa2(tmp_path, paint, put, rows):
    paint("v/train2014", "COCO_train2014_000000000009.jpg")
    paint("v/val2014", "COCO_val2014_000000000009.jpg")
    for part, first in (("train", 10), ("val", 20)):
        questions, notes = vqa(f"{part}2014", first)
        put(f"v/v2_OpenEnded_mscoco_{part}2014_questions.json", questions)
        put(f"v/v2_mscoco_{part}2014_annotations.json", notes)
    report = run_import("vqa2", tmp_path / "v", tmp_path / "data")
    assert (report.added, report.questions, report.splits) == (2, 4, {"train": 1, "val": 1})
    qa = rows()["COCO_train2014_000000000009.jpg"]["qa"]
    assert qa[0] == {"question": "What is it?", "id": "10"}
    assert qa[1]["answers"] == ["Yes", "yes", "no"]  # as they were typed
    assert (qa[1]["question_type"], qa[1]["answer_type"]) == ("is it", "yes/no")
    assert report.skipped[0]["count"] == 2


def test_vqa2_answers_that_come_later(tmp_path, paint, put, rows):
    images = paint("p", "000000000009.jpg")  # 2017's name
    questions, notes = vqa("val2014", 10)
    src, answers = put("q/questions.json", questions), put("a/annotations.json", notes)
    report = run_import("vqa2", src, tmp_path / "data", images)
    assert (report.questions, report.skipped[0]["why"].split(":")[0]) == (2, "answers")
    report = run_import("vqa2", src, tmp_path / "data", images, annotations=answers)
    assert (report.questions, report.questions_added) == (2, 0)
    qa = rows()["000000000009.jpg"]["qa"]
    assert ["answers" in question for question in qa] == [False, True]
    with pytest.raises(DataError, match="--annotations"):
        run_import("vqa2", src, tmp_path / "data", images, annotations=tmp_path / "none.json")


def test_vqa2_as_its_makers_lay_it(tmp_path, paint, put, rows):
    """Questions and annotations in folders of their own; a test part without answers; its test-dev a part of it."""
    paint("v/Images/train2014", "COCO_train2014_000000000009.jpg")
    paint("v/Images/test2015", "COCO_test2015_000000000001.jpg", "COCO_test2015_000000000002.jpg")
    questions, notes = vqa("train2014", 10)
    put("v/Questions/v2_OpenEnded_mscoco_train2014_questions.json", questions)
    put("v/Questions/v2_MultipleChoice_mscoco_train2014_questions.json", questions)  # the same, with choices
    put("v/Annotations/v2_mscoco_train2014_annotations.json", notes)
    asked = [{"image_id": i, "question": "What is it?", "question_id": 100 + i} for i in (1, 2)]
    put("v/Questions/v2_OpenEnded_mscoco_test2015_questions.json", {"questions": asked, "data_subtype": "test2015"})
    dev = {"questions": asked[:1], "data_subtype": "test-dev2015"}
    put("v/Questions/v2_OpenEnded_mscoco_test-dev2015_questions.json", dev)
    report = run_import("vqa2", tmp_path / "v", tmp_path / "data", tmp_path / "v/Images")
    assert (report.added, report.questions, report.splits) == (3, 4, {"train": 1, "test": 2})
    found = rows()
    assert [q.get("answers") for q in found["COCO_train2014_000000000009.jpg"]["qa"]] == [None, ["Yes", "yes", "no"]]
    assert [q["id"] for q in found["COCO_test2015_000000000001.jpg"]["qa"]] == ["101"]
    assert {item["why"]: item["count"] for item in report.skipped} == {
        "a question that another file has too": 3,
        "answers of a question (it is kept without)": 1,  # of train alone: of test nobody expects any
    }
    alone = run_import(
        "vqa2",
        tmp_path / "v/Questions/v2_OpenEnded_mscoco_test-dev2015_questions.json",
        tmp_path / "dev",
        tmp_path / "v/Images",
    )
    assert (alone.splits, alone.skipped) == ({"test": 1}, [])


def test_vqa2_as_its_archives_unpack(tmp_path, paint, put, rows):
    images = paint("p", "COCO_val2014_000000000009.jpg")
    questions, notes = vqa("val2014", 10)
    src = put("v/v2_Questions_Val_mscoco/v2_OpenEnded_mscoco_val2014_questions.json", questions)
    put("v/v2_Annotations_Val_mscoco/v2_mscoco_val2014_annotations.json", notes)
    first = {"annotations": [{**notes["annotations"][0], "answers": [{"answer": "of version 1"}]}]}
    put("v/Annotations_Val_mscoco/mscoco_val2014_annotations.json", first)
    together = put("all/v2_OpenEnded_mscoco_val2014_questions.json", questions)
    put("all/v2_mscoco_val2014_annotations.json", notes)
    put("all/zzz_mscoco_val2014_annotations.json", first)  # version 1 numbers other questions alike
    for number, source in enumerate((src, src.parent, together, together.parent)):
        run_import("vqa2", source, tmp_path / f"data{number}", images)
        qa = rows(tmp_path / f"data{number}")["COCO_val2014_000000000009.jpg"]["qa"]
        assert [q.get("answers") for q in qa] == [None, ["Yes", "yes", "no"]]


def test_vqa2_with_all_annotations_in_the_folder_beside(tmp_path, paint, put):
    for part, first in (("train2014", 10), ("val2014", 20)):
        paint("p", f"COCO_{part}_000000000009.jpg")
        questions, notes = vqa(part, first)
        put(f"v/Questions/v2_OpenEnded_mscoco_{part}_questions.json", questions)
        put(f"v/Annotations/v2_mscoco_{part}_annotations.json", notes)
    run_import("vqa2", tmp_path / "v/Questions", tmp_path / "data", tmp_path / "p")
    answered = [q.id for p in dataset.load(tmp_path / "data").pictures for q in p.qa if q.answers]
    assert answered == ["11", "21"]


def test_vqa_of_drawings(tmp_path, paint, put, rows):
    paint("p", "abstract_v002_train2015_000000000007.png")
    asked = [{"image_id": 7, "question": "Who is it?", "question_id": 70}]
    about = {"data_type": "abstract_v002", "data_subtype": "train2015"}
    src = put("OpenEnded_abstract_v002_train2015_questions.json", {"questions": asked, **about})
    assert run_import("vqa2", src, tmp_path / "data", tmp_path / "p").splits == {"train": 1}
    assert rows()["abstract_v002_train2015_000000000007.png"]["id"] == "7"


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("captions_val2014", "val"),
        ("v2_OpenEnded_mscoco_test-dev2015_questions", "test"),
        ("test_std", "test"),
        ("dev", "val"),
        ("my_testing", None),
        ("latest", None),
    ],
)
def test_splits_by_name(name, split):
    assert guess_split(name) == split


def test_easy_vqa_keeps_same_names_apart(tmp_path, paint, put, rows):
    paint("data", "train/images/0.png", "test/images/0.png", "test/images/1.png")
    put("data/train/questions.json", [["what shape?", "circle", 0], ["is it red?", "no", 0], ["lost?", "yes", 1]])
    put("data/test/questions.json", [["what shape?", "square", 0], ["odd"]])
    report = run_import("easy-vqa", tmp_path / "data", tmp_path / "out")
    assert (report.added, report.questions, report.splits) == (2, 3, {"train": 1, "test": 1})
    # train's absent 1.png is not mistaken for test's.
    assert {item["why"] for item in report.skipped} == {
        "no such picture on disk",
        "not [question, answer, picture]",
    }
    put("wheel/easy_vqa/data/test/questions.json", [["what?", "x", 0]])
    paint("wheel/easy_vqa/data", "test/images/0.png")
    assert run_import("easy-vqa", tmp_path / "wheel", tmp_path / "out2").added == 1


ROOM = {"question_id": 3, "image": "image3.png", "question": "what is on the desk?", "answer": "book, scissor"}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("daquar_train.json", json.dumps([ROOM | {"answers": ["book", "scissor"]}])),
        ("data_train.csv", 'question,answer,image_id\nwhat is on the desk?,"book, scissor",image3\n'),
        ("qa.894.raw.train.txt", "what is on the desk in the image3 ?\r\nbook, scissor\r\n"),
    ],
)
def test_daquar(tmp_path, paint, put, rows, name, text):
    paint("src/images", "image3.png")
    put(f"src/{name}", text)
    report = run_import("daquar", tmp_path / "src", tmp_path / "data")
    assert (report.added, report.questions, report.splits) == (1, 1, {"train": 1})
    question = rows()["image3.png"]["qa"][0]
    assert (question["question"], question["answers"]) == ("what is on the desk?", ["book, scissor"])


def test_daquar_of_fewer_classes_is_not_asked_twice(tmp_path, paint, put, rows):
    paint("src/images", "image3.png")
    for classes in (37, 894):
        put(f"src/qa.{classes}.raw.train.txt", "what is on the desk in the image3 ?\nbook\n")
    report = run_import("daquar", tmp_path / "src", tmp_path / "data")
    assert len(rows()["image3.png"]["qa"]) == 1
    assert report.skipped[0]["examples"] == ["qa.37.raw.train.txt"]


def test_daquar_cut_short(tmp_path, put):
    src = put("qa.894.raw.test.txt", "what is on the desk in the image3 ?\nbook\nand then?\n")
    with pytest.raises(DataError, match="3 lines"):
        run_import("daquar", src, tmp_path / "data")


def test_daquar_as_kaggle_has_it(tmp_path, paint, put):
    paint("dataset/images", "image3.png", "image6.png")
    head = "question,answer,image_id\n"
    put("dataset/data.csv", f"{head}what?,desk,image3\nwhere?,here,image6\n")
    put("dataset/data_train.csv", f"{head}what?,desk,image3\n")
    put("dataset/data_eval.csv", f"{head}where?,here,image6\n")
    report = run_import("daquar", tmp_path / "dataset", tmp_path / "data")
    assert (report.questions, report.splits) == (2, {"train": 1, "val": 1})
