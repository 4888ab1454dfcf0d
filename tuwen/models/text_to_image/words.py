"""From token ids to word states and one vector a sentence: what every drawing model is told."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tuwen.layers import drop_items, length_mask, masked_mean


class Told(NamedTuple):
    """Sentences as a model reads them: `states` (B, T, W), `mask` (B, T) true where a word stands, `mean` (B, W)."""

    states: Tensor
    mask: Tensor
    mean: Tensor


class SmallEncoder(nn.Module):
    """A transformer of our own over one vocabulary of both languages, trained with the rest.

    Args:
        vocabulary: rows of the embedding; row `pad` stays zero.
        limit: longest sentence in tokens.
        word_dropout: share of the words that is left out while training (augmentation of the text).
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 128,
        *,
        layers: int = 2,
        heads: int = 4,
        limit: int = 64,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        pad: int = 0,
    ) -> None:
        super().__init__()
        self.width, self.word_dropout, self.pad = width, word_dropout, pad
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=pad)
        self.places = nn.Parameter(torch.empty(limit, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.ModuleList([layer] + [_again(layer) for _ in range(layers - 1)])
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.5)
        nn.init.normal_(self.places, std=0.1)
        with torch.no_grad():
            self.embedding.weight[pad] = 0

    def forward(self, ids: Tensor, lengths: Tensor) -> Told:
        """(B, T) ids, (B,) lengths -> what is told."""
        mask = length_mask(lengths, ids.shape[1])
        if self.training and self.word_dropout:
            ids, mask = drop_items(ids, mask, self.word_dropout, fill=self.pad)
        states = self.embedding(ids) + self.places[: ids.shape[1]]
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=~mask)
        states = self.norm(states)
        return Told(states, mask, masked_mean(states, mask))


class BertEncoder(nn.Module):
    """A BERT-family tower (`forward(ids, mask)` -> (B, T, width)), trained with the rest or `frozen`."""

    def __init__(
        self, tower: Any, width: int, *, frozen: bool = False, word_dropout: float = 0.0, pad: int = 0
    ) -> None:
        super().__init__()
        self.tower, self.width, self.frozen = tower, width, frozen
        self.word_dropout, self.pad = word_dropout, pad
        tower.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> BertEncoder:
        """A frozen tower stays in evaluation mode: its dropout would be noise nobody learns from."""
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self

    def forward(self, ids: Tensor, lengths: Tensor) -> Told:
        """(B, T) ids, (B,) lengths -> what is told."""
        mask = length_mask(lengths, ids.shape[1])
        if self.training and self.word_dropout:
            ids, mask = drop_items(ids, mask, self.word_dropout, fill=self.pad)
        states = self.tower(ids, mask.long())
        return Told(states, mask, masked_mean(states, mask))


def _again(layer: nn.TransformerEncoderLayer) -> nn.TransformerEncoderLayer:
    """A layer like this one, from another draw."""
    first = layer.self_attn
    return nn.TransformerEncoderLayer(
        first.embed_dim, first.num_heads, layer.linear1.out_features, layer.dropout.p, "gelu",
        batch_first=True, norm_first=True,
    )  # fmt: skip
