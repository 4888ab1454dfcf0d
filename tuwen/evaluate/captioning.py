"""Scores of a captioning model on one split: of captions that it decodes itself, never of words it is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.evaluate import common
from tuwen.metrics import captioning as scorers
from tuwen.metrics.bootstrap import bootstrap_interval
from tuwen.pipelines import Captioner, Describer
from tuwen.progress import track
from tuwen.text import split_words

Metrics = dict[str, float | None]
Human = dict[int, list[list[str]]]  # row of the split -> what people said of that picture, in words


def score(
    pipeline: Describer, dataset: Dataset, split: str = "test", lang: str | None = None, beams: int | None = None
) -> dict[str, Any]:
    """BLEU, METEOR, ROUGE-L, CIDEr-D and diversity of a captioning model: the `eval` contract of DESIGN.

    Each picture gets one caption in each language in which people described it and which the model speaks: the best of
    `beams` (None: the model's own width). `metrics` are the mean of the languages, METEOR None where it could not run.

    Raises:
        DataError: the split has no picture, or no human caption of a language that the model speaks.
        ModelError: the model does not speak `lang`.
    """
    part = dataset.select(split)
    captions = common.human_captions(dataset, part, split, lang)
    human: dict[str, Human] = {}
    for row, caption in captions:
        if (lang or caption.lang in pipeline.languages) and (words := split_words(caption.text, caption.lang)):
            human.setdefault(caption.lang, {}).setdefault(row, []).append(words)
    if not human:
        raise DataError(
            f"{dataset.folder}: split '{split}' holds no human caption in {' or '.join(pipeline.languages)}, which "
            f"{pipeline.name} speaks: name another --split or model"
        )
    per_language: dict[str, Metrics] = {}
    ciders: dict[str, dict[int, float]] = {}
    for spoken in sorted(human):
        rows = sorted(human[spoken])
        said = [split_words(text, spoken) for text in describe(pipeline, part, rows, spoken, beams)]
        references = [human[spoken][row] for row in rows]
        each = scorers.Cider(references).score(range(len(rows)), said)
        ciders[spoken] = dict(zip(rows, (100 * each).tolist(), strict=True))
        per_language[spoken] = _measure(said, references, each)
    return {
        "task": pipeline.task,
        "model": pipeline.name,
        "data": dataset.manifest.name or str(dataset.folder),
        "split": split,
        "n": len(part.pictures),
        "metrics": _mean(list(per_language.values())),
        "per_language": per_language,
        "intervals": _intervals(ciders),
        "machine_text": common.machine_captions(part),
        "protocol": _protocol(pipeline, dataset, human, per_language, beams),
    }


def describe(pipeline: Describer, part: Dataset, rows: Sequence[int], lang: str, beams: int | None = None) -> list[str]:
    """The model's best caption of each of these rows of a split; empty where it says nothing."""
    if isinstance(pipeline, Captioner) and pipeline.precomputed:
        matrix, places = part.features(pipeline.config["tower"]["name"].partition(":")[2])
        told = list(pipeline.describe_features(matrix[places[list(rows)]], lang, beams=beams))
    else:
        paths = [part.path(part.pictures[row]) for row in rows]
        told = list(track(pipeline.describe(paths, lang, beams=beams), len(paths), f"captions in {lang}"))
    return [one.texts[0].text if one.texts else "" for one in told]


def _measure(said: list[list[str]], references: list[list[list[str]]], ciders: NDArray[np.float64]) -> Metrics:
    """One language's scores, x 100 but for the counts."""
    exact = scorers.meteor(said, references)
    return {
        **{f"bleu{n}": 100 * value for n, value in enumerate(scorers.bleu(said, references), 1)},
        "meteor": None if exact is None else 100 * exact,
        "rouge_l": 100 * scorers.rouge_l(said, references),
        "cider": 100 * float(ciders.mean()),
        **scorers.diversity(said),
    }


def _mean(languages: Sequence[Metrics]) -> Metrics:
    """The mean over languages of each score; None where a language has none."""
    out: Metrics = {}
    for key in languages[0]:
        values = [value for metrics in languages if (value := metrics[key]) is not None]
        out[key] = float(np.mean(values)) if len(values) == len(languages) else None
    return out


def _intervals(ciders: Mapping[str, Mapping[int, float]]) -> dict[str, dict[str, list[float]]]:
    """95% intervals of CIDEr by language and of their mean, a picture drawn with its captions of every language."""
    rows = sorted({row for each in ciders.values() for row in each})
    table = np.array([[each.get(row, np.nan) for each in ciders.values()] for row in rows])  # (pictures, languages)

    def mean(drawn: NDArray[np.float64]) -> float:
        return float((np.nansum(drawn, 0) / np.maximum(1, (~np.isnan(drawn)).sum(0))).mean())

    parts = {lang: table[~np.isnan(table[:, column])][:, [column]] for column, lang in enumerate(ciders)}
    out = {}
    for name, values in {**parts, "all": table}.items():
        low, high = bootstrap_interval(values, mean, seed=common.INTERVAL_SEED)
        out[name] = {"cider": [round(low, 2), round(high, 2)]}
    return out


def _protocol(
    pipeline: Describer, dataset: Dataset, human: Mapping[str, Human], scores: Mapping[str, Metrics], beams: int | None
) -> dict[str, Any]:
    """What a caption score needs beside it to be one."""
    counts = {lang: [len(sentences) for sentences in own.values()] for lang, own in human.items()}
    about = common.protocol(pipeline, dataset, sum(sum(each) for each in counts.values()))
    ran = all(metrics["meteor"] is not None for metrics in scores.values())
    decoding = about.get("decoding", {})
    return about | {
        "pictures": {lang: len(each) for lang, each in counts.items()},
        "references": {lang: round(float(np.mean(each)), 2) for lang, each in counts.items()},
        "words": "lower-cased words and digits of candidates and references alike; Chinese by jieba, exact mode",
        "beams": beams or decoding.get("beams", "the model's own"),
        "length_penalty": decoding.get("length_penalty"),
        "bleu": "corpus, closest reference length",
        "cider": "CIDEr-D, document frequency of this split's references",
        "meteor": "1.5, English settings in every language" if ran else "not run: needs Java and pycocoevalcap",
        "metrics": "mean of the languages, counts too",
    }
