"""From token ids to one vector a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tuwen.layers import GPO, drop_items, encode_sequence, length_mask, masked_max, masked_mean


def drop_words(ids: Tensor, lengths: Tensor, rate: float, pad: int) -> tuple[Tensor, Tensor]:
    """Leave out a share of the words of (B, T) ids, at least one word staying; the ids and their new lengths."""
    ids, kept = drop_items(ids, length_mask(lengths, ids.shape[1]), rate, fill=pad)
    return ids, kept.sum(1)


def by_length(encode: Callable[[Tensor, Tensor], Tensor], ids: Tensor, lengths: Tensor, chunk: int = 128) -> Tensor:
    """`encode(ids, lengths)` over chunks of sentences of like length, so that hardly any padding is computed."""
    if len(ids) <= chunk:
        return encode(ids, lengths)
    order = lengths.argsort(stable=True)
    parts = [encode(ids[rows, : int(lengths[rows].max())], lengths[rows]) for rows in torch.split(order, chunk)]
    return torch.cat(parts)[order.argsort()]


class RecurrentEncoder(nn.Module):
    """Word embedding -> GRU or LSTM -> pooling (-> projection).

    VSE++: embedding 300, uniform(-0.1, 0.1); GRU 1024; last state by length. CMPM/CMPC: LSTM of 512 a side without
    bias, really reversed by length, max over time that never sees the padding, then a projection.

    Args:
        vocabulary: rows of the embedding; row `pad` stays zero.
        hidden: width of one direction.
        project: width of the joint space; None where the hidden state itself is it.
        init: `uniform` for the embedding (VSE++) or `xavier` for every matrix (CMPM/CMPC).
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int,
        hidden: int,
        *,
        kind: str = "gru",
        layers: int = 1,
        bidirectional: bool = False,
        bias: bool = True,
        pooling: str = "last",
        project: int | None = None,
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        init: str = "uniform",
        pad: int = 0,
    ) -> None:
        super().__init__()
        self.pooling, self.word_dropout, self.pad = pooling, word_dropout, pad
        self.embedding = nn.Embedding(vocabulary, embedding, padding_idx=pad)
        rnn = nn.LSTM if kind == "lstm" else nn.GRU
        self.rnn = rnn(
            embedding,
            hidden,
            layers,
            bias=bias,
            batch_first=True,
            bidirectional=bidirectional,
            dropout=dropout if layers > 1 else 0.0,
        )
        self.dropout = nn.Dropout(dropout)
        out = hidden * (2 if bidirectional else 1)
        self.gpo: nn.Module | None = GPO() if pooling == "gpo" else None
        self.project = nn.Linear(out, project) if project else None
        self._initialise(init, pad)

    def _initialise(self, init: str, pad: int) -> None:
        if init == "uniform":
            nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        else:
            nn.init.xavier_uniform_(self.embedding.weight)
            for name, weight in self.rnn.named_parameters():
                if name.startswith("weight"):
                    nn.init.xavier_uniform_(weight)
        if self.project is not None:
            nn.init.xavier_normal_(self.project.weight)
            nn.init.zeros_(self.project.bias)
        with torch.no_grad():
            self.embedding.weight[pad].zero_()

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) ids, (B,) lengths -> (B, W), not normalised."""
        if self.training and self.word_dropout:
            ids, lengths = drop_words(ids, lengths, self.word_dropout, self.pad)
        states, last = encode_sequence(self.rnn, self.dropout(self.embedding(ids)), lengths)  # (B, T, H), (B, H)
        mask = length_mask(lengths, states.shape[1])
        return self.pool(states, last, mask)

    def pool(self, states: Tensor, last: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H) states, (B, H) last states, (B, T) mask -> (B, W), not normalised."""
        if self.gpo is not None:
            pooled: Tensor = self.gpo(states, mask)
        elif self.pooling == "last":
            pooled = last
        else:
            pooled = masked_max(states, mask) if self.pooling == "max" else masked_mean(states, mask)
        pooled = self.dropout(pooled)
        out: Tensor = pooled if self.project is None else self.project(pooled)
        return out


class BertEncoder(nn.Module):
    """A BERT-family transformer (`transformers.BertModel`) -> pooling over real tokens -> projection."""

    def __init__(
        self,
        bert: Any,
        in_width: int,
        project: int,
        *,
        pooling: str = "mean",
        dropout: float = 0.0,
        word_dropout: float = 0.0,
        pad: int = 0,
    ) -> None:
        super().__init__()
        self.bert, self.pooling = bert, pooling
        self.word_dropout, self.pad = word_dropout, pad
        self.gpo: nn.Module | None = GPO() if pooling == "gpo" else None
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(in_width, project)
        nn.init.xavier_normal_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) ids, (B,) lengths -> (B, W), not normalised."""
        if self.training and self.word_dropout:
            ids, lengths = drop_words(ids, lengths, self.word_dropout, self.pad)
        return by_length(self.encode, ids, lengths)

    def encode(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """As `forward`, in eval mode, in one piece."""
        return self.pool(self.states(ids, lengths), length_mask(lengths, ids.shape[1]))

    def states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, T) ids, (B,) lengths -> (B, T, H) states of the last layer."""
        mask = length_mask(lengths, ids.shape[1])
        states: Tensor = self.bert(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return states

    def pool(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H) states, (B, T) mask -> (B, W), not normalised."""
        if self.gpo is not None:
            # Project first: the pooling sorts each dimension of the joint space.
            pooled: Tensor = self.gpo(self.project(self.dropout(states)), mask)
            return pooled
        if self.pooling == "first":
            pooled = states[:, 0]
        else:
            pooled = masked_max(states, mask) if self.pooling == "max" else masked_mean(states, mask)
        out: Tensor = self.project(self.dropout(pooled))
        return out
