"""Flickr8k and Flickr30k as their makers give them, and as a CSV.

Tokens: `NAME.jpg#0<tab>A caption .` a line, with `Flickr_8k.trainImages.txt`, `.devImages.txt` and `.testImages.txt`
beside (Hodosh et al. 2013). CSV: `image,caption` with a header; Flickr30k's `results.csv` is separated by `|`.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path, PurePosixPath

from tuwen.images import SUFFIXES
from tuwen.importers.common import (
    CAPTION_KEYS,
    FILE_KEYS,
    Imported,
    ImportOptions,
    Rows,
    choose,
    need,
    read_lines,
    read_table,
    sentence,
    split_name,
)
from tuwen.importers.locate import guess_folders
from tuwen.importers.text_pairs import add_records, named_records, names_columns

TOKEN = re.compile(  # a comma or a bar may be of the name where a tab ends it: else the line is of a CSV
    r"(?=[^\t]+#\d+\t|[^,|\t]+#\d)(?P<name>[^\t]+?\.\w{2,5}(?:\.\d+)?)#\d+(?:\s+(?P<text>.*))?"
)
LISTS = re.compile(r"(?:(?:flickr|coco).*)?(train|dev|val|test)(?:[-_]?images)?\.txt", re.IGNORECASE)
NAMES = (
    r"flickr[-_]?\d+k\.token(?:\.txt)?",
    r"results[^/]*\.token|[^/]*\.token(?:\.txt)?",
    r"(?:captions|results|flickr[-_]?\d+k[^/]*)\.(?:csv|txt)",
    r"[^/]*\.csv",
)


def read_flickr8k(src: Path, options: ImportOptions) -> Imported:
    """Pictures with their captions; split by the lists where there are any, else not at all."""
    path = choose(src, NAMES, "Flickr8k.token.txt or captions.csv")[0]
    rows = Rows()
    lines = list(read_lines(path))
    if any(TOKEN.fullmatch(line.strip()) for _, line in lines[:20]):
        for number, line in lines:
            found = TOKEN.fullmatch(line.strip())
            if found is None:
                rows.skipped.add("not NAME#NUMBER<tab>caption", f"{path.name}:{number}")
            else:
                rows.add(found["name"], [sentence(found["text"] or "")])
    elif lines:
        _read_csv(path, rows)
    split_by_lists(rows, path)
    return Imported(guess_name(path), rows.pictures, guess_folders(path.parent), rows.skipped)


def _read_csv(path: Path, rows: Rows) -> None:
    table = read_table(path)
    need(table and len(table[0]) > 1, path, "NAME#NUMBER<tab>caption, or image,caption")
    if names_columns(table[0]):
        add_records(named_records(table), path, rows)
        return
    head = [cell.lower() for cell in table[0]]
    first = 1 if any("caption" in cell or "comment" in cell for cell in head) else 0
    start = 2 if first and len(head) > 2 and "number" in head[1] else 1  # image_name| comment_number| comment
    for number, row in enumerate(table[first:], first + 1):
        if len(row) <= start:
            rows.skipped.add("no caption in the line", f"{path.name}:{number}")
            continue
        rows.add(row[0], [sentence(", ".join(row[start:]))])  # a comma within a caption, not quoted


def split_by_lists(rows: Rows, *captions: Path) -> None:
    """Take splits from lists of names beside the captions. Pictures in no list are left out, as their makers do.

    (Flickr8k came with 8,091 pictures and lists 8,000: to draw the rest into splits would change a known test.)
    """
    folder, listed = captions[0].parent, dict[str, str]()
    for parent in dict.fromkeys(
        (folder, *sorted(p for p in folder.iterdir() if p.is_dir() and "text" in p.name.lower()))
    ):
        for path in sorted(parent.iterdir()):
            named = LISTS.fullmatch(path.name)
            split = split_name(named[1].lower()) if named else None
            if split is None or path in captions or not path.is_file():
                continue
            lines = [line.strip() for _, line in read_lines(path)]
            if holds_captions(lines):
                rows.skipped.add("named like a list of a split, but with captions or columns in it", path.name)
            else:
                listed.update({_stem(line): split for line in lines})
    if not listed:
        return
    for picture in rows.pictures:
        picture.split = listed.get(_stem(picture.file_name))
        if picture.split is None:
            rows.drop(picture, "in none of the lists of splits")


def holds_captions(lines: list[str]) -> bool:
    """Whether these lines are captions, by a tab, `#NUMBER` or a CSV's first line; names may hold spaces and commas."""
    if any("\t" in line or (re.search(r"#\d+(?:\s|$)", line) and not _is_name(line)) for line in lines):
        return True
    cells = [cell.strip(' "').lower() for cell in re.split("[,|;]", lines[0])] if lines else []
    if len(cells) < 2 or _is_name(lines[0]):
        return False
    said = any(cell in CAPTION_KEYS or "caption" in cell for cell in cells[1:])
    return (cells[0] in FILE_KEYS and said) or any(map(_is_name, cells[:-1]))


def _is_name(line: str) -> bool:
    return PurePosixPath(line.lower()).suffix in SUFFIXES


def _stem(name: str) -> str:
    name = unicodedata.normalize("NFC", PurePosixPath(name).name)  # é may be one sign in the one file, two in the other
    return re.sub(r"\.(?:jpe?g|png)$", "", name, flags=re.IGNORECASE)


def guess_name(path: Path) -> str:
    """`flickr8k` or `flickr30k`, from the path of a file of theirs; else the name of its folder."""
    found = re.findall(r"flic?ke?r[-_]?(\d+)k", str(path.absolute()).lower())
    return f"flickr{found[-1]}k" if found else path.absolute().parent.name
