"""Captions of a scene, English and Chinese. Each is true, and each mentions every thing in the picture."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations
from random import Random

from tuwen.records import Caption
from tuwen.scenes.words import GROUND, LANGUAGES, NUMBERS, RELATION, Key, join, name, sentence, some
from tuwen.scenes.world import OPPOSITE, Scene, Thing, holds

Groups = list[tuple[Key, list[Thing]]]
PLAIN = {
    "en": ("{list}", "{there} {list}", "this picture shows {list}", "you can see {list}", "the picture has {list}"),
    "zh": ("{list}", "图中有{list}", "这张图里有{list}", "画面中可以看到{list}", "图上画着{list}"),
}
ON_GROUND = {
    "en": (
        "{list} on a {ground} background",
        "{there} {list} on a {ground} background",
        "on a {ground} background {there} {list}",
        "the background is {ground} and {there} {list} on it",
    ),
    "zh": (
        "{ground}的背景上有{list}",
        "{list}，背景是{ground}的",
        "图片的背景是{ground}的，上面有{list}",
        "在{ground}背景上画着{list}",
    ),
}
COUNTED = {
    "en": (
        "{n} {shapes}: {list}",
        "{there_n} {n} {shapes} in the picture: {list}",
        "{there_n} {n} {shapes} here, {list}",
    ),
    "zh": ("图中{only}有{n}个图形：{list}", "画面里{only}有{n}个图形，{which}{list}", "{n}个图形：{list}"),
}
RELATED = {
    "en": ("{a} {is_a} {rel} {b}{rest}", "{rel} {b} {there_a} {a}{rest}"),
    "zh": ("{a}在{b}的{rel}{rest}", "{b}的{rel}有{a}{rest}"),
}


def describe(scene: Scene, rng: Random, each: int = 5) -> list[Caption]:
    """`each` different captions a language: a plain list first, then relations, sizes, counts and grounds."""
    makers = (_on_ground, _related, _sized, _counted, _related_sized)
    captions: list[Caption] = []
    for lang in LANGUAGES:
        texts: dict[str, None] = {}
        for turn in range(1000):
            if len(texts) == each:
                break
            maker = makers[len(texts)] if turn < len(makers) and len(texts) < len(makers) else rng.choice(makers)
            texts.setdefault(sentence(lang, maker(lang, scene, rng)))
        captions += [Caption(text=text, lang=lang) for text in texts]
    return captions


def name_alone(lang: str, key: Key, ground: str) -> str:
    """A caption of one thing on its ground."""
    return sentence(lang, ON_GROUND[lang][0].format(list=some(lang, key, 1), ground=GROUND[lang][ground]))


def group(scene: Scene, rng: Random, sized: bool) -> Groups:
    """Things of one name together, in random order: two red circles are one group of two."""
    groups: dict[Key, list[Thing]] = defaultdict(list)
    for thing in scene.things:
        groups[(thing.size if sized else None, thing.colour, thing.shape)].append(thing)
    order = list(groups.items())
    rng.shuffle(order)
    return order


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _listed(lang: str, pattern: str, groups: Groups, scene: Scene) -> str:
    n = len(scene.things)
    return pattern.format(
        list=join(lang, [some(lang, key, len(things)) for key, things in groups]),
        ground=GROUND[lang][scene.ground],
        there=f"there {_is(len(groups[0][1]))}",
        there_n=f"there {_is(n)}",
        n=NUMBERS[lang][n],
        shapes="shape" if n == 1 else "shapes",
        only="只" if n == 1 else "共",
        which="是" if len(groups) == 1 else "分别是",
    )


def _on_ground(lang: str, scene: Scene, rng: Random) -> str:
    return _listed(lang, rng.choice(ON_GROUND[lang]), group(scene, rng, sized=False), scene)


def _sized(lang: str, scene: Scene, rng: Random) -> str:
    pattern = rng.choice(PLAIN[lang] + ON_GROUND[lang])
    return _listed(lang, pattern, group(scene, rng, sized=True), scene)


def _counted(lang: str, scene: Scene, rng: Random) -> str:
    return _listed(lang, rng.choice(COUNTED[lang]), group(scene, rng, rng.random() < 0.5), scene)


def _related_sized(lang: str, scene: Scene, rng: Random) -> str:
    return _related(lang, scene, rng, sized=True)


def _related(lang: str, scene: Scene, rng: Random, sized: bool = False) -> str:
    """Two groups by a relation that holds for all of their members, and the rest after them; else a plain list."""
    groups = group(scene, rng, sized)
    facts = [
        (a, relation, b)
        for a, b in permutations(groups, 2)
        for relation in OPPOSITE
        if all(holds(one, relation, other) for one in a[1] for other in b[1])
    ]
    if not facts:
        return _listed(lang, rng.choice(PLAIN[lang]), groups, scene)
    a, relation, b = rng.choice(facts)
    others = [(key, things) for key, things in groups if (key, things) not in (a, b)]
    rest = ""
    if others:
        listed = join(lang, [some(lang, key, len(things)) for key, things in others])
        rest = f", and there {_is(len(others[0][1]))} also {listed}" if lang == "en" else f"，另外还有{listed}"
    texts = [some(lang, key, len(things)) for key, things in (a, b)]
    pattern = rng.choice(RELATED[lang])
    if lang == "zh":  # what is known stands bare, as Chinese likes it: 蓝色正方形的左边有一个红色圆形
        for i, (key, things) in enumerate((a, b)):
            if len(things) == 1 and (i == 1 or pattern.startswith("{a}")):
                texts[i] = name(lang, key)
        if len(a[1]) > 1 and pattern.startswith("{a}"):
            texts[0] += "都"
    many = len(a[1])
    words = rng.choice(RELATION[lang][relation])
    return pattern.format(a=texts[0], b=texts[1], rel=words, is_a=_is(many), there_a=f"there {_is(many)}", rest=rest)
