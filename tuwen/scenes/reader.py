"""Reads a picture back into a scene, from its pixels alone: the checker of drawn scenes (DESIGN, 1; issue 6).

Each pixel is a mix of the ground and one colour: the line in colour space that it lies nearest to names the colour, the
place on the line how much of the pixel is covered. Connected pixels of a colour are one thing; its area and middle give
the radius and centre that each of the eight shapes would need, and the shape whose drawing by this project's own
renderer overlaps best is what it is. Areas and middles survive blur, so drawn samples need not be as sharp as real ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tuwen.scenes import draw_scene
from tuwen.scenes.world import COLOURS, GROUNDS, SHAPES, SIZES, Scene, Thing

__all__ = ["UNKNOWN", "read_scene"]

UNKNOWN = "unknown"  # the shape of a thing that looks like none
ALIKE = 0.7  # a thing whose best overlap (soft intersection over union) is below this is of no known shape
LEAST = 0.004  # of the picture: less is a speck. The smallest thing there is, a small star, covers 0.013
LARGE = (SIZES["small"][1] + SIZES["large"][0]) / 2
CUTS = (0.5, 0.7, 0.85)  # a pixel counts as covered from here; the later ones take apart what blur has joined
BLURS = (0.0, 0.008, 0.016)  # of the side
Map = NDArray[np.float64]  # (side, side)
Mask = NDArray[np.bool_]


def read_scene(picture: Image.Image) -> Scene:
    """The scene that a square picture shows: things from the largest, each with kind, size, centre and radius.

    A thing that overlaps no shape well has the shape `UNKNOWN`; specks of under 0.4% of the picture are no things.
    """
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground: Map = np.median(rim, 0)
    shares, labels = _unmix(pixels, ground)
    parts = list(_parts(shares, labels))
    taken = np.zeros(labels.shape, np.int64)
    for number, (_, mask) in enumerate(parts, 1):
        taken[mask] = number
    things = []
    for number, (colour, mask) in enumerate(parts, 1):
        own = _grow(mask, max(1, len(labels) // 32)) & ((taken == 0) | (taken == number))
        things.append(_name(shares[colour] * own, list(COLOURS)[colour]))
    things.sort(key=lambda thing: -thing.r)
    return Scene(tuple(things), _nearest(ground, GROUNDS))


def _nearest(colour: Map, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.sum((colour - palette[name]) ** 2)))


def _unmix(pixels: Map, ground: Map) -> tuple[Map, NDArray[np.int64]]:
    """How much of each pixel each colour covers (colours, side, side), and the colour that explains it best."""
    shift = np.array(list(COLOURS.values()), np.float64) - ground  # (colours, 3)
    shares = np.einsum("hwc,kc->khw", pixels - ground, shift) / (shift**2).sum(1)[:, None, None]
    shares = shares.clip(0, 1)
    rest = ((pixels - ground)[None] - shares[..., None] * shift[:, None, None]) ** 2
    return shares, rest.sum(-1).argmin(0)


def _parts(shares: Map, labels: NDArray[np.int64]) -> Iterator[tuple[int, Mask]]:
    """Each thing's colour and the pixels that it covers."""
    for colour in range(len(COLOURS)):
        for mask in _connected((labels == colour) & (shares[colour] >= CUTS[0])):
            if _is_thing(mask):
                yield from ((colour, part) for part in _split(mask, shares[colour]))


def _split(mask: Mask, share: Map) -> list[Mask]:
    """A part, or its pieces where pixels that are half covered hold several things together."""
    for cut in CUTS[1:]:
        pieces = [piece for piece in _connected(mask & (share >= cut)) if _is_thing(piece)]
        if len(pieces) > 1:
            return pieces
    return [mask]


def _is_thing(mask: Mask) -> bool:
    return int(mask.sum()) >= LEAST * mask.size


def _connected(mask: Mask) -> Iterator[Mask]:
    """The four-connected parts of a mask."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    while left:
        todo = [left.pop()]
        part = np.zeros(mask.shape, bool)
        while todo:
            y, x = todo.pop()
            part[y, x] = True
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    todo.append(near)
        yield part


def _grow(mask: Mask, steps: int) -> Mask:
    for _ in range(steps):
        wide = np.pad(mask, 1)
        mask = wide[1:-1, 1:-1] | wide[2:, 1:-1] | wide[:-2, 1:-1] | wide[1:-1, 2:] | wide[1:-1, :-2]
    return mask


def _name(share: Map, colour: str) -> Thing:
    """What covers these pixels: the shape that, at the same area and middle, overlaps best."""
    side, (mass, x, y) = len(share), _moments(share)
    best, alike = Thing(UNKNOWN, colour, "small", x, y, math.sqrt(mass / math.pi)), ALIKE
    for shape in SHAPES:
        unit, dx, dy = _unit(shape)
        r = math.sqrt(mass / unit)
        thing = Thing(shape, colour, "small", x - r * dx, y - r * dy, r)
        for drawn in _blurred(_draw(thing, side)):
            overlap = float(np.minimum(share, drawn).sum() / np.maximum(share, drawn).sum())
            if overlap > alike:
                best, alike = thing, overlap
    size = "large" if best.r >= LARGE else "small"
    return Thing(best.shape, colour, size, round(best.x, 4), round(best.y, 4), round(best.r, 4))


def _moments(share: Map) -> tuple[float, float, float]:
    """Area and middle (x, y), in fractions of the side."""
    side, mass = len(share), float(share.sum())
    places = (np.arange(side) + 0.5) / side
    return mass / side**2, float(share.sum(0) @ places) / mass, float(share.sum(1) @ places) / mass


@cache
def _unit(shape: str) -> tuple[float, float, float]:
    """Of a shape of radius 1: its area, and its middle as seen from the centre."""
    r = 0.45
    area, x, y = _moments(_draw(Thing(shape, "black", "large", 0.5, 0.5, r), 256))
    return area / r**2, (x - 0.5) / r, (y - 0.5) / r


def _draw(thing: Thing, side: int) -> Map:
    """How much of each pixel a thing covers."""
    one = Thing(thing.shape, "black", thing.size, thing.x, thing.y, thing.r)
    pixels = np.asarray(draw_scene(Scene((one,), "grey"), side), np.float64)[..., 0]
    bare, full = GROUNDS["grey"][0], COLOURS["black"][0]
    return (bare - pixels) / (bare - full)


def _blurred(share: Map) -> Iterator[Map]:
    """As it is, and as softer samples would show it."""
    image = Image.fromarray((share * 255).round().astype(np.uint8))
    for blur in BLURS:
        radius = blur * len(share)
        yield share if not blur else np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float64) / 255
