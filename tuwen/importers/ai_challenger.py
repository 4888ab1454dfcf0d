"""AI Challenger's Chinese captions: `[{"image_id": "x.jpg", "caption": ["...", ...], "url"}]` (Wu et al. 2017)."""

from __future__ import annotations

from pathlib import Path

from tuwen.importers.common import Imported, ImportOptions, Rows, choose, guess_split, need, read_captions, read_json
from tuwen.importers.locate import guess_folders


def read_ai_challenger(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their captions; train, validation or test by the file's name."""
    paths = choose(
        src, (r"caption_[^/]*annotations[^/]*\.json", r"[^/]*\.json"), "caption_*_annotations_*.json", many=True
    )
    rows, folders = Rows(), []
    for path in paths:
        data = read_json(path)
        need(isinstance(data, list), path, '[{"image_id", "caption"}]')
        for number, item in enumerate(data):
            if not isinstance(item, dict) or not item.get("image_id"):
                rows.skipped.add("no image_id", f"{path.name}: [{number}]")
                continue
            rows.add(str(item["image_id"]), read_captions(item.get("caption")), split=guess_split(path.stem))
        folders += guess_folders(path.parent)
    return Imported("ai-challenger", rows.pictures, folders, rows.skipped)
