"""What a search gives back: hits, the rows behind them, and the filter that rows must pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from pathlib import Path

from tuwen.store import FILES, NOTES, Row, Store, quote

COLUMNS = ["folder", "path", "content", "captions", "width", "height", "date", "mtime_ns"]
FORMATS = {"jpg": "jpeg", "tif": "tiff", "heic": "heif", "jp2": "jpeg2000"}


@dataclass(frozen=True)
class Hit:
    """A picture that fits. `score` is the cosine (of words: BM25; of both: the fused ranks), `rank` starts at 1,
    `id` is the content's sha256, `date` the time it was taken (ISO 8601), where the file says so."""

    file: str
    score: float
    rank: int
    caption: str | None
    id: str
    width: int | None = None
    height: int | None = None
    date: str | None = None


@dataclass(frozen=True)
class CaptionHit:
    """A caption that fits a picture, and the file that it was written for."""

    text: str
    score: float
    rank: int
    file: str


@dataclass(frozen=True)
class Filter:
    """What a picture must be; all that is given must hold.

    `folder`: it lies below this folder, absolute or any part of the path. `after`, `before`: days, both included, on
    which it was taken, or written where it does not say. `camera`: a part of the camera's name. `format`: as `jpeg` or
    `png`. `min_side`: pixels of its shorter side.
    """

    folder: str | None = None
    after: date | None = None
    before: date | None = None
    camera: str | None = None
    format: str | None = None
    min_side: int | None = None

    def condition(self) -> str | None:
        """The filter as SQL over `files`; None where it lets all pass."""
        parts = []
        if self.folder is not None:
            below = quote(self.folder.replace("\\", "/").strip().rstrip("/") + "/")
            whole = "(folder || '/' || path)"
            if self.folder.startswith(("/", "~")) or Path(self.folder).is_absolute():
                below = quote(Path(self.folder).expanduser().as_posix().rstrip("/") + "/")
                parts.append(f"(starts_with({whole}, {below}) OR starts_with(path, {below}))")
            else:
                parts.append(f"(starts_with(path, {below}) OR strpos(path, '/' || {below}) > 0)")
        if self.after is not None:
            parts.append(f"(date >= '{self.after.isoformat()}' OR (date IS NULL AND mtime_ns >= {_stamp(self.after)}))")
        if self.before is not None:
            end = self.before + timedelta(days=1) if self.before < date.max else self.before
            parts.append(f"(date < '{end.isoformat()}' OR (date IS NULL AND mtime_ns < {_stamp(end)}))")
        if self.camera is not None:
            parts.append(f"strpos(lower(camera), {quote(self.camera.strip().lower())}) > 0")
        if self.format is not None:
            name = self.format.strip().lower().lstrip(".")
            parts.append(f"lower(format) = {quote(FORMATS.get(name, name))}")
        if self.min_side is not None:
            parts.append(f"(width >= {int(self.min_side)} AND height >= {int(self.min_side)})")
        return " AND ".join(parts) or None


def _stamp(day: date) -> int:
    """The nanoseconds at which a day begins here."""
    try:
        begin = datetime.combine(day, time()).astimezone()
    except (OverflowError, OSError, ValueError):
        begin = datetime.combine(day, time(), timezone.utc)
    stamp = int((begin - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()) * 1_000_000_000
    return min(max(stamp, -(2**63)), 2**63 - 1)  # the column holds the years 1678 to 2262


def live_rows(store: Store, contents: Collection[str], condition: str | None = None) -> dict[str, Row]:
    """One row of `files` a content id, of those that pass: of several copies the first that still lies there."""
    readable = f"state = 'ok' AND {condition}" if condition else "state = 'ok'"
    rows = store.scan(FILES, COLUMNS, ("content", contents), readable)
    files: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row["folder"], row["path"])):
        if row["content"] not in files or not Path(path_of(files[row["content"]])).exists():
            files[row["content"]] = row
    return files


def hits_of(
    store: Store, found: Sequence[tuple[str, float]], rows: dict[str, Row], lang: str | None, first: int
) -> list[Hit]:
    """Content ids with their scores as hits, the first of rank `first` + 1; a caption in `lang` where there is one."""
    notes: dict[str, list[Row]] = {}
    for note in store.scan(NOTES, ["content", "text", "lang", "source"], ("content", {key for key, _ in found})):
        notes.setdefault(note["content"], []).append(note)
    hits = []
    for rank, (content, score) in enumerate(found, first + 1):
        row = rows[content]
        shown = best_caption([*(row["captions"] or []), *notes.get(content, [])], lang)
        taken = row["date"]
        hits.append(Hit(path_of(row), round(score, 6), rank, shown, content, row["width"], row["height"], taken))
    return hits


def best_caption(captions: Sequence[Row], lang: str | None) -> str | None:
    """The caption that is shown: in the language where there is one; a correction before what was given, that before
    what a model made."""
    order = sorted(captions, key=lambda c: (c["lang"] != lang if lang else False, _rank(c)))
    return order[0]["text"] if order else None


def _rank(caption: Row) -> int:
    if caption["source"] != "human":
        return 2
    return 0 if "content" in caption else 1  # a note of a person, before the data set's own words


def path_of(row: Row) -> str:
    """Where a row's file lies."""
    return str(Path(row["folder"]) / row["path"])
