"""Flickr8k-CN and Flickr30k-CN: `NAME.jpg#zhc#0 一个人在跑步。` a line (Li et al. 2016).

`zhc` captions were written by people, `zht` translated by people; `zhm*`, `zhb` and `zhg` were translated by programs
and carry that as their source.
"""

from __future__ import annotations

import re
from pathlib import Path

from tuwen.importers.common import Imported, ImportOptions, Rows, choose, need, read_lines, sentence
from tuwen.importers.flickr8k import guess_name, split_by_lists
from tuwen.importers.locate import guess_folders

LINE = re.compile(r"(?P<name>.+?)#(?:(?P<tag>[A-Za-z]\w*)#)?(?P<number>\d+)(?:\s+(?P<text>.*))?")
NAMES = (r"[^/]*zhc[^/]*\.txt", r"[^/]*(?:zh|cn)[^/]*caption[^/]*\.txt", r"[^/]*(?:zh|cn|caption|token)[^/]*\.txt")


def read_flickr8k_cn(src: Path, options: ImportOptions) -> Imported:
    """Pictures with the Chinese captions of one file; split by lists of names where they lie beside."""
    path, rows, read = choose(src, NAMES, "flickr8kzhc.caption.txt")[0], Rows(), 0
    for number, line in read_lines(path):
        found = LINE.fullmatch(line.strip())
        if found is None:
            rows.skipped.add("not NAME#zhc#NUMBER caption", f"{path.name}:{number}")
            continue
        tag, read = (found["tag"] or "zhc").lower(), read + 1
        source = "human" if tag in ("zhc", "zht", "enc", "en", "zh") else f"model:{tag}"
        rows.add(found["name"].strip(), [sentence(found["text"] or "", source=source)])
    need(read, path, "lines such as NAME.jpg#zhc#0 text")
    split_by_lists(rows, path)
    return Imported(f"{guess_name(path)}-cn", rows.pictures, guess_folders(path.parent), rows.skipped)
