"""How sure an answering model may say it is: calibrated on its validation pictures, half to fit and half to check."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from tuwen import checkpoint
from tuwen.config import VqaRecipe, parse_recipe
from tuwen.dataset import Dataset
from tuwen.errors import DataError, ModelError
from tuwen.metrics import confidence as fitting
from tuwen.metrics import vqa as metrics
from tuwen.pipelines import Vqa
from tuwen.pipelines.pictures import BATCH
from tuwen.progress import track
from tuwen.records import Question
from tuwen.tasks.asking import read_questions, tell_apart

HELD_OUT = "held-out"  # the split of the pictures that a run validated on
MOST = 10_000  # questions that a temperature is fitted on


def tell_parts(pipeline: Vqa, dataset: Dataset) -> dict[str, Dataset]:
    """The pictures that a run learnt from (`train`) and validated on (`val`), as its training told them apart.

    Raises:
        DataError: it was trained on other data.
        ModelError: the run has lost its recipe.
    """
    path = pipeline.folder / "recipe.yaml"
    if not path.is_file():
        raise ModelError(f"{path}: missing, so nobody knows which pictures were held out: name another --split")
    recipe = parse_recipe(yaml.safe_load(path.read_text(encoding="utf-8")), str(path))
    assert isinstance(recipe, VqaRecipe)
    try:
        trained = json.loads((pipeline.folder / "provenance.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{pipeline.folder / 'provenance.json'}: cannot be read ({error}): train again") from None
    if trained != dataset.fingerprint():
        raise DataError(
            f"{dataset.folder}: not the data that {pipeline.name} learnt from, so nothing of it is held out"
        )
    return tell_apart(dataset, recipe.data.held_out, recipe.data.held_out_by)[0]


def calibrate(pipeline: Vqa, dataset: Dataset) -> dict[str, Any]:
    """Fit temperature and threshold on every other validation picture, check them on the rest, and keep them in the
    run's `config.json` and in the pipeline. Returns what is kept; shares and errors in percent.

    All their questions count, made ones too: a user asks as much of what captions tell as of what people asked.
    """
    part = tell_parts(pipeline, dataset)["val"]
    questions, owner = read_questions(part)
    logits, right = _gather(pipeline, part, questions, owner)
    seen = np.unique(owner)
    fit = np.isin(owner, seen[::2]) if len(seen) > 1 else np.ones(len(owner), np.bool_)
    check = ~fit if len(seen) > 1 else fit
    kind = pipeline.config["confidence"]
    chosen = np.flatnonzero(fit)[:MOST]
    temperature = fitting.fit_temperature(logits[chosen], right[chosen], kind)
    before, after = (fitting.best_confidence(logits, kind, value) for value in (1.0, temperature))
    threshold = fitting.fit_threshold(after[fit], right[fit])
    sure = check & (after >= threshold)
    found = {
        "temperature": round(temperature, 4),
        "threshold": round(threshold, 4),
        "fitted_on": int(fit.sum()),
        "checked_on": int(check.sum()),
        "ece_before": 100 * metrics.calibration_error(before[check], right[check]),
        "ece": 100 * metrics.calibration_error(after[check], right[check]),
        "sure": 100 * float(sure.sum() / check.sum()),
        "sure_accuracy": 100 * float(right[sure].mean()) if sure.any() else None,
    }
    pipeline.config["calibration"] = found
    checkpoint.write_config(pipeline.folder, {key: value for key, value in pipeline.config.items() if key != "format"})
    pipeline.calibrate(found)
    return found


def _gather(
    pipeline: Vqa, part: Dataset, questions: list[Question], owner: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Raw scores of every question (n, A), and how right the best answer is (n,)."""
    logits = np.full((len(questions), len(pipeline.vocabulary)), -np.inf, np.float32)
    blocks = track(pipeline.blocks(part), -(-len(part) // BATCH), "calibration")
    for places, _, seen in blocks:
        chosen = np.flatnonzero(np.isin(owner, places))
        if len(chosen):
            rows = np.searchsorted(places, owner[chosen])
            logits[chosen] = pipeline.logits(seen, [questions[q].question for q in chosen], rows)[0].numpy()
    said = [pipeline.vocabulary[best] for best in logits.argmax(1)]
    return logits, metrics.accuracy(said, [question.answers for question in questions])
