"""Recall and ranks of a retrieval model on one split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.evaluate import common
from tuwen.evaluate.reranking import Reranking
from tuwen.metrics.bootstrap import bootstrap_interval
from tuwen.metrics.retrieval import CUTS, Scores, fold_metrics, retrieval_metrics
from tuwen.pipelines import Embedder, Reranker, Retrieval
from tuwen.progress import track


def score(
    pipeline: Embedder, dataset: Dataset, split: str = "test", lang: str | None = None, folds: int | None = None
) -> dict[str, Any]:
    """Recall and ranks of a retrieval model on one split, over human captions: the `eval` contract of DESIGN.

    `folds`: the mean over that many equal parts of the pictures, in order, instead of the whole: COCO's "1K" is 5.
    Of a `Reranker` they are the scores after it, and `rerank` holds by language those before and what it brought.

    Raises:
        DataError: the split has no picture or no human caption of that language.
    """
    if folds and isinstance(pipeline, Reranker):
        raise DataError(f"{pipeline.name}: --folds does not go with a re-ranker: leave one of them out")
    part = dataset.select(split)
    captions = common.human_captions(dataset, part, split, lang)
    if folds and folds > len({row for row, _ in captions}):
        raise DataError(
            f"{dataset.folder}: split '{split}' has too few captioned pictures for {folds} parts: fewer --folds"
        )
    image = embed_pictures(pipeline, part)
    sentence = pipeline.embed_texts([caption.text for _, caption in captions])
    owner = np.array([row for row, _ in captions])
    languages = np.array([caption.lang for _, caption in captions])
    groups = [picture.group for picture in part.pictures]
    ranking = None
    if isinstance(pipeline, Reranker):
        ranking = Reranking(pipeline, part, [caption.text for _, caption in captions])

    def judge(name: str, chosen: NDArray[np.bool_]) -> Scores:
        if ranking is not None:
            return ranking.scores(name, image, sentence, owner, chosen)
        return retrieval_metrics(image, sentence[chosen], owner[chosen], groups)

    per_language, intervals = {}, {}
    for spoken in sorted(set(languages.tolist())):
        chosen = languages == spoken
        own = judge(spoken, chosen)
        per_language[spoken], intervals[spoken] = own.metrics, recall_intervals(own)
        if folds:
            per_language[spoken] = fold_metrics(image, sentence[chosen], owner[chosen], groups, folds)
    whole = judge("all", np.ones(len(owner), bool))
    metrics = fold_metrics(image, sentence, owner, groups, folds) if folds else whole.metrics
    return {
        "task": pipeline.task,
        "model": pipeline.name,
        "data": dataset.manifest.name or str(dataset.folder),
        "split": split,
        "n": len(part.pictures),
        "metrics": metrics,
        "per_language": per_language,
        "intervals": {} if folds else {**intervals, "all": recall_intervals(whole)},
        **({"rerank": ranking.gains} if ranking is not None else {}),
        "machine_text": common.machine_captions(part),
        "protocol": protocol(pipeline, dataset, len(captions)) | ({"folds": folds} if folds else {}),
    }


def recall_intervals(scores: Scores) -> dict[str, list[float]]:
    """95% bootstrap intervals of the recalls in percent, resampling pictures together with their captions."""
    out = {}
    for way, ranks, owner in (
        ("i2t", scores.i2t_ranks, scores.i2t_owner),
        ("t2i", scores.t2i_ranks, scores.t2i_owner),
    ):
        for k in CUTS:
            interval = bootstrap_interval(100.0 * (ranks <= k), groups=owner, seed=common.INTERVAL_SEED)
            out[f"{way}_r{k}"] = [round(interval.low, 2), round(interval.high, 2)]
    return out


def protocol(pipeline: Embedder, dataset: Dataset, captions: int) -> dict[str, Any]:
    """What a recall needs beside it to be one."""
    return common.protocol(pipeline, dataset, captions) | {
        "candidates": "every picture of the split; every human caption of the language",
        "ties": "against the query",
    }


def embed_pictures(pipeline: Embedder, part: Dataset) -> NDArray[np.float32]:
    """(n, d): of the pictures' files, or of the feature matrix that the model was trained on."""
    model = pipeline.base if isinstance(pipeline, Reranker) else pipeline
    if isinstance(model, Retrieval) and model.precomputed:
        matrix, rows = part.features(model.config["tower"]["name"].partition(":")[2])
        return model.embed_features(matrix[rows])
    paths: list[Path] = [part.path(picture) for picture in part.pictures]
    return model.embed_images(track(paths, len(paths), "pictures"))
