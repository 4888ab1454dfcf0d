"""Reads a picture back into a scene, from its pixels alone: the checker of drawn scenes (DESIGN, 1; issue 6).

Each pixel is a mix of the ground and one colour: the line in colour space that it lies nearest to names the colour, the
place on the line how much of the pixel is covered. Connected pixels of a colour are one thing; its area and middle give
the radius and centre that each of the eight shapes would need, and the shape whose drawing by this project's own
renderer overlaps best is what it is. Areas and middles survive blur, so samples need not be as sharp as real ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tuwen.scenes import draw_scene
from tuwen.scenes.world import COLOURS, GROUNDS, SHAPES, SIZES, Scene, Thing

__all__ = ["UNKNOWN", "read_scene"]

UNKNOWN = "unknown"  # the shape of a thing that looks like none
ALIKE = 0.7  # a thing whose best overlap (soft intersection over union) is below this is of no known shape
LEAST = 0.006  # of the picture: less is a speck. The smallest thing there is, a small star, covers 0.013
FULL = 0.7  # a thing is covered by this much in a tenth of its pixels; less is a shade
LARGE = (SIZES["small"][1] + SIZES["large"][0]) / 2
# Which pixels hang together: those covered by so much, after growing by so many 64ths of the side. Noise tears thin
# things apart and blur joins near ones, so all levels are tried, the coarsest first.
LEVELS = ((0.5, 2), (0.5, 1), (0.5, 0), (0.7, 0), (0.85, 0))
BLURS = (0.0, 0.01, 0.02)  # of the side
Map = NDArray[np.float64]  # (side, side)
Mask = NDArray[np.bool_]
Guess = tuple[float, Thing]  # how well it overlaps, and what


def read_scene(picture: Image.Image) -> Scene:
    """The scene that a square picture shows: things from the largest, each with kind, size, centre and radius.

    A thing that overlaps no shape well has the shape `UNKNOWN`; specks of under 0.6% of the picture are no things.
    """
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    ground: Map = np.median(rim, 0)
    shares, labels = _unmix(pixels, ground)
    guesses: list[Guess] = []
    for number, colour in enumerate(COLOURS):
        covered, free = labels == number, (labels == number) | (labels < 0)
        for part in _parts(covered, shares[number], 0):
            guesses += _explain(part, free & ~(covered & ~part), shares[number], colour, 1)
    things = sorted((thing for _, thing in guesses), key=lambda thing: -thing.r)
    return Scene(tuple(things), _nearest(ground, GROUNDS))


def _nearest(colour: Map, palette: dict[str, tuple[int, int, int]]) -> str:
    return min(palette, key=lambda name: float(np.sum((colour - palette[name]) ** 2)))


def _unmix(pixels: Map, ground: Map) -> tuple[Map, NDArray[np.int64]]:
    """How much of each pixel each colour covers (colours, side, side), and the colour that covers it; -1: none."""
    shift = np.array(list(COLOURS.values()), np.float64) - ground  # (colours, 3)
    shares = np.einsum("hwc,kc->khw", pixels - ground, shift) / (shift**2).sum(1)[:, None, None]
    shares = shares.clip(0, 1)
    rest = ((pixels - ground)[None] - shares[..., None] * shift[:, None, None]) ** 2
    labels = rest.sum(-1).argmin(0)
    labels[np.take_along_axis(shares, labels[None], 0)[0] < LEVELS[0][0]] = -1
    return shares, labels


def _explain(mask: Mask, free: Mask, share: Map, colour: str, level: int) -> list[Guess]:
    """One thing, or several where its parts at a finer level overlap better with shapes than the whole does.

    `free` holds the pixels that may show its edge: those that nothing else covers.
    """
    whole = _name(share * (_grow(mask, max(1, len(mask) // 32)) & free), share[mask], colour)
    for finer in range(level, len(LEVELS)):
        parts = list(_parts(mask, share, finer))
        if len(parts) > 1:
            together = np.logical_or.reduce(parts)
            found = [_explain(part, free & ~(together & ~part), share, colour, finer + 1) for part in parts]
            fits = [part.sum() * np.mean([a for a, _ in own]) for part, own in zip(parts, found, strict=True)]
            several = [guess for own in found for guess in own]
            return several if sum(fits) > whole[0] * together.sum() else [whole]
    return [whole]


def _parts(mask: Mask, share: Map, level: int) -> Iterator[Mask]:
    """The things among covered pixels that hang together at a level."""
    cut, reach = LEVELS[level]
    covered = mask & (share >= cut)
    for part in _connected(_grow(covered, round(reach * len(mask) / 64))):
        part &= covered
        if part.sum() >= LEAST * part.size and np.quantile(share[part], 0.9) >= FULL:
            yield part


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


def _name(share: Map, core: Map, colour: str) -> Guess:
    """What covers these pixels: the shape that, at the same area and middle, overlaps best.

    `core`: the shares of its covered pixels; where even those are faint, it is tried as it is and at full strength.
    """
    mass, x, y = _moments(share)
    best, found = 0.0, Thing(UNKNOWN, colour, "small", x, y, math.sqrt(mass / math.pi))
    strength = float(np.quantile(core, 0.9))
    trials = [(share, BLURS)] if strength > 0.95 else [(share, BLURS), ((share / strength).clip(0, 1), BLURS[:1])]
    for given, blurs in trials:
        mass, x, y = _moments(given)
        for shape in SHAPES:
            r = math.sqrt(mass / _unit(shape, len(share), "small")[0])
            unit, dx, dy = _unit(shape, len(share), "large" if r >= LARGE else "small")
            r = math.sqrt(mass / unit)
            thing = Thing(shape, colour, "large" if r >= LARGE else "small", x - r * dx, y - r * dy, r)
            overlap = max(
                float(np.minimum(given, drawn).sum() / np.maximum(given, drawn).sum())
                for drawn in _blurred(_draw(thing, len(share)), blurs)
            )
            if overlap > best:
                best, found = overlap, thing
    shape = found.shape if best >= ALIKE else UNKNOWN
    return best, Thing(shape, colour, found.size, round(found.x, 4), round(found.y, 4), round(found.r, 4))


def _moments(share: Map) -> tuple[float, float, float]:
    """Area and middle (x, y), in fractions of the side."""
    side, mass = len(share), float(share.sum())
    places = (np.arange(side) + 0.5) / side
    return mass / side**2, float(share.sum(0) @ places) / mass, float(share.sum(1) @ places) / mass


@cache
def _unit(shape: str, side: int, size: str) -> tuple[float, float, float]:
    """Of a shape as pictures of this side show it, by radius 1: its area, and its middle as seen from the centre."""
    r = sum(SIZES[size]) / 2
    area, x, y = _moments(_draw(Thing(shape, "black", size, 0.5, 0.5, r), side))
    return area / r**2, (x - 0.5) / r, (y - 0.5) / r


def _draw(thing: Thing, side: int) -> Map:
    """How much of each pixel a thing covers."""
    one = Thing(thing.shape, "black", thing.size, thing.x, thing.y, thing.r)
    pixels = np.asarray(draw_scene(Scene((one,), "grey"), side), np.float64)[..., 0]
    bare, full = GROUNDS["grey"][0], COLOURS["black"][0]
    return (bare - pixels) / (bare - full)


def _blurred(share: Map, blurs: Sequence[float]) -> Iterator[Map]:
    """As it is, and as softer samples would show it."""
    image = Image.fromarray((share * 255).round().astype(np.uint8))
    for blur in blurs:
        radius = blur * len(share)
        yield share if not blur else np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float64) / 255
