"""Stand-ins for the models that answer and draw, for the page's test where the shipped ones are not installed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from tuwen import images

ROWS = COLUMNS = 9
KNOWN = {"a", "red", "circle", "large", "small", "blue", "star", "above", "one", "green", "square"}


@dataclass(frozen=True)
class StandInAnswerer:
    """Looks at the brightest part of a picture; unsure where nobody asks `what`."""

    name: str = "stand-in answerer"
    task: str = "vqa"

    def answer(self, pictures: Sequence[Path | Image.Image], questions: Sequence[str], k: int = 3) -> list[Any]:
        out = []
        for picture, question in zip(pictures, questions, strict=True):
            pixels = images.load(picture, 90) if isinstance(picture, Path) else images.load_pil(picture, 90)
            bright = pixels.mean(-1).reshape(ROWS, 10, COLUMNS, 10).mean((1, 3))
            weights = np.exp((bright - bright.max()) / 25).ravel()
            sure = "what" in question or "什么" in question
            words = [("something bright", 0.62), ("something dark", 0.21), ("nothing", 0.05)]
            best = [SimpleNamespace(text=text, score=score if sure else score / 3) for text, score in words[:k]]
            seen = SimpleNamespace(boxes=None, grid=(ROWS, COLUMNS), weights=weights / weights.sum())
            out.append(SimpleNamespace(question=question, sure=sure, best=best, attention=seen))
        return out


@dataclass(frozen=True)
class StandInDrawer:
    """Draws circles whose colours come from the seed."""

    name: str = "stand-in drawer"
    task: str = "text-to-image"

    def draw(self, prompts: Sequence[str], n: int = 1, seed: int = 0, **_: Any) -> list[Any]:
        out = []
        for prompt in prompts:
            for one in range(seed, seed + n):
                random = np.random.default_rng(one)
                image = Image.new("RGB", (64, 64), (190, 215, 245))
                x, y, r = (int(random.integers(low, high)) for low, high in ((16, 48), (16, 48), (8, 15)))
                ImageDraw.Draw(image).ellipse((x - r, y - r, x + r, y + r), tuple(random.integers(40, 220, 3).tolist()))
                out.append(SimpleNamespace(image=image, prompt=prompt, seed=one, wrong=None))
        return out

    def unknown_words(self, prompt: str) -> list[str]:
        return [word for word in prompt.lower().split() if word.isascii() and word not in KNOWN]
