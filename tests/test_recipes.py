"""Each published recipe against the table of published settings (FACTS, section 1), and through one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuwen import dataset as datasets
from tuwen.config import load_recipe
from tuwen.tasks import start_task
from tuwen.train import learning_rate

VSEPP: dict[str, Any] = {
    "tokenizer.kind": "word",
    "tokenizer.min_count": 6,  # more than 5 times
    "tokenizer.splits": ["train", "val"],
    "data.langs": ["en"],
    "data.captions": 1,  # pairs
    "data.max_words": 30,
    "data.view": "crop",  # resize 256, crop 224 at random
    "data.flip": False,
    "model.width": 1024,
    "model.image.features": "pooled",
    "model.image.pretrained": True,
    "model.image.hidden": 0,  # one linear layer
    "model.image.init": "xavier",
    "model.image.finetune": True,
    "model.text.kind": "gru",
    "model.text.embedding": 300,
    "model.text.init": "uniform",
    "model.text.width": 1024,
    "model.text.layers": 1,
    "model.text.bidirectional": False,
    "model.text.pooling": "last",
    "model.text.dropout": 0.0,
    "loss.hinge": 1.0,
    "loss.margin": 0.2,
    "loss.hinge_reduction": "sum",
    "train.epochs": 45,
    "train.batch_size": 16,
    "train.optimiser": "adam",
    "train.lr": 2e-5,
    "train.tower_lr": 1.0,
    "train.schedule": "step",
    "train.step_epochs": 15,
    "train.gamma": 0.5,
    "train.floor": 2e-6,
    "train.clip": 2.0,
    "train.evaluate_every": 60,
    "train.ema": 0.0,
    "train.weight_decay": 0.0,
}
PUBLISHED = {
    "retrieval-vsepp-vgg19": {**VSEPP, "model.image.tower": "vgg19"},
    "retrieval-vsepp-resnet152": {**VSEPP, "model.image.tower": "resnet152"},
}


SHOW_TELL: dict[str, Any] = {
    "tokenizer.kind": "word",
    "tokenizer.min_count": 2,
    "tokenizer.size": 10_000,
    "tokenizer.splits": ["train"],
    "data.captions": 1,  # one in five at random
    "data.max_words": 50,
    "data.max_tokens": 51,  # and the end
    "data.view": "center",
    "data.flip": False,
    "model.image.size": 256,
    "model.image.features": "pooled",
    "model.image.pretrained": True,
    "model.image.finetune": False,  # features kept in one matrix
    "model.decoder.kind": "show-tell",
    "model.decoder.embedding": 256,
    "model.decoder.width": 256,
    "model.decoder.layers": 1,
    "model.decoder.dropout": 0.0,
    "model.decoder.tied": False,  # an option
    "model.decoding.beams": 3,
    "model.decoding.limit": 30,
    "model.decoding.length_penalty": 1.0,
    "loss.cross_entropy": 1.0,
    "loss.smoothing": 0.0,
    "loss.reinforce": 0.0,
    "loss.best": "loss",
    "train.optimiser": "adam",
    "train.lr": 1e-3,
    "train.schedule": "constant",
    "train.ema": 0.0,
    "train.weight_decay": 0.0,
}
PUBLISHED["captioning-show-tell-resnet50"] = {**SHOW_TELL, "model.image.tower": "resnet50"}
PUBLISHED["captioning-show-tell-lite2"] = {
    **SHOW_TELL,
    "model.image.tower": "lite2",
    "model.image.size": None,
    "data.view": "squash",
}

DRAWING: dict[str, Any] = {
    "tokenizer.kind": "hub",  # BERT's own
    "tokenizer.splits": ["train"],
    "data.langs": ["en"],
    "data.captions": 1,
    "data.view": "squash",
    "data.flip": False,
    "data.zooms": 0,
    "model.size": 64,  # pixels in [-1, 1]: mean and deviation 0.5, which `to_signed` is
    "model.text.kind": "bert",
    "model.text.pretrained": True,
    "model.text.frozen": False,  # or frozen, by one key
    "model.text.word_dropout": 0.0,
    "model.draw.kind": "published",  # FC -> 128 x 16 x 16 -> two transposed convolutions -> tanh
    "model.draw.noise": 0,
    "model.draw.conditioning": 0,
    "loss.mse": 1.0,
    "loss.adversarial": 0.0,  # an option
    "loss.kl": 0.0,
    "loss.matching": 0.0,
    "loss.contrastive": 0.0,
    "loss.flow": 0.0,
    "loss.penalty": 0.0,
    "loss.best": "loss",
    "train.epochs": 100.0,
    "train.optimiser": "adam",
    "train.lr": 2e-4,
    "train.betas": (0.9, 0.999),
    "train.schedule": "constant",
    "train.warmup": 0.0,
    "train.clip": 0.0,
    "train.ema": 0.0,
    "train.weight_decay": 0.0,
    "train.precision": "no",
}
PUBLISHED["text-to-image-published"] = DRAWING


PUBLISHED["vqa-updown"] = {
    "tokenizer.kind": "word",
    "tokenizer.min_count": 1,
    "tokenizer.splits": ["train"],
    "answers.min_count": 9,  # seen at least 9 times
    "answers.size": None,
    "answers.splits": ["train"],  # or with val, an option
    "answers.rule": "official",
    "answers.worth": "official",  # 0.3/0.6/0.9/1; or thirds
    "data.max_tokens": 14,
    "model.kind": "joint",
    "model.width": 1024,
    "model.blind": False,
    "model.image.tower": "regions",
    "model.image.regions": 36,
    "model.image.dropout": 0.0,
    "model.image.region_dropout": 0.0,
    "model.question.kind": "gru",  # or LSTM
    "model.question.embedding": 300,
    "model.question.layers": 1,
    "model.question.bidirectional": False,
    "model.question.word_dropout": 0.0,
    "model.question.question_dropout": 0.0,
    "model.attention.kind": "product",  # or the concatenation, by config
    "model.attention.dropout": 0.2,
    "model.classifier.hidden": None,  # twice the width
    "model.classifier.dropout": 0.5,
    "loss.bce": 1.0,  # logistic on soft scores, or softmax
    "loss.cross_entropy": 0.0,
    "loss.times_answers": True,
    "train.optimiser": "adamax",
    "train.batch_size": 512,
    "train.schedule": "step",
    "train.clip": 0.25,
    "train.ema": 0.0,
    "train.weight_decay": 0.0,
}


def read(recipe: object, key: str) -> Any:
    for part in key.split("."):
        recipe = getattr(recipe, part)
    return recipe


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_stand_in_the_recipe(name: str) -> None:
    made = load_recipe(name)
    wrong = {key: (read(made, key), value) for key, value in PUBLISHED[name].items() if read(made, key) != value}
    assert not wrong
    assert len(PUBLISHED[name]) > 30


def test_vqa_warms_up_from_a_factor_and_falls_by_a_ratio_at_each_mark() -> None:
    settings = load_recipe("vqa-updown").train
    assert (settings.lr, settings.warmup_from, settings.gamma) == (2e-3, 0.2, 0.1)
    assert 0 < settings.warmup < settings.steps[0]
    rates = [learning_rate(settings, step, 100, 1400) for step in range(1400)]
    assert rates[0] == pytest.approx(settings.lr * settings.warmup_from, rel=0.05)
    assert max(rates) == pytest.approx(settings.lr)
    falls = [step for step in range(300, 1400) if rates[step] < rates[step - 1]]
    assert falls == [round(100 * mark) for mark in settings.steps]
    assert all(rates[step] == pytest.approx(settings.gamma * rates[step - 1]) for step in falls)
    assert load_recipe("vqa-updown", ["model.attention.kind=concat", "model.question.kind=lstm"])
    assert load_recipe("vqa-updown", ["loss.bce=0", "loss.cross_entropy=1", "answers.splits=[train, val]"])


@pytest.mark.parametrize("name", [name for name in PUBLISHED if name.startswith("retrieval")])
def test_a_published_recipe_takes_a_step_with_a_random_tower(name: str, make_toy: Callable[..., Path]) -> None:
    small = ["model.image.pretrained=false", "model.image.size=32", "batch_size=2", "tokenizer.min_count=1"]
    task = start_task(load_recipe(name, small), datasets.load(make_toy(6)))
    losses = task.losses(task.model.train(), task.train[0], 0.0)
    sum(losses.values()).backward()  # type: ignore[union-attr]
    assert losses["hinge"].item() > 0
    touched = [p for p in task.model.tower.parameters() if p.grad is not None and p.grad.any()]  # type: ignore[union-attr]
    assert touched, "the tower is fine-tuned"


def test_show_and_tell_takes_a_step_with_a_random_tower(make_toy: Callable[..., Path]) -> None:
    small = ["model.image.pretrained=false", "model.image.finetune=true", "model.image.size=32", "batch_size=2"]
    task = start_task(
        load_recipe("captioning-show-tell-resnet50", [*small, "tokenizer.min_count=1"]), datasets.load(make_toy(6))
    )
    loss = task.losses(task.model.train(), task.train[0], 0.0)["cross_entropy"]
    loss.backward()
    assert task.model.tower is not None
    touched = [p for p in task.model.tower.parameters() if p.grad is not None and p.grad.any()]  # type: ignore[union-attr]
    assert touched, "the tower is fine-tuned"
