"""The layouts of questions: vqa2, easy-vqa, daquar."""

from __future__ import annotations

import json

import pytest

from tuwen.errors import DataError
from tuwen.importers import run_import


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


def test_daquar_cut_short(tmp_path, put):
    src = put("qa.894.raw.test.txt", "what is on the desk in the image3 ?\nbook\nand then?\n")
    with pytest.raises(DataError, match="3 lines"):
        run_import("daquar", src, tmp_path / "data")
