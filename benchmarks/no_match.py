"""Do absent topics find nothing, present ones their picture? `python benchmarks/no_match.py [--json F] [--also DIR]`

The queries are those of `tests/data/no_match.json`, the pictures the samples of `tuwen demo`; `--also` adds a folder of
others, among which they must still be found. Nothing here is set by hand: the floor is that of the model's calibration.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from tuwen import demo, pipelines
from tuwen.files import write_atomic
from tuwen.indexing import index_folder
from tuwen.searching import Query, find
from tuwen.store import open_store

QUERIES = Path(__file__).parents[1] / "tests" / "data" / "no_match.json"


def main() -> None:
    """Index, ask, count, name each miss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="retrieval")
    parser.add_argument("--also", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    asked = json.loads(QUERIES.read_text(encoding="utf-8"))
    pipeline = pipelines.as_embedder(pipelines.load(args.model))
    with tempfile.TemporaryDirectory() as place:
        pictures, db = Path(place, "pictures"), Path(place, "db")
        demo.collect(pictures)
        index_folder(pictures, db, pipeline)
        if args.also:
            index_folder(args.also, db, pipeline)
        store = open_store(db)
        counts: dict[str, str] = {}
        misses: list[str] = []
        for lang in ("en", "zh"):
            for kind in ("present", "absent", "nonsense"):
                good = 0
                for row in asked[kind]:
                    hits = find(store, pipeline, Query(row[lang])).hits
                    names = [Path(hit.file).name for hit in hits]
                    right = bool(set(names[:3]) & set(row["pictures"])) if kind == "present" else not hits
                    good += right
                    if not right:
                        free = find(store, pipeline, Query(row[lang], everything=True, k=100)).hits
                        rank = next((h.rank for h in free if Path(h.file).name in row.get("pictures", ())), None)
                        at = f"meant at rank {rank}, " if rank else ""
                        best = f"{Path(free[0].file).name} {free[0].score:.3f}"
                        misses.append(f"{lang} {kind}: {row[lang]}: {at}best {best}, {len(hits)} hits")
                counts[f"{lang} {kind}"] = f"{good}/{len(asked[kind])}"
    print("\n".join(misses))
    for name, count in counts.items():
        print(f"{name}: {count}")
    if args.json:
        write_atomic(args.json, json.dumps({"counts": counts, "misses": misses}, ensure_ascii=False, indent=1))


if __name__ == "__main__":
    main()
