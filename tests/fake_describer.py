"""A tiny deterministic captioner for tests of everything above the models: it names the colours of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from fake_embedder import CHINESE, FakeEmbedder

from tuwen.images import View
from tuwen.pipelines.describer import Attention, Described, Sentence, check_request
from tuwen.pipelines.pictures import Failed, Source, batches


class FakeDescriber:
    """The best caption names the commonest colour, the next ones those after it; `asked` holds each call's options."""

    task = "captioning"
    fingerprint = "decaf00000000000"
    size, view = 8, View()

    def __init__(self, name: str = "colours") -> None:
        self.name, self.languages = name, ["en", "zh"]
        self.asked: list[dict[str, Any]] = []

    def caption(self, pictures: Iterable[Source], lang: str = "en", **how: Any) -> list[Described]:
        return list(self.describe(pictures, lang, **how))

    def describe(
        self,
        pictures: Iterable[Source],
        lang: str = "en",
        *,
        beams: int | None = None,
        samples: int = 0,
        seed: int = 0,
        batch: int = 2,
        failed: Failed | None = None,
    ) -> Iterator[Described]:
        check_request(self.name, self.languages, lang, beams, samples, batch)
        self.asked.append({"lang": lang, "beams": beams, "samples": samples, "seed": seed})
        for names, pixels in batches(pictures, self.size, self.view, batch, failed):
            shares = FakeEmbedder().embed_pixels(pixels)[:, :-1]
            for name, row in zip(names, shares, strict=True):
                order = np.argsort(-row, kind="stable")[: samples or beams or 3]
                yield Described(name, lang, [_say(int(c), float(np.log(row[c])), lang) for c in order])

    def attention(self, picture: Source, text: str, lang: str = "en") -> Attention:
        words = text.split() if lang == "en" else list(text)
        maps = np.full((len(words), 2, 2), 0.1, np.float32)
        maps[:, 0, 0] = 0.7
        return Attention(words, maps)

    def about(self) -> dict[str, Any]:
        return {"tower": "eight colours", "decoding": {"beams": 3}}


def _say(colour: int, score: float, lang: str) -> Sentence:
    name = list(CHINESE)[colour]
    words = ["a", name, "thing"] if lang == "en" else [CHINESE[name], "色", "的", "东西"]
    return Sentence((" " if lang == "en" else "").join(words), score, [(word, score / len(words)) for word in words])
