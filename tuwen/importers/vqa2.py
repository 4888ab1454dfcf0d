"""VQA v1 and v2: `v2_OpenEnded_mscoco_train2014_questions.json`, `v2_mscoco_train2014_annotations.json`.

(Goyal et al. 2017.) Answers are kept as the ten annotators typed them: to normalise is the scorer's work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuwen.errors import DataError
from tuwen.importers.common import (
    Imported,
    ImportOptions,
    Rows,
    choose,
    guess_split,
    need,
    read_json,
    split_name,
)
from tuwen.importers.locate import guess_folders


def read_vqa2(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their questions, from one or more parts, and answers from the annotations given or beside."""
    paths = choose(src, (r"[^/]*questions[^/]*\.json", r"[^/]*\.json"), "*_questions.json", many=True)
    rows, folders = Rows(), []
    answers = _read_answers(_annotations(paths, options))
    for path in paths:
        data = read_json(path)
        need(isinstance(data, dict) and isinstance(data.get("questions"), list), path, '{"questions": [...]}')
        part = str(data.get("data_subtype") or "")
        if not answers and "test" not in f"{part} {path.stem}":
            rows.skipped.add("answers: no annotations beside; name them with --annotations", path.name)
        for number, item in enumerate(data["questions"]):
            if "image_id" not in item or "question" not in item:
                rows.skipped.add("no image_id or no question", f"{path.name}: questions[{number}]")
                continue
            split = split_name(item.get("split")) or guess_split(part) or guess_split(path.stem)
            row = rows.add(_picture_name(item["image_id"], part), split=split, id=str(item["image_id"]))
            _ask(rows, row, item, answers)
        folders += guess_folders(path.parent)
    return Imported("vqa2", rows.pictures, folders, rows.skipped)


def _ask(rows: Rows, row: Any, item: dict[str, Any], answers: dict[str, dict[str, Any]]) -> None:
    number = str(item["question_id"]) if "question_id" in item else None
    note = answers.get(number or "", {})
    if answers and not note:
        rows.skipped.add("answers of a question (it is kept without)", f"question_id {number}")
    said = [str(one["answer"] if isinstance(one, dict) else one) for one in note.get("answers") or []]
    said = said or [str(note[key]) for key in ("multiple_choice_answer", "answer") if note.get(key)][:1]
    extra = {"answer_type": note["answer_type"]} if "answer_type" in note else {}
    rows.ask(row, str(item["question"]), said, id=number, question_type=note.get("question_type"), **extra)


def _picture_name(image: Any, part: str) -> str:
    """`COCO_train2014_000000000009.jpg`; 2017's names without the prefix are found too (`locate.COCO`)."""
    text = str(image)
    if not text.isdigit():
        return text
    return f"COCO_{part}_{int(text):012d}.jpg" if part else f"{int(text):012d}.jpg"


def _annotations(paths: list[Path], options: ImportOptions) -> list[Path]:
    if options.annotations:
        given = []
        for path in options.annotations:
            given += choose(path, (r"[^/]*annotations[^/]*\.json",), "*_annotations.json", many=True)
        return given
    beside = []
    for path in paths:
        want = guess_split(path.stem)
        for other in sorted(path.parent.glob("*annotations*.json")):
            if guess_split(other.stem) == want and other not in paths:
                beside.append(other)
    return list(dict.fromkeys(beside))


def _read_answers(paths: list[Path]) -> dict[str, dict[str, Any]]:
    answers: dict[str, dict[str, Any]] = {}
    for path in paths:
        data = read_json(path)
        notes = data.get("annotations") if isinstance(data, dict) else None
        need(isinstance(notes, list), path, '{"annotations": [...]}')
        for note in notes or []:
            if "question_id" not in note:
                raise DataError(f"{path}: an annotation without question_id; is it VQA's file of annotations?")
            answers[str(note["question_id"])] = note
    return answers
