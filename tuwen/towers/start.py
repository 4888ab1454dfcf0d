"""Starting a small transformer of ours from a larger one of others: its first layers, and the words in use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuwen.errors import ModelError
from tuwen.records import HAN
from tuwen.text import Tokenizer
from tuwen.text.align import Ids, align
from tuwen.towers.words import build_text_tower

KNOWN = 0.9  # of Chinese tokens, in a model that reads Chinese
WORDS = 5  # most probable translations that a word's first vector is made of


def start_bert(bert: nn.Module, source: str, tokenizer: Tokenizer, pairs: tuple[Sequence[Ids], Sequence[Ids]]) -> None:
    """Fill `bert` (a `transformers.BertModel` with our vocabulary) from the BERT-family model `source`.

    Layers, norms and places are copied. A token's vector becomes the mean of the vectors of the pieces that `source`
    cuts its string into. Where it is a model of English alone, a Chinese token becomes the mean of the English tokens
    that it translates, weighted by how often (IBM Model 1 over `pairs`: Chinese and English ids of the same pictures).

    Raises:
        ModelError: `source` is not here, or its width or family is another.
    """
    tower, width, pieces = build_text_tower(source)
    theirs: Any = tower.net
    ours: Any = bert
    if width != ours.config.hidden_size or not hasattr(getattr(theirs, "encoder", None), "layer"):
        raise ModelError(f"{source}: {width} wide, the recipe asks for {ours.config.hidden_size} (model.text.width)")
    with torch.no_grad():
        for mine, other in zip(ours.encoder.layer, theirs.encoder.layer, strict=False):
            mine.load_state_dict(other.state_dict())
        ours.embeddings.LayerNorm.load_state_dict(theirs.embeddings.LayerNorm.state_dict())
        places = ours.embeddings.position_embeddings.weight
        places.copy_(theirs.embeddings.position_embeddings.weight[: len(places)])
        ours.embeddings.token_type_embeddings.weight.copy_(theirs.embeddings.token_type_embeddings.weight[:1])
        words = theirs.embeddings.word_embeddings.weight
        if tokenizer.kind == "hub":  # its own vocabulary
            ours.embeddings.word_embeddings.weight.copy_(words)
            return
        rows, known = _from_pieces(words, tokenizer, pieces)
        _translate(rows, known, pairs)
        rows[tokenizer.pad_id] = 0
        ours.embeddings.word_embeddings.weight.copy_(rows)


def _from_pieces(theirs: Tensor, tokenizer: Tokenizer, pieces: Tokenizer) -> tuple[Tensor, Tensor]:
    """(V, D) first vectors of our tokens, and (V,) whether `pieces` knew the token's string."""
    draw = torch.Generator().manual_seed(0)
    theirs = theirs.float()
    rows = theirs.mean(0) + 0.5 * theirs.std(0) * torch.randn(tokenizer.size, theirs.shape[1], generator=draw)
    known = torch.zeros(tokenizer.size, dtype=torch.bool)
    texts = [tokenizer.decode([token]).strip() for token in range(tokenizer.size)]
    chosen = [i for i, text in enumerate(texts) if text and "\ufffd" not in text]
    coded, lengths = pieces.encode([texts[token] for token in chosen])
    frame = (pieces.bos_id, pieces.eos_id)
    cut = {
        token: [int(i) for i in ids[:n] if i not in frame] for token, ids, n in zip(chosen, coded, lengths, strict=True)
    }
    han = {token: pieces.unk_id not in ids for token, ids in cut.items() if HAN.search(texts[token])}
    if sum(han.values()) < KNOWN * len(han):  # the few Chinese characters of an English vocabulary mean little
        cut = {token: ids for token, ids in cut.items() if token not in han}
    for token, ids in cut.items():
        parts = [i for i in ids if i != pieces.unk_id]
        parts = [i for i in parts if pieces.decode([i])] or parts  # without SentencePiece's bare start of a word
        if parts:
            rows[token], known[token] = theirs[parts].mean(0), True
    for token, other in ((tokenizer.bos_id, pieces.bos_id), (tokenizer.eos_id, pieces.eos_id)):
        rows[token], known[token] = theirs[other], True
    return rows, known


def _translate(rows: Tensor, known: Tensor, pairs: tuple[Sequence[Ids], Sequence[Ids]]) -> None:
    """Give each unknown token of the first texts the weighted mean of the tokens that it goes with in the second."""
    if not pairs[0]:
        return
    source, target, count = align(*pairs, size=len(rows))
    starts = np.flatnonzero(np.r_[True, source[1:] != source[:-1]])
    for start, end in zip(starts, np.r_[starts[1:], len(source)], strict=True):
        token = int(source[start])
        if not known[token]:
            best = slice(start, min(end, start + WORDS))
            weight = torch.from_numpy(count[best] / count[best].sum()).to(rows.dtype)
            rows[token] = (weight[:, None] * rows[torch.from_numpy(target[best])]).sum(0)
