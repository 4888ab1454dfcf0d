"""What commands and scores need of a model that answers: pictures and questions to answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import ModelError
from tuwen.images import View
from tuwen.pipelines.pictures import BATCH, Failed, Source

BEST = 3  # answers a question, by default


class Scored(NamedTuple):
    """An answer and the model's confidence in it, from 0 to 1."""

    text: str
    score: float


@dataclass(frozen=True)
class Gaze:
    """How much each part of the picture counted: `weights` (n,), sum 1.

    The parts are the cells of a `grid` (rows, columns) over the whole picture, row by row, or `boxes` (n, 4), xyxy in
    pixels of the upright picture; one of the two is None.
    """

    weights: NDArray[np.float32]
    grid: tuple[int, int] | None = None
    boxes: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Answer:
    """The answers to one question, `best` first and never empty; `sure`: the first passes the model's threshold.

    `attention`: None where the model has none, or none was asked for. `file` is empty for a PIL picture.
    """

    question: str
    sure: bool
    best: list[Scored]
    attention: Gaze | None = None
    file: str = ""


class Answerer(Protocol):
    """Answers questions about pictures; `questions[i]` is about `pictures[i]`, and a picture is read once for all its
    questions, wherever they stand.

    `k`: answers a question, at most. `attend`: tell where the model looked. `batch`: pictures read at once. `failed`:
    pictures that cannot be read are noted there and their questions left out, else the first of them raises.
    """

    task: str
    name: str
    fingerprint: str
    size: int
    view: View
    languages: list[str]

    def answer(
        self,
        pictures: Sequence[Source],
        questions: Sequence[str],
        k: int = BEST,
        *,
        attend: bool = True,
        batch: int = BATCH,
        failed: Failed | None = None,
    ) -> list[Answer]:
        """The best `k` answers to each question about its picture, in the order of the questions.

        Raises:
            PictureError: a picture can't be read; with `failed` it is noted there instead, its questions left out.
            ModelError: lists of different lengths, an empty question, or a model that sees no pictures.
        """
        found = dict(self.answer_each(pictures, questions, k, attend=attend, batch=batch, failed=failed))
        return [found[place] for place in sorted(found)]

    def answer_each(
        self,
        pictures: Sequence[Source],
        questions: Sequence[str],
        k: int = BEST,
        *,
        attend: bool = True,
        batch: int = BATCH,
        failed: Failed | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """As `answer`, as they come, picture by picture: each with its question's place, from 0."""

    def unknown_words(self, question: str) -> list[str]:
        """The words of a question that the model never saw."""

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""


def check_asked(pictures: Sequence[Source], questions: Sequence[str], k: int, batch: int) -> None:
    """ModelError, in one line, for what cannot be answered."""
    if isinstance(questions, str) or not isinstance(pictures, Sequence) or isinstance(pictures, str):
        raise ModelError("answer takes a list of pictures and a list of questions: write [picture], [question]")
    if len(pictures) != len(questions):
        raise ModelError(f"{len(pictures)} pictures and {len(questions)} questions: give each question its picture")
    if any(not question.strip() for question in questions):
        raise ModelError("a question is empty: write one")
    for what, value in (("k", k), ("batch", batch)):
        if value < 1:
            raise ModelError(f"{what} is {value}: give at least 1")


def group_pictures(pictures: Sequence[Source]) -> tuple[list[Source], list[list[int]]]:
    """The different pictures, in the order of first sight, and the places where each stands."""
    places: dict[object, list[int]] = {}
    for place, picture in enumerate(pictures):
        key = str(picture) if isinstance(picture, str | Path) else id(picture)
        places.setdefault(key, []).append(place)
    return [pictures[own[0]] for own in places.values()], list(places.values())
