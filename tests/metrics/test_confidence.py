"""Calibration against slow ways: a fine grid of temperatures, scikit-learn's isotonic regression, simulated models."""

from __future__ import annotations

import numpy as np
import pytest

from tuwen.metrics.confidence import EVEN, best_confidence, fit_temperature, fit_threshold
from tuwen.metrics.vqa import calibration_error


def simulate(n: int, sharpness: float, seed: int = 0, answers: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores of a model that is right as often as softmax(scores / sharpness) says, (n, A) and (n,)."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 2, (n, answers))
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    truth = np.array([draw.choice(answers, p=row) for row in shares])
    return logits * sharpness, (logits.argmax(1) == truth).astype(float)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_confidence_is_the_plain_formula(kind: str) -> None:
    logits = np.random.default_rng(0).normal(0, 5, (20, 6))
    logits[3, 2] = -np.inf
    for temperature in (0.5, 1.0, 3.0):
        got = best_confidence(logits, kind, temperature)  # type: ignore[arg-type]
        for row, value in zip(logits / temperature, got, strict=True):
            plain = np.exp(row) / np.exp(row).sum() if kind == "softmax" else 1 / (1 + np.exp(-row))
            assert value == pytest.approx(plain.max())
    assert len(best_confidence(np.zeros((0, 3)), "softmax", 1.0)) == 0


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
def test_the_temperature_undoes_what_was_too_sharp_or_too_flat(sharpness: float) -> None:
    logits, right = simulate(4000, sharpness)
    temperature = fit_temperature(logits, right, "softmax")
    assert temperature == pytest.approx(sharpness, rel=0.12)
    before, after = (best_confidence(logits, "softmax", t) for t in (1.0, temperature))
    assert calibration_error(after, right) < 0.03
    if sharpness != 1:
        assert calibration_error(after, right) < calibration_error(before, right) / 2

    def loss(t: float) -> float:
        sure = best_confidence(logits, "softmax", t).clip(1e-9, 1 - 1e-9)
        return float(-(right * np.log(sure) + (1 - right) * np.log(1 - sure)).mean())

    assert loss(temperature) <= min(map(loss, np.geomspace(1 / 8, 8, 200))) + 1e-4
    assert fit_temperature(logits[:0], right[:0], "softmax") == 1


def test_a_right_answer_that_the_model_lacks_lowers_confidence() -> None:
    logits, right = simulate(4000, 1.0)
    missing = np.random.default_rng(1).random(4000) < 0.4
    temperature = fit_temperature(logits, np.where(missing, 0.0, right), "softmax")
    assert temperature > 1.3


def test_the_threshold_is_where_isotonic_regression_passes() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic")
    looked = 0
    for seed in range(12):
        draw = np.random.default_rng(seed)
        confidence = draw.random(200).round(2)  # with ties
        right = (draw.random(200) < confidence ** (1 + seed % 3)).astype(float)
        if seed % 2:
            right *= 0.9  # soft
        model = isotonic.IsotonicRegression()
        told = model.fit(confidence, right).predict(confidence)
        passing = confidence[told >= EVEN - 1e-9]
        assert fit_threshold(confidence, right) == pytest.approx(passing.min() if len(passing) else 1.0)
        looked += len(passing) > 0
    assert looked > 9


def test_never_sure_and_always_sure() -> None:
    confidence = np.array([0.2, 0.4, 0.4, 0.9])
    assert fit_threshold(confidence, np.zeros(4)) == 1.0
    assert fit_threshold(confidence, np.ones(4)) == 0.2
    assert fit_threshold(confidence, np.array([1.0, 0, 0, 1])) == 0.9  # the lucky one counts with its neighbours
    assert fit_threshold(confidence[:0], confidence[:0]) == 1.0
