"""English captions: what they say, and questions asked in English."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from random import Random

from tuwen.questions.asking import Ask
from tuwen.questions.reading import Noun, Reading
from tuwen.questions.words import NO_COUNT, NUMBERS, PLURAL_ONLY, SAY_NUMBER, WORDS, plural, words_of
from tuwen.text.words import split_words

ARTICLES = set(words_of("a an the his her its their this that"))
PREPOSITIONS = set(
    words_of(
        "in on at with of to from by for through over under "
        "near behind beside beneath into onto down up off out across "
        "along around during after before between against above below among toward towards past inside outside next "
        "underneath atop alongside upon within front like"
    )
)
JOINTS = set(words_of("and or as while who which that is are was were be being has have wearing holding where but"))
MORE = set(words_of("together outside outdoors indoors there very quickly happily playfully someone something"))
AFTER_HEAD = PREPOSITIONS | JOINTS | ARTICLES | MORE | set(NUMBERS)
ADVERBS = set(words_of("happily quickly playfully together also both all each just currently quietly about carefully"))
CROWDS = set(
    words_of(
        "group crowd team couple family audience band class pair bunch others another other several many some players "
        "cheerleaders spectators onlookers gathering lots row line few "
        "mother father teams parents friend friends sister "
        "brother somebody male female females males teammate teammates opponent opponents ladies adults"
    )
)
WHERE = {"in", "on", "at", "through", "across", "along", "down"}
BEFORE_PLACE = re.compile(
    r"^(a|an|the|some|large|small|big|green|grassy|snowy|sandy|deep|wet|tall|white|shallow|city|busy)$"
)
BLOCKED = {
    "hot dog", "dog sled", "teddy bear", "stuffed bear", "stuffed dog", "toy dog", "rocking horse", "toy horse",
    "bull dog", "sea lion", "snow man", "stuffed animal", "wooden horse", "german shepherd dog", "bath water",
}  # fmt: skip
COMPOUNDS = set(
    words_of(
        "sled sleds show shows race races track house toy toys "
        "park food bowl walker walkers trainer trainers team teams band "
        "scout scouts suit suits carriage stroller seat pool doll "
        "riders trail breed breeds figure statue statues costume "
        "mask clothes hat face head ears collar leash ride rides cart cage fights bars"
    )
)
# Words that read like the name of one more person ("the waiter") and are none.
THINGS_IN_ER = set(
    words_of(
        "water river sweater summer winter flower tower paper "
        "corner counter container computer sprinkler trailer ladder "
        "tiger copter helicopter scooter tractor stroller roller "
        "butter butterfly shower leather weather feather poster "
        "banner letter hammer cooler heater gutter border center "
        "theater railing laughter layer finger shoulder sticker "
        "burger dinner number power timber lumber rubber silver copper christmas newspaper stroller lighter ever other "
        "another over under after her together later either mirror "
        "floor door motor color outdoor indoor decor escalator "
        "doctor elevator trapper never rather however wonder monster toddler retriever terrier doberman rottweiler "
        "pointer fist wrist list mist twist chest blister jumper "
        "saucer easter meter diaper slipper zipper caper boulder "
        "folder powder cider spider glider slider thunder fender crater filter printer plaster blender dresser dryer "
        "fryer player-piano propeller rider-less dumpster hamster lobster oyster cluster roster tier pier deer beer "
        "cheer steer smaller larger bigger older younger taller shorter darker lighter brighter closer deeper higher "
        "lower upper inner outer further farther faster harder longer wider nicer better former latter german human"
    )
)
COLOURS = {name: word.key for word in WORDS["colour"].values() for name in word.en}
MANNERS = set(
    words_of(
        "light dark bright large small big little young old long "
        "short tall fluffy furry shaggy wet striped plastic leather "
        "wool soccer football baseball basketball tennis sports team "
        "knit puffy winter thick long-sleeved inflatable wooden "
        "metal rubber muddy baggy plaid heavy ski life hooded asian shirtless smiling blond blonde fuzzy skinny"
    )
)


@lru_cache(maxsize=1)
def _names() -> dict[tuple[str, ...], tuple[str, str, bool]]:
    """Word sequences that name a person, an animal or a thing: (kind, key, plural)."""
    found: dict[tuple[str, ...], tuple[str, str, bool]] = {}
    for kind in ("person", "animal", "thing"):
        for word in WORDS[kind].values():
            for name in word.en:
                found.setdefault(tuple(name.split()), (kind, word.key, False))
                if name not in PLURAL_ONLY:
                    found.setdefault(tuple(plural(name).split()), (kind, word.key, True))
    for name in ("shorts", "pants", "jeans", "trousers"):
        kind, key, _ = found[(name,)]
        found[(name,)] = (kind, key, False)
    return found


@lru_cache(maxsize=1)
def _places() -> dict[tuple[str, ...], str]:
    return {tuple(name.split()): word.key for word in WORDS["place"].values() for name in word.en}


@lru_cache(maxsize=1)
def _hints() -> dict[tuple[str, ...], set[tuple[str, str]]]:
    """Word sequences with the concepts that they may touch."""
    found: dict[tuple[str, ...], set[tuple[str, str]]] = {}
    for kind, words in WORDS.items():
        for word in words.values():
            names = [*word.loose, *word.object, *(() if word.object else word.en)]
            for name in names + [plural(n) for n in names if kind in ("person", "animal", "thing", "place")]:
                found.setdefault(tuple(name.split()), set()).add((kind, word.key))
    return found


def _longest(words: list[str], at: int, names: Mapping[tuple[str, ...], object]) -> int:
    """How many words from a position are the longest name that begins there; 0: none."""
    return next((n for n in (3, 2, 1) if at + n <= len(words) and tuple(words[at : at + n]) in names), 0)


def read(text: str) -> Reading:
    """What an English caption says."""
    words = split_words(text, "en")
    reading = Reading()
    heads: list[int] = []  # last position of each noun
    position = 0
    while position < len(words):
        size = _longest(words, position, _names())
        if size:
            noun = _noun(words, position, position + size)
            reading.nouns.append(noun)
            heads.append(position + size - 1)
            position += size
        else:
            position += 1
    for start in range(len(words)):
        for size in (1, 2, 3):
            reading.hints |= _hints().get(tuple(words[start : start + size]), set())
    reading.crowd = any(word in CROWDS or _is_stranger(word) for word in words)
    _find_subjects(words, reading, heads)
    thrown = any(noun.kind == "thing" for noun in reading.nouns)  # "kicks a ball high in the air"
    reading.places = [place for place in _find_places(words) if not (thrown and place == "in the air")]
    return reading


def _is_stranger(word: str) -> bool:
    """Whether an unknown word may name a person, who would have to be counted."""
    tail = word.removesuffix("s")
    known = (word,) in _names() or tail in THINGS_IN_ER or word in THINGS_IN_ER or word in MANNERS or word in COLOURS
    return not known and len(tail) > 4 and tail.endswith(("er", "or", "ist", "man", "woman", "men", "women"))


def _noun(words: list[str], start: int, end: int) -> Noun:
    """The noun at words[start:end] with its number and colour."""
    kind, key, several = _names()[tuple(words[start:end])]
    noun = Noun(key, kind, 0 if several else 1)
    after = words[end] if end < len(words) else ""
    action_next = kind in ("person", "animal") and _verb(words, end) is not None
    verbal = kind in ("person", "animal") and (action_next or _looks_verbal(words, end, several))
    noun.sure = not after or after in AFTER_HEAD or after.endswith(("ing", "ly")) or verbal
    if after in COMPOUNDS or after == "'s" or " ".join(words[max(0, start - 1) : end]) in BLOCKED:
        noun.sure = False
    for back in range(start - 1, max(-1, start - 5), -1):
        word = words[back]
        if word in NUMBERS:
            noun.number = NUMBERS[word]
            break
        if word in ("another", "other", "second"):
            noun.another = True
        if word in ARTICLES or word in PREPOSITIONS or word in JOINTS - {"and"} or (word,) in _names():
            if word == "of":  # one of the dogs, a group of dogs, a picture of a dog
                noun.number = 0 if several else noun.number
            break
    _paint(noun, words, start)
    return noun


def _looks_verbal(words: list[str], at: int, several: bool) -> bool:
    """Whether an unknown word after a being reads as its verb: "catches a ball", "jumped", (dogs) "fight over"."""
    if at >= len(words) or (words[at],) in _names():
        return False
    ahead = words[at + 1] if at + 1 < len(words) else "a"
    follows = ahead in ARTICLES or ahead in PREPOSITIONS or ahead in ADVERBS or ahead.endswith("ly")
    return words[at].endswith("ed") or (follows and (several or words[at].endswith("s")))


def _paint(noun: Noun, words: list[str], start: int) -> None:
    """Read the colours right before a noun: one, or two joined by "and"."""
    seen: list[str] = []
    joined = False
    back = start - 1
    while back >= 0 and (
        words[back] in MANNERS or words[back] in COLOURS or words[back] == "and" or "-and-" in words[back]
    ):
        if words[back] == "and":
            joined = bool(seen)
            if not seen:
                break
        for word in reversed(words[back].split("-and-")):
            if word in COLOURS:
                seen.insert(0, COLOURS[word])
                joined = joined or "-and-" in words[back]
        back -= 1
    before = words[max(0, start - 4) : start]
    if len(seen) == 1 and "and" not in words[max(0, back + 1) : start]:
        noun.colour = seen[0]
    elif len(seen) == 2 and joined and seen[0] != seen[1]:
        noun.colour = " and ".join(sorted(seen))
    elif seen:
        noun.mixed = True
    if any(word in ("striped", "plaid", "multicolored", "colorful", "spotted", "camouflage") for word in before):
        noun.colour, noun.mixed = None, True


def _find_subjects(words: list[str], reading: Reading, heads: list[int]) -> None:
    """The nouns a caption begins with, and what they do."""
    living = [
        (noun, head) for noun, head in zip(reading.nouns, heads, strict=True) if noun.kind in ("person", "animal")
    ]
    if not living or living[0][1] > 6:
        return
    first, head = living[0]
    if any(w in PREPOSITIONS or w in JOINTS - {"and", "that"} for w in words[:head]) or not first.sure:
        return
    reading.subjects.append(first)
    if head + 1 < len(words) and words[head + 1] in ("and", "or"):
        follow = [pair for pair in living[1:2] if pair[1] - head <= 5]
        if follow and not any(w in PREPOSITIONS for w in words[head + 1 : follow[0][1]]):
            reading.subjects.append(follow[0][0])
        return
    found = _verb(words, head + 1)
    if found is None:  # "a man in a red shirt is climbing"
        stop = living[1][1] if len(living) > 1 else len(words)
        for place in range(head + 1, min(stop, head + 9)):
            if words[place] in ("is", "are") and not set(words[head + 1 : place]) & {
                "who",
                "which",
                "that",
                "as",
                "while",
            }:
                found = _verb(words, place)
                break
    reading.action = found


def _verb(words: list[str], at: int) -> str | None:
    """The action that begins at a position, over "is" and adverbs; one with its object goes first."""
    while at < len(words) and (words[at] in ("is", "are", "was", "were", "being") or words[at] in ADVERBS):
        at += 1
    if at >= len(words):
        return None
    plain = None
    for word in WORDS["action"].values():
        if words[at] in word.en:
            if word.object:
                ahead = words[at + 1 : at + 6]
                cut = next(
                    (i for i, w in enumerate(ahead) if w in JOINTS or w in ("near", "by", "past", "to")), len(ahead)
                )
                if any(name in ahead[:cut] for name in word.object):
                    return word.key
            elif plain is None:
                plain = word.key
    if plain == "playing" and at + 1 < len(words) and words[at + 1] in ("dead", "tag", "drums", "catch"):
        return None
    if plain == "running" and words[at + 1 : at + 2] in (["a"], ["the"]):  # runs a race, a stall
        return None
    return plain


def _find_places(words: list[str]) -> list[str]:
    """The places that a caption puts its subject in: "in the snow", but not "near the water"."""
    found: list[str] = []
    for start in range(1, len(words)):
        size = _longest(words, start, _places())
        if not size:
            continue
        after = words[start + size] if start + size < len(words) else ""
        if after and after not in AFTER_HEAD and not after.endswith("ing"):
            continue
        before = start - 1
        while before >= 0 and BEFORE_PLACE.match(words[before]):
            before -= 1
        if before < 0 or (words[before] not in WHERE and words[max(0, before - 1) : before + 1] != ["middle", "of"]):
            continue
        if words[max(0, before - 1)] in ("front", "looking", "looks", "up", "out", "in", "gaze", "gazing", "climbing"):
            continue
        key = _places()[tuple(words[start : start + size])]
        if key == "on a rock" and words[before] in ("in", "through"):
            continue
        if key not in found:
            found.append(key)
    return found


def name_of(kind: str, key: str, several: bool) -> str:
    """`dog` or `dogs`."""
    return plural(key) if several and key not in PLURAL_ONLY and key not in NO_COUNT else key


def _article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


PATTERNS = {
    "animal": ["what animal is in the picture?", "what animal can you see?", "which animal is this?"],
    "who": ["who is {value}?"],
    "person": ["who is in the picture?", "who can you see in the picture?"],
    "colour": ["what colour {be} the {about}?", "what is the colour of the {about}?"],
    "count": [
        "how many {abouts} are there?",
        "how many {abouts} can you see?",
        "how many {abouts} are in the picture?",
    ],
    "action": ["what {be} the {about} doing?"],
    "place": ["where {be} the {about}?"],
    "is animal": ["is there {a_value} in the picture?", "can you see {a_value}?"],
    "is person": ["is there {a_value} in the picture?", "can you see {a_value}?"],
    "is colour": ["{be} the {about} {value}?"],
    "is count": ["are there exactly {number} {abouts}?", "are there {number} {abouts} in the picture?"],
    "is action": ["{be} the {about} {value}?"],
    "is place": ["{be} the {about} {value}?"],
}


def say(ask: Ask, rng: Random) -> tuple[str, list[str]] | None:
    """The question and its answers in English."""
    about = name_of(ask.kind, ask.about, ask.several) if ask.about else ""
    several = ask.several or ask.about in PLURAL_ONLY
    slots = {
        "about": about,
        "abouts": name_of(ask.kind, ask.about, True) if ask.about else "",
        "be": "are" if several else "is",
        "value": ask.value,
        "a_value": _article(ask.value) if ask.value else "",
        "number": SAY_NUMBER.get(int(ask.value), ask.value) if ask.value.isdigit() else "",
    }
    if ask.form == "is count" and ask.value == "1":
        return f"is there exactly one {name_of(ask.kind, ask.about, False)}?", list(ask.answers)
    return rng.choice(PATTERNS[ask.form]).format(**slots), list(ask.answers)
