"""Tiny random captioners: a run's folder as `tuwen train` leaves it, and a BLIP laid out as its makers' repository."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tiny_clips import BERT_WORDS, EYES, MEAN, SIDE, STD, words, write_json

from tuwen import checkpoint
from tuwen.config import CaptioningConfig
from tuwen.tasks.captioning import build_model
from tuwen.text import WordTokenizer
from tuwen.towers import build_tower

SIZE = 96  # the least side at which lite0 has a grid of 3 x 3
TEXTS = [
    "a red circle left of a blue star",
    "a man's dog runs on green grass",
    "一只黑狗在草地上奔跑",
    "红色的圆在左边",
]


@lru_cache(maxsize=1)
def lite() -> tuple[str, int]:
    """The hash and the width of the tower that these runs stand on."""
    tower = build_tower("lite0", size=SIZE)
    return tower.sha256, tower.grid_width


def make_run(folder: Path, kind: str = "transformer", seed: int = 0, precomputed: bool = False) -> Any:
    """Write a captioner of both languages, its weights spread enough to tell pictures apart; returns the module."""
    tokenizer = WordTokenizer.train(TEXTS)
    image = {"tower": "lite0", "size": SIZE, "features": "grid" if kind == "transformer" else "pooled"}
    decoder = {"kind": kind, "width": 16, "layers": 1, "heads": 2, "feedforward": 16}
    model = CaptioningConfig.model_validate({"image": image, "decoder": decoder, "decoding": {"limit": 8}})
    sha256, width = lite()
    config = {
        "task": "captioning",
        "name": folder.name,
        "model": model.model_dump(),
        "in_width": width,
        "regions": 9 if kind == "transformer" else 1,
        "features": None,
        "vocabulary": tokenizer.size,
        "pad": tokenizer.pad_id,
        "end": tokenizer.eos_id,
        "silent": [tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id],
        "max_tokens": 20,
        "languages": ["en", "zh"],
        "tower": {
            "name": "features:toy" if precomputed else "lite0",
            "size": None if precomputed else SIZE,
            "weights": None,
            "sha256": None if precomputed else sha256,
            "inside": False,
            "pooled": kind != "transformer",
            "view": "squash",
        },
        "seed": seed,
        "notes": "",
        "pretrained": {"picture": "lite0 (ImageNet)"},
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


def make_blip(folder: Path, seed: int = 0) -> Any:
    """As Salesforce/blip-image-captioning-base: a BERT vocabulary, CLIP's preprocessing, weights as safetensors."""
    size = len(BERT_WORDS)
    ids = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = {**words(size), **ids, "encoder_hidden_size": 32, "hidden_act": "gelu"}
    config = transformers.BlipConfig(text_config=text, vision_config=EYES, projection_dim=24)
    torch.manual_seed(seed)
    model = transformers.BlipForConditionalGeneration(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "norm" not in name.lower():
                value.normal_(0, 0.3)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    sight = {"size": {"height": SIDE, "width": SIDE}, "image_mean": MEAN, "image_std": STD, "resample": 3}
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "BlipImageProcessor", **sight})
    return model.eval()


def draw_pictures(folder: Path, count: int) -> list[Path]:
    """`count` PNG of 40 x 24, each of its own coarse noise."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n in range(count):
        pixels = np.random.default_rng(n).integers(0, 256, (3, 5, 3), np.uint8)
        paths.append(folder / f"{n}.png")
        Image.fromarray(pixels).resize((40, 24)).save(paths[-1])
    return paths
