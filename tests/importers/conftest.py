"""A world for importers: 8x8 pictures on disk, and what an import made of them."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def paint(tmp_path: Path) -> Callable[..., Path]:
    """Write pictures below a folder of `tmp_path`, each of its own noise; the folder."""

    def write(folder: str, *names: str) -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (8, 8, 3), np.uint8)
            Image.fromarray(noise).save(path)
        return tmp_path / folder

    return write


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    """Write a file below `tmp_path`: text, bytes, or anything else as JSON; its path."""

    def write(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8", newline="")
        return path

    return write


@pytest.fixture
def rows(tmp_path: Path) -> Callable[..., dict[str, dict[str, Any]]]:
    """The rows of a data set as they are written, by the last part of their file name."""

    def read(dest: Path | None = None) -> dict[str, dict[str, Any]]:
        lines = ((dest or tmp_path / "data") / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        named = {row["file_name"].rsplit("/", 1)[-1]: row for row in found}
        assert len(named) == len(found)
        return named

    return read
