"""CUHK-PEDES: `reid_raw.json` or `caption_all.json`: `[{"split", "captions", "file_path", "id"}]` (Li et al. 2017).

`id` is the person whom several pictures show: our `group`. `processed_tokens` are left: our tokenisers make their own.
"""

from __future__ import annotations

from pathlib import Path

from tuwen.importers.common import (
    Imported,
    ImportOptions,
    Rows,
    choose,
    join_tokens,
    need,
    read_captions,
    read_json,
    split_name,
)
from tuwen.importers.locate import guess_folders


def read_cuhk_pedes(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their captions, person and split; without splits (`caption_all.json`) they follow the person."""
    path = choose(src, (r"reid_raw\.json", r"caption_all\.json", r"[^/]*\.json"), "reid_raw.json")[0]
    data, rows = read_json(path), Rows()
    need(isinstance(data, list), path, '[{"file_path", "captions", "id"}]')
    for number, item in enumerate(data):
        name = item.get("file_path") or item.get("img_path") if isinstance(item, dict) else None
        if not name:
            rows.skipped.add("no file_path", f"[{number}]")
            continue
        captions = item.get("captions") or [join_tokens(tokens) for tokens in item.get("processed_tokens") or []]
        person = item.get("id")
        rows.add(
            str(name),
            read_captions(captions),
            split=split_name(item.get("split")),
            group=f"person-{person}" if person is not None else None,
        )
    return Imported("cuhk-pedes", rows.pictures, guess_folders(path.parent), rows.skipped)
