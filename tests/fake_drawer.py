"""Drawing models of which the truth is known, for tests of everything above the models; and a judge of scenes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tuwen.dataset import Dataset
from tuwen.images import View
from tuwen.pipelines import Drawing
from tuwen.scenes import COLOURS, SHAPES, Scene, Thing, draw_scene
from tuwen.scenes.reader import read_scene
from tuwen.scenes.request import understand


class FakeDrawer:
    """Draws the true scene of a caption; `way` spoils it: `blurred`, or `other`, the scene of another caption."""

    task = "text-to-image"
    fingerprint = "d4aed4aed4aed4ae"
    size, view, tries = 32, View(), 1

    def __init__(self, data: Dataset, way: str = "true") -> None:
        self.name, self.languages, self.way = way, ["en", "zh"], way
        self.sampling = {"steps": 12, "guidance": 2.0}
        self.asked: list[tuple[str, int]] = []
        self.options: list[dict[str, Any]] = []
        self.scenes: dict[str, Scene] = {}
        for picture in data.pictures:
            truth: Any = (picture.model_extra or {})["scene"]
            scene = Scene(tuple(Thing(**thing) for thing in truth["objects"]), truth["ground"])
            self.scenes |= {caption.text: scene for caption in picture.captions}

    def each_of(self, wanted: Sequence[tuple[str, int]], **options: Any) -> Iterator[Drawing]:
        self.options.append(options)
        for prompt, seed in wanted:
            self.asked.append((prompt, seed))
            texts = list(self.scenes)
            place = texts.index(prompt) + (50 if self.way == "other" else 0)
            picture = draw_scene(self.scenes[texts[place % len(texts)]], self.size)
            if self.way == "blurred":
                picture = picture.filter(ImageFilter.GaussianBlur(3))
            yield Drawing(picture, prompt, seed)

    def unknown_words(self, prompt: str) -> list[str]:
        return []

    def about(self) -> dict[str, Any]:
        return {"pretrained": None, "seed": 7, "sampling": self.sampling}


class SceneJudge:
    """One axis a colour and a shape, as the checker reads them from a picture and from a sentence."""

    task, name, dim, fingerprint = "retrieval", "scene judge", 65, "1d9e1d9e1d9e1d9e"

    def embed_images(self, pictures: Iterable[Any]) -> NDArray[np.float32]:
        scenes = [read_scene(picture) for picture in pictures]
        return self._embed([[(thing.colour, thing.shape) for thing in scene.things] for scene in scenes])

    def embed_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        asked = [understand(text) for text in texts]
        return self._embed(
            [[(g.key[1], g.key[2]) for g in r.groups for _ in range(g.count)] if r else [] for r in asked]
        )

    def about(self) -> dict[str, Any]:
        return {"tower": "the checker"}

    @staticmethod
    def _embed(kinds: Sequence[Sequence[tuple[Any, Any]]]) -> NDArray[np.float32]:
        out = np.zeros((len(kinds), 65), np.float32)
        out[:, 64] = 1e-3
        for row, own in zip(out, kinds, strict=True):
            for colour, shape in own:
                if shape in SHAPES:
                    row[8 * list(COLOURS).index(colour) + SHAPES.index(shape)] += 1
        return np.asarray(out / np.linalg.norm(out, axis=1, keepdims=True), np.float32)


def coarse(pictures: Iterable[Image.Image]) -> NDArray[np.float32]:
    """Features that need no network: the mean colour, and how steep its edges are."""
    pixels = np.stack([np.asarray(p, np.float32) / 255 for p in pictures])
    steep = np.sort(np.abs(np.diff(pixels, axis=1)).max(-1).reshape(len(pixels), -1), 1)[:, -40::8]  # (n, 5)
    return np.concatenate([pixels.mean((1, 2)), 3 * steep], 1)
