"""Tiny random CLIP, SigLIP and Chinese-CLIP folders, laid out as their makers' repositories are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SIDE = 32
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
EYES = {**SMALL, "image_size": SIDE, "patch_size": 8}

CLIP_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
CLIP_WORDS = [*CLIP_BYTES, *(f"{sign}</w>" for sign in CLIP_BYTES), "re", "red</w>", "<|startoftext|>", "<|endoftext|>"]
BERT_WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "a",
    "thing",
    "red",
    *"一只狗在草地上奔跑红色的东西有个左边右",
]
GEMMA_WORDS = ["<pad>", "<eos>", "<bos>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", *"一只狗在草地上奔跑红色的东西"]


def words(size: int, **special: int) -> dict[str, Any]:
    return {**SMALL, "vocab_size": size, "max_position_embeddings": 64, **special}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def make_clip(folder: Path) -> Any:
    """As openai/clip-vit-base-patch32: byte-level pieces, padded by its end word."""
    start, end = len(CLIP_WORDS) - 2, len(CLIP_WORDS) - 1
    text = words(len(CLIP_WORDS), bos_token_id=start, eos_token_id=end, pad_token_id=end)
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=EYES, projection_dim=24))
    model.save_pretrained(folder)
    write_json(folder / "vocab.json", {word: i for i, word in enumerate(CLIP_WORDS)})
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    special["pad_token"] = "<|endoftext|>"
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    )
    return model


def make_siglip(folder: Path) -> Any:
    """As google/siglip2-base-patch16-224: a SigLIP of fixed size with the Gemma tokeniser, in cased letters."""
    text = words(len(GEMMA_WORDS), bos_token_id=2, eos_token_id=1, pad_token_id=0)
    model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=EYES))
    model.save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(GEMMA_WORDS)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {f"{name}_token": f"<{name}>" for name in ("pad", "eos", "bos", "unk")}
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True, **special}
    write_json(folder / "tokenizer_config.json", config)
    return model


def make_chinese_clip(folder: Path) -> Any:
    """As OFA-Sys/chinese-clip-vit-base-patch16: of its tokeniser only `vocab.txt` is there."""
    text = {**words(len(BERT_WORDS), pad_token_id=0), "type_vocab_size": 2}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=EYES, projection_dim=24)
    model = transformers.ChineseCLIPModel(config)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(BERT_WORDS), encoding="utf-8")
    return model


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "clip": make_clip,
    "siglip": make_siglip,
    "chinese_clip": make_chinese_clip,
}


def make(family: str, folder: Path, seed: int = 0) -> Any:
    """Write a model of a family into a folder, its weights spread enough to tell inputs apart; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = FAMILIES[family](folder)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and "norm" not in name:
                value.normal_(0, 0.2)
    model.save_pretrained(folder)
    sight = {"size": {"height": SIDE, "width": SIDE}, "image_mean": MEAN, "image_std": STD, "resample": 3}
    write_json(folder / "preprocessor_config.json", sight)
    return model.eval()
