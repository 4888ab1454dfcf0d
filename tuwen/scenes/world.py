"""The made world: what may stand in a scene, and a random one (DESIGN, 1). Lengths are fractions of the side."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "hexagon")
COLOURS = {
    "red": (220, 50, 47),
    "green": (60, 160, 60),
    "blue": (50, 90, 210),
    "yellow": (240, 200, 40),
    "purple": (140, 70, 180),
    "orange": (240, 130, 40),
    "black": (30, 30, 30),
    "white": (250, 250, 250),
}
GROUNDS = {"grey": (200, 200, 200), "sky": (190, 215, 245), "sand": (238, 222, 180), "mint": (190, 230, 205)}
SIZES = {"large": (0.22, 0.28), "small": (0.10, 0.14)}
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
MOST = 4  # things of a scene
APART = 0.2  # nearer than this on an axis, two centres have no relation along it
GAP = 0.02  # between two shapes, and between a shape and the edge
ALL_KINDS = [(shape, colour) for shape in SHAPES for colour in COLOURS]
UNSEEN_KINDS = [kind for i, kind in enumerate(ALL_KINDS) if (i // len(COLOURS) + i % len(COLOURS)) % 7 == 0]
SEEN_KINDS = [kind for kind in ALL_KINDS if kind not in UNSEEN_KINDS]


@dataclass(frozen=True)
class Thing:
    """One shape: its centre (x, y) from the top left, and the radius of the circle around it."""

    shape: str
    colour: str
    size: str
    x: float
    y: float
    r: float


@dataclass(frozen=True)
class Scene:
    """Flat shapes, fully visible, on a plain ground."""

    things: tuple[Thing, ...]
    ground: str


def holds(a: Thing, relation: str, b: Thing, apart: float = APART) -> bool:
    """Whether `a` stands in this relation to `b`, by their centres."""
    gap = {"left of": b.x - a.x, "right of": a.x - b.x, "above": b.y - a.y, "below": a.y - b.y}[relation]
    return round(gap, 4) >= apart


def to_json(scene: Scene) -> dict[str, Any]:
    """The true scene as a row keeps it; relations are `[i, relation, j]` with i < j, the inverse is implied."""
    things = scene.things
    return {
        "ground": scene.ground,
        "objects": [asdict(thing) for thing in things],
        "relations": [
            [i, relation, j]
            for i in range(len(things))
            for j in range(i + 1, len(things))
            for relation in OPPOSITE
            if holds(things[i], relation, things[j])
        ],
    }


def make_scene(rng: Random, unseen: bool = False, most: int = MOST) -> Scene:
    """A random scene of one to `most` things; with `unseen`, one kind at least is never shown in train."""
    kinds = _choose_kinds(rng, rng.randint(1, most), unseen)
    large = rng.randint(0, min(len(kinds), 2))  # three large ones would leave no room
    sizes = ["large"] * large + ["small"] * (len(kinds) - large)
    rng.shuffle(sizes)
    while (things := _place(rng, kinds, sizes)) is None:
        pass  # no room was left: new radii and places for the same things
    return Scene(things, rng.choice(list(GROUNDS)))


def _choose_kinds(rng: Random, n: int, unseen: bool) -> list[tuple[str, str]]:
    """Half of the later things share shape, colour or both with an earlier one: else nothing is worth counting."""
    pool = ALL_KINDS if unseen else SEEN_KINDS
    kinds = [rng.choice(UNSEEN_KINDS if unseen else SEEN_KINDS)]
    while len(kinds) < n:
        shape, colour = rng.choice(kinds)
        chance = rng.random()
        if chance < 0.2:
            kinds.append((shape, colour))
        elif chance < 0.35:
            kinds.append(rng.choice([kind for kind in pool if kind[0] == shape]))
        elif chance < 0.5:
            kinds.append(rng.choice([kind for kind in pool if kind[1] == colour]))
        else:
            kinds.append(rng.choice(pool))
    rng.shuffle(kinds)
    return kinds


def _place(rng: Random, kinds: list[tuple[str, str]], sizes: list[str]) -> tuple[Thing, ...] | None:
    """Radii and places, apart and related pairwise; None where the dice left no room."""
    things: list[Thing] = []
    for (shape, colour), size in zip(kinds, sizes, strict=True):
        r = round(rng.uniform(*SIZES[size]), 4)
        for _ in range(20):
            x, y = (round(rng.uniform(r + GAP, 1 - r - GAP), 4) for _ in range(2))
            thing = Thing(shape, colour, size, x, y, r)
            if all(clear(thing, other) for other in things):
                things.append(thing)
                break
        else:
            return None
    return tuple(things)


def clear(a: Thing, b: Thing) -> bool:
    """Apart, and related along one axis at least."""
    return math.hypot(a.x - b.x, a.y - b.y) >= a.r + b.r + GAP and any(holds(a, name, b) for name in OPPOSITE)
