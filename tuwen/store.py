"""Rows and vectors on disk, behind one small protocol: put, delete, search, scan (DESIGN, Store).

A folder holds `index.json` (which model it is of), `index.lock` (one writer at a time) and Lance tables:
`files` is the truth, `vectors_MODEL` and `captions_MODEL` hang on content ids. Readers need no lock.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tuwen.errors import StoreError
from tuwen.files import sha256_text, write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
FILES, VECTORS, CAPTIONS = "files", "vectors", "captions"
EXACT_BELOW = 50_000  # rows; above, IVF_FLAT: measured the same ten hits at a fifteenth of the time
PROBES = 20
COMPACT_EVERY = 128  # commits, each of which leaves a small file and a version behind
AT_ONCE = 500  # values in one condition

Row: TypeAlias = dict[str, Any]
Vector: TypeAlias = NDArray[np.float32]
T = TypeVar("T")


@dataclass(frozen=True)
class Model:
    """Whose vectors an index holds: `name` loads it, `fingerprint` says that it is the same one."""

    name: str
    fingerprint: str
    dim: int
    size: int
    view: str

    def __str__(self) -> str:
        return f"'{self.name}' ({self.fingerprint[:8]}, {self.dim} wide, {self.size} px {self.view})"


class Store(Protocol):
    """Where an index lies. Every table has a text column `key`; a put replaces the row of the same key."""

    def put(self, table: str, rows: Sequence[Row]) -> None:
        """Write rows, all or none of them."""

    def delete(self, table: str, keys: Collection[str]) -> None:
        """Take rows away; a key that is not there is no error."""

    def search(self, table: str, vector: Vector, k: int, columns: Sequence[str] = ("key",)) -> list[tuple[Row, float]]:
        """The k rows nearest to a vector (d,) with their cosines, best first, ties by key."""

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: tuple[str, Collection[str]] | None = None,
    ) -> Iterator[Row]:
        """All rows, or those whose column, `where[0]`, holds one of the values, `where[1]`; in no order."""


def read_model(folder: Path) -> Model:
    """The model that an index is of. StoreError where there is no index, or one of a later format."""
    path = folder / "index.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if info["format"] != FORMAT:
            raise StoreError(f"{path}: format {info['format']} is not {FORMAT}: update tuwen, or index anew")
        return Model(**{name: info[name] for name in Model.__dataclass_fields__})
    except (FileNotFoundError, NotADirectoryError):
        raise StoreError(f"{folder}: no index there; make one: tuwen index PICTURES --db {folder}") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreError(f"{path}: cannot be read ({error}); delete {folder} and index anew") from None


def check_model(folder: Path, model: Model) -> None:
    """StoreError where the index is of another model: cosines between two models' vectors mean nothing."""
    there = read_model(folder)
    if replace(there, name=model.name) != model:
        raise StoreError(
            f"{folder}: an index of the model {there}, not of {model}; "
            "index into another place with --db, or delete this index first"
        )


def open_store(folder: Path) -> LanceStore:
    """An index to read. StoreError where there is none."""
    return LanceStore(folder, read_model(folder))


@contextlib.contextmanager
def writer(folder: Path, model: Model) -> Iterator[LanceStore]:
    """An index to write, made where there is none; compacted in the end. StoreError where another writes."""
    path = folder / "index.json"
    if path.exists():
        check_model(folder, model)
    elif folder.exists() and not (folder.is_dir() and {p.name for p in folder.iterdir()} <= {"index.lock"}):
        raise StoreError(f"{folder}: there is something else here, not an index; name another --db")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "index.lock", timeout=0):
            if path.exists():
                check_model(folder, model)
            else:
                write_atomic(path, json.dumps({"format": FORMAT, **asdict(model)}, indent=2))
            store = LanceStore(folder, model)
            yield store
            store.compact()
    except Timeout:
        raise StoreError(f"{folder}: another `tuwen index` is writing to it; wait until it is done") from None
    except PermissionError as error:
        raise StoreError(f"{error.filename or folder}: may not be written; name another --db") from None


class LanceStore:
    """The store on one machine: LanceDB, cosine over float32, exact below `exact_below` rows."""

    def __init__(self, folder: Path, model: Model, exact_below: int = EXACT_BELOW) -> None:
        os.environ.setdefault("LANCE_LOG", "error")  # it writes of empty partitions to stderr otherwise
        import lancedb

        self.folder, self.model, self.exact_below = folder, model, exact_below
        # Zero: look for a newer version at each read, so a server sees what an indexer commits.
        self._db = lancedb.connect(folder, read_consistency_interval=timedelta(0))
        self._tables: dict[str, Any] = {}
        self._commits = 0

    def put(self, table: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        data = _arrow(rows, _schema(table, self.model.dim))
        to = self._table(table, make=True)
        self._told(lambda: to.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(data))
        self._committed()

    def delete(self, table: str, keys: Collection[str]) -> None:
        at = self._table(table)
        if at is None or not keys:
            return
        for condition in _conditions("key", keys):
            self._told(partial(at.delete, condition))
            self._committed()

    def search(self, table: str, vector: Vector, k: int, columns: Sequence[str] = ("key",)) -> list[tuple[Row, float]]:
        at = self._table(table)
        if at is None:
            return []

        def nearest() -> list[Row]:
            query = at.search(vector.astype(np.float32), vector_column_name="vector").distance_type("cosine")
            query = query.select([*columns, "_distance"]).limit(k).nprobes(PROBES)
            rows: list[Row] = query.to_list()
            return rows

        found = [(row, 1.0 - row.pop("_distance")) for row in self._told(nearest)]
        return sorted(found, key=lambda hit: (-hit[1], hit[0].get("key", "")))

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: tuple[str, Collection[str]] | None = None,
    ) -> Iterator[Row]:
        at = self._table(table)
        if at is None:
            return
        for condition in _conditions(*where) if where else [None]:

            def read(condition: str | None = condition) -> pa.Table:
                query = at.search()
                query = query.where(condition) if condition else query
                return (query.select(list(columns)) if columns else query).limit(None).to_arrow()

            for batch in self._told(read).to_batches(max_chunksize=4096):
                yield from batch.to_pylist()

    def compact(self) -> None:
        """Merge what the commits left, drop old versions and half-written files, keep the vector index."""
        for name in (FILES, VECTORS, CAPTIONS):
            at = self._table(name)
            if at is None:
                continue
            if name != FILES and at.count_rows() >= self.exact_below and not at.list_indices():
                from lancedb.index import IvfFlat

                self._told(partial(at.create_index, "vector", config=IvfFlat(distance_type="cosine")))
            # Safe at once: the lock keeps other writers out, and a reader that loses its version reads again.
            self._told(partial(at.optimize, cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True))

    def _committed(self) -> None:
        self._commits += 1
        if self._commits % COMPACT_EVERY == 0:
            self.compact()

    def _table(self, table: str, make: bool = False) -> Any:
        """The Lance table of this model, or None where nothing was put yet."""
        if table not in self._tables:
            name = table if table == FILES else f"{table}_{sha256_text(self.model.fingerprint)[:16]}"
            if make:
                schema = _schema(table, self.model.dim)
                self._tables[table] = self._told(lambda: self._db.create_table(name, schema=schema, exist_ok=True))
            elif (self.folder / f"{name}.lance").exists():
                self._tables[table] = self._told(lambda: self._db.open_table(name))
        return self._tables.get(table)

    def _told(self, act: Callable[[], T]) -> T:
        """Run against Lance, again where a compaction took the version from under a reader; then one line."""
        for again in (True, True, False):
            try:
                return act()
            except Exception as error:  # Lance raises RuntimeError, OSError and ValueError alike
                if not again:
                    why = str(error).split("\n", 1)[0][:200]
                    raise StoreError(
                        f"{self.folder}: cannot be used ({why}); if that stays, delete it and index anew"
                    ) from None
        raise AssertionError("unreachable")


def _schema(table: str, dim: int) -> pa.Schema:
    import pyarrow as pa

    text, vector = pa.string(), pa.list_(pa.float32(), dim)
    fields: dict[str, dict[str, Any]] = {
        VECTORS: {"key": text, "vector": vector},  # key: content id
        CAPTIONS: {"key": text, "content": text, "text": text, "lang": text, "vector": vector},
        FILES: {
            "key": text, "folder": text, "path": text, "content": text, "mtime_ns": pa.int64(),
            "size": pa.int64(), "width": pa.int32(), "height": pa.int32(), "format": text, "date": text,
            "camera": text, "latitude": pa.float64(), "longitude": pa.float64(),
            "captions": pa.list_(pa.struct({"text": text, "lang": text, "source": text})),
            "state": text, "why": text,
        },
    }  # fmt: skip
    return pa.schema(list(fields[table].items()))


def _arrow(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    if "vector" not in schema.names:
        return pa.Table.from_pylist(list(rows), schema=schema)
    matrix = np.stack([row["vector"] for row in rows]).astype(np.float32)  # (n, d)
    plain = {name: [row[name] for row in rows] for name in schema.names if name != "vector"}
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return pa.table({**plain, "vector": vectors}, schema=schema)


def _conditions(column: str, values: Collection[str]) -> list[str]:
    """SQL conditions that together select the rows; each holds at most AT_ONCE values."""
    ordered = ["'" + value.replace("'", "''") + "'" for value in sorted(values)]
    return [f"{column} IN ({', '.join(ordered[n : n + AT_ONCE])})" for n in range(0, len(ordered), AT_ONCE)]
