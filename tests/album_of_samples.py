"""The photographs that packages bring, as somebody's folder: dates, cameras, parts, copies, a broken file."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tuwen.demo import collect

CAMERAS = ["NIKON D90", "Canon EOS 5D", "Pixel 8"]
SHARES = [(0.0, 0.0, 0.62, 1.0), (0.15, 0.1, 0.85, 0.9), (0.0, 0.4, 1.0, 1.0)]  # left, upper, right, lower
ODD_NAME = "花 <b>&amp; <img src=x onerror=alert(1)>.jpg"  # a name that a careless page would take for HTML
TWICE = "chelsea.png"  # one content in two files
COPIED = ["astronaut", "coffee", "flower"]


@dataclass(frozen=True)
class Library:
    """A folder of photographs, its index, and a server over it."""

    pictures: Path
    db: Path
    count: int
    base: str


def make_album(folder: Path) -> int:
    """Write the folder; how many readable pictures it holds, all of them different."""
    collect(folder / "photographs")
    whole = sorted((folder / "photographs").iterdir())
    parts = folder / "parts"
    parts.mkdir()
    count = len(whole)
    for n, path in enumerate(whole):
        image = Image.open(path).convert("RGB")
        width, height = image.size
        left, upper, right, lower = SHARES[n % 3]
        box = (int(left * width), int(upper * height), int(right * width), int(lower * height))
        name = ODD_NAME if path.stem == "grass" else f"{path.stem}-part.jpg"
        image.crop(box).save(parts / name, quality=88, exif=_exif(n))
        count += 1
        if path.stem in COPIED:
            image.resize((width // 2, height // 2)).save(folder / f"{path.stem}-small.jpg", quality=80)
            count += 1
    shutil.copy(folder / "photographs" / TWICE, folder / TWICE)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    return count


def _exif(n: int) -> Image.Exif:
    """A camera, a date of its own, and for some a place."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = CAMERAS[n % 3].split()[0], CAMERAS[n % 3]
    exif.get_ifd(0x8769)[0x9003] = f"202{n % 5}:0{n % 9 + 1}:1{n % 9} 1{n % 9}:20:00"
    if n % 3 == 0:
        exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0), 3: "E", 4: (2.0, 17.0, 40.0)})
    return exif
