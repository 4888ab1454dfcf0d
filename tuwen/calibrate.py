"""When nothing matches: the similarity, by language and by the words of a query, under which a picture is no hit.

One number for all queries fails: a model is as sure of words that it hardly knows as of those it learnt well, and some
queries lie near to everything. The floor is therefore base + slope * (3 - known) + share * near. `known` is the power
of ten of the training captions that hold the query's rarest word, 3 at most; `near` is how near the query comes to the
best one of a bank of everyday pictures: what is in the index should come about as near as these. The
three numbers are chosen on pictures kept out of training.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tuwen.dataset import Dataset
from tuwen.errors import DataError, ModelError
from tuwen.files import write_atomic
from tuwen.records import guess_language
from tuwen.text import split_words

if TYPE_CHECKING:
    from tuwen.pipelines import Embedder

FILE, BANK = "calibration.json", "background.safetensors"
FORMAT = 1
ALL, NONE = -2.0, 2.0  # floors that every cosine passes, and none
POWERS = 3.0  # of ten: words of 1,000 captions are known well
SIZES = (12, 40, 120, 400)  # pictures of an index that is drawn
DRAWS = 600  # pictures drawn for each of the sizes
FITS, MISSES = 0.6, 0.34  # shares of a query's weight that the captions of a picture hold
COMMON = 0.3  # a word in the captions of more pictures than this share says nothing
SENTENCES = 800  # captions that are queries
TOP = 3
PROBED = 400  # pictures of another kind
BANKED, NEAREST = 120, 1  # everyday pictures, and as many of them as a query is held against
SLOPES, SHARES = np.linspace(0, 0.2, 11), np.linspace(0, 1, 11)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """The floor of one language, and what it does on the pictures it was chosen on: the shares of queries whose picture
    came among the first three (`ranked`), and passed too (`found`), and of absent queries that found nothing.
    `typical` is the mean floor of those."""

    base: float
    slope: float
    share: float
    typical: float
    ranked: float
    found: float
    rejected: float
    queries: int

    def at(self, count: int, near: float) -> float:
        """The floor of a query whose rarest word stands in so many training captions, and that comes so `near`."""
        return self.base + self.slope * (POWERS - level(count)) + self.share * near


@dataclass(frozen=True)
class Calibration:
    """The lines of a model, in how many training captions each word stands (1,000 stands for more), and the vectors of
    its bank (m, d) as signed bytes: cosines to within 0.002."""

    fingerprint: str
    lines: dict[str, Line]
    bank: NDArray[np.int8]
    words: dict[str, dict[str, int]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)

    def floor(self, text: str, vector: NDArray[np.float32], lang: str) -> float:
        """The least cosine of a hit of this query (d,); ALL where nothing was calibrated for the language."""
        if lang not in self.lines:
            return ALL
        return self.lines[lang].at(rarest(text, self.words.get(lang, {})), float(nearness(vector[None], self.bank)[0]))

    def save(self, folder: Path) -> None:
        """Write it beside the weights."""
        words = {lang: _by_count(counts) for lang, counts in self.words.items()}
        lines = {lang: asdict(line) for lang, line in self.lines.items()}
        body = {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "lines": lines,
            "protocol": self.protocol,
            "words": words,
        }
        write_atomic(folder / BANK, save({"bank": self.bank}))
        write_atomic(folder / FILE, json.dumps(body, ensure_ascii=False, indent=1) + "\n")


def floor(pipeline: Embedder, text: str, vector: NDArray[np.float32]) -> float:
    """The least cosine of a hit: by the model's calibration, else its plain threshold, else ALL."""
    lang = guess_language(text)
    folder = getattr(pipeline, "folder", None)
    known = read(folder, pipeline.fingerprint) if isinstance(folder, Path) else None
    return known.floor(text, vector, lang) if known else pipeline.threshold.get(lang, ALL)


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
        bank = load((folder / BANK).read_bytes())["bank"]
        return Calibration(fingerprint, lines, bank, words, body["protocol"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}); delete it, or calibrate again") from None


def lines(pipeline: Embedder) -> dict[str, float]:
    """The typical floor by language; empty where the model has none."""
    folder = getattr(pipeline, "folder", None)
    known = read(folder, pipeline.fingerprint) if isinstance(folder, Path) else None
    return {lang: line.typical for lang, line in known.lines.items()} if known else dict(pipeline.threshold)


def nearness(vectors: NDArray[np.float32], bank: NDArray[np.int8]) -> NDArray[np.float32]:
    """(n, d) -> (n,): the mean cosine of each with the best hundredth of the bank."""
    cosines = vectors @ (bank.astype(np.float32) / 127).T
    out: NDArray[np.float32] = np.sort(cosines, axis=1)[:, -NEAREST:].mean(1)
    return out


def level(count: int) -> float:
    """How well a word is known, 0 to 3: the power of ten of its captions."""
    return math.log10(1 + min(count, 999))


def rarest(text: str, counts: Mapping[str, int]) -> int:
    """In how many training captions the rarest word of a text stands; of a Chinese word made of words, these count."""
    return min((_count(word, counts) for word in split_words(text)), default=0)


@dataclass(frozen=True)
class Probes:
    """Pictures of another kind than those that the model learnt from, and topics, (en, zh), that they show or never do.

    `data` has questions: a picture shows what the words of its questions and answers name. Without probes a floor is
    right for pictures like the training's alone.
    """

    data: Dataset
    present: list[tuple[str, str]]
    absent: list[tuple[str, str]]


@dataclass(frozen=True)
class _Asked:
    """Queries (n) held against pictures (m): cosines (n, m), how well each fits (n, m; between FITS and MISSES nobody
    knows), how well the rarest words are known (n), how near each comes to the bank (n), and its kind (n)."""

    cosines: NDArray[np.float32]
    fits: Floats
    known: Floats
    near: Floats
    kinds: NDArray[np.int64]


def calibrate(
    pipeline: Embedder, data: Dataset, split: str = "val", seed: int = 0, probes: Probes | None = None
) -> Calibration:
    """Choose the lines of a model on a split that it did not learn from; words are counted in `train`.

    Queries are the words of the split's captions, and captions. Indexes of 12 to 400 pictures are drawn. A picture fits
    a query where its captions hold most of its words, weighed by their rarity; a query none of whose pictures is drawn
    should find nothing. With probes their topics, and the captions, are asked of their pictures too. Slope and base
    maximise the sum of the shares found and rejected (Youden, 1950), each kind of query counting alike.

    Raises:
        DataError: no split of that name, or no captions in it.
    """
    pictures = [picture for picture in data.pictures if picture.split == split and picture.captions]
    if len(pictures) < 2 * SIZES[0]:
        raise DataError(f"{data.folder}: {len(pictures)} captioned pictures in '{split}': at least {2 * SIZES[0]}")
    vectors = pipeline.embed_images([data.path(picture) for picture in pictures])
    trained = [picture for picture in data.pictures if picture.split == "train"]
    trained = trained[:: max(1, len(trained) // BANKED)][:BANKED] or pictures
    bank = pipeline.embed_images([data.path(picture) for picture in trained])
    bytes_ = np.round(np.clip(bank, -1, 1) * 127).astype(np.int8)
    shown, probed = _look(pipeline, probes) if probes else ([], vectors[:0])
    chosen, words = {}, {}
    for lang in pipeline.languages:
        heard = _count_words(caption.text for p in data.pictures if p.split == "train" for caption in p.human(lang))
        counts = Counter({word: count for word, count in heard.items() if count > 1})  # once is as good as never
        captions = [[caption.text for caption in picture.human(lang)] for picture in pictures]
        if sum(map(len, captions)) < SENTENCES // 10:
            continue
        queries, fits, topics = _queries(captions, lang, seed)
        kinds = np.array([0] * topics + [1] * (len(queries) - topics))
        asked = [_ask(pipeline, queries, vectors, bytes_, fits, kinds, counts)]
        if probes:
            foreign, fits, kinds = _foreign(probes, shown, queries[topics:], lang)
            asked.append(_ask(pipeline, foreign, probed, bytes_, fits, kinds, counts))
        chosen[lang] = _choose(asked, seed)
        words[lang] = dict(counts)
    if not chosen:
        raise DataError(f"{data.folder}: too few captions in '{split}' in {', '.join(pipeline.languages)}")
    protocol = {"data": data.manifest.name, "split": split, "pictures": len(pictures), "sizes": SIZES, "seed": seed}
    protocol |= {"probes": probes.data.manifest.name if probes else None, "probe_pictures": len(probed)}
    return Calibration(pipeline.fingerprint, chosen, bytes_, words, protocol)


def read_topics(path: Path) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """The `present` and `absent` topics of a JSON file, [[en, zh], ...] each. DataError where it holds none."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        present, absent = ([(str(en), str(zh)) for en, zh in body[name]] for name in ("present", "absent"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no topics ({error}); it holds present and absent, lists of [English, Chinese]"
        ) from None
    return present, absent


def _ask(
    pipeline: Embedder,
    queries: Sequence[str],
    vectors: NDArray[np.float32],
    bank: NDArray[np.int8],
    fits: Floats,
    kinds: NDArray[np.int64],
    counts: Mapping[str, int],
) -> _Asked:
    known = np.array([level(rarest(query, counts)) for query in queries])
    asked = pipeline.embed_texts(queries)
    return _Asked(asked @ vectors.T, fits, known, nearness(asked, bank).astype(np.float64), kinds)


def _look(pipeline: Embedder, probes: Probes) -> tuple[list[str], NDArray[np.float32]]:
    """What the questions of each probe name, and its vector."""
    pictures = [picture for picture in probes.data.pictures if picture.qa][:PROBED]
    if len(pictures) < 2 * SIZES[0]:
        raise DataError(f"{probes.data.folder}: {len(pictures)} pictures with questions: at least {2 * SIZES[0]}")
    said = [" ".join([q.question, *q.answers][i] for q in p.qa for i in range(1 + len(q.answers))) for p in pictures]
    named = [text.lower().replace("_", " ") for text in said]
    return named, pipeline.embed_images([probes.data.path(picture) for picture in pictures])


def _foreign(
    probes: Probes, shown: Sequence[str], captions: Sequence[str], lang: str
) -> tuple[list[str], Floats, NDArray[np.int64]]:
    """The probes' topics, then captions that name none of them: they should find nothing there."""
    at = 0 if lang == "en" else 1
    own = [topic[at] for topic in probes.present]
    away = [topic[at] for topic in probes.absent]
    far = [text for text in captions if not any(word in text.lower() for word in own)]
    fits = np.zeros((len(own) + len(away) + len(far), len(shown)))
    for row, (english, _) in zip(fits, probes.present, strict=False):
        row[:] = [1.0 if re.search(rf"\b{re.escape(english)}s?\b", text) else 0.5 for text in shown]
    queries = [f"a {word}" if lang == "en" else word for word in own] + away + far
    return queries, fits, np.array([2] * len(own) + [3] * len(away) + [4] * len(far))


def _queries(captions: Sequence[Sequence[str]], lang: str, seed: int) -> tuple[list[str], Floats, int]:
    """Words and captions as queries (n), how well each picture fits each (n, pictures), and how many are words."""
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
    held, asked = np.zeros((len(captions), len(place))), np.zeros((len(queries), len(place)))
    for row, counts in zip(held, often, strict=True):
        row[[place[word] for word in counts if word in place]] = 1
    for row, words in zip(asked, [[word] for word in topics] + [list(said[i][j]) for i, j in chosen], strict=True):
        for word in words:
            if word in place:
                row[place[word]] = weight[word]
    fits: Floats = (asked @ held.T) / np.maximum(asked.sum(1, keepdims=True), 1e-9)
    for at, (i, _) in enumerate(chosen, len(topics)):
        fits[at, i] = 1
    return queries, fits, len(topics)


def _choose(asked: Sequence[_Asked], seed: int) -> Line:
    """The line that parts hits from misses best, over draws of indexes of several sizes."""
    draw = np.random.default_rng(seed)
    drawn = [_drawn(one, size, draw) for one in asked for size in SIZES if size <= one.cosines.shape[1]]
    right, wrong = (
        np.concatenate([some[side] for some in drawn], 1) for side in (0, 1)
    )  # (4, n): cosine, level, near, kind
    lost = sum(some[2] for some in drawn)
    weights = [_alike(right[3]), _alike(wrong[3])]

    def above(some: Floats, slope: float, share: float) -> Floats:
        """The cosines, less what the query adds to its floor."""
        out: Floats = some[0] - slope * (POWERS - some[1]) - share * some[2]
        return out

    best = (-1.0, 0.0, 0.0, 0.0)
    for slope, share in itertools.product(SLOPES.tolist(), SHARES.tolist()):
        value, base = _part(above(right, slope, share), above(wrong, slope, share), weights)
        best = max(best, (value, slope, share, base))
    _, slope, share, base = best
    found = float(weights[0][above(right, slope, share) >= base].sum())
    rejected = float(weights[1][above(wrong, slope, share) < base].sum())
    ranked = right.shape[1] / max(right.shape[1] + lost, 1)
    typical = float(weights[1] @ (wrong[0] - above(wrong, slope, share) + base))
    names = ("base", "slope", "share", "typical", "ranked", "found", "rejected")
    values = (base, slope, share, typical, ranked, found * ranked, rejected)
    parts = {name: round(value, 4) for name, value in zip(names, values, strict=True)}
    return Line(**parts, queries=sum(len(one.cosines) for one in asked))


def _drawn(asked: _Asked, size: int, draw: np.random.Generator) -> tuple[Floats, Floats, int]:
    """Indexes of one size: (cosine, level, near, kind) of pictures that fit and came among the first, then of the best
    one for queries that none fits; and how often a picture that fits came later."""
    right, wrong, lost = [], [], 0
    known = np.stack([asked.known, asked.near, asked.kinds])
    for _ in range(max(1, DRAWS // size)):
        some = draw.permutation(asked.cosines.shape[1])[:size]
        near, fit = asked.cosines[:, some], asked.fits[:, some]
        best = np.argsort(-near, axis=1)[:, :TOP]
        good = np.take_along_axis(fit, best, 1) >= FITS
        there, absent = (fit >= FITS).any(1), (fit < MISSES).all(1)
        hit = there & good.any(1)
        first = np.take_along_axis(np.take_along_axis(near, best, 1), good.argmax(1)[:, None], 1)[:, 0]
        right.append(np.concatenate([first[None, hit], known[:, hit]]))
        wrong.append(np.concatenate([near.max(1)[None, absent], known[:, absent]]))
        lost += int((there & ~hit).sum())
    return np.concatenate(right, 1), np.concatenate(wrong, 1), lost


def _alike(kinds: Floats) -> Floats:
    """(n,) Weights with the sum 1, each kind with the same."""
    names, place, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    weights: Floats = 1 / (len(names) * counts[place])
    return weights


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
