"""Captions of files and folders: which pictures, what is written about them, and where the model looked."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from tuwen import __version__, dataset, images, viz
from tuwen.dataset import ROWS, Dataset
from tuwen.errors import ConfigError, DataError
from tuwen.files import write_atomic
from tuwen.importers.merging import join
from tuwen.listing import list_pictures
from tuwen.records import Caption, Picture

if TYPE_CHECKING:
    from tuwen.pipelines import Described, Describer

SUFFIXES = (".json", ".csv")


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Files as they are given, and the pictures of folders and of all folders below them, in order; each once.

    Raises:
        DataError: a folder holds no picture.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        here = path.absolute()
        files = sorted(one.file for one in list_pictures(here).found.values())
        if not files:
            raise DataError(f"{path}: no picture in this folder or below it; name a folder that has some")
        found.update((path / file.relative_to(here) if file.is_relative_to(here) else file, None) for file in files)
    return list(found)


def check_out(path: Path) -> None:
    """ConfigError where `write` could not write this file: asked before the work."""
    if path.name != ROWS and path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: captions are written as .json, .csv or {ROWS}: name one of these")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}: make it first")


def write(path: Path, described: Sequence[Described], model: str, every: bool = False) -> str:
    """Captions as `.json` (the contract of `tuwen caption`), `.csv`, or rows of a data set; what was written, in words.

    `every`: a data set gets all texts of a picture, not the best alone. Its captions have the source `model:NAME`;
    what is in a `metadata.jsonl` already stays as it is, and a caption that is there is not added again.

    Raises:
        DataError: a `metadata.jsonl` that is there cannot be read.
    """
    if path.name == ROWS:
        return _add_rows(path, described, model, every)
    rows = [as_dict(one) for one in described]
    if path.suffix == ".csv":
        write_atomic(path, "\ufeff" + _as_csv(rows))  # the mark tells Excel that it is UTF-8
    else:
        body = {"version": __version__, "warnings": [], "captions": rows, "model": model}
        write_atomic(path, json.dumps(body, ensure_ascii=False, indent=2) + "\n")
    return f"captions of {len(rows):,} pictures"


def as_dict(described: Described) -> dict[str, Any]:
    """A picture's captions as the JSON contract has them; scores are log probabilities, normalised by length."""
    texts = [
        {
            "text": one.text,
            "score": round(one.score, 4),
            "words": [{"word": word, "score": round(score, 4)} for word, score in one.words],
        }
        for one in described.texts
    ]
    return {"file": described.file, "lang": described.lang, "texts": texts}


def draw_attention(pipeline: Describer, described: Described, folder: Path, taken: Iterable[str]) -> str | None:
    """Write a PNG with a panel a word of the best caption: the picture, bright where the model looked as it said it.

    Its path, `folder` and the picture's name, other than those `taken`; None where the caption is empty.
    ModelError where the model has no attention.
    """
    if not described.texts or not described.texts[0].text:
        return None
    words, maps = pipeline.attention(described.file, described.texts[0].text, described.lang)
    picture = images.open_image(described.file)
    if pipeline.view.kind == "center":  # the maps lie over what the model saw
        picture = Image.fromarray(images.load_pil(picture, viz.PANEL, pipeline.view))
    name = dataset.free_name(Path(described.file).stem, [Path(path).stem for path in taken])
    write_atomic(folder / f"{name}.png", viz.attention_sheet(picture, words, maps))
    return str(folder / f"{name}.png")


def _as_csv(rows: Iterable[dict[str, Any]]) -> str:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(("file", "lang", "rank", "score", "text"))
    for row in rows:
        for rank, one in enumerate(row["texts"], 1):
            table.writerow((row["file"], row["lang"], rank, one["score"], one["text"]))
    return out.getvalue()


def _add_rows(path: Path, described: Sequence[Described], model: str, every: bool) -> str:
    folder = path.absolute().parent
    manifest = dataset.read_manifest(folder)
    old = dataset.read(folder) if path.is_file() else Dataset(folder, manifest, [])
    files = [Path(os.path.normpath(Path(one.file).absolute())) for one in described]
    away = [file.parent for file in files if not file.is_relative_to(folder)]
    own, root = manifest.model_copy(deep=True), None
    if away:
        place = Path(os.path.commonpath(away))
        root = dataset.add_root(own, folder, place)
    pictures = []
    for one, file in zip(described, files, strict=True):
        texts = one.texts if every else one.texts[:1]
        captions = [Caption(text=text.text, lang=one.lang, source=f"model:{model}") for text in texts if text.text]
        inside = file.is_relative_to(folder)
        name = file.relative_to(folder if inside else place).as_posix()
        pictures.append(Picture(file_name=name, root=None if inside else root, captions=captions))
    made, done = join(old, Dataset(folder, own, pictures))
    dataset.save(made)
    return f"{done.captions:,} new captions; {done.added:,} pictures added, {done.met:,} were there"
