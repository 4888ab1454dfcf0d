"""Captions a second: a whole batch in one beam search against the same search picture by picture.

python benchmarks/decoding.py runs/captioning
python benchmarks/decoding.py --random captioning --json out.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import tuwen
from tuwen import decode
from tuwen.config import load_recipe
from tuwen.errors import TuwenError
from tuwen.files import write_atomic
from tuwen.pipelines import Captioner
from tuwen.tasks.captioning import build_model

LITE2 = {"in_width": 352, "features": 1280, "regions": 81, "max_tokens": 40}  # the shipped recipe's regions
WORDS = {"vocabulary": 7000, "pad": 0, "end": 1, "silent": [0], "languages": ["en", "zh"]}


def open_model(name: str, recipe: str | None, device: str) -> tuple[Any, dict[str, Any]]:
    """The module and its config: of a trained run, or with random weights from a recipe."""
    if recipe:
        config = {**LITE2, **WORDS, "model": load_recipe(recipe, []).model.model_dump()}
        if config["model"]["decoder"]["kind"] == "show-tell":
            config |= {"in_width": 1280, "features": None, "regions": 1}
        torch.manual_seed(0)
        return build_model(config).to(device).eval(), config
    pipeline = tuwen.load(name, device)
    if not isinstance(pipeline, Captioner):
        raise TuwenError(f"{name}: no captioner of ours: name a run of a captioning recipe")
    return pipeline.model, pipeline.config


def measure(run: Callable[[], list[list[int]]], device: str) -> tuple[float, list[list[int]]]:
    """Seconds, and the captions as ids."""
    start = time.perf_counter()
    found = run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def compare(model: Any, config: dict[str, Any], regions: Tensor, beams: int, repeats: int) -> dict[str, Any]:
    """Both sides in turn, `repeats` times, after a warm-up of each."""
    how = config["model"]["decoding"]

    @torch.inference_mode()
    def describe(rows: Tensor) -> list[list[int]]:
        found = decode.beam(
            model.stepper(rows, 0), config["end"], how["limit"], width=beams, length_penalty=how["length_penalty"],
            minimum=how["minimum"], no_repeat=how["no_repeat"], pad=config["pad"],
        )  # fmt: skip
        pairs = zip(found.ids[:, 0].tolist(), found.lengths[:, 0].tolist(), strict=True)
        return [ids[:length] for ids, length in pairs]

    sides: dict[str, Callable[[], list[list[int]]]] = {
        "batch": lambda: describe(regions),
        "one by one": lambda: [describe(row)[0] for row in regions.split(1)],
    }
    for warm in (regions, regions[:1]):
        describe(warm)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    captions: dict[str, list[list[int]]] = {}
    for _ in range(repeats):
        for side, run in sides.items():
            spent, captions[side] = measure(run, str(regions.device))
            seconds[side].append(spent)
    count = len(regions)
    same = sum(a == b for a, b in zip(captions["batch"], captions["one by one"], strict=True))
    ratios = [slow / fast for fast, slow in zip(seconds["batch"], seconds["one by one"], strict=True)]
    return {
        "captions_per_second": {side: count / statistics.median(spent) for side, spent in seconds.items()},
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "same_captions": same,
        "mean_length": sum(map(len, captions["batch"])) / count,
        "pictures": count,
        "beams": beams,
        "machine": f"{regions.device}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    }


def main() -> None:
    """Print a table; exit with 1 where the request is at fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="captioning", help="a shipped model or a run's folder")
    parser.add_argument("--random", metavar="RECIPE", help="random weights from this recipe instead")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="F")
    given = parser.parse_args()
    try:
        model, config = open_model(given.model, given.random, given.device)
    except TuwenError as error:
        raise SystemExit(f"error: {error}") from None
    draw = torch.Generator().manual_seed(0)
    regions = torch.randn(given.batch, config["regions"], config["in_width"], generator=draw).to(given.device)
    found = compare(model, config, regions, given.beams, given.repeats)
    for side, rate in found["captions_per_second"].items():
        print(f"{side:<12}{rate:>10.1f} captions/s")
    spread = f"{min(found['ratios']):.1f} to {max(found['ratios']):.1f}"
    print(f"ratio       {found['ratio']:>10.1f} (median of {given.repeats}; {spread})")
    print(f"same captions on both sides: {found['same_captions']} of {given.batch}; {found['mean_length']:.1f} words")
    if given.json:
        write_atomic(given.json, json.dumps({"version": 1, "model": given.random or given.model, **found}, indent=2))


if __name__ == "__main__":
    main()
