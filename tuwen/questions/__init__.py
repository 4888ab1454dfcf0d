"""Questions from captions alone: what they agree on, asked in English and Chinese (docs/questions.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from tuwen import dataset as datasets
from tuwen.errors import DataError
from tuwen.files import sha256_text
from tuwen.progress import track
from tuwen.questions import chinese, english
from tuwen.questions.asking import Ask, Facts, denials, gather, positives
from tuwen.records import Picture, Question

SOURCE = "questions"
LANGUAGES = ("en", "zh")
# No answer is more than this part of its question type, where there are answers enough.
SHARE, SHARE_COUNT = 0.2, 0.5
NOTE = (
    "made by rules from captions, without a look at the picture: what no caption tells is not asked, and what all "
    "captions leave out or get wrong is wrong here too; docs/questions.md has the measured precision"
)
Say = Callable[[Ask, Random], tuple[str, list[str]] | None]
SPEAKERS: dict[str, Say] = {"en": english.say, "zh": chinese.say}


@dataclass(frozen=True)
class Made:
    """A question that was made: for which picture (its position), in which language, and what it asks."""

    picture: int
    lang: str
    ask: Ask
    question: str
    answers: tuple[str, ...]
    order: str  # a hash: the order in which questions are kept

    @property
    def answer(self) -> str:
        """The answer that most captions give, the first of equals."""
        return Counter(self.answers).most_common(1)[0][0]


def write(
    folder: Path | str, seed: int = 0, per_picture: int = 8, lang: str | None = None, source: str = SOURCE
) -> dict[str, Any]:
    """Add made questions to a data set's rows, in place of those made before, and say how many of what.

    Args:
        folder: a data set; only its `metadata.jsonl` is written, whole or not at all.
        per_picture: at most so many a picture, over all languages.
        lang: `en` or `zh`; default: each language that has a human caption.

    Raises:
        DataError: no data set, an unknown language, or captions that tell nothing to ask.
    """
    data = datasets.read(folder)
    if lang is not None and lang not in LANGUAGES:
        raise DataError(f"{folder}: no questions in '{lang}'; use --lang {' or --lang '.join(LANGUAGES)}")
    spoken = {caption.lang for picture in data.pictures for caption in picture.human()}
    langs = [one for one in LANGUAGES if (one in spoken if lang is None else one == lang)]
    made = make(data.pictures, seed, per_picture, langs)
    if not made:
        raise DataError(f"{folder}: no caption tells anything to ask; add captions in English or Chinese")
    by_picture: dict[int, list[Made]] = defaultdict(list)
    for one in made:
        by_picture[one.picture].append(one)
    replaced = 0
    written: list[Made] = []
    for index, picture in enumerate(data.pictures):
        kept = [question for question in picture.qa if question.source != source]
        replaced += len(picture.qa) - len(kept)
        asked = {question.question for question in kept}
        fresh = [one for one in by_picture[index] if one.question not in asked]
        written += fresh
        picture.qa = kept + [_question(picture, one, source) for one in fresh]
    datasets.save(data)
    return {"data": str(folder), "seed": seed, "replaced": replaced, **count(written), "note": NOTE}


def _question(picture: Picture, made: Made, source: str) -> Question:
    name = sha256_text(f"{picture.root}/{picture.file_name}/{made.question}")[:12]
    return Question(
        question=made.question,
        answers=list(made.answers),
        id=f"made-{name}",
        question_type=made.ask.type,
        source=source,
    )


def make(pictures: list[Picture], seed: int, per_picture: int, langs: list[str]) -> list[Made]:
    """Questions for all pictures, balanced within each split; the same seed and rows make the same questions."""
    facts = [understand(picture) for picture in track(pictures, len(pictures), "reading captions")]
    yes = [positives(fact) for fact in facts]
    pools = _pools(yes)
    made: list[Made] = []
    for index, picture in enumerate(track(pictures, len(pictures), "writing questions")):
        name = f"{picture.root}/{picture.file_name}"
        rng = Random(f"{seed}/{name}")
        asks = yes[index] + _deny(yes[index], facts[index], pools, rng)
        for lang in langs:
            for ask in asks:
                said = SPEAKERS[lang](ask, rng)
                if said is not None:
                    order = sha256_text(f"{seed}/{name}/{lang}/{ask}")
                    made.append(Made(index, lang, ask, said[0], tuple(said[1]), order))
    made = balance(made, pictures)
    return balance(_thin(made, per_picture), pictures)


def understand(picture: Picture) -> Facts:
    """What the captions that people wrote agree on; hints come from every caption, whoever wrote it."""
    readers = {"en": english.read, "zh": chinese.read}
    facts = gather([readers[c.lang](c.text) for c in picture.human() if c.lang in readers and c.text.strip()])
    for caption in picture.captions:
        if caption.source != "human" and caption.lang in readers:
            facts.hints |= readers[caption.lang](caption.text).hints
    return facts


def _pools(yes: list[list[Ask]]) -> dict[tuple[str, str], list[str]]:
    """True values of all pictures, by form and by what they are said of: the false ones are drawn from here."""
    pools: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for asks in yes:
        for ask in asks:
            if ask.answers == ("yes",):
                pools[ask.form, _topic(ask)][ask.value] += 1
    return {key: sorted(values.elements()) for key, values in pools.items()}


def _topic(ask: Ask) -> str:
    """Within what a false value must be likely: the colours of dogs, what people do, where animals are."""
    if ask.form in ("is colour", "is count"):
        return ask.about
    return ask.kind if ask.form in ("is action", "is place") else ""


def _deny(yes: list[Ask], facts: Facts, pools: dict[tuple[str, str], list[str]], rng: Random) -> list[Ask]:
    """A false twin of each yes: a value that is true of other pictures, drawn as often as it is true there."""
    found = []
    for ask in yes:
        if ask.answers == ("yes",):
            pool = pools[ask.form, _topic(ask)]
            chosen = denials(ask, facts, rng.sample(pool, min(24, len(pool))))
            found += [replace(ask, answers=("no",), value=value) for value in list(dict.fromkeys(chosen))[:3]]
    return found


def balance(made: list[Made], pictures: list[Picture]) -> list[Made]:
    """Drop questions until, a split and a language, each yes has its no and no answer is too common."""
    groups: dict[tuple[Any, ...], list[Made]] = defaultdict(list)
    for one in made:
        split = pictures[one.picture].split or ""
        if one.ask.type == "yes/no":
            groups[split, one.lang, one.ask.form, one.ask.about, one.ask.several, one.ask.value].append(one)
        else:
            groups[split, one.lang, one.ask.type].append(one)
    kept: set[tuple[int, str, str]] = set()
    for key, group in groups.items():
        chosen = _pair(group) if len(key) > 3 else _cap(group)
        kept |= {(one.picture, one.lang, one.order) for one in chosen}
    return [one for one in made if (one.picture, one.lang, one.order) in kept]


def _pair(group: list[Made]) -> list[Made]:
    """As many yes as no of questions that ask the same."""
    sides = [sorted((m for m in group if m.ask.answers[0] == side), key=lambda m: m.order) for side in ("yes", "no")]
    size = min(map(len, sides))
    return sides[0][:size] + sides[1][:size]


def _cap(group: list[Made]) -> list[Made]:
    """No answer above its share; of a common one the first by hash stay."""
    answers = Counter(one.answer for one in group)
    share = max(SHARE_COUNT if group[0].ask.type == "counting" else SHARE, 1 / len(answers))
    limit = len(group)
    while limit > 1 and limit > share * sum(min(n, limit) for n in answers.values()):
        limit -= 1
    seen: Counter[str] = Counter()
    chosen = []
    for one in sorted(group, key=lambda m: m.order):
        seen[one.answer] += 1
        if seen[one.answer] <= limit:
            chosen.append(one)
    return chosen


def _thin(made: list[Made], per_picture: int) -> list[Made]:
    """At most `per_picture` a picture: the types and languages take turns, each in the order of its hashes."""
    by_picture: dict[int, dict[tuple[str, str], list[Made]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(made, key=lambda m: m.order):
        by_picture[one.picture][one.lang, one.ask.type].append(one)
    kept: list[Made] = []
    for stacks in by_picture.values():
        turns: Iterable[list[Made]] = [stacks[key] for key in sorted(stacks, key=lambda key: stacks[key][0].order)]
        row = [(turn, place, one) for place, stack in enumerate(turns) for turn, one in enumerate(stack)]
        kept += [one for _, _, one in sorted(row, key=lambda item: item[:2])[:per_picture]]
    return kept


def count(made: list[Made]) -> dict[str, Any]:
    """Counts by type, language and answer (the ten most common of each type and language)."""
    types = Counter(one.ask.type for one in made)
    langs = Counter(one.lang for one in made)
    answers: dict[str, dict[str, dict[str, int]]] = {}
    asked: dict[str, dict[str, int]] = {}
    for lang in sorted(langs):
        for type_ in sorted(types):
            found = Counter(one.answer for one in made if (one.lang, one.ask.type) == (lang, type_))
            if found:
                answers.setdefault(lang, {})[type_] = dict(found.most_common(10))
                asked.setdefault(lang, {})[type_] = found.total()
    return {
        "pictures": len({one.picture for one in made}),
        "questions": len(made),
        "types": dict(types.most_common()),
        "languages": dict(langs.most_common()),
        "asked": asked,
        "answers": answers,
    }
