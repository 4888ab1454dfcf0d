"""easy-VQA: `train/questions.json` and `test/questions.json`, `[[question, answer, picture], ...]`, pictures in
`train/images/0.png` (Zhou 2019; inside the package `easy-vqa` its folder is `data`)."""

from __future__ import annotations

from pathlib import Path

from tuwen.errors import DataError
from tuwen.importers.common import Imported, ImportOptions, Rows, guess_split, need, read_json


def read_easy_vqa(src: Path, options: ImportOptions) -> Imported:
    """Drawings with their questions, one answer each."""
    base, paths = _find(src)
    rows = Rows()
    for path in paths:
        data = read_json(path)
        need(isinstance(data, list), path, "[[question, answer, picture], ...]")
        folder = path.parent.relative_to(base).as_posix()
        for number, item in enumerate(data):
            if not isinstance(item, list) or len(item) != 3:
                rows.skipped.add("not [question, answer, picture]", f"{path.parent.name}/{path.name}: [{number}]")
                continue
            question, answer, picture = item
            name = f"{folder}/images/{picture}.png".removeprefix("./")
            kind = "yes/no" if str(answer) in ("yes", "no") else "other"
            row = rows.add(name, split=guess_split(path.parent.name))
            rows.ask(row, str(question), [str(answer)], question_type=kind)
    return Imported("easy-vqa", rows.pictures, [base, *(path.parent for path in paths)], rows.skipped)


def _find(src: Path) -> tuple[Path, list[Path]]:
    """The folder that holds `train` and `test`, and their files of questions."""
    if src.is_file():
        return src.parent.parent, [src]
    for base in (src, src / "data", src / "easy_vqa" / "data"):
        paths = sorted(base.glob("*/questions.json"))
        if paths:
            return base, paths
    if (src / "questions.json").is_file():
        return src.parent, [src / "questions.json"]
    raise DataError(f"{src}: no train/questions.json in it; name the package's data folder as SRC")
