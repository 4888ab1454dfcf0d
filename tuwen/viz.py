"""Drawings: thumbnails as data URIs, curves as inline SVG that takes a page's colours, attention over a picture."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL.Image
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import ImageDraw, ImageFilter, ImageFont
from PIL.Image import Image

from tuwen import images
from tuwen.errors import PictureError
from tuwen.records import HAN

Point = tuple[float, float]
Series = Mapping[str, Sequence[Point]]

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 26
MOST = 300  # points a line; more are averaged in runs
PANEL, LABEL, GAP, COLUMNS = 220, 16, 10, 6  # pixels of a panel's longer side, of its word, between; panels a row
POWER, SMOOTH, COMPRESSED = 0.8, 1 / 16, 0.85  # of the map that is laid over a picture, as published
OUTLINE = (220, 50, 47)
DARK = 0.25  # what is left of a picture where nothing is looked at
CHINESE_FONTS = {  # files of Linux, macOS and Windows, and the face in each that has the simplified forms
    "NotoSansCJK-Regular.ttc": 2,
    "NotoSansSC-Regular.otf": 0,
    "SourceHanSansSC-Regular.otf": 0,
    "wqy-microhei.ttc": 0,
    "wqy-zenhei.ttc": 0,
    "DroidSansFallbackFull.ttf": 0,
    "PingFang.ttc": 0,
    "Hiragino Sans GB.ttc": 0,
    "Arial Unicode.ttf": 0,
    "msyh.ttc": 0,
    "simhei.ttf": 0,
}


def thumbnail_uri(path: Path | str, side: int = 360) -> str | None:
    """A picture as a `data:` URI, its longer side at most `side` pixels; None where it can't be read."""
    try:
        data = images.thumbnail(path, side, quality=80)
    except PictureError:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"


def chart(series: Series, label: str) -> Markup:
    """Lines over steps as one SVG element, their classes `s0`, `s1`, ...; values that aren't finite are left out."""
    lines = {name: thin([p for p in points if math.isfinite(p[1])]) for name, points in series.items()}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    if not xs:
        return Markup("")
    across, up = ticks(min(xs), max(xs)), ticks(min(ys), max(ys))
    low_x, high_x, low_y, high_y = min(xs), max(xs), min(*up, *ys), max(*up, *ys)

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (x - low_x) / ((high_x - low_x) or 1) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - low_y) / ((high_y - low_y) or 1) * (HEIGHT - TOP - BOTTOM)
        return round(right, 1), round(down, 1)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for value in up:
        y = place(low_x, value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{short(value)}</text>')
    for value in across:
        if low_x <= value <= high_x:
            x = place(value, low_y)[0]
            parts.append(f'<text x="{x}" y="{HEIGHT - 6}" text-anchor="middle">{short(value)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        if not points:
            continue
        places = [place(*point) for point in points]
        path = " ".join(f"{x},{y}" for x, y in places)
        last_x, last_y = places[-1]
        told = escape(f"{name} {short(points[-1][1])}")
        parts.append(f'<polyline class="s{number % 6}" points="{path}"/>')
        parts.append(
            f'<circle class="s{number % 6}" cx="{last_x}" cy="{last_y}" r="3.5"><title>{told}</title></circle>'
        )
    return Markup("".join([*parts, "</svg>"]))  # every text in it was escaped above


def thin(points: Sequence[Point]) -> list[Point]:
    """At most about MOST points: means of runs of equal length; the last point stays as it is."""
    run = math.ceil(len(points) / MOST)
    if run <= 1:
        return list(points)
    runs = [points[i : i + run] for i in range(0, len(points), run)]
    means = [(part[-1][0], sum(y for _, y in part) / len(part)) for part in runs]
    return [*means[:-1], points[-1]]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) that span [low, high]."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(power * m for m in (1, 2, 5, 10) if power * m * about >= span)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(n * step, 12) for n in range(first, max(last, first + 1) + 1)]


def short(value: float) -> str:
    """A number for an axis: 12k, 0.25, 3e-05."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}"


def attention_sheet(picture: Image, words: Sequence[str], maps: NDArray[np.float32]) -> bytes:
    """A PNG: the picture, then a panel a word, bright where its map is high and the word above it.

    `maps` (T, h, w) lie over the whole picture. Words are numbered where no font here has their signs.
    """
    picture = picture.convert("RGB")
    picture.thumbnail((PANEL, PANEL))
    pixels = np.asarray(picture, np.float32)
    labels, panels = ["", *words], [pixels, *(pixels * _light(one, picture.size) for one in maps)]
    font = find_font(any(HAN.search(word) for word in words), LABEL)
    if font is None:
        labels, font = ["", *map(str, range(1, len(words) + 1))], ImageFont.load_default(LABEL)
    width, height = picture.width + GAP, picture.height + GAP + LABEL + 8
    columns = min(COLUMNS, len(panels))
    sheet = PIL.Image.new("RGB", (columns * width + GAP, -(-len(panels) // columns) * height + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (label, panel) in enumerate(zip(labels, panels, strict=True)):
        left, top = GAP + place % columns * width, GAP + place // columns * height
        draw.text((left, top), label, "black", font)
        sheet.paste(PIL.Image.fromarray(panel.round().astype(np.uint8)), (left, top + LABEL + 8))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def attention_overlay(
    picture: Image,
    weights: NDArray[np.float32],
    grid: tuple[int, int] | None = None,
    boxes: NDArray[np.float32] | None = None,
    side: int = 800,
) -> Image:
    """The picture lit where a model looked, as published: its map to the power 0.8, smoothed by a 16th of the longer
    side, compressed by 0.85; the part with the largest weight is outlined.

    `weights` (n,) are of the cells of a `grid` (rows, columns) or of `boxes` (n, 4), xyxy in the picture's pixels. The
    longer side is at most `side` pixels.
    """
    if boxes is None:
        assert grid is not None
        boxes = grid_boxes(grid, picture.size)
    lit = picture.convert("RGB")
    lit.thumbnail((side, side))
    boxes = boxes * (lit.width / picture.width)
    seen = np.zeros((lit.height, lit.width), np.float32)
    for weight, (left, top, right, bottom) in zip(weights, boxes, strict=True):
        across = slice(max(0, round(left)), max(round(left) + 1, round(right)))
        seen[max(0, round(top)) : max(round(top) + 1, round(bottom)), across] += weight
    power = (seen / max(float(seen.max()), 1e-12)) ** POWER
    grey = PIL.Image.fromarray((255 * power).round().astype(np.uint8))
    smooth = np.asarray(grey.filter(ImageFilter.GaussianBlur(max(lit.size) * SMOOTH / 2)), np.float32)
    light = 1 - COMPRESSED + COMPRESSED * smooth / max(float(smooth.max()), 1.0)
    out = PIL.Image.fromarray((np.asarray(lit, np.float32) * light[..., None]).round().astype(np.uint8))
    strongest = boxes[int(np.argmax(weights))].clip(0, (*lit.size, *lit.size)) - (0, 0, 1, 1)
    ImageDraw.Draw(out).rectangle(tuple(strongest.tolist()), outline=OUTLINE, width=max(2, max(lit.size) // 150))
    return out


def grid_boxes(grid: tuple[int, int], size: tuple[float, float]) -> NDArray[np.float32]:
    """The cells of a grid (rows, columns) over a picture of (width, height), row by row: (n, 4), xyxy in pixels."""
    across, down = np.linspace(0, size[0], grid[1] + 1), np.linspace(0, size[1], grid[0] + 1)
    cells = [(across[x], down[y], across[x + 1], down[y + 1]) for y in range(grid[0]) for x in range(grid[1])]
    return np.array(cells, np.float32)


def find_font(han: bool, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont | None:
    """A font for labels; with `han` one that has Chinese signs, None where this machine has none."""
    if not han:
        return ImageFont.load_default(size)
    for name, face in CHINESE_FONTS.items():
        with suppress(OSError):  # Pillow looks where this system keeps its fonts
            return ImageFont.truetype(name, size, face)
    return None


def _light(weights: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """How bright each pixel stays, (H, W, 1), of a map (h, w): DARK where it is 0, 1 at its maximum."""
    share = PIL.Image.fromarray(np.asarray(weights / max(float(weights.max()), 1e-12), np.float32))
    smooth = np.asarray(share.resize(size, PIL.Image.Resampling.BICUBIC), np.float32).clip(0, 1)
    return np.asarray(DARK + (1 - DARK) * smooth[..., None], np.float32)
