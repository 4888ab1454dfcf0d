"""What our two tokenisers share: the four special ids, padded batches, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import ConfigError
from tuwen.files import write_atomic
from tuwen.text.words import protocol

Ids = NDArray[np.int64]
SPECIAL = ("<pad>", "<unk>", "<bos>", "<eos>")  # ids 0, 1, 2, 3
PAD, UNK, BOS, EOS = range(4)


class Special:
    """The special ids of our own vocabularies."""

    pad_id, unk_id, bos_id, eos_id = PAD, UNK, BOS, EOS


def pad_batch(rows: Iterable[list[int]], max_length: int, bos: bool, eos: bool) -> tuple[Ids, Ids]:
    """Frame, cut and pad rows to ids (B, T) and lengths (B,). A text without words gets one unknown word."""
    room = max_length - bos - eos
    if room < 1:
        raise ConfigError(f"max_length {max_length} leaves no room for a word: make it at least {1 + bos + eos}")
    framed = [[BOS] * bos + (row[:room] or [UNK]) + [EOS] * eos for row in rows]
    lengths = np.fromiter(map(len, framed), np.int64, len(framed))  # (B,)
    ids = np.full((len(framed), int(lengths.max(initial=1))), PAD, np.int64)  # (B, T)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = np.fromiter(chain.from_iterable(framed), np.int64)
    return ids, lengths


def write_files(folder: Path, tokenizer: str, config: dict[str, Any]) -> None:
    """Write `tokenizer.json` and then `tokenizer_config.json`, each whole."""
    write_atomic(folder / "tokenizer.json", tokenizer)
    config = {**config, "protocol": protocol()}
    write_atomic(folder / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=1) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; ValueError where it holds something else."""
    body = json.loads(path.read_text("utf-8"))
    if not isinstance(body, dict):
        raise ValueError(f"{path.name} holds no object")
    return body
