"""Scores of captions against human ones: BLEU, ROUGE-L, CIDEr-D and, where Java is, METEOR. numpy only.

Sentences are lists of words as `tuwen.text.split_words` cuts them, or of ids: any hashable is a word. The numbers equal
those of pycocoevalcap's scorers on the same words. An empty sentence matches nothing and scores 0.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Words = Sequence[Hashable]
References = Sequence[Sequence[Words]]  # for each picture, its human sentences
Gram = tuple[Hashable, ...]

ORDER = 4  # the longest n-gram of BLEU and CIDEr
METEOR_SECONDS = 600


def bleu(candidates: Sequence[Words], references: References) -> list[float]:
    """BLEU-1 to BLEU-4 of a corpus, 0 to 1 (Papineni et al. 2002); the closest reference gives the length.

    `candidates`: one sentence a picture; `references`: one or more a picture. Raises ValueError where they don't match.
    """
    _check(candidates, references)
    right, made = [0] * ORDER, [0] * ORDER
    said = meant = 0
    for candidate, human in zip(candidates, references, strict=True):
        most: Counter[Gram] = Counter()
        for sentence in human:
            most |= Counter(_grams(sentence))
        for gram, count in (Counter(_grams(candidate)) & most).items():
            right[len(gram) - 1] += count
        for n in range(ORDER):
            made[n] += max(0, len(candidate) - n)
        said += len(candidate)
        meant += min((abs(len(sentence) - len(candidate)), len(sentence)) for sentence in human)[1]
    # The small numbers are pycocoevalcap's: no division by zero, and 0 right of 0 made counts as nothing.
    ratio = (said + 1e-15) / (meant + 1e-9)
    brevity = math.exp(min(0.0, 1 - 1 / ratio))
    product, scores = 1.0, []
    for n in range(ORDER):
        product *= (right[n] + 1e-15) / (made[n] + 1e-9)
        scores.append(product ** (1 / (n + 1)) * brevity)
    return scores


def rouge_l(candidates: Sequence[Words], references: References, beta: float = 1.2) -> float:
    """ROUGE-L, 0 to 1: the mean over pictures of the F-score of the longest common subsequence (Lin and Och 2004).

    As pycocoevalcap's: the best precision and the best recall among a picture's references, recall weighted `beta`.
    """
    _check(candidates, references)
    scores = []
    for candidate, human in zip(candidates, references, strict=True):
        common = [_common(candidate, sentence) for sentence in human]
        precision = max(common) / max(1, len(candidate))
        recall = max(length / max(1, len(sentence)) for length, sentence in zip(common, human, strict=True))
        both = recall + beta**2 * precision
        scores.append((1 + beta**2) * precision * recall / both if both else 0.0)
    return float(np.mean(scores))


class Cider:
    """CIDEr-D (Vedantam et al. 2015) as pycocoevalcap's `Cider`: clipped tf-idf cosines of 1- to 4-grams, a Gaussian
    penalty of sigma 6 on the difference in length, times 10.

    `references`: the human sentences of each picture. `documents`: the reference sets that say how rare an n-gram is,
    by default `references` themselves; an empty set is none. What a picture needs is computed at its first use and
    kept, so that one object serves a whole self-critical training.
    """

    SIGMA = 6.0

    def __init__(self, references: References, documents: References | None = None) -> None:
        self.references = references
        seen: Counter[Gram] = Counter()
        sets = [human for human in (references if documents is None else documents) if human]
        for human in sets:
            seen.update({gram for sentence in human for gram in _grams(sentence)})
        self._unseen = math.log(max(1, len(sets)))
        self._rarity = {gram: self._unseen - math.log(count) for gram, count in seen.items()}
        self._known: dict[int, tuple[list[int], dict[Gram, list[tuple[int, float, float]]]]] = {}

    def score(self, pictures: Iterable[int], candidates: Sequence[Words]) -> NDArray[np.float64]:
        """Score (n,) of each candidate against the references of its picture, 0 to 10; their mean is the corpus score.

        `pictures` (n,): whose caption each candidate is, by position in `references`; a picture may come many times.
        Raises ValueError where their numbers differ or a picture has no reference.
        """
        pairs = zip(pictures, candidates, strict=True)
        return np.array([self._score(int(picture), words) for picture, words in pairs], dtype=np.float64)

    def _score(self, picture: int, words: Words) -> float:
        if picture not in self._known:
            self._known[picture] = self._learn(self.references[picture])
        lengths, index = self._known[picture]
        count = len(lengths)
        products = [0.0] * (ORDER * count)  # n-gram length x reference
        norms = [0.0] * ORDER
        rarity, unseen = self._rarity, self._unseen
        for gram, times in Counter(_grams(words)).items():
            weight = times * rarity.get(gram, unseen)
            n = len(gram) - 1
            norms[n] += weight * weight
            for reference, its_weight, share in index.get(gram, ()):
                products[n * count + reference] += (weight if weight < its_weight else its_weight) * share
        cosines = np.array(products).reshape(ORDER, count) / np.sqrt(np.maximum(norms, 1e-300))[:, None]
        distance = np.array(lengths) - _bigrams(words)
        return float((cosines.mean(0) * np.exp(-(distance**2) / (2 * self.SIGMA**2))).mean() * 10)

    def _learn(self, human: Sequence[Words]) -> tuple[list[int], dict[Gram, list[tuple[int, float, float]]]]:
        """Lengths of the references, and for each n-gram of theirs: (reference, its weight, weight / norm) of each."""
        if not human:
            raise ValueError("a picture without a reference can't be scored")
        index: dict[Gram, list[tuple[int, float, float]]] = {}
        for reference, sentence in enumerate(human):
            weights = {
                gram: times * self._rarity.get(gram, self._unseen) for gram, times in Counter(_grams(sentence)).items()
            }
            norms = [0.0] * ORDER
            for gram, weight in weights.items():
                norms[len(gram) - 1] += weight * weight
            for gram, weight in weights.items():
                if weight:
                    share = weight / math.sqrt(norms[len(gram) - 1])
                    index.setdefault(gram, []).append((reference, weight, share))
        return [_bigrams(sentence) for sentence in human], index


def meteor(candidates: Sequence[Words], references: References) -> float | None:
    """METEOR 1.5, 0 to 1 (Denkowski and Lavie 2014), by pycocoevalcap's jar with its English settings.

    None where pycocoevalcap or Java is not installed, or where the jar fails or takes over ten minutes. For another
    language than English it amounts to exact matches.
    """
    _check(candidates, references)
    spec = find_spec("pycocoevalcap.meteor") if find_spec("pycocoevalcap") else None
    java = shutil.which("java")
    if spec is None or java is None or not spec.submodule_search_locations:
        return None
    jar = Path(next(iter(spec.submodule_search_locations))) / "meteor-1.5.jar"
    command = [java, "-Dfile.encoding=UTF-8", "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    lines = [
        " ||| ".join(("SCORE", *(" ".join(map(str, words)) for words in (*human, candidate))))
        for candidate, human in zip(candidates, references, strict=True)
    ]
    try:
        return _ask_meteor(command, lines)
    except (OSError, ValueError):  # it ended, or was ended, before its last answer
        return None


def _ask_meteor(command: list[str], lines: list[str]) -> float:
    """A line of statistics for each line, then all of them together for a score each and the corpus's."""
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8", bufsize=1
    ) as process:
        watch = threading.Timer(METEOR_SECONDS, process.kill)
        watch.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            statistics = []
            for line in lines:
                process.stdin.write(line + "\n")
                statistics.append(process.stdout.readline().strip())
            process.stdin.write(" ||| ".join(("EVAL", *statistics)) + "\n")
            for _ in lines:
                process.stdout.readline()
            return float(process.stdout.readline())
        finally:
            watch.cancel()
            process.kill()


def diversity(candidates: Sequence[Words]) -> dict[str, float]:
    """What a model that says one sentence for every picture fails: `distinct` captions, the `vocabulary` of words used,
    and the `mean_length` in words.
    """
    if not candidates:
        raise ValueError("no caption to count")
    return {
        "distinct": len({tuple(words) for words in candidates}),
        "vocabulary": len({word for words in candidates for word in words}),
        "mean_length": float(np.mean([len(words) for words in candidates])),
    }


def _check(candidates: Sequence[Words], references: References) -> None:
    if not candidates or len(candidates) != len(references):
        raise ValueError(f"one caption a picture is needed: {len(candidates)} for {len(references)} pictures")
    if not all(references):
        raise ValueError("a picture without a reference can't be scored")


def _grams(words: Words) -> Iterator[Gram]:
    """Every 1- to 4-gram, repeated as often as it occurs."""
    words = tuple(words)
    for n in range(1, ORDER + 1):
        yield from zip(*(words[start:] for start in range(n)), strict=False)


def _bigrams(words: Words) -> int:
    """How long a sentence is to CIDEr-D: the reference code counts its bigrams."""
    return max(0, len(words) - 1)


def _common(a: Words, b: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        corner = 0
        for j, other in enumerate(b, 1):
            above = row[j]
            row[j] = corner + 1 if word == other else max(above, row[j - 1])
            corner = above
    return row[-1]
