"""Chinese captions: what they say, and questions asked in Chinese. Names are cut by the longest match."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from random import Random

from tuwen.questions.asking import Ask
from tuwen.questions.reading import Noun, Reading
from tuwen.questions.words import NUMBERS_ZH, SAY_NUMBER_ZH, WORDS, Word, words_of

# Words that hold the name of a concept and mean something else, or more people than can be counted.
BLOCKED = words_of(
    "马路 木马 河马 马拉松 马戏 马上 马尾 马甲 海马 马桶 马车 斗牛 蜗牛 牛仔 热狗 狗屋 狗链 遛狗 海狗 "
    "机器人 雪人 人行道 稻草人 圣诞老人 个人 有人 旋转木马 鸟笼 鱼竿 鱼网 钓鱼 金鱼 羊毛 熊猫 玩具熊 "
    "泰迪熊 毛绒熊 玩具狗 人手 别人 跳板 跳绳 跳伞 跳水 跑道 跑车 站台 车站 地铁站 站点 坐骑 跳床 雪橇 "
    "雪花 雪球 石头剪刀布 滑冰 溜冰 冰淇淋 冰激凌 冰球 冰壶 泥土 口红 红灯 红绿灯 红队 白队 黑人 白人 "
    "黄瓜 粉丝 蓝天 绿地 灰尘 金发 金毛 金属 上衣服 伞兵 太阳伞 降落伞 滑翔伞 遮阳伞 球场 足球场 篮球场 "
    "气球 雪球 网球 棒球 排球 羽毛球 铅球 门球 台球 保龄球 水球 热气球 桶装 船员 船长 海水浴 溪水 湖面 "
    "白色雪地 跑步机 走廊 逃跑 跳入 跳进 跳下 跳过 游泳装 游泳衣 游泳圈 游泳镜 滑雪服 滑雪场 滑雪杖 "
    "跳舞毯 攀岩墙 "
    "趴在窗 趴着窗 趴在栏 趴在护栏 趴在墙"
)
CROWDS = words_of(
    "群 排 些 们 很多 许多 好多 几 对 夫妇 夫妻 情侣 一家 父子 母子 父女 母女 男女 双胞胎 队 观众 人群 另 "
    "另一 其他 其余 伙伴 大家 互相 相互 一起 别人 队员 球迷 兄弟 姐妹 姐弟 兄妹 家人 各 堆 俩 有人 "
    "圣诞老人"
)
NUMBER = re.compile(
    r"([一二两三四五六七八九十2-9])\s*(?:个|只|名|位|条|匹|头|辆|件|顶|张|把|艘|架|面|根)(?:[^，。、在和与跟的个只]{0,3}的?)$"
)
SEVERAL = re.compile(r"(?:群|排|些|多|几|几个|几只|几名|几位|对|堆|队|俩|双)(?:[^，。、在和与跟的]{0,4}的?)$")
ANOTHER = re.compile(r"另一?[个只名位条]?$")
NEAR = ("旁", "边", "前", "后", "附近", "下", "外", "对面")


@lru_cache(maxsize=1)
def _table() -> dict[str, list[Word | None]]:
    """What each name means; None stands for a word that only hides another."""
    found: dict[str, list[Word | None]] = {name: [None] for name in BLOCKED}
    for kind in ("person", "animal", "thing", "place", "action", "colour"):
        for word in WORDS[kind].values():
            for name in word.zh:
                found.setdefault(name, []).append(word)
    return found


@lru_cache(maxsize=1)
def _cutter() -> re.Pattern[str]:
    return re.compile("|".join(sorted(map(re.escape, _table()), key=len, reverse=True)))


def read(text: str) -> Reading:
    """What a Chinese caption says."""
    text = "".join(unicodedata.normalize("NFKC", text).split())
    reading = Reading()
    actions: list[str] = []
    for match in _cutter().finditer(text):
        before, after = text[: match.start()], text[match.end() :]
        for word in _table()[match[0]]:
            if word is None:
                continue
            reading.hints.add((word.kind, word.key))
            if word.kind in ("person", "animal", "thing"):
                reading.nouns.append(_noun(word, before, after))
            elif word.kind == "action" and word.key not in actions:
                actions.append(word.key)
            elif word.kind == "place" and _is_where(match[0], before, after):
                reading.places.append(word.key)
    _hint(text, reading)
    reading.crowd = any(word in text for word in CROWDS) or bool(re.search("[男女](?![人孩子士的生童])", text))
    living = reading.living()
    if len(living) == 1 and living[0].sure:
        reading.subjects = living
        if len(actions) == 1:
            reading.action = actions[0]
    return reading


def _hint(text: str, reading: Reading) -> None:
    """Every name that stands anywhere in the text touches its concept, inside another word too."""
    for name, words in _table().items():
        if name in text:
            reading.hints |= {(word.kind, word.key) for word in words if word is not None}


def _noun(word: Word, before: str, after: str) -> Noun:
    noun = Noun(word.key, word.kind)
    if told := NUMBER.search(before):
        noun.number = NUMBERS_ZH.get(told[1]) or int(told[1])
    if SEVERAL.search(before) or after.startswith("们"):
        noun.number = 0
    noun.another = bool(ANOTHER.search(before))
    noun.sure = not after.startswith(("形", "偶", "像", "雕", "玩具", "拉", "车", "毛", "嘴", "头"))
    colours = "|".join(sorted((n for w in WORDS["colour"].values() for n in w.zh), key=len, reverse=True))
    if painted := re.search(f"((?:{colours})+)的?[小大长]?$", before):
        known = [w.key for w in WORDS["colour"].values() if painted[1] in w.zh]
        if word.kind == "animal" and known == ["yellow"]:  # a yellow dog in Chinese is tan or golden in English
            return noun
        if known:
            noun.colour = known[0]
        elif painted[1] in ("黑白", "黑白色"):
            noun.colour = "black and white"
        else:
            noun.mixed = True
    return noun


def _is_where(name: str, before: str, after: str) -> bool:
    """Whether a place's name says where: "在雪地里", "沙滩上的狗", not "在水边"."""
    if after.startswith(NEAR) and not name.endswith(("上", "里", "中", "边", "头")):
        return False
    if name.endswith(("路边", "街边")):
        return False
    if re.search("[跳蹦扑冲往向进入下看望朝到飞爬][进入下向到在过着]?$", before):
        return False
    inside = name.endswith(("上", "里", "中", "头")) or after.startswith(("上", "里", "中", "面上", "间"))
    return inside or bool(re.search("在[^，。]{0,4}$", before))


PATTERNS = {
    "animal": ["图中是什么动物？", "图片里有什么动物？", "这是什么动物？"],
    "who": ["谁在{value}？"],
    "person": ["图中的人是谁？", "图片里的是什么人？"],
    "colour": ["{about}是什么颜色的？", "{about}是什么颜色？"],
    "count": ["图中有几{measure}{about}？", "图中一共有多少{measure}{about}？"],
    "action": ["{about}在做什么？", "{about}正在干什么？"],
    "place": ["{about}在哪里？", "{about}在什么地方？"],
    "is animal": ["图中有{value}吗？", "图片里是否有{value}？"],
    "is person": ["图中有{value}吗？", "图片里是否有{value}？"],
    "is colour": ["{about}是{value}的吗？", "{about}是不是{value}的？"],
    "is count": ["图中正好有{number}{measure}{about}吗？", "图中是不是有{number}{measure}{about}？"],
    "is action": ["{about}在{value}吗？", "{about}是不是在{value}？"],
    "is place": ["{about}在{value}吗？", "{about}是不是在{value}？"],
}
ANSWERS = {"yes": "是", "no": "否"}


def _name(key: str, kinds: tuple[str, ...]) -> str | None:
    """The Chinese name of a concept, of `black and white` too; None where it has none."""
    if " and " in key:
        return "黑白色" if key == "black and white" else None
    for kind in kinds:
        if key in WORDS[kind]:
            return WORDS[kind][key].zh[0] if WORDS[kind][key].zh else None
    return key


def say(ask: Ask, rng: Random) -> tuple[str, list[str]] | None:
    """The question and its answers in Chinese; None where a word is missing."""
    of = {"colour": ("colour",), "action": ("action",), "place": ("place",), "count": (), "who": ("person",)}
    kind = ask.form.removeprefix("is ")
    answers = [ANSWERS.get(a) or _name(a, of.get(kind, ("animal", "person"))) for a in ask.answers]
    answers = [answer for answer in answers if answer]
    about = _name(ask.about, (ask.kind,)) if ask.about else ""
    value = _name(ask.value, ("action",) if kind in ("who", "action") else of.get(kind, ("animal", "person")))
    if not answers or about is None or value is None:
        return None
    if ask.several and ask.kind == "person" and kind != "count":
        about += "们"
    slots = {
        "about": about,
        "value": value,
        "measure": WORDS[ask.kind][ask.about].measure if ask.about else "",
        "number": SAY_NUMBER_ZH.get(int(ask.value), ask.value) if ask.value.isdigit() else "",
    }
    pattern = rng.choice(PATTERNS[ask.form]).format(**slots)
    return pattern.replace("在在", "在"), [a for a in answers if a]
