"""Each published recipe against the table of published settings (FACTS, section 1), and through one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuwen import dataset as datasets
from tuwen.config import load_recipe
from tuwen.tasks import start_task

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
