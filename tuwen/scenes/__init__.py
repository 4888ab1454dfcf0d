"""The made data set: flat shapes with true captions, questions and scenes. Tests and demos live in it (DESIGN, 1).

Of every ten pictures in a row seven are `train` and one each `val`, `test` and `unseen`; what a picture shows hangs on
the seed and its number alone, so a smaller set is the beginning of a larger one.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image, ImageDraw

from tuwen.dataset import Dataset, load, read_manifest, save, to_line
from tuwen.errors import DataError
from tuwen.files import sha256_file, sha256_text
from tuwen.progress import track
from tuwen.records import Manifest, Picture
from tuwen.scenes.captions import describe
from tuwen.scenes.questions import ask
from tuwen.scenes.words import LANGUAGES
from tuwen.scenes.world import COLOURS, GROUNDS, MOST, SHAPES, UNSEEN_KINDS, Scene, Thing, holds, make_scene, to_json

__all__ = [
    "COLOURS",
    "GROUNDS",
    "LANGUAGES",
    "MOST",
    "SHAPES",
    "UNSEEN_KINDS",
    "Scene",
    "Thing",
    "ask",
    "describe",
    "draw_scene",
    "holds",
    "make_row",
    "make_scene",
    "split_of",
    "to_json",
    "write_scenes",
]

VERSION = 1  # of what a seed makes: another version draws other scenes
CYCLE = ("train", "train", "train", "val", "train", "train", "test", "train", "unseen", "train")
FINE = 4  # drawn this many times finer, then averaged: that is the anti-aliasing
MIN_SIDE = 16
RING_HOLE = 0.55  # of the radius


def split_of(number: int) -> str:
    """The split of the picture with this number, from 0."""
    return CYCLE[number % len(CYCLE)]


def draw_scene(scene: Scene, size: int = 64) -> Image.Image:
    """The picture of a scene, RGB, `size` pixels a side."""
    side = size * FINE
    image = Image.new("RGB", (side, side), GROUNDS[scene.ground])
    pen = ImageDraw.Draw(image)
    for thing in scene.things:
        # Pillow counts from the middle of a pixel and draws the edge itself too: half a pixel each.
        x, y, r = thing.x * side - 0.5, thing.y * side - 0.5, thing.r * side - 0.5
        colour = COLOURS[thing.colour]
        if thing.shape in ("circle", "ring"):
            pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
            if thing.shape == "ring":
                hole = thing.r * side * RING_HOLE - 0.5
                pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=GROUNDS[scene.ground])
        else:
            pen.polygon([(x + r * dx, y + r * dy) for dx, dy in OUTLINES[thing.shape]], fill=colour)
    return image.reduce(FINE)


def _regular(corners: int, turn: float = 0.0, inner: float | None = None) -> list[tuple[float, float]]:
    """Corners on the unit circle, the first on top; with `inner`, a star of so many points."""
    radii = [1.0] if inner is None else [1.0, inner]
    n = corners * len(radii)
    angles = [2 * math.pi * i / n + turn for i in range(n)]
    return [(radii[i % len(radii)] * math.sin(a), -radii[i % len(radii)] * math.cos(a)) for i, a in enumerate(angles)]


def _heart() -> list[tuple[float, float]]:
    """The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, shrunk into the unit circle."""
    turns = [2 * math.pi * i / 60 for i in range(60)]
    curve = [
        (16 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) - 2.5)
        for t in turns
    ]
    reach = max(math.hypot(x, y) for x, y in curve)
    return [(x / reach, y / reach) for x, y in curve]


def _cross() -> list[tuple[float, float]]:
    long, wide = 0.949, 0.316  # the corners lie on the unit circle
    quarter = [(wide, -wide), (wide, -long), (-wide, -long)]
    outline = []
    for x, y in ((1, 0), (0, -1), (-1, 0), (0, 1)):  # the quarter turned by 0, 90, 180, 270 degrees
        outline += [(px * x - py * y, px * y + py * x) for px, py in quarter]
    return outline


OUTLINES = {
    "square": _regular(4, turn=math.pi / 4),
    "triangle": _regular(3),
    "star": _regular(5, inner=0.45),
    "heart": _heart(),
    "cross": _cross(),
    "hexagon": _regular(6, turn=math.pi / 6),
}


def make_row(number: int, seed: int, things: int = MOST) -> tuple[Scene, Picture]:
    """The scene with this number and its line: captions, questions and the truth."""
    rng = Random(f"tuwen scenes {VERSION}/{seed}/{number}")
    split = split_of(number)
    scene = make_scene(rng, unseen=split == "unseen", most=things)
    name = f"s{number:06d}"
    row: dict[str, Any] = {
        "id": name,
        "file_name": f"images/{name}.png",
        "split": split,
        "captions": describe(scene, rng),
        "qa": ask(scene, rng, name, unseen=split == "unseen"),
        "scene": to_json(scene),
    }
    return scene, Picture(**row)


def write_scenes(dest: Path, n: int, size: int = 64, seed: int = 0, things: int = MOST) -> Dataset:
    """Make `n` pictures of `size` pixels a side, each of at most so many `things`, in the folder `dest`: written
    beside, then renamed.

    A folder that this function made is kept where it was made with the same arguments and replaced, whole, where with
    others. DataError: any other folder that is not empty, or one whose rows or files were changed since.
    """
    dest = dest.absolute()
    if n < 1 or size < MIN_SIDE:
        raise DataError(f"{dest}: can't make {n} pictures of {size} pixels; ask for at least 1 of {MIN_SIDE}")
    made = {"version": VERSION, "pictures": n, "size": size, "seed": seed, "things": things}
    if _is_kept(dest, made):
        return load(dest)
    beside, gone = dest.with_name(f".{dest.name}.making"), dest.with_name(f".{dest.name}.gone")
    try:
        for litter in (beside, gone):
            shutil.rmtree(litter, ignore_errors=True)
        (beside / "images").mkdir(parents=True)
        dataset = _fill(beside, made)
        if dest.exists():
            dest.rename(gone)
        beside.rename(dest)
        shutil.rmtree(gone, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{dest}: can't be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return replace(dataset, folder=dest)


def _fill(folder: Path, made: dict[str, int]) -> Dataset:
    """Draw the pictures and write the rows; the manifest says how they were made and what they were then."""
    pictures = []
    n, size, seed = made["pictures"], made["size"], made["seed"]
    for number in track(range(n), n, "drawing"):
        scene, picture = make_row(number, seed, made["things"])
        draw_scene(scene, size).save(folder / picture.file_name)
        pictures.append(picture)
    lines = "".join(to_line(picture) + "\n" for picture in pictures)
    record = {**made, "sha256": sha256_text(lines)}
    manifest = Manifest.model_validate({"name": f"scenes-{n}-{size}-{seed}", "scenes": record})
    dataset = Dataset(folder, manifest, pictures)
    save(dataset)
    return dataset


def _is_kept(dest: Path, made: dict[str, int]) -> bool:
    """Whether `dest` holds these very scenes. DataError where it holds what must not be replaced."""
    if (dest.is_dir() and not any(dest.iterdir())) or not dest.exists():
        return False
    manifest = dest / "dataset.json"
    record = (read_manifest(dest).model_extra or {}).get("scenes") if manifest.is_file() else None
    if not isinstance(record, dict):
        raise DataError(f"{dest}: not empty, and not made by `tuwen scenes`; choose another folder")
    rows = dest / "metadata.jsonl"
    if not rows.is_file() or sha256_file(rows) != record.get("sha256"):
        raise DataError(f"{rows}: changed since `tuwen scenes` made it; choose another folder")
    if {key: record.get(key) for key in made} == made:
        return True
    foreign = sorted({path.name for path in dest.iterdir()} - {"dataset.json", "metadata.jsonl", "images"})
    if foreign:
        raise DataError(f"{dest / foreign[0]}: would be lost with the old scenes; move it or choose another folder")
    return False
