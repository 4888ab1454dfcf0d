"""What ordering the first hits of a search anew costs: milliseconds a query, beside the search itself.

python benchmarks/rerank.py runs/reranker --pictures PICTURES
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np

from tuwen import images, pipelines
from tuwen.errors import TuwenError
from tuwen.files import write_atomic
from tuwen.pipelines import Reranker
from tuwen.reranking import rerank
from tuwen.searching import Hit

QUERIES = [
    "a dog runs across the grass",
    "two children play in the water",
    "一个男人在爬山",
    "a crowd of people in a city",
]


def measure(reranker: Reranker, files: list[Path], rounds: int) -> dict[str, tuple[float, float]]:
    """Median milliseconds, by the clock and of processor time, of the parts of a query."""
    index = np.random.default_rng(0).normal(size=(10_000, reranker.dim)).astype(np.float32)
    times: dict[str, list[tuple[float, float]]] = {}

    def now() -> tuple[float, float]:
        return 1000 * time.perf_counter(), 1000 * time.process_time()

    def lap(name: str, started: tuple[float, float]) -> tuple[float, float]:
        clock, work = now()
        times.setdefault(name, []).append((clock - started[0], work - started[1]))
        return now()

    for turn in range(rounds + 1):
        query = QUERIES[turn % len(QUERIES)]
        hits = files[turn * reranker.top % (len(files) - reranker.top) :][: reranker.top]
        at = now()
        vector = reranker.embed_texts([query])[0]
        at = lap("vector of the words", at)
        np.argsort(-(index @ vector))[: reranker.top]
        at = lap("10,000 dot products", at)
        regions = reranker.read_images(hits)
        at = lap(f"grids of {reranker.top} hits", at)
        rows = np.arange(reranker.top)
        reranker.score(regions, reranker.read_texts([query]), rows, np.zeros_like(rows))
        at = lap(f"scores of {reranker.top} hits", at)
        rerank([Hit(str(path), 0.0, i, None, str(i)) for i, path in enumerate(hits, 1)], query, reranker)
        lap("all of the re-ranking", at)
        if not turn:
            times.clear()  # the first opens graphs and weights
    return {
        name: (statistics.median(clock for clock, _ in values), statistics.median(work for _, work in values))
        for name, values in times.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    reranker = pipelines.load(args.run)
    if not isinstance(reranker, Reranker):
        raise TuwenError(f"{args.run}: no re-ranker: name a run of `tuwen train reranker`")
    files = sorted(path for path in args.pictures.rglob("*") if path.suffix.lower() in images.SUFFIXES)
    if len(files) <= reranker.top:
        raise TuwenError(f"{args.pictures}: holds {len(files)} pictures, and more than {reranker.top} are needed")
    found = measure(reranker, files, args.rounds)
    for name, (clock, work) in found.items():
        print(f"{name:24} {clock:8.1f} ms  {work:8.1f} ms of processor time")
    if args.json:
        write_atomic(args.json, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
