"""A re-ranker: how well a sentence fits a picture, word by word over the regions of the grid."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from tuwen.layers import encode_sequence, l2_normalise, length_mask
from tuwen.models.retrieval.attentive import AttentivePicture, keep_some
from tuwen.models.retrieval.dual import DualEncoder
from tuwen.models.retrieval.ensemble import Ensemble, join, members_of
from tuwen.models.retrieval.sentence import BertEncoder, RecurrentEncoder


def grid_features(model: DualEncoder | Ensemble, regions: Tensor) -> Tensor:
    """What a model's picture side (its first member's) sees of each region, before it pools: (B, N, D) -> (B, N, F)."""
    picture = members_of(model)[0].picture
    return picture.head(regions) if isinstance(picture, AttentivePicture) else regions


def word_states(model: DualEncoder | Ensemble, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The states of its sentence side (B, T, D), of the first member where there are several, and the unit vectors
    (B, W) of all of them, in eval mode: (B, T) ids, (B,) lengths."""
    first, *others = members_of(model)
    states, vectors = _states(first.sentence, ids, lengths)
    return states, join([vectors, *(other.embed_sentences(ids, lengths, plain=True) for other in others)])


def _states(sentence: BertEncoder | RecurrentEncoder, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    mask = length_mask(lengths, ids.shape[1])
    if isinstance(sentence, RecurrentEncoder):
        states, last = encode_sequence(sentence.rnn, sentence.embedding(ids), lengths, padded=True)
        return states, l2_normalise(sentence.pool(states, last, mask))
    states = sentence.states(ids, lengths)
    return states, l2_normalise(sentence.pool(states, mask))


class Cross(nn.Module):
    """Cross-attention from each word to the regions, and what the word says of what it then sees.

    Each head of a word takes its softmax-weighted mean of the regions' values (stacked cross attention, Lee et al.,
    SCAN, ECCV 2018). The word, projected once more, is multiplied with it, both at unit length: summed over a head that
    is their cosine, unsummed it is the similarity vector of SGRAF (Diao et al., AAAI 2021), which a small MLP reads
    beside the word. A gate by word weighs the words of a sentence. What depends on a word or a region alone is computed
    once for all pairs that it stands in.

    The features of regions and the states of words come from a frozen dual encoder (`grid_features`, `word_states`). A
    ranking goes by its similarity + `weight` x this score; `weight` is chosen after training, on pictures held out.

    Args:
        in_regions, in_words: widths of the frozen features and states.
        width: of words and regions, a multiple of `heads`.
        hidden: of the MLP.
        temperature: first factor on the cosines in the attention, learned by head.
    """

    weight: Tensor

    def __init__(
        self,
        in_regions: int,
        in_words: int,
        width: int = 256,
        heads: int = 4,
        hidden: int = 96,
        dropout: float = 0.1,
        region_dropout: float = 0.5,
        temperature: float = 10.0,
    ) -> None:
        super().__init__()
        self.heads, self.hidden, self.region_dropout = heads, hidden, region_dropout
        self.key = nn.Linear(in_regions, width)
        self.value = nn.Linear(in_regions, width)
        self.query = nn.Linear(in_words, width)
        self.told = nn.Linear(in_words, width)
        self.log_temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(temperature)))
        self.seen = nn.Linear(width, hidden)
        self.word = nn.Linear(in_words, hidden, bias=False)
        self.out = nn.Linear(hidden, 1, bias=False)
        self.gate = nn.Linear(in_words, 1)
        self.cosine = nn.Parameter(torch.full((heads,), 20.0 / heads))
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("weight", torch.zeros(()))
        for part in (self.out, self.gate):  # at first the mean over words and heads of the cosines
            nn.init.zeros_(part.weight)

    def read_regions(self, features: Tensor) -> Tensor:
        """(P, N, in_regions) -> keys and values (P, 2, H, N, W / H)."""
        if self.training and self.region_dropout:
            features = keep_some(features, 1 - self.region_dropout)
        normed = layer_norm(features, features.shape[-1:])
        both = torch.stack([self.key(normed), self.value(normed)], 1)  # (P, 2, N, W)
        return self._split(self.dropout(both)).transpose(2, 3)

    def read_words(self, states: Tensor) -> Tensor:
        """(C, T, in_words) -> (C, T, 2 W + hidden + 1): all that depends on a word alone, side by side."""
        states = self.dropout(layer_norm(states, states.shape[-1:]))
        parts = [self._split(side(states)).flatten(2) for side in (self.query, self.told)]
        return torch.cat([*parts, self.word(states), self.gate(states)], -1)

    def fit(self, regions: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """(P, 2, H, N, e) regions, (P, K, T, .) words of K sentences each, (P, K, T) mask -> (P, K) scores."""
        keys, values = regions.unbind(1)  # (P, H, N, e)
        width = keys.shape[1] * keys.shape[3]
        sizes = [width, width, self.hidden, 1]
        query, told, word, gate = torch.split(words.flatten(1, 2), sizes, -1)  # (P, L, .), L = K T
        query, told = (side.reshape(*side.shape[:2], self.heads, -1) for side in (query, told))  # (P, L, H, e)
        similar = self.log_temperature.exp() * (query.transpose(1, 2) @ keys.transpose(2, 3))  # (P, H, L, N)
        looked = similar.softmax(-1).to(values.dtype) @ values  # (P, H, L, e)
        match = l2_normalise(looked).to(told.dtype).transpose(1, 2) * told  # (P, L, H, e)
        cosines = match.sum(-1, dtype=torch.float32) @ self.cosine  # (P, L)
        hidden = gelu(self.seen(match.flatten(2) * math.sqrt(match.shape[-1])) + word)
        scores = (cosines + self.out(self.dropout(hidden)).squeeze(-1).float()).view(mask.shape)
        weights = gate.view(mask.shape).float().masked_fill(~mask, -torch.inf).softmax(-1)
        out: Tensor = (weights * scores).sum(-1)
        return out

    def forward(self, features: Tensor, states: Tensor, lengths: Tensor, lists: Sequence[Tensor]) -> list[Tensor]:
        """Scores of chosen sentences for each picture, by list of (P, K) rows of the states: (P, K) each.

        `features` (P, N, in_regions), `states` (C, T, in_words), `lengths` (C,).
        """
        regions, words = self.read_regions(features), self.read_words(states)
        out = []
        for rows in lists:
            width = int(lengths[rows].max())
            mask = length_mask(lengths, width)[rows]  # (P, K, T)
            out.append(self.fit(regions, words[:, :width][rows], mask))
        return out

    def compare(self, regions: Tensor, words: Tensor, lengths: Tensor) -> Tensor:
        """Each of P pictures with each of K sentences: `read_regions`, `read_words` (K, T, .), (K,) -> (P, K)."""
        width = int(lengths.max())
        each = words[None, :, :width].expand(len(regions), -1, -1, -1)
        return self.fit(regions, each, length_mask(lengths, width)[None].expand(len(regions), -1, -1))

    def score_pairs(self, regions: Tensor, words: Tensor, lengths: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
        """Scores (N,) of pairs, as rows (N,) of the pictures (P, ...) and rows (N,) of the sentences (C, T, .)."""
        pictures, sentences = pairs
        out = torch.zeros(len(pictures))
        order = pictures.argsort(stable=True)
        for rows in torch.split(order, torch.unique(pictures, return_counts=True)[1].tolist()):  # a picture's pairs
            for some in torch.split(rows, 256):
                own = sentences[some]
                fit = self.compare(regions[pictures[some[:1]]].float(), words[own].float(), lengths[own])
                out[some] = fit[0].float().cpu()
        return out

    def _split(self, x: Tensor) -> Tensor:
        """(..., W) -> (..., H, W / H), each head at unit length."""
        return l2_normalise(x.reshape(*x.shape[:-1], self.heads, -1)).to(x.dtype)
