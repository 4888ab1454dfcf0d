"""Hugging Face data sets: imagefolders with `metadata.jsonl|csv|parquet`, parquet shards, `save_to_disk` folders.

Only the last need the package `datasets` (extra `all`). Pictures that lie inside a table are written into the data
set, under the hash of their bytes: there is no file to point at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from tuwen.errors import DataError
from tuwen.importers.common import (
    CAPTION_KEYS,
    FILE_KEYS,
    Imported,
    ImportOptions,
    Rows,
    guess_split,
    need,
    read_captions,
    read_json,
    read_table,
    split_name,
)
from tuwen.records import Caption, Picture

CAPTION = re.compile(rf"(?:{'|'.join(CAPTION_KEYS)}|.*(?:caption|description)s?.*)(?:[ _-]?(?:\d+|en|zh|cn))?")
ABOUT = ("question_type", "answer_type", "multiple_choice_answer")  # columns that are of the question, as VQA's are
Row = dict[str, Any]
FORMATS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}


def read_huggingface(src: Path, options: ImportOptions) -> Imported:
    """Pictures with the captions, questions and splits that the tables hold."""
    folder = src if src.is_dir() else src.parent
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        return _read_tables(folder, _from_disk(folder), options)
    tables = [src] if src.is_file() else _metadata(folder, options.dest)
    if tables and tables[0].name.startswith("metadata."):
        return _read_imagefolder(folder, tables, options)
    shards = [src] if src.suffix == ".parquet" else sorted(folder.rglob("*.parquet"))
    if not shards:
        raise DataError(f"{src}: no metadata.jsonl, no parquet and no save_to_disk folder; is it FORMAT 'folder'?")
    return _read_tables(folder, ((_split(path), _parquet(path)) for path in shards), options)


def _split(shard: Path) -> str | None:
    """`train-00000-of-00002.parquet`, or `default/train/0000.parquet` as the hub converts all data."""
    return guess_split(shard.stem) or guess_split(shard.absolute().parent.name)


def _metadata(folder: Path, dest: Path) -> list[Path]:
    """The tables of an imagefolder: at the top, or in the folders of its splits; those of DEST inside it left out."""
    for pattern in ("metadata.*", "*/metadata.*", "*/*/metadata.*"):
        tables = [path for path in sorted(folder.glob(pattern)) if path.suffix in (".jsonl", ".csv", ".parquet")]
        found = [path for path in tables if path.parent == folder or path.parent.resolve() != dest.resolve()]
        if found:
            return found
    return []


def _read_imagefolder(folder: Path, tables: list[Path], options: ImportOptions) -> Imported:
    rows = Rows()
    for path in tables:
        below = path.parent.relative_to(folder).as_posix()
        for number, row in enumerate(_records(path), 1):
            key = next((key for key in FILE_KEYS if isinstance(row.get(key), str) and row[key]), None)
            if key is None:
                rows.skipped.add("no file_name", f"{path.relative_to(folder)}:{number}")
                continue
            name = f"{below}/{row.pop(key)}".removeprefix("./")
            captions = _take_captions(row)
            split = row.pop("split", None) or guess_split(name.rpartition("/")[0])
            _fill(rows, rows.add(name, captions, split=split_name(split)), row)
    return Imported(folder.absolute().name, rows.pictures, [options.images or folder.absolute()], rows.skipped)


def _records(path: Path) -> Iterable[Row]:
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".csv":
        head, *table = read_table(path, ",") or [[]]
        return [dict(zip(head, row, strict=False)) for row in table]
    data = read_json(path)
    data = data if isinstance(data, list) else [data]
    need(all(isinstance(row, dict) for row in data), path, "one JSON object a line")
    return data


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as parquet

    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=64):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{path}: not readable as parquet ({error}); is it whole?") from None


def _from_disk(folder: Path) -> Iterator[tuple[str | None, Iterable[Row]]]:
    try:
        import datasets
    except ImportError:
        raise DataError(f"{folder}: a save_to_disk folder needs one more package: pip install 'tuwen[all]'") from None
    try:
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # the package raises many kinds over a damaged folder
        why = " ".join(str(error).split())
        raise DataError(f"{folder}: not readable as a save_to_disk folder ({why}); is it whole?") from None
    alone = guess_split(folder.name) if (folder.absolute().parent / "dataset_dict.json").is_file() else None
    for split, table in found.items() if isinstance(found, dict) else [(alone, found)]:
        for column, kind in table.features.items():
            if isinstance(kind, datasets.Image):
                table = table.cast_column(column, datasets.Image(decode=False))  # bytes, not pixels
        yield split, table


def _read_tables(folder: Path, tables: Iterable[tuple[str | None, Iterable[Row]]], options: ImportOptions) -> Imported:
    rows, column = Rows(), None
    for split, table in tables:
        for number, row in enumerate(table):
            where = f"{split or 'row'}[{number}]"
            column = column or _picture_column(folder, row)
            name = _place(row.pop(column), options) if row.get(column) else "no picture"
            if name.startswith("no "):
                rows.skipped.add(name, where)
                continue
            captions = _take_captions(row)
            own = split_name(row.pop("split", None)) or split_name(split)
            _gather(rows, name, captions, own, row)
    return Imported(folder.absolute().name, rows.pictures, skipped=rows.skipped, made=True)


def _gather(rows: Rows, name: str, captions: list[Caption], split: str | None, row: Row) -> None:
    picture = rows.add(name, captions, split=split)
    if split and picture.split != split:
        rows.skipped.add(f"the picture is already in another split ({picture.split}); captions kept there", name)
    _fill(rows, picture, row)


def _picture_column(folder: Path, row: Row) -> str:
    found = [key for key, value in row.items() if isinstance(value, dict) and {"bytes", "path"} & set(value)]
    found = found or [key for key, value in row.items() if isinstance(value, bytes) and key.lower() in FILE_KEYS]
    if not found:
        raise DataError(f"{folder}: no column of pictures among {', '.join(row)}; cast one to datasets.Image()")
    return next((key for key in found if key.lower() in FILE_KEYS), found[0])


def _place(value: Row | bytes, options: ImportOptions) -> str:
    """Where the picture of a row lies: its path, or the file that its bytes were staged in; else `no ...`: why not."""
    value = {"bytes": value} if isinstance(value, bytes) else value
    data = value.get("bytes")
    if data is None:
        path = Path(value.get("path") or "")
        return str(path.absolute()) if path.is_file() else "no picture (its path does not exist here)"
    try:
        with Image.open(BytesIO(data)) as image:
            suffix = FORMATS.get(image.format or "", f".{(image.format or 'img').lower()}")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "no picture (its bytes are none)"
    name = f"images/{hashlib.sha256(data).hexdigest()[:16]}{suffix}"
    target = options.staging / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return name


def _take_captions(row: Row) -> list[Caption]:
    """The captions of a row, whose columns leave it; one that is named so but holds none stays."""
    captions: list[Caption] = []
    for key in [key for key in row if CAPTION.fullmatch(key.lower()) and isinstance(row[key], (str, list, dict))]:
        found = list(read_captions(row[key]))
        if found or not row[key]:
            del row[key]
        captions += found
    return captions


def _fill(rows: Rows, picture: Picture, row: Row) -> None:
    """Questions, `id` and `group` of a row; its other columns are kept as they are, or reported."""
    if isinstance(row.get("question"), str):
        question, number = row.pop("question"), row.pop("question_id", None)
        answers = row.pop("answers", None) or row.pop("answer", None)
        if isinstance(answers, dict):  # one list a key, as a table keeps a list of such
            answers = answers.get("answer", answers.get("text"))
        answers = answers if isinstance(answers, list) else [answers] if answers is not None else []
        said = [str(item.get("answer", "")) if isinstance(item, dict) else str(item) for item in answers]
        about = {key: str(row.pop(key)) for key in ABOUT if row.get(key) is not None}
        rows.ask(picture, question, said, id=str(number) if number is not None else None, **about)
    if isinstance(row.get("qa"), list):
        for item in row.pop("qa"):
            if isinstance(item, dict) and isinstance(item.get("question"), str):
                rows.ask(picture, **{**item, "answers": item.get("answers") or []})
            else:
                rows.skipped.add("an item of column 'qa' without a question", picture.file_name)
    for key in ("id", "group"):
        value = row.pop(key, None)
        if getattr(picture, key) is None and value is not None:
            setattr(picture, key, str(value))
    for key, value in row.items():
        if value is not None and (why := _keep(picture, key, value)):
            rows.skipped.add(f"column '{key}' {why}", picture.file_name)


def _keep(picture: Picture, key: str, value: Any) -> str | None:
    """Keep a column as an unknown key of the row; else say why not."""
    kept = picture.model_extra
    if kept is None or key in Picture.model_fields or key == "features":  # `features`: numbers of rows in a matrix
        return "is not kept: the name has a meaning of its own in a data set"
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return f"is not kept: a {type(value).__name__} that JSON has no form for"
    if kept.setdefault(key, value) != value:
        return "differs between rows of one picture (the first is kept)"
    return None
