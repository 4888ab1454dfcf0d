"""Many clients at once: errors and times of `tuwen serve`, and what batching brings over one request after another.

python benchmarks/serve.py --db tuwen.db --clients 50 --seconds 30
python benchmarks/serve.py --db tuwen.db --only batching --json out.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from tuwen import pipelines
from tuwen.errors import ModelError, TuwenError
from tuwen.files import write_atomic
from tuwen.server.desk import find_file
from tuwen.server.limits import Limits
from tuwen.server.shared import Shared
from tuwen.store import VECTORS

QUERIES = (
    "a dog in the water", "two children playing", "a man on a bicycle", "people at a market", "a red car",
    "雪地里的狗", "海边的人", "骑自行车的男人", "穿红衣服的女孩", "一群人在跳舞",
)  # fmt: skip
MIX = {"words": 0.6, "picture": 0.1, "similar": 0.1, "thumbnail": 0.2}  # what a client asks, share of its requests


async def client(url: str, ids: list[str], files: list[bytes], until: float, seed: int, told: Any) -> None:
    """One client: a request after another until the time is over, with no pause."""
    draw = random.Random(seed)
    async with httpx2.AsyncClient(base_url=url, timeout=120) as http:
        while time.monotonic() < until:
            kind = draw.choices(list(MIX), list(MIX.values()))[0]
            began = time.perf_counter()
            try:
                if kind == "words":
                    answer = await http.get("api/search", params={"q": draw.choice(QUERIES), "k": 30})
                elif kind == "picture":
                    answer = await http.post("api/search", files={"image": ("a.jpg", draw.choice(files))})
                elif kind == "similar":
                    answer = await http.get(f"api/similar/{draw.choice(ids)}")
                else:
                    answer = await http.get(f"api/pictures/{draw.choice(ids)}/thumbnail", params={"side": 256})
                why = None if answer.status_code == 200 else f"{answer.status_code} {answer.text[:200]}"
            except httpx2.HTTPError as error:
                why = f"{type(error).__name__}: {error}"
            told[kind].append((time.perf_counter() - began, why))


async def crowd(url: str, ids: list[str], files: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    """All clients together."""
    told: dict[str, list[tuple[float, str | None]]] = defaultdict(list)
    began = time.monotonic()
    await asyncio.gather(*(client(url, ids, files, began + seconds, n, told) for n in range(clients)))
    took = time.monotonic() - began
    both = [one for some in told.values() for one in some]
    errors = [why for _, why in both if why]
    return {
        "clients": clients,
        "seconds": round(took, 1),
        "requests": len(both),
        "per_second": round(len(both) / took, 1),
        "errors": len(errors),
        "first_errors": errors[:3],
        **{kind: _times([t for t, _ in told[kind]]) for kind in MIX},
        "all": _times([t for t, _ in both]),
    }


def serve(db: Path, clients: int, seconds: float) -> dict[str, Any]:
    """Start `tuwen serve` on a free port, let the crowd at it, and stop it by SIGTERM."""
    ids, paths = _sample(db)
    files = [path.read_bytes() for path in paths[:20]]
    process = subprocess.Popen(
        [sys.executable, "-m", "tuwen", "serve", "--db", str(db), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise TuwenError("the server did not start; run `tuwen serve` to see why")
        for path in ("api/search?q=dog", f"api/similar/{ids[0]}"):
            httpx2.get(found[0] + path, timeout=300).raise_for_status()
        image = {"image": ("a.jpg", files[0])}
        httpx2.post(found[0] + "api/search", files=image, timeout=300).raise_for_status()  # both sides are loaded now
        before = _cpu(process.pid)
        out = asyncio.run(crowd(found[0], ids, files, clients, seconds))
        return {**out, "server_cpu_ms_per_request": round(1000 * (_cpu(process.pid) - before) / out["requests"], 1)}
    finally:
        process.terminate()
        process.wait(60)


def batching(db: Path, count: int, repeats: int) -> dict[str, Any]:
    """The same work one request after another, and as `count` requests at once through the server's batches."""
    _, paths = _sample(db)
    shared = Shared(db, Limits(seconds=600))
    together = shared.search()[1]
    inner = together.pipeline
    texts = [f"{QUERIES[n % len(QUERIES)]} {n}" for n in range(count)]
    paths = [paths[n % len(paths)] for n in range(count)]
    kinds: dict[str, tuple[Callable[[int], Any], Callable[[int], Any], int]] = {
        "texts": (lambda n: inner.embed_texts([texts[n]]), lambda n: together.embed_texts([texts[n]]), count),
        "pictures": (lambda n: inner.embed_images([paths[n]]), lambda n: together.embed_images([paths[n]]), count),
    }
    question = "what is this?"
    for task, alone, met in (
        ("caption", lambda m, n: m.caption([paths[n]], "en"), lambda n: shared.caption(paths[n], "en", None)),
        ("ask", lambda m, n: m.answer([paths[n]], [question]), lambda n: shared.answer(paths[n], question, 3)),
    ):
        try:
            model = pipelines.load(shared.names[task])
        except ModelError:
            continue
        kinds[task] = (lambda n, model=model, alone=alone: alone(model, n), met, max(8, count // 3))
    out = {}
    for kind, (one, met, most) in kinds.items():
        one(0), met(0)
        pairs = [(_serial(one, most), _parallel(met, most)) for _ in range(repeats)]
        serial, parallel = (statistics.median(side) for side in zip(*pairs, strict=True))
        out[kind] = {
            "requests": most,
            "serial_seconds": round(serial, 3),
            "batched_seconds": round(parallel, 3),
            "ratio": round(serial / parallel, 2),
        }
    shared.stop()
    return out


def _cpu(pid: int) -> float:
    """Seconds of a core that a process has used: what stays the same where other work takes most of the machine."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _serial(act: Callable[[int], Any], count: int) -> float:
    began = time.perf_counter()
    for n in range(count):
        act(n)
    return time.perf_counter() - began


def _parallel(act: Callable[[int], Any], count: int) -> float:
    with ThreadPoolExecutor(count) as pool:
        began = time.perf_counter()
        list(pool.map(act, range(count)))
        return time.perf_counter() - began


def _sample(db: Path) -> tuple[list[str], list[Path]]:
    """Some pictures of the index: ids and files."""
    store = Shared(db, Limits()).store()
    ids = sorted(row["key"] for row in store.scan(VECTORS, ["key"]))[:200]
    return ids, [find_file(store, id) for id in ids[:64]]


def _times(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    p50, p95 = np.percentile(seconds, [50, 95])
    return {"n": len(seconds), "p50_ms": round(1000 * p50, 1), "p95_ms": round(1000 * p95, 1),
            "max_ms": round(1000 * max(seconds), 1)}  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--db", type=Path, default=Path("tuwen.db"))
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--count", type=int, default=48, help="requests that meet, for the ratio")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=("serve", "batching"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    out: dict[str, Any] = {"db": str(given.db), "cores": os.cpu_count(), "load_before": round(load, 1)}
    if given.only != "batching":
        out["serve"] = serve(given.db, given.clients, given.seconds)
    if given.only != "serve":
        out["batching"] = batching(given.db, given.count, given.repeats)
    text = json.dumps(out, indent=2, ensure_ascii=False)
    print(text)
    if given.json:
        write_atomic(given.json, text + "\n")


if __name__ == "__main__":
    main()
