"""What people say of drawn pictures: samples to rate, votes kept in the run, and their summary."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
from filelock import FileLock
from PIL.Image import Image

from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.evaluate.generation import Sample, draw, kept_pixels, plan
from tuwen.files import write_atomic
from tuwen.metrics.generation import share_interval, shuffle
from tuwen.pipelines import Drawer
from tuwen.progress import track

FOLDER, ITEMS, VOTES = "rating", "items.jsonl", "votes.jsonl"
KINDS = ("drawn", "real", "other")
CONTROLS = 4  # for so many drawn pictures one real one, and one with the words of another
LONGEST = 80  # letters of a name
Vote = Literal["good", "bad"]


@dataclass(frozen=True)
class Item:
    """A picture to rate. `kind`, which raters don't see: `drawn` from its prompt, `other` from another's, `real`."""

    id: str
    kind: str
    lang: str
    prompt: str
    seed: int | None
    file: str  # relative to the folder of the items


def items_folder(run: Path, fingerprint: str) -> Path:
    """Where a run keeps what is rated: another training makes other samples."""
    return run / FOLDER / fingerprint


def make_items(
    run: Path, pipeline: Drawer, dataset: Dataset, split: str = "test", count: int = 24, seed: int = 0
) -> list[Item]:
    """Draw `count` samples a language for people to rate, and a quarter as many of each control beside them.

    The controls are real pictures with their own captions, and drawn ones with another's: what people say of these
    tells what a vote is worth. Nothing is chosen by eye: the first captioned pictures of the split, in order.

    Raises:
        DataError: the split has too few captioned pictures.
    """
    part, extra = dataset.select(split), max(2, count // CONTROLS)
    samples = plan(dataset, part, split, pipeline.languages, None, count + 2 * extra, seed, least=count + 2 * extra)
    items: list[Item] = []
    folder = items_folder(run, pipeline.fingerprint)
    for lang in sorted({sample.lang for sample in samples}):
        own = [sample for sample in samples if sample.lang == lang]
        if len(own) <= 2 * extra:
            continue
        drawn, real, other = own[: -2 * extra], own[-2 * extra : -extra], own[-extra:]
        pictures = list(track(draw(pipeline, drawn + other, None, None), len(drawn + other), f"drawing in {lang}"))
        kept = kept_pixels(pipeline, part, [sample.row for sample in real])
        pictures += [PIL.Image.fromarray(pixels) for pixels in kept]
        rows: list[tuple[str, Sample, str]] = [
            *(("drawn", sample, sample.prompt) for sample in drawn),
            *(("other", sample, other[i].prompt) for sample, i in zip(other, shuffle(extra, seed), strict=True)),
            *(("real", sample, sample.prompt) for sample in real),
        ]
        for place, ((kind, sample, prompt), picture) in enumerate(zip(rows, pictures, strict=True)):
            name = f"{lang}{place:04}"
            items.append(Item(name, kind, lang, prompt, None if kind == "real" else sample.seed, f"{name}.png"))
            write_atomic(folder / f"{name}.png", _png(picture))
    write_atomic(folder / ITEMS, "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items))
    return items


def read_items(run: Path, fingerprint: str) -> list[Item]:
    """What was made to be rated for this model; empty where nothing was."""
    path = items_folder(run, fingerprint) / ITEMS
    if not path.is_file():
        return []
    try:
        return [Item(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError):
        raise DataError(f"{path}: damaged; delete the folder {path.parent}, and it is made anew") from None


def add_vote(run: Path, item: Item, vote: Vote | None, who: str, fingerprint: str) -> None:
    """Append a vote, on disk before this returns; None takes back what `who` said. Two servers do no harm.

    A line that a crash cut off was never answered, so it is cut away.
    """
    said = {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "who": " ".join(who.split())[:LONGEST],
        "model": fingerprint,
        "item": item.id,
        "kind": item.kind,
        "lang": item.lang,
        "seed": item.seed,
        "prompt": item.prompt,
        "vote": vote,
    }
    line = json.dumps(said, ensure_ascii=False).encode() + b"\n"
    with FileLock(str(run / f".{VOTES}.lock")), (run / VOTES).open("a+b") as file:
        _cut_torn(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _cut_torn(file: Any) -> None:
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - (1 << 16))
    file.seek(start)
    tail: bytes = file.read()
    if tail and not tail.endswith(b"\n"):
        file.truncate(start + tail.rfind(b"\n") + 1)


def read_votes(run: Path, fingerprint: str | None = None) -> list[dict[str, Any]]:
    """The votes that stand: the last of each person on each picture, none taken back; of one model, or of the last.

    DataError: a line that is no vote.
    """
    path = run / VOTES
    if not path.is_file():
        return []
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line's end was cut off
        try:
            row = json.loads(line)
            rows[row["model"], row["who"], row["item"]] = row
            if row["vote"] not in ("good", "bad", None) or row["kind"] not in KINDS:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{path}:{number}: no vote; remove the line") from None
    model = fingerprint or (json.loads(lines[-2])["model"] if len(lines) > 1 else None)
    return [row for row in rows.values() if row["vote"] is not None and row["model"] == model]


def summarise(votes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`votes`, `people`, and by kind `good` (percent), `n`, `interval` (95%); None where nobody voted."""
    out: dict[str, Any] = {"votes": len(votes), "people": len({row["who"] for row in votes})}
    for kind in KINDS:
        own = [row for row in votes if row["kind"] == kind]
        if not own:
            out[kind] = None
            continue
        good = np.array([row["vote"] == "good" for row in own])
        low, high = share_interval(good, np.array([row["item"] for row in own]))
        out[kind] = {"good": 100 * float(good.mean()), "n": len(own), "interval": [round(low, 1), round(high, 1)]}
    return out


def _png(picture: Image) -> bytes:
    data = io.BytesIO()
    picture.convert("RGB").save(data, "PNG")
    return data.getvalue()
