"""Flickr8k-CN, Flickr30k-CN and COCO-CN: `NAME.jpg#zhc#0 一个人在跑步。` a line (Li et al. 2016, 2019; Lan 2017).

`zhc` captions were written by people, `zhm` translated by people (the test parts are); `zhb*` and `zhg*` (Baidu,
Google) were translated by programs and carry that as their source. Files of words, `一:m 个:q 人:n`, are joined to
sentences. Flickr30k-CNA has `NUMBER<tab>caption` a line.
"""

from __future__ import annotations

import re
from pathlib import Path

from tuwen.errors import DataError
from tuwen.importers.common import (
    Imported,
    ImportOptions,
    Rows,
    choose,
    guess_split,
    join_tokens,
    need,
    read_lines,
    sentence,
    split_name,
)
from tuwen.importers.flickr8k import guess_name, split_by_lists
from tuwen.importers.locate import guess_folders

LINE = re.compile(
    r"(?P<name>.+?)#(?:(?P<tag>[A-Za-z]\w*)#)?(?P<number>\d+)(?:\s+(?P<text>.*))?|(?P<id>[^\t#]+)\t(?P<said>.*)"
)
WORD = re.compile(r"(\S+):[a-z]+\d*")  # a word and what part of speech it is
PART = re.compile(r"(?:boson|zh[a-z])(train|val|test)")  # flickr30kzhmbosontest, flickr8kzhmtest
NAMES = (
    r"imageid\.human-written-caption\.txt",
    r"[^/]*zhc[^/]*\.txt",
    r"[^/]*(?:zh|cn)[^/]*caption[^/]*\.txt",
    r"[^/]*(?:zh|cn|caption|token)[^/]*\.txt",
)


def read_flickr8k_cn(src: Path, options: ImportOptions) -> Imported:
    """Pictures with the Chinese captions of one file, or of one file a split; split by lists of names beside them,
    else by the files' names."""
    paths, rows, folders = choose(src, NAMES, "flickr8kzhc.caption.txt", many=True), Rows(), []
    splits = [_split(path) for path in paths]
    if len(paths) > 1 and (None in splits or len(set(splits)) < len(paths)):
        names = ", ".join(path.name for path in paths[:4])
        raise DataError(f"{src}: several files fit ({names}); name one of them as SRC")
    for path, split in zip(paths, splits, strict=True):
        _read(path, split, rows)
        folders += guess_folders(path.parent)
    folders += guess_folders(src) if src.is_dir() else []
    split_by_lists(rows, *paths)
    return Imported(f"{guess_name(paths[0])}-cn", rows.pictures, folders, rows.skipped)


def _split(path: Path) -> str | None:
    found = PART.search(path.name.lower())
    return split_name(found[1]) if found else guess_split(path.stem)


def _read(path: Path, split: str | None, rows: Rows) -> None:
    read = 0
    for number, line in read_lines(path):
        found = LINE.fullmatch(line.strip())
        if found is None:
            rows.skipped.add("not NAME#zhc#NUMBER caption", f"{path.name}:{number}")
            continue
        tag, read = (found["tag"] or "zhc").lower(), read + 1
        source = "human" if tag in ("zhc", "zhm", "zht", "enc", "en", "zh") else f"model:{tag}"
        name, text = found["name"] or found["id"], found["text"] or found["said"] or ""
        rows.add(name.strip(), [sentence(_joined(text), source=source)], split=split)
    need(read, path, "lines such as NAME.jpg#zhc#0 text")


def _joined(text: str) -> str:
    """Words that carry their part of speech as a sentence; any other text as it is."""
    words = [WORD.fullmatch(word) for word in text.split()]
    return join_tokens([word[1] for word in words if word]) if words and all(words) else text
