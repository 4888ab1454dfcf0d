"""What an answer is: the official VQA normalisation, the answers a model may give, and what each is worth.

The rules are those of the public evaluation code of VQA v1 and v2 (Antol et al., ICCV 2015), its faults included, for a
score is comparable only so. Plain rules (case, width and spaces) are for data whose answers hold punctuation that
means something (DAQUAR's `book, night_stand`) or that are Chinese.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from tuwen.errors import ModelError
from tuwen.records import HAN
from tuwen.text.words import normalise

Rule = Literal["official", "plain"]
Worth = Literal["official", "thirds"]

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
NUMBER_COMMA = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
MOST_PERIODS = 32  # a flag (re.UNICODE) stands where the published code should give no count: it is taken as one
NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4",
    "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = {"a", "an", "the"}
# Each right form answers to itself with any one apostrophe left out. The table's forms of "I" are absent: words are
# lower-cased before they are looked up, so those never matched.
_RIGHT = """ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't
not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"""
CONTRACTIONS = {
    right[:place] + right[place + 1 :]: right
    for right in _RIGHT.split()
    for place, sign in enumerate(right)
    if sign == "'"
} | {"somebody'd": "somebodyd"}


def strip_punctuation(text: str) -> str:
    """The official rule: a sign goes without trace where it touches a space anywhere in the text, or where the text
    holds a comma between digits; else it becomes a space. Then all periods but those before a digit."""
    thousands = NUMBER_COMMA.search(text) is not None
    out = text
    for sign in PUNCTUATION:
        apart = f"{sign} " in text or f" {sign}" in text
        out = out.replace(sign, "" if apart or thousands else " ")
    return PERIOD.sub("", out, count=MOST_PERIODS)


def replace_words(text: str) -> str:
    """The official rule: lower case, number words up to ten as digits, no articles, contractions with apostrophes."""
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def trim(text: str) -> str:
    """What the official code does to every answer before it compares any."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalise_answer(text: str, rule: Rule = "official") -> str:
    """An answer as it is compared; `""` where nothing is left of it ("the")."""
    return replace_words(strip_punctuation(trim(text))) if rule == "official" else normalise(text)


def worth(matches: int, annotators: int, kind: Worth = "official") -> float:
    """What an answer is worth that `matches` of `annotators` people gave, from 0 to 1.

    `official`: the mean, over all ways to leave one person out, of min(matches among the others / 3, 1); with ten
    people 0.3, 0.6, 0.9 and 1 for 1, 2, 3 and 4. `thirds`: min(matches / 3, 1), which overstates. Where fewer than
    four people answered, 3 is taken down to as many as can agree; one person alone is simply matched.
    """
    if not matches:
        return 0.0
    if kind == "thirds" or annotators == 1:
        return min(1.0, matches / min(3, annotators))
    need = min(3, annotators - 1)
    own = matches * min(1.0, (matches - 1) / need) + (annotators - matches) * min(1.0, matches / need)
    return own / annotators


def soft_scores(answers: Sequence[str], kind: Worth = "official", rule: Rule = "official") -> dict[str, float]:
    """Each different answer of a question, normalised, with its worth; one of which nothing is left is no target."""
    counts = Counter(normalise_answer(answer, rule) for answer in answers)
    return {answer: worth(count, len(answers), kind) for answer, count in counts.items() if answer}


def commonest(answers: Sequence[str], rule: Rule = "official") -> str:
    """The answer most people gave to a question, normalised; of equals, the one given first."""
    return Counter(normalise_answer(answer, rule) for answer in answers).most_common(1)[0][0] if answers else ""


def answer_language(answer: str) -> str:
    """`"zh"` with any Han character, `"en"` with other letters, else `""`: numbers belong to every language."""
    return "zh" if HAN.search(answer) else "en" if any(map(str.isalpha, answer)) else ""


class AnswerVocabulary:
    """The answers that a model chooses from, commonest first, ties by the answer; all normalised by `rule`."""

    def __init__(self, answers: Sequence[str], rule: Rule = "official") -> None:
        self.answers, self.rule = list(answers), rule
        self._ids = {answer: i for i, answer in enumerate(self.answers)}
        if len(self._ids) != len(self.answers):
            raise ModelError("an answer vocabulary holds an answer twice: train again")

    @classmethod
    def train(
        cls, questions: Iterable[Sequence[str]], min_count: int = 9, size: int | None = None, rule: Rule = "official"
    ) -> AnswerVocabulary:
        """Answers that are the commonest of at least `min_count` questions, of those the `size` commonest.

        `questions` are the people's answers to each (Teney et al., CVPR 2018: at least 9 times).
        """
        counts = Counter(commonest(answers, rule) for answers in questions)
        order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([answer for answer, count in order if answer and count >= min_count][:size], rule)

    def __len__(self) -> int:
        return len(self.answers)

    def __contains__(self, answer: str) -> bool:
        return self.key(answer) in self._ids

    def __getitem__(self, number: int) -> str:
        return self.answers[number]

    def key(self, answer: str) -> str:
        """An answer by this vocabulary's rule."""
        return normalise_answer(answer, self.rule)

    def find(self, answer: str) -> int | None:
        """The number of an answer; None where the vocabulary lacks it."""
        return self._ids.get(self.key(answer))

    def targets(self, answers: Sequence[str], kind: Worth = "official") -> list[tuple[int, float]]:
        """The numbers of a question's answers and their worth; those the vocabulary lacks are left out."""
        scores = soft_scores(answers, kind, self.rule)
        return [(self._ids[answer], score) for answer, score in scores.items() if answer in self._ids]

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `config.json`."""
        return {"rule": self.rule, "answers": self.answers}

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> AnswerVocabulary:
        """Read what `to_dict` wrote."""
        return cls(body["answers"], body["rule"])
