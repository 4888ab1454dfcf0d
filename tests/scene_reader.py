"""An independent reader of the made scenes: it knows the words, not the code that wrote them."""

from __future__ import annotations

import re
from typing import Any

Object = dict[str, Any]
SHAPES = ["circle", "square", "triangle", "star", "heart", "ring", "cross", "hexagon"]
COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "black", "white"]
ZH = {
    "圆形": "circle", "正方形": "square", "三角形": "triangle", "五角星": "star", "爱心": "heart", "圆环": "ring",
    "十字形": "cross", "六边形": "hexagon", "红色": "red", "绿色": "green", "蓝色": "blue", "黄色": "yellow",
    "紫色": "purple", "橙色": "orange", "黑色": "black", "白色": "white", "大": "large", "小": "small",
    "灰色": "grey", "天蓝色": "sky", "沙黄色": "sand", "薄荷绿色": "mint",
}  # fmt: skip
GROUNDS = {"grey": "grey", "sky blue": "sky", "sand": "sand", "mint green": "mint"}
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "一": 1, "两": 2, "三": 3, "四": 4}
SIDES = {
    "to the left of": "left", "left of": "left", "to the right of": "right", "right of": "right", "above": "above",
    "over": "above", "below": "below", "under": "below", "左边": "left", "左侧": "left", "右边": "right",
    "右侧": "right", "上方": "above", "上边": "above", "下方": "below", "下边": "below",
    "left": "left", "right": "right",
}  # fmt: skip
EN_NOUN = r"(?:(large|small) )?(?:({}) )?({})(e?s)?\b".format("|".join(COLOURS), "|".join([*SHAPES, "shape"]))
EN_SOME = re.compile(r"\b(a|an|one|two|three|four) " + EN_NOUN)
ZH_NOUN = r"(?:({})的?)?(大|小)?({})".format(
    "|".join(k for k, v in ZH.items() if v in COLOURS), "|".join([*(k for k, v in ZH.items() if v in SHAPES), "图形"])
)
ZH_SOME = re.compile(r"(?:(一|两|三|四)个)?" + ZH_NOUN)
SIDE = "|".join(sorted(SIDES, key=len, reverse=True))


def fits(key: tuple[Any, ...], thing: Object) -> bool:
    size, colour, shape = key
    return size in (None, thing["size"]) and colour in (None, thing["colour"]) and shape in (None, thing["shape"])


def key_of(match: re.Match[str], zh: bool, at: int) -> tuple[Any, ...]:
    """(size, colour, shape) from the groups of a noun that begin at `at`."""
    words = [ZH.get(w) if zh and w else w for w in match.groups()[at : at + 3]]
    size, colour, shape = (words[1], words[0], words[2]) if zh else words
    return size, colour, None if shape in ("shape", None) else shape


def noun(text: str) -> tuple[Any, ...]:
    zh = not text.isascii()
    match = re.fullmatch(ZH_NOUN if zh else EN_NOUN, text)
    assert match, text
    return key_of(match, zh, 0)


def mentions(text: str) -> list[tuple[int, tuple[Any, ...]]]:
    """What a caption mentions, with numbers; English plurals and articles are held to account."""
    zh = not text.isascii()
    found = []
    for match in (ZH_SOME if zh else EN_SOME).finditer(text if zh else text.lower()):
        count = NUMBERS[match[1]] if match[1] else 1
        if not zh:
            assert bool(match[5]) == (count > 1), text
            assert (match[4] == "cross") == (match[5] == "es") or count == 1, text
            if match[1] in ("a", "an"):
                assert (match[0].split()[1][0] in "aeiou") == (match[1] == "an"), text
        found.append((count, key_of(match, zh, 1)))
    return found


def side(a: Object, word: str, b: Object) -> bool:
    dx, dy = round(b["x"] - a["x"], 4), round(b["y"] - a["y"], 4)
    return bool({"left": dx, "right": -dx, "above": dy, "below": -dy}[SIDES[word]] >= 0.2)


def relation(text: str) -> tuple[tuple[Any, ...], str, tuple[Any, ...]] | None:
    """(first, side, second) where a caption says how two groups stand."""
    if text.isascii():
        some = r"(?:a|an|two|three|four) (?:\w+ )*?\w+"
        one = re.match(rf"({some}) (?:is|are) ({SIDE}) ({some})(?=[.,])", text.lower())
        two = re.match(rf"({SIDE}) ({some}) there (?:is|are) ({some})(?=[.,])", text.lower())
        parts = one.groups() if one else (two[3], two[1], two[2]) if two else None
    else:
        some = r"(?:[一两三四]个)?" + ZH_NOUN.replace("(", "(?:").replace("(?:?:", "(?:")
        one = re.match(rf"({some})都?在({some})的({SIDE})", text)
        two = re.match(rf"({some})的({SIDE})有({some})", text)
        parts = (one[1], one[3], one[2]) if one else (two[3], two[2], two[1]) if two else None
    if parts is None:
        return None
    return mentions(parts[0])[0][1], parts[1], mentions(parts[2])[0][1]


def ground(text: str) -> str | None:
    """The ground that a caption names."""
    if text.isascii():
        return next((g for word, g in GROUNDS.items() if re.search(rf"\b{word}\b", text)), None)
    return next((ZH[word] for word in ("天蓝色", "沙黄色", "薄荷绿色", "灰色") if word in text), None)


def only(scene: Object, words: str) -> Any:
    """The one thing that a name fits."""
    found = [t for t in scene["objects"] if fits(noun(words), t)]
    assert len(found) == 1, (words, scene)
    return found[0]


def agreed(scene: Object, words: str, what: str) -> str:
    """What all things that a name fits have in common."""
    values = {t[what] for t in scene["objects"] if fits(noun(words), t)}
    assert len(values) == 1, (words, scene)
    return str(values.pop())


def count(scene: Object, words: str) -> int:
    return sum(fits(noun(words), t) for t in scene["objects"])


def beside(scene: Object, word: str, words: str) -> str:
    thing = only(scene, words)
    found = [t for t in scene["objects"] if t is not thing and side(t, word, thing)]
    assert len(found) == 1, (word, words, scene)
    return str(found[0]["shape"])


def answer(scene: Object, question: str) -> str:
    """Answer a question from the true scene, in English words. AssertionError: it is not understood, or ambiguous."""
    objects = scene["objects"]
    yes = {True: "yes", False: "no"}
    solvers: list[tuple[str, Any]] = [
        (r"how many (.+) (?:are there|can you see)\?", lambda n: str(count(scene, n))),
        (r"(?:图中有几个|图里一共有多少个)(.+)？", lambda n: str(count(scene, n))),
        (r"(?:what|which) .*background.*\?|.*背景是什么颜色的?？", lambda: scene["ground"]),
        (r"what (?:colour (?:is|are)|is the colour of) the (.+)\?", lambda n: agreed(scene, n, "colour")),
        (r"(.+)是什么颜色的？", lambda n: agreed(scene, n, "colour")),
        (rf"what shape is ({SIDE}) the (.+)\?", lambda s, n: beside(scene, s, n)),
        (rf"(.+)的({SIDE})是什么图形？", lambda n, s: beside(scene, s, n)),
        (r"what (?:is|shape are|kind of shape is) the (.+)\?", lambda n: agreed(scene, n, "shape")),
        (r"(.+)是什么形状？", lambda n: agreed(scene, n, "shape")),
        (r"(?:is|are) the (.+) (?:large or small|small or large)\?", lambda n: agreed(scene, n, "size")),
        (r"what size (?:is|are) the (.+), (?:large or small|small or large)\?", lambda n: agreed(scene, n, "size")),
        (r"(.+)是大的还是小的？", lambda n: agreed(scene, n, "size")),
        (r"is the background (.+)\?", lambda g: yes[GROUNDS[g] == scene["ground"]]),
        (r"背景是不是(.+)的？", lambda g: yes[ZH[g] == scene["ground"]]),
        (rf"is the (.+) (left|right|above|below) or ({SIDE}) the (.+)\?", lambda a, r, s, b: either(a, r, s, b)),
        (rf"(.+)在(.+)的({SIDE})还是({SIDE})？", lambda a, b, r, s: either(a, r, s, b)),
        (rf"is the (.+?) ({SIDE}) the (.+)\?", lambda a, s, b: yes[side(only(scene, a), s, only(scene, b))]),
        (rf"(.+)是否在(.+)的({SIDE})？", lambda a, b, s: yes[side(only(scene, a), s, only(scene, b))]),
        (r"is there an? (.+)\?", lambda n: yes[count(scene, n) > 0]),
        (r"图中是否有(.+)？", lambda n: yes[count(scene, n) > 0]),
        (r"(?:is|are) there exactly (\w+) (.+)\?", lambda k, n: yes[count(scene, n) == NUMBERS[k]]),
        (r"图中是否正好有(.)个(.+)？", lambda k, n: yes[count(scene, n) == NUMBERS[k]]),
        (r"is the (.+) (large|small)\?", lambda n, z: yes[only(scene, n)["size"] == z]),
        (r"(.+)是不是(大|小)的？", lambda n, z: yes[only(scene, n)["size"] == ZH[z]]),
    ]

    def either(a: str, r: str, s: str, b: str) -> str:
        found = {SIDES[w] for w in (r, s) if side(only(scene, a), w, only(scene, b))}
        assert len(found) == 1, question
        return found.pop()

    assert 1 <= len(objects) <= 4
    for pattern, solve in solvers:
        if match := re.fullmatch(pattern, question):
            return str(solve(*match.groups()))
    raise AssertionError(f"not understood: {question}")


def plain(text: str) -> str:
    """An answer in the words of `answer`."""
    words = {"是": "yes", "否": "no", "大的": "large", "小的": "small", **GROUNDS, **SIDES, **ZH}
    return words.get(text, text)
