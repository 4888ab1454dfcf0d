"""A tiny deterministic model of questions for tests of everything above the models: it names colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from fake_embedder import CHINESE, FakeEmbedder

from tuwen.images import View
from tuwen.pipelines.answerer import BEST, Answer, Gaze, Scored, check_asked, group_pictures
from tuwen.pipelines.pictures import Failed, Source, name_of, numbered
from tuwen.records import guess_language


class FakeAnswerer:
    """Answers every question by the picture's colours, commonest first, in the question's language; sure from 0.6.

    Its attention is on the upper left of a 2 x 2 grid; it knows no word that begins with z. `asked`: each call.
    """

    task = "vqa"
    fingerprint = "decade0000000000"
    size, view = 8, View()

    def __init__(self, name: str = "colours", attention: bool = True) -> None:
        self.name, self.languages, self.attention = name, ["en", "zh"], attention
        self.asked: list[list[str]] = []

    def answer(self, pictures: Sequence[Source], questions: Sequence[str], k: int = BEST, **how: Any) -> list[Answer]:
        found = dict(self.answer_each(pictures, questions, k, **how))
        return [found[place] for place in sorted(found)]

    def answer_each(
        self,
        pictures: Sequence[Source],
        questions: Sequence[str],
        k: int = BEST,
        *,
        attend: bool = True,
        batch: int = 2,
        failed: Failed | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        check_asked(pictures, questions, k, batch)
        self.asked.append(list(questions))
        sources, groups = group_pictures(pictures)
        gaze = Gaze(np.array([0.7, 0.1, 0.1, 0.1], np.float32), grid=(2, 2)) if attend and self.attention else None
        for places, _, pixels in numbered(sources, self.size, self.view, batch, failed):
            rows = FakeEmbedder().embed_pixels(pixels)[:, : len(CHINESE)] ** 2
            for place, row in zip(places, rows, strict=True):
                order = np.argsort(-row, kind="stable")[:k]
                for question in groups[place]:
                    zh = guess_language(questions[question]) == "zh"
                    names = [list(CHINESE.values() if zh else CHINESE)[i] + ("色" if zh else "") for i in order]
                    best = [Scored(name, float(row[i])) for name, i in zip(names, order, strict=True)]
                    file = name_of(sources[place])
                    yield question, Answer(questions[question], best[0].score >= 0.6, best, gaze, file)

    def unknown_words(self, question: str) -> list[str]:
        return [word for word in question.split() if word.startswith("z")]

    def about(self) -> dict[str, Any]:
        return {"tower": "eight colours", "seed": 7}
