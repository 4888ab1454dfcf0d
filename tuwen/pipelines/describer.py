"""What captioning commands and scores need of a model: pictures to sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import ModelError
from tuwen.images import View
from tuwen.pipelines.pictures import Failed, Source
from tuwen.records import HAN

BATCH = 64  # pictures described at once
TOP_P = 0.9  # a sample is drawn from the likeliest words that hold this share of the probability


class Sentence(NamedTuple):
    """A caption. `score` is what it was ranked by: its log probability, normalised by its length (0 is certainty).

    `words`: each word with its own log probability.
    """

    text: str
    score: float
    words: list[tuple[str, float]]


@dataclass(frozen=True)
class Described:
    """One picture's captions in one language, best first. `file` is its path as given, empty for a PIL picture."""

    file: str
    lang: str
    texts: list[Sentence]


class Attention(NamedTuple):
    """Where a model looked: words, and for each a map over the picture as it saw it, (T, h, w), sum 1 a word."""

    words: list[str]
    maps: NDArray[np.float32]


class Describer(Protocol):
    """Describes pictures in its `languages`.

    `beams`: the width of the search, as many captions a picture; None: the model's own. `samples`: so many are drawn
    instead, from `seed`. `failed`: pictures that cannot be read are noted there, else the first of them raises.
    """

    task: str
    name: str
    fingerprint: str
    size: int
    view: View
    languages: list[str]

    def caption(
        self,
        pictures: Iterable[Source],
        lang: str = "en",
        *,
        beams: int | None = None,
        samples: int = 0,
        seed: int = 0,
        batch: int = BATCH,
        failed: Failed | None = None,
    ) -> list[Described]:
        """Captions of paths or PIL pictures. PictureError, and ModelError for a language that it does not speak."""

    def describe(
        self,
        pictures: Iterable[Source],
        lang: str = "en",
        *,
        beams: int | None = None,
        samples: int = 0,
        seed: int = 0,
        batch: int = BATCH,
        failed: Failed | None = None,
    ) -> Iterator[Described]:
        """As `caption`, one by one as they come."""

    def attention(self, picture: Source, text: str, lang: str = "en") -> Attention:
        """Where it looks while it says `text`. ModelError for a model that has no attention."""

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""


def check_request(name: str, languages: Sequence[str], lang: str, beams: int | None, samples: int, batch: int) -> None:
    """ModelError, in one line, for what no caption can be made of."""
    if lang not in languages:
        known = " and ".join(languages)
        raise ModelError(f"{name} describes pictures in {known}, not in '{lang}': ask for {' or '.join(languages)}")
    for what, value, least in (("beams", beams, 1), ("samples", samples, 0), ("batch", batch, 1)):
        if value is not None and value < least:
            raise ModelError(f"{what} is {value}: give at least {least}")


def group_words(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[tuple[str, list[int]]]:
    """The words of a caption, each with the places of the ids that spell it: pieces of a word belong together.

    A word ends at a space; in Chinese each id (a word of the vocabulary) is a word. Ids that do not yet make a sign
    (bytes of one) go with what they begin.
    """
    text = decode(ids)
    out: list[tuple[str, list[int]]] = []
    begin, waiting = 0, list[int]()
    for place in range(len(ids)):
        waiting.append(place)
        end = _shared(decode(ids[: place + 1]), text)
        if (piece := text[begin:end]).strip():
            before = out[-1][0][-1] if out else " "
            begin = end
            if piece[0].isspace() or before.isspace() or HAN.match(before) or HAN.match(piece):
                out.append((piece, waiting))
            else:
                out[-1] = out[-1][0] + piece, out[-1][1] + waiting
            waiting = []
    if out:
        out[-1][1].extend(waiting)
    return [(word.strip(), places) for word, places in out]


def _shared(text: str, whole: str) -> int:
    """How many signs at its start a text shares with another: the bytes of half a sign are none."""
    return next((n for n, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), min(len(text), len(whole)))


def sentence(
    decode: Callable[[Sequence[int]], str], ids: Sequence[int], score: float, words: Sequence[float]
) -> Sentence:
    """A caption of ids (T,) and their log probabilities (T,); a word's is the sum over its pieces."""
    spelt = [(word, float(sum(words[place] for place in places))) for word, places in group_words(decode, ids)]
    return Sentence(decode(ids), float(score), spelt)


def distinct(sentences: Iterable[Sentence]) -> list[Sentence]:
    """Best first, the same text once."""
    best: dict[str, Sentence] = {}
    for one in sorted(sentences, key=lambda s: -s.score):
        best.setdefault(one.text, one)
    return list(best.values())
