"""A small folder with captions of its own, and a run that knows its words but not its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tuwen import dataset as datasets
from tuwen import images, train
from tuwen.config import parse_recipe
from tuwen.dataset import Dataset
from tuwen.images import View
from tuwen.records import Caption, Manifest, Picture

WORDS: tuple[dict[str, Any], ...] = (
    {"red": (220, 40, 40), "green": (40, 180, 40), "blue": (40, 40, 220), "white": (250, 250, 250)},
    {"high": 4, "low": 20, "middle": 12},
    {"left": 4, "right": 20, "centred": 12},
    {"tiny": 3, "huge": 9},
)
WIDTH = 48
EVIL = '<script>alert("x")</script>'
HUBS = {"weight": 0.5, "pictures": 20, "sentences": 30, "picture_axes": 6, "sentence_axes": 5}


def make_own(folder: Path, n: int = 70, split: str | None = None, shuffled: bool = False, seed: int = 0) -> Path:
    """n (up to 72) pictures of 32 pixels, no two alike, each with two captions of its own, and features `own` (n, 12).

    `shuffled`: every picture has the captions of another, so that there is nothing to learn.
    """
    (folder / "images").mkdir(parents=True)
    draw = np.random.default_rng(seed)
    chosen = draw.permutation(list(product(*WORDS)))[:n]
    told = chosen if not shuffled else np.roll(chosen, 1, axis=0)
    pictures, features = [], []
    for i, (kinds, said) in enumerate(zip(chosen.tolist(), told.tolist(), strict=True)):
        colour, y, x, radius = (words[kind] for words, kind in zip(WORDS, kinds, strict=True))
        pixels = np.full((32, 32, 3), 128, np.uint8)
        pixels[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius] = colour
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        shade, height, side, size = said
        captions = [f"a {size} {shade} thing, {height} and {side}", f"{side} and {height} is a {shade} {size} {EVIL}"]
        row = Picture(file_name=f"images/{i}.png", split=split, captions=[Caption(text=text) for text in captions])
        pictures.append(row)
        places = [list(words).index(kind) for words, kind in zip(WORDS, kinds, strict=True)]
        features.append(np.concatenate([np.eye(len(words))[k] for words, k in zip(WORDS, places, strict=True)]))
    np.save(folder / "own.npy", (np.array(features) + draw.normal(0, 0.02, (n, 12))).astype(np.float32))
    datasets.save(Dataset(folder, Manifest(name="own", features={"own": "own.npy"}), pictures), folder)
    return folder


def make_base(folder: Path) -> Path:
    """A run over the features `own`, one step from its random start; needs no tower."""
    data = make_own(folder / "base-data")
    rows = datasets.read(data)
    for i, picture in enumerate(rows.pictures):
        picture.split = "val" if i % 5 == 4 else "train"
    datasets.save(rows)
    tree = {
        "task": "retrieval",
        "name": "base",
        "data": {"captions": 1},
        "model": {"width": 24, "image": {"tower": "features:own"}, "text": {"embedding": 16, "width": 24}},
        "loss": {"info_nce": 1.0, "cmpc": 0.1},
        "train": {"epochs": 0.5, "batch_size": 32},
    }
    train.fit(parse_recipe(tree, "base"), data, folder / "base")
    return folder / "base"


class Stranger:
    """A model that sees pictures (their profiles, mixed) and words (a random vector each), and joins nothing."""

    def __init__(self) -> None:
        self.task, self.name, self.fingerprint = "retrieval", "stranger", "5720000000000000"
        self.dim, self.size, self.view = WIDTH, 16, View()
        self.languages, self.threshold = ["en"], dict[str, float]()

    def embed_pixels(self, pixels: Any) -> Any:
        far = pixels / 128.0 - 1  # (B, 16, 16, 3)
        rows, columns = (np.abs(far).max((axis, 3)) for axis in (2, 1))
        colour = far.mean((1, 2)) / np.abs(far).max(3).mean((1, 2))[:, None]
        seen = np.concatenate([rows, columns, 3 * colour], 1)  # (B, 35): each attribute on its own, then mixed
        return _unit(seen @ np.random.default_rng(1).normal(size=(35, WIDTH)))

    def embed_images(self, pictures: Iterable[Any]) -> Any:
        return self.embed_pixels(np.stack([images.load(picture, self.size, self.view) for picture in pictures]))

    def embed_texts(self, texts: Sequence[str]) -> Any:
        words = [text.replace(",", "").split() for text in texts]
        return _unit(np.stack([sum(_vector(word) for word in row) for row in words]))

    def unknown_words(self, text: str) -> list[str]:
        return []

    def about(self) -> dict[str, Any]:
        return {"tower": "none", "seed": None}


def _vector(word: str) -> Any:
    return np.random.default_rng(list(word.encode())).normal(size=WIDTH)


def _unit(rows: Any) -> Any:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
