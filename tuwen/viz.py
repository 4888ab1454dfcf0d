"""Drawings for pages: thumbnails as data URIs, and curves as inline SVG that takes the page's colours."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup, escape

from tuwen import images
from tuwen.errors import PictureError

Point = tuple[float, float]
Series = Mapping[str, Sequence[Point]]

WIDTH, HEIGHT = 560, 250
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 10, 26
MOST = 300  # points a line; more are averaged in runs


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
