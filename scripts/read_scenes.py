"""How often the checker of drawn scenes reads a picture right: as it was drawn, and spoilt as a generator would.

    python scripts/read_scenes.py -n 1000

Right: as many things as there are, each of its kind, colour and size within 0.02 of the side of its place, and the
ground. Scenes of a seed that no test and no training uses. `ms` is processor time.
"""

from __future__ import annotations

import argparse
import io
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from tuwen.metrics.generation import share_interval
from tuwen.scenes import Scene, draw_scene, make_row
from tuwen.scenes.reader import read_scene

SEED = 977
Spoil = Callable[[Image.Image, np.random.Generator], Image.Image]


def blur(radius: float) -> Spoil:
    """A Gaussian of so many pixels."""
    return lambda picture, draw: picture.filter(ImageFilter.GaussianBlur(radius))


def noise(deviation: float, drift: float = 0.0) -> Spoil:
    """A deviation of each value, and a drift of each channel up to so much."""

    def spoil(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
        pixels = np.asarray(picture, np.float64)
        pixels = pixels + draw.normal(0, deviation, pixels.shape) + draw.uniform(-drift, drift, 3)
        return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))

    return spoil


def jpeg(quality: int) -> Spoil:
    """Through a JPEG, its colours at half resolution."""

    def spoil(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
        data = io.BytesIO()
        picture.save(data, "JPEG", quality=quality)
        return Image.open(data).convert("RGB")

    return spoil


WAYS: dict[str, Spoil] = {
    "as drawn": lambda picture, draw: picture,
    "blur 0.6 px": blur(0.6),
    "blur 1 px": blur(1.0),
    "blur 1.5 px": blur(1.5),
    "noise 6": noise(6),
    "noise 12": noise(12),
    "blur 0.7, noise 5, drift 8": lambda picture, draw: noise(5, 8)(blur(0.7)(picture, draw), draw),
    "JPEG 90": jpeg(90),
    "JPEG 75": jpeg(75),
}


def faults(true: Scene, read: Scene) -> list[str]:
    """What was read wrong."""
    if len(true.things) != len(read.things):
        return ["count"]
    wrong = ["ground"] if true.ground != read.ground else []
    left = list(read.things)
    for thing in true.things:
        near = min(left, key=lambda one: (one.x - thing.x) ** 2 + (one.y - thing.y) ** 2)
        left.remove(near)
        wrong += [name for name in ("shape", "colour", "size") if getattr(thing, name) != getattr(near, name)]
        wrong += ["place"] if max(abs(thing.x - near.x), abs(thing.y - near.y)) > 0.02 else []
    return wrong


def main() -> None:
    """Print a row a way of spoiling."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("-n", type=int, default=1000, help="scenes")
    options.add_argument("--size", type=int, default=64)
    options.add_argument("--ways", nargs="*", default=list(WAYS), choices=list(WAYS))
    asked = options.parse_args()
    print(f"| {asked.size} px, n = {asked.n} | all right (95%) | wrong | ms |\n|---|---|---|---|")
    for way in asked.ways:
        seen, counts = [], Counter[str]()
        spent = time.process_time()
        for number in range(asked.n):
            scene = make_row(number, SEED)[0]
            wrong = faults(scene, read_scene(WAYS[way](draw_scene(scene, asked.size), np.random.default_rng(number))))
            seen.append(not wrong)
            counts.update(wrong)
        low, high = share_interval(np.array(seen), np.arange(asked.n))
        told = ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "-"
        each = 1000 * (time.process_time() - spent) / asked.n
        print(f"| {way} | {100 * np.mean(seen):.1f} ({low:.1f}–{high:.1f}) | {told} | {each:.0f} |", flush=True)


if __name__ == "__main__":
    main()
