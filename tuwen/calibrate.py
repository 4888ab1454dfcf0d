"""When nothing matches: the similarity, by language and by the words of a query, under which a picture is no hit.

One number for all queries fails, because a model is as sure of words that it hardly knows as of those it learnt well.
The floor is therefore a line: `base` for words of 1,000 training captions or more, and higher by `slope` for each power
of ten that the rarest word of the query falls short of that. Both are chosen on pictures kept out of training.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen.dataset import Dataset
from tuwen.errors import DataError, ModelError
from tuwen.files import write_atomic
from tuwen.records import guess_language
from tuwen.text import split_words

if TYPE_CHECKING:
    from tuwen.pipelines import Embedder

FILE = "calibration.json"
FORMAT = 1
ALL, NONE = -2.0, 2.0  # floors that every cosine passes, and none
POWERS = 3.0  # of ten: words of 1,000 captions are known well
SIZES = (12, 40, 120, 400)  # pictures of an index that is drawn
DRAWS = 1200  # pictures drawn for each of the sizes
FITS, MISSES = 0.6, 0.34  # shares of a query's weight that the captions of a picture hold
COMMON = 0.3  # a word in the captions of more pictures than this share says nothing
SENTENCES = 1000  # captions that are queries
TOP = 3
SLOPES = np.linspace(0, 0.3, 31)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """The floor of one language, and what it does on the pictures it was chosen on: the shares of queries whose picture
    came among the first three (`ranked`), and passed too (`found`), and of absent queries that found nothing."""

    base: float
    slope: float
    ranked: float
    found: float
    rejected: float
    queries: int

    def at(self, count: int) -> float:
        """The floor of a query whose rarest word stands in so many training captions."""
        return self.base + self.slope * (POWERS - level(count))


@dataclass(frozen=True)
class Calibration:
    """The lines of a model, and in how many training captions each word stands (1,000 stands for more)."""

    fingerprint: str
    lines: dict[str, Line]
    words: dict[str, dict[str, int]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)

    def floor(self, text: str, lang: str) -> float:
        """The least cosine of a hit of this query; ALL where nothing was calibrated for the language."""
        if lang not in self.lines:
            return ALL
        return self.lines[lang].at(rarest(text, self.words.get(lang, {})))

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        words = {lang: _by_count(counts) for lang, counts in self.words.items()}
        body = {**asdict(self), "format": FORMAT, "words": words}
        write_atomic(folder / FILE, json.dumps(body, ensure_ascii=False, indent=1) + "\n")


def floor(pipeline: Embedder, text: str) -> float:
    """The least cosine of a hit: by the model's calibration, else its plain threshold, else ALL."""
    lang = guess_language(text)
    folder = getattr(pipeline, "folder", None)
    known = read(folder, pipeline.fingerprint) if isinstance(folder, Path) else None
    return known.floor(text, lang) if known else pipeline.threshold.get(lang, ALL)


@lru_cache(maxsize=8)
def read(folder: Path, fingerprint: str) -> Calibration | None:
    """The calibration of a run; None where it has none, or one of other weights. ModelError where it is damaged."""
    path = folder / FILE
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["format"] != FORMAT or body["fingerprint"] != fingerprint:
            return None
        lines = {lang: Line(**line) for lang, line in body["lines"].items()}
        words = {
            lang: {word: int(count) for count, some in counts.items() for word in some.split()}
            for lang, counts in body["words"].items()
        }
        return Calibration(fingerprint, lines, words, body["protocol"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); delete it, or calibrate again") from None


def lines(pipeline: Embedder) -> dict[str, float]:
    """The floor by language of queries whose words the model knows well; empty where it has none."""
    folder = getattr(pipeline, "folder", None)
    known = read(folder, pipeline.fingerprint) if isinstance(folder, Path) else None
    return {lang: line.base for lang, line in known.lines.items()} if known else dict(pipeline.threshold)


def level(count: int) -> float:
    """How well a word is known, 0 to 3: the power of ten of its captions."""
    return math.log10(1 + min(count, 999))


def rarest(text: str, counts: Mapping[str, int]) -> int:
    """In how many training captions the rarest word of a text stands; of a Chinese word made of words, these count."""
    return min((_count(word, counts) for word in split_words(text)), default=0)


def calibrate(pipeline: Embedder, data: Dataset, split: str = "val", seed: int = 0) -> Calibration:
    """Choose the lines of a model on a split that it did not learn from; words are counted in `train`.

    Queries are the words of the split's captions, and captions. Indexes of 12 to 400 pictures are drawn. A picture fits
    a query where its captions hold most of its words, weighed by their rarity; a query none of whose pictures is drawn
    should find nothing. Slope and base maximise the sum of the shares found and rejected (Youden, 1950).

    Raises:
        DataError: no split of that name, or no captions in it.
    """
    pictures = [picture for picture in data.pictures if picture.split == split and picture.captions]
    if len(pictures) < 2 * SIZES[0]:
        raise DataError(f"{data.folder}: {len(pictures)} captioned pictures in '{split}': at least {2 * SIZES[0]}")
    vectors = pipeline.embed_images([data.path(picture) for picture in pictures])
    chosen, words = {}, {}
    for lang in pipeline.languages:
        counts = _count_words(caption.text for p in data.pictures if p.split == "train" for caption in p.human(lang))
        captions = [[caption.text for caption in picture.human(lang)] for picture in pictures]
        if sum(map(len, captions)) < SENTENCES // 10:
            continue
        queries, fits = _queries(captions, lang, seed)
        known = np.array([level(rarest(query, counts)) for query in queries])
        chosen[lang] = _choose(pipeline.embed_texts(queries) @ vectors.T, fits, known, seed)
        words[lang] = dict(counts)
    if not chosen:
        raise DataError(f"{data.folder}: too few captions in '{split}' in {', '.join(pipeline.languages)}")
    protocol = {"data": data.manifest.name, "split": split, "pictures": len(pictures), "sizes": SIZES, "seed": seed}
    return Calibration(pipeline.fingerprint, chosen, words, protocol)


def _queries(captions: Sequence[Sequence[str]], lang: str, seed: int) -> tuple[list[str], Floats]:
    """Words and captions as queries (n), and how well each picture fits each (n, pictures)."""
    said = [[set(split_words(text)) for text in texts] for texts in captions]
    often = [Counter(word for words in texts for word in words) for texts in said]
    pictures = Counter(word for counts in often for word in counts)
    weight = {word: float(np.log(len(captions) / count)) for word, count in pictures.items()}
    telling = [word for word, heavy in weight.items() if heavy > -np.log(COMMON) and len(word) > (lang == "en") * 2]
    topics = sorted(word for word in telling if any(counts[word] >= 2 for counts in often))
    sentences = [(i, j) for i, texts in enumerate(captions) for j in range(len(texts))]
    drawn = np.random.default_rng(seed).permutation(len(sentences))[:SENTENCES]
    chosen = [sentences[at] for at in drawn]
    queries = [f"a {word}" if lang == "en" else word for word in topics] + [captions[i][j] for i, j in chosen]
    place = {word: at for at, word in enumerate(telling)}
    held = np.zeros((len(captions), len(place)))
    for row, counts in zip(held, often, strict=True):
        row[[place[word] for word in counts if word in place]] = 1
    asked = np.zeros((len(queries), len(place)))
    for row, words in zip(asked, [[t] for t in topics] + [list(said[i][j]) for i, j in chosen], strict=True):
        for word in words:
            if word in place:
                row[place[word]] = weight[word]
    total = asked.sum(1, keepdims=True)
    fits: Floats = (asked @ held.T) / np.maximum(total, 1e-9)
    for at, (i, _) in enumerate(chosen, len(topics)):
        fits[at, i] = 1
    return queries, fits


def _choose(cosines: NDArray[np.float32], fits: Floats, known: Floats, seed: int) -> Line:
    """The line that parts hits from misses best, over draws of indexes of several sizes."""
    draw = np.random.default_rng(seed)
    right, wrong, lost, weights = [], [], 0, ([], [])  # type: ignore[var-annotated]
    for size in SIZES:
        if size > len(cosines.T):
            continue
        for _ in range(DRAWS // size):
            some = draw.permutation(cosines.shape[1])[:size]
            near, fit = cosines[:, some], fits[:, some]
            best = np.argsort(-near, axis=1)[:, :TOP]
            good = np.take_along_axis(fit, best, 1) >= FITS
            there, absent = (fit >= FITS).any(1), (fit < MISSES).all(1)
            hit = there & good.any(1)
            first = np.take_along_axis(np.take_along_axis(near, best, 1), good.argmax(1)[:, None], 1)[:, 0]
            right.append(np.stack([first[hit], known[hit]]))
            wrong.append(np.stack([near.max(1)[absent], known[absent]]))
            lost += int((there & ~hit).sum())
            weights[0].append(np.full(int(hit.sum()), size / DRAWS))
            weights[1].append(np.full(int(absent.sum()), size / DRAWS))
    ok, no = np.concatenate(right, 1), np.concatenate(wrong, 1)  # (2, n): cosine, level
    share = [np.concatenate(part) / np.concatenate(part).sum() for part in weights]
    best_line = (-1.0, 0.0, 0.0)
    for slope in SLOPES:
        value, base = _part(ok[0] - slope * (POWERS - ok[1]), no[0] - slope * (POWERS - no[1]), share)
        best_line = max(best_line, (value, float(slope), base))
    _, slope, base = best_line
    found = float(share[0][ok[0] - slope * (POWERS - ok[1]) >= base].sum())
    rejected = float(share[1][no[0] - slope * (POWERS - no[1]) < base].sum())
    ranked = ok.shape[1] / max(ok.shape[1] + lost, 1)
    parts = [round(value, 4) for value in (base, slope, ranked, found * ranked, rejected)]
    return Line(parts[0], parts[1], parts[2], parts[3], parts[4], len(cosines))


def _part(right: Floats, wrong: Floats, share: Sequence[Floats]) -> tuple[float, float]:
    """The largest sum of the share of `right` at or above a value and of `wrong` below it, and that value."""
    values = np.concatenate([right, wrong])
    order = np.argsort(values, kind="stable")
    gain = np.concatenate([-share[0], share[1]])[order]
    total = 1 + np.concatenate([[0], np.cumsum(gain)])  # of a floor just above each value
    at = int(total.argmax())
    ends = values[order]
    base = ends[0] if at == 0 else ends[-1] if at == len(ends) else (ends[at - 1] + ends[at]) / 2
    return float(total[at]), float(base)


def _count(word: str, counts: Mapping[str, int]) -> int:
    if word in counts:
        return counts[word]
    if guess_language(word) != "zh":
        return 0
    return max(
        (min(counts[word[:i]], _count(word[i:], counts)) for i in range(1, len(word)) if word[:i] in counts), default=0
    )


def _count_words(texts: Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(set(split_words(text)))
    return Counter({word: min(count, 1000) for word, count in counts.items()})


def _by_count(counts: Mapping[str, int]) -> dict[str, str]:
    """Words together by their count: a third of the size."""
    some: dict[int, list[str]] = {}
    for word in sorted(counts):
        some.setdefault(counts[word], []).append(word)
    return {str(count): " ".join(some[count]) for count in sorted(some)}
