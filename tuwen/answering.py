"""Answers of files: which questions are asked, what is written of an answer, and where the model looked."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuwen import dataset, images, viz
from tuwen.errors import DataError
from tuwen.files import write_atomic

if TYPE_CHECKING:
    from tuwen.pipelines import Answer


@dataclass(frozen=True)
class Row:
    """A question about a picture: its file as it was named, where that lies, and the id of the question, if any."""

    file: str
    path: Path
    question: str
    id: str | int | None = None


def read_rows(path: Path) -> list[Row]:
    """The rows `{file, question}` of a JSON lines file, paths relative to it.

    Raises:
        DataError: no such file, no row in it, or a line that is none; the line is named.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); write a JSON object a line") from None
    rows = [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise DataError(f'{path}: no question in it; write a line each: {{"file": "a.jpg", "question": "what is it?"}}')
    return rows


def _row(path: Path, number: int, line: str) -> Row:
    try:
        body = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}:{number}: not JSON ({error}); write {{file, question}}") from None
    if not isinstance(body, dict):
        raise DataError(f"{path}:{number}: not a JSON object; write {{file, question}}")
    for key in ("file", "question"):
        if not isinstance(body.get(key), str) or not body[key].strip():
            raise DataError(f"{path}:{number}: no {key}; a row is {{file, question}}, both texts")
    id_ = body.get("id")
    return Row(body["file"], path.parent / body["file"], body["question"], id_ if isinstance(id_, str | int) else None)


def as_dict(answer: Answer, file: str | None = None, drawn: str | None = None) -> dict[str, Any]:
    """An answer as the JSON contract has it. `attention`: `weights` of the cells of `rows` x `columns`, row by row, or
    of `boxes` (xyxy, pixels), and `file`, where it was drawn."""
    gaze, attention = answer.attention, None
    if gaze is not None:
        rows, columns = gaze.grid or (None, None)
        attention = {
            "rows": rows,
            "columns": columns,
            "boxes": None if gaze.boxes is None else np.asarray(gaze.boxes, float).round(1).tolist(),
            "weights": [round(weight, 5) for weight in gaze.weights.tolist()],
            "file": drawn,
        }
    return {
        "file": answer.file if file is None else file,
        "question": answer.question,
        "sure": answer.sure,
        "best": [{"text": one.text, "score": round(one.score, 4)} for one in answer.best],
        "attention": attention,
    }


def draw_attention(answer: Answer, path: Path, folder: Path, taken: Iterable[str]) -> str | None:
    """Write the picture, lit where the model looked, as a JPEG into a folder; its path, named as the picture, other
    than those `taken`. None where the model has no attention."""
    gaze = answer.attention
    if gaze is None:
        return None
    name = dataset.free_name(path.stem, [Path(one).stem for one in taken])
    lit = viz.attention_overlay(images.open_image(path), gaze.weights, gaze.grid, gaze.boxes)
    write_atomic(folder / f"{name}.jpg", jpeg(lit))
    return str(folder / f"{name}.jpg")


def jpeg(picture: Any) -> bytes:
    """A PIL picture as JPEG."""
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()
