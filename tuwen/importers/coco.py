"""COCO Captions, `captions_train2014.json`, and all captions in its layout (Chen et al. 2015).

`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from tuwen.importers.common import (
    Imported,
    ImportOptions,
    Rows,
    choose,
    guess_split,
    need,
    read_captions,
    read_json,
    split_name,
)
from tuwen.importers.locate import guess_folders


def read_coco(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their captions; the split is the one that the file's name speaks of (`--split` fills it in)."""
    paths = choose(src, (r"[^/]*captions?_[^/]*\.json", r"[^/]*\.json"), "captions_*.json", many=True)
    rows, folders = Rows(), []
    for path in paths:
        data = read_json(path)
        whole = isinstance(data, dict) and isinstance(data.get("images"), list)
        need(whole and isinstance(data.get("annotations"), list), path, '{"images": [...], "annotations": [...]}')
        _read_part(path, data, rows)
        folders += guess_folders(path.parent)
    return Imported("coco", rows.pictures, folders, rows.skipped)


def _read_part(path: Path, data: dict[str, Any], rows: Rows) -> None:
    names: dict[str, str] = {}
    said = 0
    for number, image in enumerate(data["images"]):
        name = image.get("file_name") or PurePosixPath(image.get("coco_url") or image.get("flickr_url") or "").name
        if not name or "id" not in image:
            rows.skipped.add("no file_name or no id", f"{path.name}: images[{number}]")
            continue
        names[str(image["id"])] = name
        rows.add(name, split=split_name(image.get("split")) or guess_split(path.stem), id=str(image["id"]))
    for number, note in enumerate(data["annotations"]):
        name = names.get(str(note.get("image_id")))
        if name is None:
            rows.skipped.add("caption of a picture that is not listed", f"{path.name}: annotations[{number}]")
        elif isinstance(note.get("caption"), str):
            said += 1
            rows.add(name, read_captions(note["caption"]))
        else:
            rows.skipped.add("annotation without a caption", f"{path.name}: annotations[{number}]")
    need(said or not data["annotations"], path, "annotations with a caption; are these boxes?")
