"""A world for tests of the server: a dozen small pictures with an index, models that are quick and known."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fake_describer import FakeDescriber
from fake_embedder import FakeEmbedder
from fastapi.testclient import TestClient
from PIL import Image

from tuwen import images
from tuwen.errors import ModelError
from tuwen.files import sha256_file

COUNT = 12


class FakeAnswerer:
    """Names a picture's colour, unsure where the question is no question; `sizes` of its calls."""

    name, task, languages = "answers", "vqa", ["en", "zh"]

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def answer(self, pictures: Sequence[Any], questions: Sequence[str], k: int = 3) -> list[Any]:
        self.sizes.append(len(questions))
        out = []
        for picture, question in zip(pictures, questions, strict=True):
            bright = float(images.load(picture, 8).mean()) / 255
            best = [SimpleNamespace(text=f"answer {n}", score=bright / n) for n in range(1, k + 1)]
            seen = SimpleNamespace(grid=(2, 3), boxes=None, weights=[1 / 6] * 6)
            out.append(SimpleNamespace(question=question, sure=question.endswith("?"), best=best, attention=seen))
        return out


class FakeDrawer:
    """One colour a seed."""

    name, task = "draws", "text-to-image"

    def draw(self, prompts: Sequence[str], n: int = 1, seed: int = 0) -> list[Any]:
        return [
            SimpleNamespace(
                image=Image.new("RGB", (8, 8), (one % 256, len(prompt) % 256, 0)), prompt=prompt, seed=one, wrong=None
            )
            for prompt in prompts
            for one in range(seed, seed + n)
        ]

    def unknown_words(self, prompt: str) -> list[str]:
        return [word for word in prompt.split() if word.startswith("zz")]


@dataclass
class World:
    """Pictures, their index, and the fake models."""

    folder: Path
    models: dict[str, Any] = field(
        default_factory=lambda: {
            "colours": FakeEmbedder(),
            "captioning": FakeDescriber(),
            "vqa": FakeAnswerer(),
            "text-to-image": FakeDrawer(),
        }
    )

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @property
    def db(self) -> Path:
        return self.folder / "tuwen.db"

    def load(self, name: str) -> Any:
        if name not in self.models:
            raise ModelError(f"{name}: no such model; tuwen models lists what there is")
        return self.models[name]

    def id(self, number: int = 0) -> str:
        return sha256_file(self.pictures / f"p{number:03}.png")

    def png(self, number: int = 0) -> bytes:
        return (self.pictures / f"p{number:03}.png").read_bytes()


Client = Callable[..., TestClient]


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is so large, and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg(side: int = 32) -> bytes:
    """A small photograph."""
    out = io.BytesIO()
    Image.new("RGB", (side, side), (220, 50, 47)).save(out, "JPEG")
    return out.getvalue()


def wait_for(true: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether it came true in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.02)
    return true()
