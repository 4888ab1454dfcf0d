"""How English and Chinese name what stands in a scene."""

from __future__ import annotations

from collections.abc import Sequence

LANGUAGES = ("en", "zh")
NUMBERS = {"en": ("no", "one", "two", "three", "four"), "zh": ("零", "一", "两", "三", "四")}
SHAPE_ZH = {
    "circle": "圆形",
    "square": "正方形",
    "triangle": "三角形",
    "star": "五角星",
    "heart": "爱心",
    "ring": "圆环",
    "cross": "十字形",
    "hexagon": "六边形",
}
COLOUR_ZH = {
    "red": "红色",
    "green": "绿色",
    "blue": "蓝色",
    "yellow": "黄色",
    "purple": "紫色",
    "orange": "橙色",
    "black": "黑色",
    "white": "白色",
}
SIZE_ZH = {"large": "大", "small": "小"}
GROUND = {
    "en": {"grey": "grey", "sky": "sky blue", "sand": "sand", "mint": "mint green"},
    "zh": {"grey": "灰色", "sky": "天蓝色", "sand": "沙黄色", "mint": "薄荷绿色"},
}
RELATION = {
    "en": {
        "left of": ("to the left of", "left of"),
        "right of": ("to the right of", "right of"),
        "above": ("above", "over"),
        "below": ("below", "under"),
    },
    "zh": {
        "left of": ("左边", "左侧"),
        "right of": ("右边", "右侧"),
        "above": ("上方", "上边"),
        "below": ("下方", "下边"),
    },
}
Key = tuple[str | None, str | None, str | None]  # size, colour, shape; None: not said


def name(lang: str, key: Key, plural: bool = False) -> str:
    """Without an article: `large red circles`, `红色的大圆形`; with no shape said, `shape` or `图形`."""
    size, colour, shape = key
    if lang == "en":
        noun = shape or "shape"
        if plural:
            noun += "es" if noun.endswith("s") else "s"
        return " ".join(word for word in (size, colour, noun) if word)
    noun = SHAPE_ZH[shape] if shape else "图形"
    tint = COLOUR_ZH[colour] if colour else ""
    if size:  # 大红色 would be a bright red, so the size stands beside the shape
        return f"{tint}{'的' if tint else ''}{SIZE_ZH[size]}{noun}"
    return tint + noun


def some(lang: str, key: Key, count: int) -> str:
    """With its number: `an orange star`, `two red circles`, `一个橙色五角星`."""
    if lang == "zh":
        return f"{NUMBERS['zh'][count]}个{name(lang, key)}"
    if count > 1:
        return f"{NUMBERS['en'][count]} {name(lang, key, plural=True)}"
    text = name(lang, key)
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def join(lang: str, parts: Sequence[str]) -> str:
    """`a, b and c`; `甲、乙和丙`."""
    comma, last = (", ", " and ") if lang == "en" else ("、", "和")
    return last.join([comma.join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def sentence(lang: str, text: str) -> str:
    """With a capital and a full stop."""
    return text[0].upper() + text[1:] + ("." if lang == "en" else "。")
