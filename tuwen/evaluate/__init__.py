"""Scores of a model on a data set, by the field's metrics, each with its protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.evaluate import captioning, generation, retrieval, vqa
from tuwen.evaluate.sureness import HELD_OUT, calibrate
from tuwen.pipelines import Pipeline, Vqa
from tuwen.tasks.asking import OWN_SPLIT, keep_asked

__all__ = ["COUNTED", "HELD_OUT", "RAW", "SHOWN", "calibrate", "score", "scored_splits"]

SCORERS: dict[str, Callable[..., dict[str, Any]]] = {
    "retrieval": retrieval.score,
    "captioning": captioning.score,
    "vqa": vqa.score,
    "text-to-image": generation.score,
}
OPTIONS = {  # whose they are
    "folds": "retrieval",
    "beams": "captioning",
    **dict.fromkeys(("baseline", "made"), "vqa"),
    **dict.fromkeys(("judge", "features", "limit", "steps", "guidance", "tries", "seed"), "text-to-image"),
}
COUNTED = {"vqa": "questions"}  # what the `n` of a score counts; others: pictures
SHOWN = {  # the scores of a task that a table holds, in its order
    "retrieval": ("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "rsum", "i2t_medr", "t2i_medr"),
    "captioning": (
        *("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider"),
        *("distinct", "vocabulary", "mean_length"),
    ),
    "vqa": (
        *("accuracy", "exact", "upper_bound", "wups9", "ece", "sure", "sure_accuracy"),
        *("language_only", "majority"),
    ),
    "text-to-image": (
        *("kid", "kid_floor", "fid", "fid_floor", "r_precision", "r_precision_shuffled", "r_precision_real"),
        *("scenes_right", "scenes_right_one", "scenes_right_two", "scenes_right_more"),
        *("count_right", "colour_right", "shape_right", "size_right", "relation_right", "ground_right"),
        *("scenes_right_shuffled", "checker_right"),
    ),
}
RAW = ("kid", "kid_floor")  # scores in no percent, too small for one digit


def score(
    pipeline: Pipeline,
    dataset: Dataset,
    split: str = "test",
    lang: str | None = None,
    folds: int | None = None,
    beams: int | None = None,
    **others: Any,
) -> dict[str, Any]:
    """Score a model of any task on one split, over human text: the `eval` contract of DESIGN.

    `folds` is retrieval's (the mean over so many parts), `beams` captioning's (the width of the search); `baseline` (a
    blind run, scored beside it) and `made` (questions that a tool wrote, and these alone) are answering's; `judge`,
    `features`, `limit`, `steps`, `guidance`, `tries` and `seed` a drawing model's (`generation.score`). None: unsaid.

    Raises:
        DataError: the split has nothing to score, or an option is another task's.
    """
    asked = {name: value for name, value in {"folds": folds, "beams": beams, **others}.items() if value is not None}
    for name in asked:
        if OPTIONS[name] != pipeline.task:
            raise DataError(
                f"{pipeline.name}: --{name} is for {OPTIONS[name]}, and this is a {pipeline.task} model: leave it out"
            )
    return SCORERS[pipeline.task](pipeline, dataset, split, lang, **asked)


def scored_splits(pipeline: Pipeline, dataset: Dataset) -> list[str]:
    """The splits that a finished run is scored on: `val`, `test`, and what it held out of its training pictures."""
    own: list[str] = [split for split in ("val", "test") if split in dataset.splits()]
    if not isinstance(pipeline, Vqa):
        return own
    own = [split for split in own if len(keep_asked(dataset.select(split)))]
    return own if pipeline.config["validation_split"] == OWN_SPLIT else [HELD_OUT, *own]
