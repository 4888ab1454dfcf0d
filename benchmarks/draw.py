"""Drawing in few steps against the sampler that training means: Euler along even times, and the quality of both.

python benchmarks/draw.py text-to-image --data SCENES
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tuwen
from tuwen import dataset as datasets
from tuwen.errors import DataError, TuwenError
from tuwen.files import write_atomic
from tuwen.pipelines import Drawer, Drawing
from tuwen.scenes.reader import read_scene
from tuwen.scenes.request import satisfies, understand

SLOW = 120  # Euler steps of equal length: what flow matching is trained for, and what it is usually sampled with


def sampler(drawer: Drawer, steps: int | None, guidance: float) -> dict[str, Any]:
    """The way a side draws: its own few steps, or (`steps` given) the training-time sampler with the same guidance."""
    own = drawer.model.sampling
    return {**own._asdict(), "guidance": guidance} | (
        {"steps": steps, "method": "euler", "shift": 1.0} if steps else {}
    )


def draw(drawer: Drawer, wanted: list[tuple[str, int]], how: dict[str, Any], batch: int) -> tuple[float, list[Drawing]]:
    """Seconds, and the pictures."""
    before = drawer.model.sampling
    drawer.model.sampling = type(before)(**how)
    try:
        start = time.perf_counter()
        drawn = list(drawer.each_of(wanted, tries=1, batch=batch))
        return time.perf_counter() - start, drawn
    finally:
        drawer.model.sampling = before


def right(drawn: list[Drawing]) -> float | None:
    """Percent of the pictures that show all that their sentence asks for; None where sentences are of another world."""
    asked = [(one, understand(one.prompt)) for one in drawn]
    found = [not satisfies(read_scene(one.image), request) for one, request in asked if request is not None]
    return 100 * float(np.mean(found)) if len(found) == len(drawn) else None


def compare(drawer: Drawer, wanted: list[tuple[str, int]], repeats: int, batch: int) -> dict[str, Any]:
    """Both sides in turn, `repeats` times, after a warm-up."""
    guidance = drawer.model.sampling.guidance
    sides = {"few": sampler(drawer, None, guidance), "training": sampler(drawer, SLOW, guidance)}
    draw(drawer, wanted[:batch], sides["few"], batch)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    pictures: dict[str, list[Drawing]] = {}
    for _ in range(repeats):
        for side, how in sides.items():
            spent, pictures[side] = draw(drawer, wanted, how, batch)
            seconds[side].append(spent / len(wanted))
    ratios = [slow / fast for fast, slow in zip(seconds["few"], seconds["training"], strict=True)]
    few, slow = (np.stack([np.asarray(one.image, float) for one in pictures[side]]) for side in sides)
    return {
        "seconds_a_picture": {side: statistics.median(spent) for side, spent in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "samplers": sides,
        "scenes_right": {side: right(drawn) for side, drawn in pictures.items()},
        "pixels_apart": float(np.abs(few - slow).mean()),
        "pictures": len(wanted),
        "machine": f"{drawer.device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def main() -> None:
    """Print a table; exit with 1 where the request is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="text-to-image", help="a shipped model or a run's folder")
    parser.add_argument("--data", type=Path, required=True, help="whose sentences are drawn: the first of each picture")
    parser.add_argument("--split", default="test")
    parser.add_argument("-n", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="F")
    given = parser.parse_args()
    try:
        drawer = tuwen.load(given.model, "cpu")
        if not isinstance(drawer, Drawer) or not drawer.flows:
            raise DataError(f"{given.model}: no flow: name a drawing model that samples in steps")
        part = datasets.load(given.data).select(given.split)
        texts = [picture.human()[0].text for picture in part.pictures if picture.human()][: given.n]
        found = compare(drawer, [(text, seed) for seed, text in enumerate(texts)], given.repeats, given.batch)
    except TuwenError as error:
        raise SystemExit(f"error: {error}") from None
    for side, spent in found["seconds_a_picture"].items():
        how, share = found["samplers"][side], found["scenes_right"][side]
        shown = "" if share is None else f", {share:.1f}% of scenes right"
        print(
            f"{side:<10}{spent:>8.3f} s a picture: {how['steps']} steps, {how['method']}, shift {how['shift']}{shown}"
        )
    spread = f"{min(found['ratios']):.1f} to {max(found['ratios']):.1f}"
    print(f"ratio     {found['ratio']:>8.1f} (median of {given.repeats}; {spread}); {found['pictures']} pictures")
    print(f"both from the same noise: {found['pixels_apart']:.1f} of 255 apart on average; {found['machine']}")
    if given.json:
        write_atomic(given.json, json.dumps({"version": 1, "model": given.model, **found}, indent=2))


if __name__ == "__main__":
    main()
