"""VQA v1 and v2: `v2_OpenEnded_mscoco_train2014_questions.json`, `v2_mscoco_train2014_annotations.json`.

(Goyal et al. 2017.) Answers are kept as the ten annotators typed them: to normalise is the scorer's work.
"""

from __future__ import annotations

import re
from glob import escape
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
from tuwen.records import Picture


def read_vqa2(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their questions, from one or more parts, and answers from the annotations given or beside.

    Questions without answers (those of `test`) are kept; one that two files hold (test and test-dev, open-ended and
    multiple choice) comes once.
    """
    paths = choose(src, (r"[^/]*questions[^/]*\.json", r"[^/]*\.json"), "*_questions.json", many=True)
    rows, folders, seen = Rows(), [], set[str]()
    answers = _read_answers(_annotations(src, paths, options))
    for path in paths:
        data = read_json(path)
        need(isinstance(data, dict) and isinstance(data.get("questions"), list), path, '{"questions": [...]}')
        kind, part = _part(data, path)
        split = guess_split(part) or guess_split(path.stem)
        if not answers and split != "test":
            rows.skipped.add("answers: no annotations beside; name them with --annotations", path.name)
        for number, item in enumerate(data["questions"]):
            if "image_id" not in item or "question" not in item:
                rows.skipped.add("no image_id or no question", f"{path.name}: questions[{number}]")
                continue
            if str(item.get("question_id")) in seen:
                rows.skipped.add("a question that another file has too", f"question_id {item['question_id']}")
                continue
            seen.update([str(item["question_id"])] if "question_id" in item else ())
            own = split_name(item.get("split")) or split
            row = rows.add(_picture_name(item["image_id"], kind, part), split=own, id=str(item["image_id"]))
            _ask(rows, row, item, answers, own != "test")
        folders += guess_folders(path.parent)
    return Imported("vqa2", rows.pictures, folders, rows.skipped)


def _part(data: dict[str, Any], path: Path) -> tuple[str, str]:
    """The kind of pictures, and the part of them that their names hold: test-dev's are test's."""
    kind, part = str(data.get("data_type") or ""), str(data.get("data_subtype") or "")
    found = re.search(r"(?:train|val|test)(?:-dev)?20\d\d", part or path.stem)
    return kind, (found[0] if found else part).replace("-dev", "")


def _ask(rows: Rows, row: Picture, item: dict[str, Any], answers: dict[str, dict[str, Any]], due: bool) -> None:
    """Add a question with its answers; `due`: that it has none is worth telling."""
    number = str(item["question_id"]) if "question_id" in item else None
    note = answers.get(number or "", {})
    if answers and not note and due:
        rows.skipped.add("answers of a question (it is kept without)", f"question_id {number}")
    said = [str(one["answer"] if isinstance(one, dict) else one) for one in note.get("answers") or []]
    said = said or [str(note[key]) for key in ("multiple_choice_answer", "answer") if note.get(key)][:1]
    extra = {"answer_type": note["answer_type"]} if "answer_type" in note else {}
    rows.ask(row, str(item["question"]), said, id=number, question_type=note.get("question_type"), **extra)


def _picture_name(image: Any, kind: str, part: str) -> str:
    """`COCO_train2014_000000000009.jpg`; 2017's names without the prefix are found too (`locate.COCO`). Of drawings
    `abstract_v002_train2015_000000000009.png`."""
    text = str(image)
    if not text.isdigit():
        return text
    if kind.startswith("abstract"):
        return f"{kind}_{part}_{int(text):012d}.png"
    return f"COCO_{part}_{int(text):012d}.jpg" if part else f"{int(text):012d}.jpg"


def _annotations(src: Path, paths: list[Path], options: ImportOptions) -> list[Path]:
    """Those named, or of each part those beside it or, as the makers lay them, in a folder of SRC or beside its own."""
    if options.annotations:
        given = []
        for path in options.annotations:
            given += choose(path, (r"[^/]*annotations[^/]*\.json",), "*_annotations.json", many=True)
        return given
    inside = [child for child in sorted(src.iterdir()) if child.is_dir()] if src.is_dir() else []
    found: list[Path] = []
    for path in paths:
        folders, split = dict.fromkeys((path.parent, *inside)), guess_split(path.stem)
        name = re.sub("(?:OpenEnded|MultipleChoice)_", "", path.name).replace("questions", "annotations")
        exact = [folder / name for folder in folders if name != path.name and (folder / name).is_file()]
        near = [other for folder in folders for other in sorted(folder.glob("*annotations*.json"))]
        near = [other for other in near if guess_split(other.stem) == split and other not in paths]
        # As the archives unpack: v2_Questions_Val_mscoco beside v2_Annotations_Val_mscoco. Version 1's, which numbers
        # other questions alike, may lie there too: only of the very name.
        beside = sorted(path.absolute().parent.parent.glob(f"*/{escape(name)}")) if split and name != path.name else []
        found += exact or near or beside
    return list(dict.fromkeys(found))


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
