"""Captions that tools made and people corrected: kept in the index, beside what a data set gave, and brought out."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import datetime, timezone
from pathlib import Path

from tuwen import dataset
from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.files import sha256_text
from tuwen.hits import path_of
from tuwen.records import Caption, Manifest, Picture, guess_language
from tuwen.store import FILES, NOTES, TEXTS, LanceStore, Row, writer

WAIT = 10.0  # seconds for an indexer to finish its turn
LONGEST = 2000  # characters of a caption
HUMAN = "human"


def text_key(content: str, text: str) -> str:
    """The key of a caption in `texts` and `captions`: one text of one content is one row."""
    return sha256_text(f"{content}\0{text}")


def set_caption(db: Path, id: str, text: str, lang: str | None = None) -> None:
    """Note what a person says of a picture; one caption a language, which replaces the one before.

    What a model made stays beside it. Found by its words at once, by `--for captions` after the next `tuwen index`.

    Raises:
        DataError: no such id, no words, or too many.
        StoreError: an indexer holds the index for more than ten seconds.
    """
    text = " ".join(text.split())
    if not text or len(text) > LONGEST:
        raise DataError(f"a caption has 1 to {LONGEST:,} characters, this one has {len(text):,}")
    with writer(db, wait=WAIT, brief=True) as store:
        if not any(row["state"] == "ok" for row in store.scan(FILES, ["state"], ("content", [id]))):
            raise DataError(f"{id}: no such picture in {db}")
        put_notes(store, [(id, text, lang or guess_language(text), HUMAN)])


def put_notes(store: LanceStore, notes: list[tuple[str, str, str, str]]) -> None:
    """Write (content, text, lang, source): one of each content, language and source. What it replaces is not found
    any more by its words."""
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    rows = {
        sha256_text(f"{content}\0{lang}\0{source}"): {"content": content, "text": text, "lang": lang, "source": source}
        for content, text, lang, source in notes
    }
    old = {row["key"]: row for row in store.scan(NOTES, ["key", "content", "text"], ("key", rows))}
    texts = {
        text_key(row["content"], row["text"]): {name: row[name] for name in ("content", "text", "lang")}
        for row in rows.values()
    }
    store.put(TEXTS, [{"key": key, **row} for key, row in texts.items()])
    store.put(NOTES, [{"key": key, **row, "at": now} for key, row in rows.items()])
    replaced = {text_key(row["content"], row["text"]) for row in old.values()} - set(texts)
    if replaced:
        contents = {row["content"] for row in old.values()}
        store.delete(TEXTS, replaced - said(store, contents))


def said(store: LanceStore, contents: set[str] | None = None) -> set[str]:
    """Keys of all captions that files, and notes of pictures that some file has, hold; of these contents or of all."""
    where = None if contents is None else ("content", contents)
    keys: set[str] = set()
    there: set[str] = set()
    for row in store.scan(FILES, ["content", "captions"], where):
        there.add(row["content"])
        keys.update(text_key(row["content"], caption["text"]) for caption in row["captions"] or ())
    notes = store.scan(NOTES, ["content", "text"], where)
    return keys | {text_key(note["content"], note["text"]) for note in notes if note["content"] in there}


def corrected(store: LanceStore) -> list[Row]:
    """Pictures with captions that people noted: `id`, `file` (None where it is gone), `captions` (text, lang, at) and
    `made` (text, lang, source), in the order of the paths."""
    notes: dict[str, list[Row]] = defaultdict(list)
    for note in sorted(store.scan(NOTES), key=lambda note: (note["lang"], note["source"])):
        notes[note["content"]].append(note)
    notes = {content: some for content, some in notes.items() if any(note["source"] == HUMAN for note in some)}
    files: dict[str, str] = {}
    for row in sorted(store.scan(FILES, ["folder", "path", "content", "state"], ("content", notes)), key=path_of):
        if row["state"] == "ok" and Path(path_of(row)).is_file():
            files.setdefault(row["content"], path_of(row))
    rows = [
        {
            "id": content,
            "file": files.get(content),
            "captions": [_part(note, "at") for note in some if note["source"] == HUMAN],
            "made": [_part(note, "source") for note in some if note["source"] != HUMAN],
        }
        for content, some in notes.items()
    ]
    return sorted(rows, key=lambda row: (row["file"] is None, row["file"] or "", row["id"]))


def export_corrections(store: LanceStore, dest: Path, given: bool = False) -> Path:
    """A data set of the pictures that people noted captions of, as `tuwen tune --data` takes it. Pictures are named
    where they lie, not copied. Returns `dest`.

    `given`: also the pictures that a data set gave human captions; a correction replaces those of its language.

    Raises:
        DataError: nothing was noted, or there is something else at `dest`.
    """
    rows = corrected(store)
    rows = [row for row in (_with_given(store, rows) if given else rows) if row["file"] is not None]
    if not rows:
        raise DataError(f"{store.folder}: no corrected caption in it; correct some in the page of `tuwen serve` first")
    dest = dest.expanduser().absolute()
    if dest.exists() and any(path.name not in ("metadata.jsonl", "dataset.json") for path in dest.iterdir()):
        raise DataError(f"{dest}: there is something else here; name an empty folder")
    manifest = Manifest(name="corrections")
    place = Path(os.path.commonpath([Path(row["file"]).parent for row in rows]))
    dest.mkdir(parents=True, exist_ok=True)
    root = dataset.add_root(manifest, dest, place)
    pictures = [
        Picture(
            file_name=Path(row["file"]).relative_to(place).as_posix(),
            root=root,
            captions=[
                *(Caption(text=c["text"], lang=c["lang"]) for c in row["captions"]),
                *(Caption(text=c["text"], lang=c["lang"], source=c["source"]) for c in row["made"]),
            ],
        )
        for row in rows
    ]
    dataset.save(Dataset(dest, manifest, pictures))
    return dest


def _with_given(store: LanceStore, noted: list[Row]) -> list[Row]:
    """Corrected pictures, and those with human captions of a data set, as `corrected` has them."""
    rows = {row["id"]: {**row, "captions": list(row["captions"])} for row in noted}
    replaced = {(row["id"], caption["lang"]) for row in noted for caption in row["captions"]}
    files = store.scan(FILES, ["folder", "path", "content", "captions"], also="state = 'ok' AND captions IS NOT NULL")
    for file in sorted(files, key=path_of):
        human = [c for c in file["captions"] if c["source"] == HUMAN and (file["content"], c["lang"]) not in replaced]
        if not human or not Path(path_of(file)).is_file():
            continue
        new = {"id": file["content"], "file": path_of(file), "captions": [], "made": []}
        known = rows.setdefault(file["content"], new)["captions"]
        said = {caption["text"] for caption in known}
        known.extend(caption for caption in human if caption["text"] not in said)
    return sorted(rows.values(), key=lambda row: (row["file"] is None, row["file"] or "", row["id"]))


def _part(note: Row, more: str) -> Row:
    return {name: note[name] for name in ("text", "lang", more)}
