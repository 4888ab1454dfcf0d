"""How long `tuwen index` takes where nothing changed: `python benchmarks/index_unchanged.py [-n 10000]`.

Tiny pictures and a stand-in for the model, because neither is touched by the second run: that is asserted.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tuwen.images import View
from tuwen.indexing import index_folder


class Flat:
    """512 numbers of a picture's mean colour."""

    task, name, fingerprint = "retrieval", "flat", "0000000000000000"
    dim, size, view = 512, 8, View()

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows = np.ones((len(pixels), self.dim), np.float32)
        rows[:, :3] += pixels.mean((1, 2))
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    """Make, index, index again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10_000)
    count = parser.parse_args().n
    with tempfile.TemporaryDirectory() as place:
        folder, db = Path(place, "pictures"), Path(place, "db")
        for n in range(count):
            path = folder / f"{n // 500:03}" / f"{n:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (n % 256, n // 256 % 256, n // 65536)).save(path)
        for what in ("first", "unchanged", "unchanged", "unchanged"):
            begun = time.perf_counter()
            report = index_folder(folder, db, Flat())  # type: ignore[arg-type]
            assert what == "first" or (report.unchanged, report.decoded) == (count, 0)
            print(f"{what}: {time.perf_counter() - begun:.2f} s, {report.decoded:,} decoded", flush=True)
        size = sum(path.stat().st_size for path in db.rglob("*") if path.is_file())
        print(f"{count:,} pictures, an index of {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
