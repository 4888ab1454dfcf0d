"""The store on one machine: Lance tables in a folder, vectors and full text behind the protocol of `store`."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import StoreError
from tuwen.files import sha256_text

if TYPE_CHECKING:
    import pyarrow as pa

FILES, VECTORS, CAPTIONS = "files", "vectors", "captions"
TEXTS, NOTES, THUMBNAILS = "texts", "notes", "thumbnails"
TABLES = (FILES, VECTORS, CAPTIONS, TEXTS, NOTES, THUMBNAILS)
OF_MODEL = (VECTORS, CAPTIONS)  # each model has its own
EXACT_BELOW = 50_000  # rows; above, IVF_FLAT: measured the same ten hits at a fifteenth of the time
PROBES = 20
COMPACT_EVERY = 128  # commits, each of which leaves a small file and a version behind
FRAGMENTS = 24  # pieces that are left apart of thumbnails (merging writes all of them again), and by brief writers
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


class LanceStore:
    """LanceDB, cosine over float32, exact below `exact_below` rows; full text cut by ICU, which knows Chinese words."""

    def __init__(self, folder: Path, model: Model, exact_below: int = EXACT_BELOW) -> None:
        os.environ.setdefault("LANCE_LOG", "error")  # it writes of empty partitions to stderr otherwise
        import lancedb

        self.folder, self.model, self.exact_below = folder, model, exact_below
        # Zero: look for a newer version at each read, so a server sees what an indexer commits.
        self._db = lancedb.connect(folder, read_consistency_interval=timedelta(0))
        self._tables: dict[str, Any] = {}
        self._commits: Counter[str] = Counter()  # by table, since it was compacted

    def put(self, table: str, rows: Sequence[Row]) -> None:
        if not rows:
            return
        data = _arrow(rows, _schema(table, self.model.dim))
        to = self._table(table, make=True)
        self._told(lambda: to.merge_insert("key").when_matched_update_all().when_not_matched_insert_all().execute(data))
        self._committed(table)

    def delete(self, table: str, keys: Collection[str]) -> None:
        at = self._table(table)
        if at is None or not keys:
            return
        for condition in _conditions("key", keys):
            self._told(partial(at.delete, condition))
            self._committed(table)

    def search(
        self, table: str, vector: Vector, k: int, columns: Sequence[str] = ("key",), where: str | None = None
    ) -> list[tuple[Row, float]]:
        at = self._table(table)
        if at is None:
            return []

        def nearest() -> list[Row]:
            query = at.search(vector.astype(np.float32), vector_column_name="vector").distance_type("cosine")
            query = query.where(where, prefilter=True) if where else query
            rows: list[Row] = query.select([*columns, "_distance"]).limit(k).nprobes(PROBES).to_list()
            return rows

        found = [(row, 1.0 - row.pop("_distance")) for row in self._told(nearest)]
        return sorted(found, key=lambda hit: (-hit[1], hit[0].get("key", "")))

    def find_words(self, words: str, k: int, columns: Sequence[str] = ("key",)) -> list[tuple[Row, float]]:
        """The k rows of TEXTS that hold the words, best first by BM25; rows not in the word index yet as well."""
        at = self._table(TEXTS)
        if at is None:
            return []

        def matching() -> list[Row]:
            query = at.search(words, query_type="fts", fts_columns="text").select([*columns, "_score"])
            rows: list[Row] = query.limit(k).to_list()
            return rows

        found = [(row, float(row.pop("_score"))) for row in self._told(matching)]
        return sorted(found, key=lambda hit: (-hit[1], hit[0].get("key", "")))

    def scan(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: tuple[str, Collection[str]] | None = None,
        also: str | None = None,
        limit: int | None = None,
    ) -> Iterator[Row]:
        for batch in self.batches(table, columns, where, also, limit):
            yield from batch.to_pylist()

    def batches(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: tuple[str, Collection[str]] | None = None,
        also: str | None = None,
        limit: int | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """As `scan`, in Arrow's batches: for vectors and thumbnails by the thousand."""
        at = self._table(table)
        if at is None:
            return
        for condition in _conditions(*where, also) if where else [also]:

            def read(condition: str | None = condition) -> pa.Table:
                query = at.search()
                query = query.where(condition) if condition else query
                return (query.select(list(columns)) if columns else query).limit(limit).to_arrow()

            yield from self._told(read).to_batches(max_chunksize=4096)

    def count(self, table: str, where: str | None = None) -> int:
        """How many rows a table has, or those for which the condition holds."""
        at = self._table(table)
        return 0 if at is None else int(self._told(lambda: at.count_rows(where)))

    def vectors(self, limit: int | None = None) -> tuple[list[str], Vector]:
        """Content ids and pictures' vectors (n, d), the first `limit` or all of them."""
        keys: list[str] = []
        parts: list[Vector] = []
        for batch in self.batches(VECTORS, ["key", "vector"], limit=limit):
            keys += batch.column("key").to_pylist()
            parts.append(batch.column("vector").flatten().to_numpy().reshape(len(batch), -1))
        return keys, np.concatenate(parts) if parts else np.zeros((0, self.model.dim), np.float32)

    def compact(self, tables: Iterable[str] = TABLES) -> None:
        """Merge what the commits left, drop old versions and half-written files, bring the indexes up to date."""
        for name in tables:
            self._commits.pop(name, None)
            at = self._table(name)
            if at is None:
                continue
            if name in OF_MODEL and at.count_rows() >= self.exact_below and not at.list_indices():
                from lancedb.index import IvfFlat

                self._told(partial(at.create_index, "vector", config=IvfFlat(distance_type="cosine")))
            if name == TEXTS and not at.list_indices():
                self._index_words(at)
            if name == THUMBNAILS and self._pieces(name) < FRAGMENTS:
                continue
            # Safe at once: the lock keeps other writers out, and a reader that loses its version reads again.
            self._told(partial(at.optimize, cleanup_older_than=timedelta(milliseconds=1), delete_unverified=True))

    def compact_changed(self) -> None:
        """`compact` of the tables that were written to, and of those that brief writers left in many pieces."""
        others = (name for name in (NOTES, CAPTIONS, TEXTS) if name not in self._commits)
        self.compact([*self._commits, *(name for name in others if self._pieces(name) >= FRAGMENTS)])

    def _pieces(self, table: str) -> int:
        at = self._table(table)
        return 0 if at is None else int(self._told(at.stats)["fragment_stats"]["num_fragments"])

    def drop(self, table: str, aside: bool = False) -> None:
        """Take a table away as a whole, damaged or not; or leave it `aside`, under another name."""
        name = self._name(table)
        if aside:
            (self.folder / f"{name}.lance").replace(self.folder / f"{name}-{time.time_ns()}.damaged")
        else:
            self._drop_named(name)
        self._tables.pop(table, None)

    def drop_others(self, keep: Iterable[Model] = ()) -> None:
        """Take away the tables of all models but this one's and those of `keep`."""
        kept = {_name_of(table, model) for table in OF_MODEL for model in (self.model, *keep)}
        for path in self.folder.glob("*.lance"):
            if path.stem.partition("_")[0] in OF_MODEL and path.stem not in kept:
                self._drop_named(path.stem)

    def _drop_named(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._told(lambda: self._db.drop_table(name, ignore_missing=True))

    def _index_words(self, at: Any) -> None:
        from lancedb.index import FTS

        config = FTS(base_tokenizer="icu", stem=False, remove_stop_words=False)
        self._told(partial(at.create_index, "text", config=config))

    def _committed(self, table: str) -> None:
        self._commits[table] += 1
        if self._commits.total() >= COMPACT_EVERY:
            self.compact_changed()

    def _name(self, table: str) -> str:
        return _name_of(table, self.model)

    def _table(self, table: str, make: bool = False) -> Any:
        """The Lance table of this model, or None where nothing was put yet."""
        if table not in self._tables:
            name = self._name(table)
            if make:
                if not self._made(name):  # a kill between making the folder and the first version
                    shutil.rmtree(self.folder / f"{name}.lance", ignore_errors=True)
                schema = _schema(table, self.model.dim)
                self._tables[table] = self._told(lambda: self._db.create_table(name, schema=schema, exist_ok=True))
                if table == TEXTS and not self._told(self._tables[table].list_indices):
                    self._index_words(self._tables[table])  # at once: a later put is found without a compaction
            elif self._made(name):
                self._tables[table] = self._told(lambda: self._db.open_table(name))
        return self._tables.get(table)

    def _made(self, name: str) -> bool:
        """Whether a table has any version."""
        return next((self.folder / f"{name}.lance" / "_versions").glob("*.manifest"), None) is not None

    def _told(self, act: Callable[[], T]) -> T:
        """Run against Lance, again where a compaction took the version from under a reader; then one line."""
        for again in (True, True, False):
            try:
                return act()
            except Exception as error:  # Lance raises RuntimeError, OSError and ValueError alike
                if not again:
                    why = str(error).split("\n", 1)[0][:200]
                    raise StoreError(
                        f"{self.folder}: cannot be used ({why}); `tuwen index --verify --db {self.folder}` says what "
                        "is wrong, --repair mends it"
                    ) from None
        raise AssertionError("unreachable")


def _name_of(table: str, model: Model) -> str:
    return f"{table}_{sha256_text(model.fingerprint)[:16]}" if table in OF_MODEL else table


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
        TEXTS: {"key": text, "content": text, "text": text, "lang": text},  # every caption, for its words
        NOTES: {"key": text, "content": text, "text": text, "lang": text, "source": text, "at": text},
        THUMBNAILS: {"key": text, "tiny": pa.binary(), "jpeg": pa.binary()},  # key: content id
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


def quote(value: str) -> str:
    """A text as a literal of a condition."""
    return "'" + value.replace("'", "''") + "'"


def _conditions(column: str, values: Collection[str], also: str | None = None) -> list[str]:
    """SQL conditions that together select the rows; each holds at most AT_ONCE values."""
    ordered = [quote(value) for value in sorted(values)]
    more = f" AND {also}" if also else ""
    return [f"{column} IN ({', '.join(ordered[n : n + AT_ONCE])}){more}" for n in range(0, len(ordered), AT_ONCE)]
