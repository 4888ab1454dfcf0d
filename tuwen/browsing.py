"""What an index holds of a picture: its facts, its thumbnail, its near-duplicates."""

from __future__ import annotations

import io
from collections import defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image

from tuwen import images
from tuwen.check.near import SIDE, Thumbs, find_near
from tuwen.errors import DataError
from tuwen.hits import Filter, Hit, hits_of, live_rows, path_of
from tuwen.store import FILES, NOTES, THUMBNAILS, LanceStore, Row

KEPT = 320  # pixels of the longer side of a thumbnail that the store keeps
QUALITY = 80
LARGEST = 2048


def read_picture(store: LanceStore, id: str) -> Row:
    """All that the index knows of a picture: the row of its file, `file`, `files` (every path of this content),
    `captions` (each with `text lang source`, and `at` where it was noted: corrections first, then those given, then
    made ones), `id`. DataError where there is no such id."""
    rows = sorted(store.scan(FILES, where=("content", [id])), key=lambda row: (row["folder"], row["path"]))
    rows = [row for row in rows if row["state"] == "ok"]
    if not rows:
        raise DataError(f"{id}: no such picture in {store.folder}")
    files = list(dict.fromkeys(path_of(row) for row in rows))
    there = next((row for row in rows if Path(path_of(row)).exists()), rows[0])
    given = {(c["text"], c["lang"], c["source"]): c for row in rows for c in row["captions"] or []}
    notes = sorted(store.scan(NOTES, where=("content", [id])), key=lambda row: row["at"], reverse=True)
    shown = [{name: note[name] for name in ("text", "lang", "source", "at")} for note in notes]
    human = [note for note in shown if note["source"] == "human"]
    made = [note for note in shown if note["source"] != "human"]
    captions = [*human, *({**caption, "at": None} for caption in given.values()), *made]
    return {**there, "id": id, "file": path_of(there), "files": files, "captions": captions}


def newest(store: LanceStore, wanted: Filter, k: int, offset: int = 0) -> tuple[list[Hit], bool]:
    """All pictures that pass, the newest first by the date taken, else written: `k` of them from `offset` on, and
    whether there are more. Their score is 0: nothing was asked."""
    condition = wanted.condition()
    readable = f"state = 'ok' AND {condition}" if condition else "state = 'ok'"
    dates: dict[str, str] = {}
    for row in store.scan(FILES, ["content", "date", "mtime_ns"], None, readable):
        written = datetime.fromtimestamp(row["mtime_ns"] / 1e9).isoformat()
        dates[row["content"]] = max(row["date"] or written, dates.get(row["content"], ""))
    order = sorted(dates, key=lambda key: (dates[key], key), reverse=True)
    page = order[offset : offset + k]
    rows = live_rows(store, set(page), condition)
    found = [(key, 0.0) for key in page if key in rows]
    return hits_of(store, found, rows, None, offset), len(order) > offset + k


def thumbnail(store: LanceStore, id: str, side: int = KEPT) -> bytes:
    """JPEG of a picture, its longer side at most `side` pixels (16 to 2048): up to 320 from the store.

    Raises:
        DataError: no such id, or a side out of bounds.
        PictureError: the file is gone or damaged, and the store keeps no thumbnail of that size.
    """
    if not 16 <= side <= LARGEST:
        raise DataError(f"a thumbnail of {side} pixels: from 16 to {LARGEST}")
    kept = next(iter(store.scan(THUMBNAILS, ["jpeg"], ("key", [id]))), None)
    if kept is None or side > KEPT:
        return images.thumbnail(read_picture(store, id)["file"], side, QUALITY)
    jpeg: bytes = kept["jpeg"]
    with Image.open(io.BytesIO(jpeg)) as image:
        if max(image.size) <= side:
            return jpeg
        image.draft(None, (side, side))
        image.thumbnail((side, side), Image.Resampling.BICUBIC)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def duplicates(store: LanceStore) -> list[list[Hit]]:
    """Groups of pictures that are alike to the eye, and of equal files, the largest group first.

    In a group the picture with most pixels comes first with score 1; the score of the others is 1 minus the mean
    difference of their thumbnails, of 255. One content in several files is one hit a file.
    """
    keys: list[str] = []
    tiny: list[bytes] = []
    for row in store.scan(THUMBNAILS, ["key", "tiny"]):
        keys.append(row["key"])
        tiny.append(row["tiny"])
    order = sorted(range(len(keys)), key=keys.__getitem__)
    keys = [keys[i] for i in order]
    thumbs = np.frombuffer(b"".join(tiny[i] for i in order), np.uint8).reshape(-1, SIDE, SIDE, 3)
    groups = _joined(len(keys), find_near(thumbs, np.zeros(len(keys), np.int64)))
    copies: dict[str, list[Row]] = defaultdict(list)
    for row in store.scan(FILES):
        if row["state"] == "ok" and Path(path_of(row)).exists():
            copies[row["content"]].append(row)
    place = {key: i for i, key in enumerate(keys)}
    found = {keys[group[0]]: [keys[i] for i in group] for group in groups}
    grouped = {key for group in found.values() for key in group}
    found |= {key: [key] for key, rows in copies.items() if len(rows) > 1 and key not in grouped}
    shown = [_group(store, contents, copies, thumbs, place) for contents in found.values()]
    return sorted((group for group in shown if len(group) > 1), key=lambda group: (-len(group), group[0].file))


def _joined(count: int, pairs: list[tuple[int, int]]) -> list[list[int]]:
    """Pairs as groups: whatever is linked stands together."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for one, other in pairs:
        parent[root(other)] = root(one)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in {index for pair in pairs for index in pair}:
        groups[root(i)].append(i)
    return [sorted(group) for group in groups.values()]


def _group(
    store: LanceStore, contents: list[str], copies: dict[str, list[Row]], thumbs: Thumbs, place: dict[str, int]
) -> list[Hit]:
    rows = [row for content in contents for row in copies[content]]
    if len(rows) < 2:
        return []
    rows.sort(key=lambda row: (-(row["width"] or 0) * (row["height"] or 0), -row["size"], row["folder"], row["path"]))
    first = thumbs[place[rows[0]["content"]]].astype(np.int16) if rows[0]["content"] in place else None
    hits: list[Hit] = []
    for row in rows:
        near = 1.0
        if first is not None and row["content"] in place:
            near = 1 - float(np.abs(thumbs[place[row["content"]]] - first).mean()) / 255
        hits += hits_of(store, [(row["content"], near)], {row["content"]: row}, None, len(hits))
    return hits
