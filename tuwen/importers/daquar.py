"""DAQUAR: questions about rooms, one annotator each (Malinowski and Fritz 2014).

Three layouts: the original `qa.894.raw.train.txt` (a question line that names its picture, then an answer line), CSV
`question,answer,image_id`, and JSON `[{"image", "question", "answer", "question_id"}]`. An answer that lists several
things stays one string, `"book, scissor"`: it is what one annotator said, and exact match and WUPS read it so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
    read_lines,
    read_table,
    split_name,
)
from tuwen.importers.locate import guess_folders

NAMES = (r"daquar[^/]*\.json", r"qa\.[^/]*(?:train|test)[^/]*\.txt", r"data[^/]*\.csv", r"[^/]*\.(?:json|csv)")
CLASSES = re.compile(r"qa\.(\d+)\.")
ASIDE = re.compile(r"\s*\b(?:in|on|of|at)?\s*(?:the\s+)?(image_?\d+)\b", re.IGNORECASE)


def read_daquar(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their questions; train or test by the file's name, or by its own key."""
    paths, rows, folders = choose(src, NAMES, "daquar_*.json or qa.*.txt", many=True), Rows(), []
    if any(re.search(r"(?:train|test)", path.stem) for path in paths):  # a CSV of both would give each question twice
        paths = [path for path in paths if re.search(r"(?:train|test|val)", path.stem)]
    sizes = {path: int(found[1]) for path in paths if (found := CLASSES.match(path.name))}
    if sizes:  # the questions of 37 classes are among those of 894
        for path in [path for path in paths if sizes.get(path, 0) < max(sizes.values())]:
            rows.skipped.add(f"fewer classes than the {max(sizes.values())} of the others", path.name)
            paths.remove(path)
    for path in paths:
        for where, item in _read(path):
            picture, question = str(item.get("image") or item.get("image_id") or ""), str(item.get("question") or "")
            answer = item.get("answer", item.get("answers"))
            answer = ", ".join(map(str, answer)) if isinstance(answer, list) else answer
            if not picture or not question or answer in (None, ""):
                rows.skipped.add("no picture, question or answer", f"{path.name}:{where}")
                continue
            name = f"image{picture}" if picture.isdigit() else picture
            row = rows.add(name, split=split_name(item.get("split")) or guess_split(path.stem))
            number = item.get("question_id", item.get("id"))
            rows.ask(row, question, [str(answer)], id=str(number) if number is not None else None)
        folders += guess_folders(path.parent)
    return Imported("daquar", rows.pictures, folders, rows.skipped)


def _read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbered items of one file, as `image`, `question`, `answer`."""
    if path.suffix.lower() == ".json":
        data = read_json(path)
        need(
            isinstance(data, list) and all(isinstance(item, dict) for item in data), path, "[{image, question, answer}]"
        )
        yield from enumerate(data)
    elif path.suffix.lower() in (".csv", ".tsv"):
        head, *table = read_table(path) or [[]]
        names = [cell.lower() for cell in head]
        need({"question", "answer"} <= set(names), path, "a header question,answer,image_id")
        for number, row in enumerate(table, 2):
            yield number, dict(zip(names, row, strict=False))
    else:
        lines = list(read_lines(path))
        if len(lines) % 2:
            raise DataError(f"{path}: {len(lines)} lines, but each question needs an answer below it; is it whole?")
        for (number, question), (_, answer) in zip(lines[::2], lines[1::2], strict=True):
            found = ASIDE.findall(question)
            text = re.sub(r"\s+\?", "?", ASIDE.sub("", question)).strip()
            yield number, {"image": found[-1] if found else "", "question": text, "answer": answer.strip()}
