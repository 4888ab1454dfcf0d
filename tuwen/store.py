"""An index on disk: which model it is of, who may write to it, and the protocol of its tables (DESIGN, Store).

A folder holds `index.json` (the model, the folders, the format), `index.lock` (one writer at a time) and tables:
`files` is the truth; `vectors_MODEL`, `captions_MODEL`, `texts` and `thumbnails` hang on content ids and can be made
again; `notes` holds captions that tools made and people corrected. Readers need no lock.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from tuwen.errors import StoreError
from tuwen.files import write_atomic
from tuwen.lance import (
    CAPTIONS,
    FILES,
    NOTES,
    TABLES,
    TEXTS,
    THUMBNAILS,
    VECTORS,
    LanceStore,
    Model,
    Row,
    Vector,
    quote,
)

__all__ = [
    "CAPTIONS",
    "FILES",
    "NOTES",
    "TABLES",
    "TEXTS",
    "THUMBNAILS",
    "VECTORS",
    "LanceStore",
    "Model",
    "Row",
    "State",
    "Store",
    "Vector",
    "check_model",
    "open_store",
    "quote",
    "read_model",
    "read_state",
    "writer",
]

FORMAT = 2  # 1: no texts, notes and thumbnails; read as it is, and brought up by the next writer


class Store(Protocol):
    """Where an index lies. Every table has a text column `key`; a put replaces the row of the same key."""

    def put(self, table: str, rows: Sequence[Row]) -> None:
        """Write rows, all or none of them."""

    def delete(self, table: str, keys: Collection[str]) -> None:
        """Take rows away; a key that is not there is no error."""

    def search(
        self, table: str, vector: Vector, k: int, columns: Sequence[str] = ("key",), where: str | None = None
    ) -> list[tuple[Row, float]]:
        """The k rows nearest to a vector (d,) with their cosines, best first, ties by key; of those that pass."""

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: tuple[str, Collection[str]] | None = None,
        also: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """All rows, or those whose column, `where[0]`, holds one of the values, `where[1]`, and for which the SQL
        condition `also` holds; in no order."""


@dataclass(frozen=True)
class State:
    """What `index.json` says. `coming` is a model whose table is being made beside that of `model`."""

    model: Model
    coming: Model | None = None
    folders: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # folder -> {"include", "exclude"}
    rate: float | None = None  # pictures a second, at the last run that embedded some
    format: int = FORMAT

    def save(self, folder: Path) -> None:
        """Write `index.json`, whole."""
        body = {
            "format": self.format,
            **asdict(self.model),
            "coming": asdict(self.coming) if self.coming else None,
            "folders": self.folders,
            "rate": self.rate,
        }
        write_atomic(folder / "index.json", json.dumps(body, ensure_ascii=False, indent=2))


def read_state(folder: Path) -> State:
    """What an index notes of itself. StoreError where there is no index, or one of a later format."""
    path = folder / "index.json"
    try:
        info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not 1 <= info["format"] <= FORMAT:
            raise StoreError(f"{path}: format {info['format']} is later than {FORMAT}: update tuwen, or index anew")
        coming = info.get("coming")
        return State(
            _model(info),
            _model(coming) if coming else None,
            info.get("folders") or {},
            info.get("rate"),
            info["format"],
        )
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder}: no index there; make one: tuwen index PICTURES --db {folder}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {folder} and index anew") from None


def read_model(folder: Path) -> Model:
    """The model that an index is of. StoreError as `read_state`."""
    return read_state(folder).model


def same(one: Model, other: Model) -> bool:
    """Whether two models are one, under whatever names: cosines between two models' vectors mean nothing."""
    return replace(one, name=other.name) == other


def check_model(folder: Path, model: Model) -> None:
    """StoreError where the index is of another model."""
    there = read_model(folder)
    if not same(there, model):
        raise StoreError(
            f"{folder}: an index of the model {there}, not of {model}; change it with "
            f"`tuwen index PICTURES --model {model.name} --db {folder}`, or index into another place with --db"
        )


def open_store(folder: Path) -> LanceStore:
    """An index to read. StoreError where there is none."""
    return LanceStore(folder, read_model(folder))


@contextlib.contextmanager
def writer(
    folder: Path, model: Model | None = None, change: bool = False, wait: float = 0, brief: bool = False
) -> Iterator[LanceStore]:
    """An index to write, made where there is none. StoreError where another writes.

    `model`: None takes the index's own. With `change` another one is taken: its tables are made beside those of the
    index's, which stays in use until `adopt`. `wait` are the seconds for another writer to finish. What was written to
    is compacted in the end, unless it was `brief`: then the next writer does so.
    """
    path = folder / "index.json"
    if path.exists():
        if model is not None and not change:
            check_model(folder, model)
    elif model is None:
        read_model(folder)  # tells that there is none
    elif folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= {"index.lock"}):
        raise StoreError(f"{folder}: there is something else here, not an index; name another --db")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "index.lock", timeout=wait):
            store = _opened(folder, model, change)
            yield store
            if not brief:
                store.compact_changed()
    except Timeout:
        raise StoreError(f"{folder}: another `tuwen index` is writing to it; wait until it is done") from None
    except PermissionError as error:
        raise StoreError(f"{error.filename or folder}: may not be written; name another --db") from None


def adopt(store: LanceStore) -> None:
    """Make the model of an open writer that of the index, and drop the tables of all others."""
    replace(read_state(store.folder), model=store.model, coming=None).save(store.folder)
    store.drop_others()


def _opened(folder: Path, model: Model | None, change: bool) -> LanceStore:
    if model is not None and not (folder / "index.json").exists():
        State(model).save(folder)
    state = read_state(folder)
    if model is None or same(model, state.model):
        if state.format < FORMAT:
            _upgrade(LanceStore(folder, state.model))
            replace(state, format=FORMAT).save(folder)
        return LanceStore(folder, state.model)
    if not change:
        check_model(folder, model)
    if state.format < FORMAT:
        _upgrade(LanceStore(folder, state.model))
    replace(state, coming=model, format=FORMAT).save(folder)
    store = LanceStore(folder, model)
    store.drop_others([state.model])
    return store


def _upgrade(store: LanceStore) -> None:
    """Format 1 to 2: nothing is rewritten; captions go to `texts` too. May be cut off and begun again."""
    batch: list[Row] = []
    for row in store.scan(CAPTIONS, ["key", "content", "text", "lang"]):
        batch.append(row)
        if len(batch) == 4096:
            store.put(TEXTS, batch)
            batch = []
    store.put(TEXTS, batch)


def _model(info: dict[str, Any]) -> Model:
    return Model(**{name: info[name] for name in Model.__dataclass_fields__})
