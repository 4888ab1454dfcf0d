"""What a sentence about a scene asks for, and what a picture of it got wrong.

Sentences are those of `tuwen scenes` and plainer ones of the same words: `a red circle`, `two small stars above a blue
ring`. Every thing of a picture is mentioned in each of its sentences, so a number counts exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from random import Random

from tuwen.records import guess_language
from tuwen.scenes.words import COLOUR_ZH, GROUND, NUMBERS, RELATION, SHAPE_ZH, SIZE_ZH, Key
from tuwen.scenes.world import APART, COLOURS, OPPOSITE, SHAPES, Scene, Thing, clear, holds

__all__ = ["ATTRIBUTES", "Group", "Request", "arrange", "ask_for", "fits", "satisfies", "understand"]

ATTRIBUTES = ("count", "colour", "shape", "size", "relation", "ground")
NEAR = 0.02  # a relation read off pixels may miss the distance that the world asks for by this much
UNSEEN = ""  # no size, colour or shape
MOST = 6  # things that are compared; a picture of more has too many anyway
TURNS = 4000  # random layouts that are looked at before there is said to be no room


COUNTS = {
    "en": {"a": 1, "an": 1, "": 1, **{word: n for n, word in enumerate(NUMBERS["en"])}},
    "zh": {"": 1, **{word: n for n, word in enumerate(NUMBERS["zh"])}},
}
EN_SOME = re.compile(
    rf"\b(?:({'|'.join(filter(None, COUNTS['en']))}) )?(?:(large|small) )?(?:({'|'.join(COLOURS)}) )?"
    rf"({'|'.join(SHAPES)}|shape)(?:e?s)?\b"
)
ZH_SOME = re.compile(
    rf"(?:([{''.join(COUNTS['zh'])}])个)?(?:({'|'.join(COLOUR_ZH.values())})的?)?([大小])?"
    rf"({'|'.join(SHAPE_ZH.values())}|图形)"
)
SIDES = {lang: {word: side for side, words in RELATION[lang].items() for word in words} for lang in RELATION}
EN_SIDE = re.compile(rf"\b({'|'.join(sorted(SIDES['en'], key=len, reverse=True))})\b")
ZH_SIDE = re.compile(rf"的({'|'.join(SIDES['zh'])})(有?)")
MEANT = {word: meaning for words in (SHAPE_ZH, COLOUR_ZH, SIZE_ZH) for meaning, word in words.items()}


@dataclass(frozen=True)
class Group:
    """So many things of one name; None in a key: not said."""

    count: int
    key: Key  # size, colour, shape


@dataclass(frozen=True)
class Request:
    """What must be in the picture, all of it and no more; relations are (group, relation, group)."""

    groups: tuple[Group, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    ground: str | None = None

    @property
    def wanted(self) -> list[tuple[int, Key]]:
        """Each thing by itself: the number of its group, and its name."""
        return [(number, group.key) for number, group in enumerate(self.groups) for _ in range(group.count)]

    @property
    def count(self) -> int:
        """How many things."""
        return sum(group.count for group in self.groups)


def ask_for(scene: Scene) -> Request:
    """The request for everything in a scene: each thing, each relation between two, and the ground."""
    things = scene.things
    relations = (
        (i, relation, j)
        for i in range(len(things))
        for j in range(i + 1, len(things))
        for relation in OPPOSITE
        if holds(things[i], relation, things[j])
    )
    groups = tuple(Group(1, (thing.size, thing.colour, thing.shape)) for thing in things)
    return Request(groups, tuple(relations), scene.ground)


def understand(sentence: str) -> Request | None:
    """What a sentence, English or Chinese, asks for; None where no thing of this world is named in it."""
    lang = guess_language(sentence)
    text = sentence.lower()
    pattern = EN_SOME if lang == "en" else ZH_SOME
    named = [match for match in pattern.finditer(text) if any(_key(lang, match))]  # `three shapes:` names none
    if not named:
        return None
    groups = tuple(Group(COUNTS[lang][match[1] or ""], _key(lang, match)) for match in named)
    return Request(groups, tuple(_relations(lang, text, named)), _ground(lang, text))


def _key(lang: str, match: re.Match[str]) -> Key:
    if lang == "en":
        return match[2], match[3], None if match[4] == "shape" else match[4]
    colour, size, shape = (MEANT.get(word) if word else None for word in match.groups()[1:])
    return size, colour, shape


def _relations(lang: str, text: str, named: list[re.Match[str]]) -> Iterator[tuple[int, str, int]]:
    """`a above b`, `above b there is a`; `a在b的上方`, `b的上方有a`: by the places of the groups around the word."""
    for match in (EN_SIDE if lang == "en" else ZH_SIDE).finditer(text):
        before = sum(group.end() <= match.start() for group in named)
        if lang == "en":
            first, second = (before - 1, before) if before else (1, 0)
        else:
            first, second = (before if match[2] else before - 2), before - 1
        if min(first, second) >= 0 and max(first, second) < len(named):
            yield first, SIDES[lang][match[1]], second


def _ground(lang: str, text: str) -> str | None:
    if ("background" if lang == "en" else "背景") not in text:
        return None
    outside = (EN_SOME if lang == "en" else ZH_SOME).sub(" ", text)
    return next((ground for ground, word in GROUND[lang].items() if word in outside), None)


def satisfies(scene: Scene, request: Request) -> list[str]:
    """The attributes, among `ATTRIBUTES`, that a scene read from a picture got wrong; empty where all are right.

    Things are taken for those asked for in the way that leaves the fewest wrong. Only what the request says counts; of
    a thing that is missing all that is said is wrong. Of a request for more than `MOST` things the number is.
    """
    wanted = request.wanted
    if len(wanted) > MOST:  # every order of twelve would take hours
        return ["count"]
    things: list[Thing | None] = [*scene.things[:MOST]]
    things += [None] * (len(wanted) - len(things))
    best = min((_faults(request, wanted, order) for order in permutations(things, len(wanted))), key=len)
    wrong = set(best)
    if len(scene.things) != len(wanted):
        wrong.add("count")
    if request.ground not in (None, scene.ground):
        wrong.add("ground")
    return [name for name in ATTRIBUTES if name in wrong]


def arrange(things: Sequence[Thing], request: Request, rng: Random, side: int) -> list[Thing] | None:
    """New places for things, one for each that the request wants and in its order, where all of it holds.

    They move by whole pixels of a picture `side` wide. None where there seems to be no room for them.
    """
    for _ in range(TURNS):
        moved = [_move(thing, rng, side) for thing in things]
        if all(clear(a, b) for a, b in combinations(moved, 2)) and not _faults(request, request.wanted, moved):
            return moved
    return None


def _move(thing: Thing, rng: Random, side: int) -> Thing:
    x, y = (old + round((rng.uniform(thing.r, 1 - thing.r) - old) * side) / side for old in (thing.x, thing.y))
    return replace(thing, x=x, y=y)


def fits(thing: Thing, key: Key) -> bool:
    """Whether a thing is as a name says."""
    return all(said in (None, is_) for said, is_ in zip(key, (thing.size, thing.colour, thing.shape), strict=True))


def _faults(request: Request, wanted: Sequence[tuple[int, Key]], things: Sequence[Thing | None]) -> list[str]:
    """What is wrong where each of these things stands for what is wanted at its place, a word a fault."""
    faults = []
    for (_, key), thing in zip(wanted, things, strict=True):
        read = (thing.size, thing.colour, thing.shape) if thing else (UNSEEN,) * 3
        names = ("size", "colour", "shape")
        faults += [name for name, asked, is_ in zip(names, key, read, strict=True) if asked not in (None, is_)]
    of: dict[int, list[Thing | None]] = {}
    for (group, _), thing in zip(wanted, things, strict=True):
        of.setdefault(group, []).append(thing)
    for first, relation, second in request.relations:
        pairs = [(a, b) for a in of[first] for b in of[second]]
        if not all(a and b and holds(a, relation, b, APART - NEAR) for a, b in pairs):
            faults.append("relation")
    return faults
