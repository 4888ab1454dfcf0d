"""The joint embedding with top-down attention (Anderson et al., CVPR 2018; Teney et al., CVPR 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tuwen.layers import FCNet, attention_weights, encode_sequence
from tuwen.towers import Top

Kind = Literal["concat", "product"]


def _normed(wide: int, out: int, bias: bool = True) -> nn.Module:
    """A linear layer with one norm for its matrix."""
    layer: nn.Module = weight_norm(nn.Linear(wide, out, bias), dim=None)  # type: ignore[arg-type]
    return layer


def mask_out(regions: Tensor, mask: Tensor | None) -> Tensor:
    """Zero what is padding: it may hold anything, and 0 x inf is NaN."""
    return regions if mask is None else regions.masked_fill(~mask[..., None], 0)


class TopDownAttention(nn.Module):
    """The question weighs the regions, by one of the published kinds.

    `concat`: linear(FCNet([region, question])). `product`: linear(dropout(FCNet(region) * FCNet(question))).
    """

    def __init__(self, regions: int, question: int, width: int, kind: Kind = "product", dropout: float = 0.2) -> None:
        super().__init__()
        self.kind = kind
        if kind == "concat":
            self.both = FCNet([regions + question, width])
        else:
            self.region, self.question = FCNet([regions, width]), FCNet([question, width])
        self.dropout = nn.Dropout(dropout if kind == "product" else 0.0)  # the concatenation is published without
        self.score = _normed(width, 1, bias=False)  # published with one, which a softmax cancels

    def forward(self, regions: Tensor, question: Tensor, mask: Tensor | None = None) -> Tensor:
        """`regions` (B, N, D), `question` (B, Q), `mask` (B, N) -> weights (B, N)."""
        asked = question[:, None].expand(-1, regions.shape[1], -1)
        if self.kind == "concat":
            joint = self.both(torch.cat([regions, asked.to(regions.dtype)], 2))
        else:
            joint = self.dropout(self.region(regions) * self.question(question)[:, None])
        return attention_weights(self.score(joint)[..., 0], mask)


class SimpleClassifier(nn.Sequential):
    """Weight-normalised linear, ReLU, dropout, weight-normalised linear."""

    def __init__(self, width: int, hidden: int, answers: int, dropout: float = 0.5) -> None:
        super().__init__(_normed(width, hidden), nn.ReLU(), nn.Dropout(dropout), _normed(hidden, answers))


class JointEmbedding(nn.Module):
    """Words -> GRU or LSTM; attended regions; FCNet of each side; element-wise product -> classifier.

    A question is read to its own end; the public code reads fourteen words, padded in front, cut behind.

    Args:
        in_width: channels of a region.
        vocabulary: words; row `pad` of the embedding stays zero.
        answers: how many the model chooses from.
        word_dropout: on embedded words; `question_dropout` between layers and on the question's vector.
        hidden: of the classifier; None: twice `width`.
        features: channels after the tower's last convolution, which is then trained here (None: none is).
        tail: the tower's last blocks, where they are trained too (`Top`).
        blind: regions have no part: the language-only baseline, the classifier over the question's side alone.
        tower: where it is trained too: `regions` are then pixels (B, S, S, 3) uint8.
    """

    def __init__(
        self,
        in_width: int,
        vocabulary: int,
        answers: int,
        width: int = 1024,
        *,
        features: int | None = None,
        tail: nn.Sequential | None = None,
        embedding: int = 300,
        rnn: Literal["gru", "lstm"] = "gru",
        layers: int = 1,
        bidirectional: bool = False,
        attention: Kind = "product",
        attention_dropout: float = 0.2,
        word_dropout: float = 0.0,
        question_dropout: float = 0.0,
        region_dropout: float = 0.0,
        classifier_dropout: float = 0.5,
        hidden: int | None = None,
        pad: int = 0,
        blind: bool = False,
        tower: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.blind, self.tower = blind, tower
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=pad)
        self.word_dropout, self.question_dropout = nn.Dropout(word_dropout), nn.Dropout(question_dropout)
        kind = nn.GRU if rnn == "gru" else nn.LSTM
        between = question_dropout if layers > 1 else 0.0
        self.rnn = kind(embedding, width, layers, batch_first=True, dropout=between, bidirectional=bidirectional)
        asked = width * (2 if bidirectional else 1)
        self.question_net = FCNet([asked, width])
        self.head: Top | None = None
        if not blind:
            self.head = Top(in_width, features, tail) if features else None
            seen = features or in_width
            self.region_dropout = nn.Dropout(region_dropout)
            self.attention = TopDownAttention(seen, asked, width, attention, attention_dropout)
            self.region_net = FCNet([seen, width])
        self.classifier = SimpleClassifier(width, hidden or 2 * width, answers, classifier_dropout)

    def ask(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Words (B, T) of `lengths` (B,) -> the question (B, Q)."""
        words = self.word_dropout(self.embedding(ids))
        vector: Tensor = self.question_dropout(encode_sequence(self.rnn, words, lengths)[1])
        return vector

    def forward(
        self,
        regions: Tensor,
        ids: Tensor,
        lengths: Tensor,
        mask: Tensor | None = None,
        boxes: Tensor | None = None,
        owner: Tensor | None = None,
    ) -> Tensor:
        """Logits of every answer (B, A).

        `regions` (P, N, D), of which `mask` (P, N) says which exist (None: all), for questions `ids` (B, T) of
        `lengths` (B,); `owner` (B,) is each question's row of `regions` (None: one each). `boxes` (P, N, 4) have no
        part in this model, as published.
        """
        question = self.ask(ids, lengths)
        joint = self.question_net(question)
        if not self.blind:
            regions, mask = self._see(regions, mask, owner)
            weights = self.attention(regions, question, mask)
            joint = joint * self.region_net((weights[:, None].to(regions.dtype) @ regions)[:, 0])
        logits: Tensor = self.classifier(joint)
        return logits

    def attend(
        self,
        regions: Tensor,
        ids: Tensor,
        lengths: Tensor,
        mask: Tensor | None = None,
        boxes: Tensor | None = None,
        owner: Tensor | None = None,
    ) -> Tensor | None:
        """Attention of each question over its picture's regions (B, N): rows sum to 1. None for a blind model."""
        if self.blind:
            return None
        regions, mask = self._see(regions, mask, owner)
        weights: Tensor = self.attention(regions, self.ask(ids, lengths), mask)
        return weights

    def _see(self, regions: Tensor, mask: Tensor | None, owner: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Each question's regions (B, N, D) and their mask."""
        if self.tower is not None:
            regions = self.tower(regions)
        regions = mask_out(regions, mask)
        if self.head is not None:
            regions = self.head(regions)
        regions = self.region_dropout(regions)
        if owner is None:
            return regions, mask
        return regions[owner], None if mask is None else mask[owner]
