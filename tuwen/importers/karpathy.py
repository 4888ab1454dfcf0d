"""Karpathy's splits: `dataset_flickr8k.json`, `dataset_flickr30k.json`, `dataset_coco.json`.

`{"images": [{"filename", "filepath", "split", "sentences": [{"raw", "tokens"}], "cocoid"}], "dataset"}`
(Karpathy and Fei-Fei 2015). `restval` counts as train.
"""

from __future__ import annotations

from pathlib import Path

from tuwen.importers.common import Imported, ImportOptions, Rows, choose, need, read_captions, read_json, split_name
from tuwen.importers.locate import guess_folders


def read_karpathy(src: Path, options: ImportOptions) -> Imported:
    """Pictures with the split and the sentences that the file names; a sentence without `raw` is joined from tokens."""
    path = choose(src, (r"dataset[^/]*\.json", r"[^/]*karpathy[^/]*\.json", r"[^/]*\.json"), "dataset_*.json")[0]
    data, rows = read_json(path), Rows()
    need(isinstance(data, dict) and isinstance(data.get("images"), list), path, '{"images": [...]}')
    for number, image in enumerate(data["images"]):
        name = image.get("filename") or image.get("file_name") if isinstance(image, dict) else None
        if not name:
            rows.skipped.add("no filename", f"images[{number}]")
            continue
        need(isinstance(image.get("sentences"), list), path, f"images[{number}] has no sentences")
        folder = str(image.get("filepath") or "").strip("/")
        rows.add(
            f"{folder}/{name}" if folder else name,
            read_captions(image["sentences"]),
            split=split_name(image.get("split")),
            id=str(image["cocoid"]) if "cocoid" in image else None,
        )
    name = str(data.get("dataset") or path.stem)
    return Imported(name, rows.pictures, guess_folders(path.parent), rows.skipped)
