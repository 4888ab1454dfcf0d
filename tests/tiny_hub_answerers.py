"""Tiny random ViLT and BLIP for questions, laid out as their makers' repositories are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_clips import BERT_WORDS, EYES, MEAN, SIDE, SMALL, STD, words, write_json

ANSWERS = ["yes", "no", "2", "red", "a dog"]
KINDS = ("vilt", "blip")
PATCH = 8


def make(kind: str, folder: Path, seed: int = 0) -> Any:
    """Write a model with a BERT vocabulary, weights spread enough to tell its inputs apart; returns it."""
    size = len(BERT_WORDS)
    torch.manual_seed(seed)
    if kind == "vilt":
        sight = {"image_size": SIDE, "patch_size": PATCH, "max_image_length": 4}  # fewer than it has: see `see`
        labels = {"id2label": dict(enumerate(ANSWERS)), "label2id": {name: i for i, name in enumerate(ANSWERS)}}
        config: Any = transformers.ViltConfig(
            **SMALL, **sight, **labels, vocab_size=size, max_position_embeddings=12, type_vocab_size=2
        )
        model: Any = transformers.ViltForQuestionAnswering(config)
        about = {"image_processor_type": "ViltImageProcessor", "size": {"shortest_edge": SIDE}, "size_divisor": PATCH}
    else:
        ids = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
        text = {**words(size), **ids, "encoder_hidden_size": SMALL["hidden_size"], "hidden_act": "gelu"}
        config = transformers.BlipConfig(text_config=text, vision_config=EYES, projection_dim=24)
        model = transformers.BlipForQuestionAnswering(config)
        about = {"image_processor_type": "BlipImageProcessor", "size": {"height": SIDE, "width": SIDE}}
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "norm" not in name.lower():
                value.normal_(0, 0.3)
    model.eval().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    write_json(folder / "preprocessor_config.json", {**about, "image_mean": MEAN, "image_std": STD, "resample": 3})
    return model
