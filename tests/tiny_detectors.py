"""Tiny random detectors, laid out as their makers' repositories are: DETR, Conditional DETR, RT-DETR and YOLOS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_clips import MEAN, STD, write_json

SIDE, QUERIES, LABELS, WIDTH = 32, 10, 5, 16
ATTENTION = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_layers": 1, "decoder_layers": 1}
FAMILIES = ("detr", "conditional_detr", "rt_detr", "yolos")
SIZES = {"rt_detr": (96, 64)}  # a picture of this width and height is not resized; of the others (48, 32)


def make(family: str, folder: Path, seed: int = 0) -> Any:
    """Write a detector that sees pictures at 32 pixels of their shorter side, its weights spread; returns it."""
    torch.manual_seed(seed)
    if family == "yolos":
        eyes = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": WIDTH}
        sight = {"image_size": [SIDE, SIDE], "patch_size": 8, "num_detection_tokens": QUERIES}
        config = transformers.YolosConfig(**eyes, **sight, num_labels=LABELS)
        model: Any = transformers.YolosForObjectDetection(config)
        kind = "Yolos"
    elif family == "rt_detr":
        model, kind = _rt_detr(), "RTDetr"
    else:
        backbone = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", out_features=["stage2"]
        )
        widths = {"d_model": WIDTH, "encoder_ffn_dim": WIDTH, "decoder_ffn_dim": WIDTH, "num_queries": QUERIES}
        parts = {**ATTENTION, **widths, "backbone_config": backbone, "num_labels": LABELS, "use_timm_backbone": False}
        kind = "Detr" if family == "detr" else "ConditionalDetr"
        model = getattr(transformers, f"{kind}ForObjectDetection")(getattr(transformers, f"{kind}Config")(**parts))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "norm" not in name:
                value.normal_(0, 0.3)
    model.eval().save_pretrained(folder)
    size = {"shortest_edge": SIDE, "longest_edge": 4 * SIDE}
    if family in SIZES:
        size = dict(zip(("width", "height"), SIZES[family], strict=True))
    sight = {"size": size, "image_mean": MEAN, "image_std": STD, "do_normalize": True}
    write_json(folder / "preprocessor_config.json", {"image_processor_type": f"{kind}ImageProcessor", **sight})
    return model


def _rt_detr() -> Any:
    """On its own backbone, which needs no timm."""
    widths = {"hidden_sizes": [8, 12, 16, 16], "depths": [1, 1, 1, 1], "layer_type": "basic", "embedding_size": 8}
    backbone = transformers.RTDetrResNetConfig(**widths, out_features=["stage2", "stage3", "stage4"])
    encoder = {"encoder_hidden_dim": WIDTH, "encoder_in_channels": [12, 16, 16], "encoder_ffn_dim": WIDTH}
    decoder = {"d_model": WIDTH, "decoder_in_channels": [WIDTH] * 3, "decoder_ffn_dim": WIDTH, "decoder_n_points": 2}
    rest = {"num_queries": QUERIES, "num_labels": LABELS, "num_denoising": 0, "hidden_expansion": 0.5}
    config = transformers.RTDetrConfig(backbone_config=backbone, **ATTENTION, **encoder, **decoder, **rest)
    return transformers.RTDetrForObjectDetection(config)
