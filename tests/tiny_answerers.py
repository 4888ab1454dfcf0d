"""Tiny random answering models: a run's folder as `tuwen train` leaves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tiny_captioners import SIZE, lite

from tuwen import checkpoint
from tuwen.config import VqaConfig
from tuwen.tasks.vqa import build_model
from tuwen.text import WordTokenizer

TEXTS = ["what colour is the dog?", "is there a red dog on the left?", "how many dogs are there?", "狗是什么颜色的？"]
ANSWERS = ["yes", "no", "2", "red", "blue", "红色", "蓝色", "是"]


def make_run(
    folder: Path,
    kind: str = "fusion",
    tower: str = "lite0",
    in_width: int | None = None,
    confidence: str = "softmax",
    answers: list[str] | None = None,
    seed: int = 0,
    view: str = "squash",
    **options: Any,
) -> Any:
    """Write a run of both languages, its weights spread enough to tell pictures and questions apart; the module.

    `tower`: lite0, or `regions` or `features:NAME` of `in_width` channels. `options`: of the model.
    """
    tokenizer, own = WordTokenizer.train(TEXTS), tower != "lite0"
    sha256, width = lite()
    image = {"tower": tower, "size": None if own else SIZE, "features": "grid"}
    model = VqaConfig.model_validate(
        {
            "kind": kind,
            "width": 16,
            "image": image,
            "question": {"embedding": 8},
            "fusion": {"layers": 2, "heads": 2, "feedforward": 16, "gates": 2},
            **options,
        }
    )
    config = {
        "task": "vqa",
        "name": folder.name,
        "model": model.model_dump(),
        "in_width": in_width or width,
        "regions": 0 if tower == "regions" else 4 if own else 9,
        "features": None,
        "vocabulary": tokenizer.size,
        "pad": tokenizer.pad_id,
        "max_tokens": 20,
        "answers": {"rule": "plain", "answers": answers or ANSWERS},
        "confidence": confidence,
        "tower": {
            "name": tower,
            "size": None if own else SIZE,
            "weights": None,
            "sha256": None if own else sha256,
            "inside": False,
            "pooled": False,
            "view": view,
        },
        "seed": seed,
        "notes": "",
        "pretrained": {} if own else {"picture": "lite0 (ImageNet)"},
        "languages": ["en", "zh"],
        "validation_split": "the data's own val split",
    }
    torch.manual_seed(seed)
    module = build_model(config)
    with torch.no_grad():
        for name, value in module.named_parameters():
            if value.ndim > 1 and "norm" not in name:
                value.normal_(0, 0.5)
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.write_tensors(folder / checkpoint.WEIGHTS, module.state_dict())
    checkpoint.write_config(folder, config)
    tokenizer.save(folder)
    return module.eval()
