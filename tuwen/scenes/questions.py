"""Ten questions about a scene with one true answer each: six English and four Chinese, yes as often as no."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import permutations
from random import Random

from tuwen.records import Question
from tuwen.scenes.words import COLOUR_ZH, GROUND, NUMBERS, RELATION, SHAPE_ZH, Key, name
from tuwen.scenes.world import (
    ALL_KINDS,
    COLOURS,
    GROUNDS,
    OPPOSITE,
    SEEN_KINDS,
    SHAPES,
    SIZES,
    Scene,
    Thing,
    holds,
)

Asked = tuple[str, str] | None  # question and answer; None: this scene has no such question
YES_NO = {"en": ("no", "yes"), "zh": ("否", "是")}
CHINESE = 4  # of the ten


def ask(scene: Scene, rng: Random, name: str, unseen: bool = False) -> list[Question]:
    """Ten different questions of all types; `name` begins their ids. Only `unseen` may name a kind kept from train."""
    types = [*ASKERS, "counting", "yes/no", rng.choice(["relation", "yes/no", "colour", "shape"])]
    langs = ["zh"] * CHINESE + ["en"] * (len(types) - CHINESE)
    rng.shuffle(types)
    rng.shuffle(langs)
    asked: dict[str, Question] = {}
    for type_, lang in zip(types, langs, strict=True):
        kind = type_
        for turn in range(1000):
            if turn == 10:  # nothing new of this type: yes and no never run out
                kind = "yes/no"
            pair = ASKERS[kind](lang, scene, rng, unseen)
            if pair is not None and pair[0] not in asked:
                id_ = f"{name}-q{len(asked)}"
                asked[pair[0]] = Question(id=id_, question=pair[0], answers=[pair[1]], question_type=kind)
                break
    return list(asked.values())


def find(scene: Scene, key: Key) -> list[Thing]:
    """The things that a name fits."""
    size, colour, shape = key
    return [
        t for t in scene.things if size in (None, t.size) and colour in (None, t.colour) and shape in (None, t.shape)
    ]


def _names(scene: Scene, *wanted: str) -> list[tuple[list[Thing], Key]]:
    """Names made of the parts wanted (`z` size, `c` colour, `s` shape), with the things that each fits."""
    keys = {
        (t.size if "z" in parts else None, t.colour if "c" in parts else None, t.shape if "s" in parts else None): 0
        for t in scene.things
        for parts in wanted
    }
    return [(find(scene, key), key) for key in keys]


def _unique(scene: Scene, *wanted: str) -> list[tuple[Thing, Key]]:
    """Names that fit one thing only."""
    return [(things[0], key) for things, key in _names(scene, *wanted) if len(things) == 1]


def _agreed(scene: Scene, asked: str, *wanted: str) -> list[tuple[str, Key, bool]]:
    """Names whose things agree in what is asked: the answer, the name, and whether it fits several."""
    found = [({getattr(t, asked) for t in things}, key, len(things) > 1) for things, key in _names(scene, *wanted)]
    return [(values.pop(), key, many) for values, key, many in found if len(values) == 1]


def _counting(lang: str, scene: Scene, rng: Random, unseen: bool) -> Asked:
    keys: list[Key] = [(None, None, None), *((size, None, None) for size in SIZES)]
    keys += [(None, colour, None) for colour in COLOURS] + [(None, None, shape) for shape in SHAPES]
    keys += [(None, t.colour, t.shape) for t in scene.things]
    by_count: dict[int, list[Key]] = defaultdict(list)
    for key in keys:
        by_count[len(find(scene, key))].append(key)
    # Every scene has a count of 0 and of 1, few have more: these weights even the answers out.
    counts = sorted(by_count)
    count = rng.choices(counts, [max(c, 0.7) ** 1.5 for c in counts])[0]
    key = rng.choice(by_count[count])
    if lang == "zh":
        return rng.choice([f"图中有几个{name(lang, key)}？", f"图里一共有多少个{name(lang, key)}？"]), str(count)
    things = name(lang, key, plural=True)
    return rng.choice([f"how many {things} are there?", f"how many {things} can you see?"]), str(count)


def _colour(lang: str, scene: Scene, rng: Random, unseen: bool) -> Asked:
    known = _agreed(scene, "colour", "s", "zs")
    if not known:
        return None
    colour, key, many = rng.choice(known)
    if lang == "zh":
        return f"{name(lang, key)}是什么颜色的？", COLOUR_ZH[colour]
    pattern = rng.choice(["what colour {is_} the {name}?", "what is the colour of the {name}?"])
    return pattern.format(is_="are" if many else "is", name=name(lang, key, many)), colour


def _shape(lang: str, scene: Scene, rng: Random, unseen: bool) -> Asked:
    known = _agreed(scene, "shape", "c", "zc", "z")
    if not known:
        return None
    shape, key, many = rng.choice(known)
    if lang == "zh":
        return f"{name(lang, key)}是什么形状？", SHAPE_ZH[shape]
    if many:
        return f"what shape are the {name(lang, key, many)}?", shape
    return rng.choice(["what is the {}?", "what kind of shape is the {}?"]).format(name(lang, key)), shape


def _relation(lang: str, scene: Scene, rng: Random, unseen: bool) -> Asked:
    known = _unique(scene, "cs")
    if rng.random() < 0.5:
        return _beside(lang, scene, rng, known)
    facts = [(a, r, b) for a, b in permutations(known, 2) for r in OPPOSITE if holds(a[0], r, b[0])]
    if not facts:
        return None
    (_, a), relation, (_, b) = rng.choice(facts)
    either = rng.sample([relation, OPPOSITE[relation]], 2)
    if lang == "zh":
        one, other = (RELATION["zh"][r][0] for r in either)
        return f"{name(lang, a)}在{name(lang, b)}的{one}还是{other}？", RELATION["zh"][relation][0]
    one, other = (r.removesuffix(" of") for r in either)
    of = " of" if relation.endswith(" of") else ""
    text = f"is the {name(lang, a)} {one} or {other}{of} the {name(lang, b)}?"
    return text, relation.removesuffix(" of")


def _beside(lang: str, scene: Scene, rng: Random, known: list[tuple[Thing, Key]]) -> Asked:
    """What stands on one side of a thing, where just one other does and all the rest stand clearly on the far side."""
    facts = []
    for thing, key in known:
        others = [t for t in scene.things if t is not thing]
        for relation in OPPOSITE:
            there = [t for t in others if holds(t, relation, thing)]
            if len(there) == 1 and all(t in there or holds(t, OPPOSITE[relation], thing) for t in others):
                facts.append((there[0], relation, key))
    if not facts:
        return None
    answer, relation, key = rng.choice(facts)
    if lang == "zh":
        side = rng.choice(RELATION["zh"][relation])
        return f"{name(lang, key)}的{side}是什么图形？", SHAPE_ZH[answer.shape]
    return f"what shape is {RELATION['en'][relation][0]} the {name(lang, key)}?", answer.shape


def _size(lang: str, scene: Scene, rng: Random, unseen: bool) -> Asked:
    known = _agreed(scene, "size", "s", "c", "cs")
    if not known:
        return None
    wanted = rng.choice(sorted({size for size, _, _ in known}))  # the rarer size as often as the other
    size, key, many = rng.choice([fact for fact in known if fact[0] == wanted])
    if lang == "zh":
        return f"{name(lang, key)}是大的还是小的？", {"large": "大的", "small": "小的"}[size]
    one, other = rng.sample(sorted(SIZES), 2)
    pattern = rng.choice(["{is_} the {name} {one} or {other}?", "what size {is_} the {name}, {one} or {other}?"])
    return pattern.format(is_="are" if many else "is", name=name(lang, key, many), one=one, other=other), size


def _ground(lang: str, scene: Scene, rng: Random, unseen: bool) -> Asked:
    texts = {
        "en": [
            "what colour is the background?",
            "what is the colour of the background?",
            "which colour does the background have?",
        ],
        "zh": ["背景是什么颜色的？", "图片的背景是什么颜色？"],
    }
    return rng.choice(texts[lang]), GROUND[lang][scene.ground]


def _yes_no(lang: str, scene: Scene, rng: Random, unseen: bool) -> Asked:
    """First the answer by a coin, then a statement that has it."""
    true = rng.random() < 0.5
    maker = rng.choice([_is_there, _is_there, _is_beside, _is_beside, _is_sized, _is_ground, _is_number])
    text = maker(lang, scene, rng, true, unseen)
    return None if text is None else (text, YES_NO[lang][true])


def _is_there(lang: str, scene: Scene, rng: Random, true: bool, unseen: bool) -> str | None:
    """A kind that is there, or one that is not but shares its shape or its colour with something."""
    held = {(t.shape, t.colour) for t in scene.things}
    pool = ALL_KINDS if unseen else SEEN_KINDS
    near = [k for k in pool if k not in held and any(k[0] == s or k[1] == c for s, c in held)]
    shape, colour = rng.choice(sorted(held) if true else near)
    key = (None, colour, shape)
    if lang == "zh":
        return f"图中是否有{name(lang, key)}？"
    return f"is there {'an' if colour[0] in 'aeiou' else 'a'} {name(lang, key)}?"


def _is_beside(lang: str, scene: Scene, rng: Random, true: bool, unseen: bool) -> str | None:
    known = _unique(scene, "cs")
    facts = [(a, r, b) for (s, a), (t, b) in permutations(known, 2) for r in OPPOSITE if holds(s, r, t)]
    if not facts:
        return None
    a, relation, b = rng.choice(facts)
    side = rng.choice(RELATION[lang][relation if true else OPPOSITE[relation]])
    if lang == "zh":
        return f"{name(lang, a)}是否在{name(lang, b)}的{side}？"
    return f"is the {name(lang, a)} {side} the {name(lang, b)}?"


def _is_sized(lang: str, scene: Scene, rng: Random, true: bool, unseen: bool) -> str | None:
    known = _unique(scene, "cs", "s")
    if not known:
        return None
    thing, key = rng.choice(known)
    size = thing.size if true else next(size for size in SIZES if size != thing.size)
    if lang == "zh":
        return f"{name(lang, key)}是不是{'大' if size == 'large' else '小'}的？"
    return f"is the {name(lang, key)} {size}?"


def _is_ground(lang: str, scene: Scene, rng: Random, true: bool, unseen: bool) -> str | None:
    ground = scene.ground if true else rng.choice([g for g in GROUNDS if g != scene.ground])
    said = GROUND[lang][ground]
    return f"背景是不是{said}的？" if lang == "zh" else f"is the background {said}?"


def _is_number(lang: str, scene: Scene, rng: Random, true: bool, unseen: bool) -> str | None:
    thing = rng.choice(scene.things)
    key = rng.choice([(None, None, None), (None, thing.colour, None), (None, None, thing.shape)])
    count = len(find(scene, key))
    if not true:
        count = rng.choice([n for n in range(1, 5) if n != count])
    number = NUMBERS[lang][count]
    if lang == "zh":
        return f"图中是否正好有{number}个{name(lang, key)}？"
    return f"{'is' if count == 1 else 'are'} there exactly {number} {name(lang, key, plural=count > 1)}?"


ASKERS: dict[str, Callable[[str, Scene, Random, bool], Asked]] = {
    "counting": _counting,
    "colour": _colour,
    "shape": _shape,
    "relation": _relation,
    "yes/no": _yes_no,
    "size": _size,
    "ground": _ground,
}
