"""COCO Captions, `captions_train2014.json`, and all captions in its layout (Chen et al. 2015).

`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`
"""

from __future__ import annotations

import re
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

PART = re.compile(r"(?<![a-z])(?:train|val|valid|validation|dev|test|unlabeled)(?:20\d\d)?(?![a-z\d])")


def read_coco(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their captions; the split is the one that the file's name speaks of (`--split` fills it in)."""
    paths = choose(src, (r"[^/]*captions?_[^/]*\.json", r"[^/]*\.json"), "captions_*.json", many=True)
    rows, folders = PartRows(), []
    for path in paths:
        data = read_json(path)
        if isinstance(data, dict) and path.name.startswith("image_info"):  # of a test nobody tells the captions
            data.setdefault("annotations", [])
        whole = isinstance(data, dict) and isinstance(data.get("images"), list)
        need(whole and isinstance(data.get("annotations"), list), path, '{"images": [...], "annotations": [...]}')
        _read_part(path, data, rows)
        part = _part(path)
        folders += sorted(guess_folders(path.parent), key=lambda folder: folder.name != part)  # its own folder first
    return Imported("coco", rows.pictures, folders, rows.skipped)


def _part(path: Path) -> str | None:
    """The folder of the pictures that a file's name speaks of: `captions_val2017.json` is of `val2017`."""
    found = PART.findall(path.stem.lower())
    return found[-1] if found else None


class PartRows(Rows):
    """Rows of several parts. Pictures of one `file_name` but two ids are told apart by the folders of their parts."""

    def __init__(self) -> None:
        super().__init__()
        self._owners: dict[str, dict[str, tuple[str | None, str]]] = {}  # file_name -> id -> (part, key of the row)

    def place(self, name: str, id: str, part: str | None) -> str | None:
        """The key to `add` a listed picture under, or None where it can't be told apart: then it is reported."""
        owners = self._owners.setdefault(name, {})
        if id in owners:
            return owners[id][1]
        key = next((key for other, key in owners.values() if other == part), None)
        if key is not None:  # one name in one folder is one file
            self.skipped.add(
                "another id of a file_name of the same part (its captions are joined)", f"{name} (id {id})"
            )
        elif not owners:
            key = name
        elif part is None or any(other is None for other, _ in owners.values()):
            self.skipped.add("file_name of another picture, and no part (train2017, ...) tells them apart", name)
            return None
        else:
            for other, first in owners.values():
                self.add(first).file_name = f"{other}/{name}"
            key = f"{part}/{name}"
        owners[id] = (part, key)
        return key


def _read_part(path: Path, data: dict[str, Any], rows: PartRows) -> None:
    names: dict[str, str | None] = {}
    said, part = 0, _part(path)
    for at, image in enumerate(data["images"]):
        name = image.get("file_name") or PurePosixPath(image.get("coco_url") or image.get("flickr_url") or "").name
        if not name or "id" not in image:
            rows.skipped.add("no file_name or no id", f"{path.name}: images[{at}]")
            continue
        number = str(image["id"])
        key = names[number] = rows.place(name, number, part)
        if key is not None:
            rows.add(key, split=split_name(image.get("split")) or guess_split(path.stem), id=number)
    for at, note in enumerate(data["annotations"]):
        number, where = str(note.get("image_id")), f"{path.name}: annotations[{at}]"
        key = names.get(number)
        if number not in names:
            rows.skipped.add("caption of a picture that is not listed", where)
        elif isinstance(note.get("caption"), str):
            said += 1
            if key is None:
                rows.skipped.add("caption of a picture that is left out", where)
            else:
                rows.add(key, read_captions(note["caption"]))
        else:
            rows.skipped.add("annotation without a caption", where)
    need(said or not data["annotations"], path, "annotations with a caption; are these boxes?")
