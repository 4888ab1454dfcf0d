"""The stronger model: a small transformer over the question's words that looks at the regions in every layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tuwen.layers import Attention, length_mask
from tuwen.models.vqa.joint import mask_out
from tuwen.models.vqa.pointers import Pointers, grid_places
from tuwen.models.vqa.slots import Slots
from tuwen.towers import Top

PLANE = 0.7  # how far apart the codes of two opposite sides begin, a number of theirs


class Layer(nn.Module):
    """The words look at one another, then at the regions, then each for itself; normed before."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, blind: bool) -> None:
        super().__init__()
        self.words, self.words_norm = Attention(width, heads), nn.LayerNorm(width)
        if not blind:
            self.regions, self.regions_norm = Attention(width, heads), nn.LayerNorm(width)
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width)
        )
        self.dropout, self.blind = nn.Dropout(dropout), blind

    def forward(
        self, x: Tensor, words: Tensor, memory: Tensor | None, mask: Tensor | None, slots: Slots, wanted: int
    ) -> tuple[Tensor, Tensor | None]:
        """`x` (B, T, W), `words` (B, T) mask of the words, `memory` (P, N, W), `mask` (P, N) -> the first `wanted`
        words of `x`, and their attention (P, H, K wanted, N)."""
        normed, weights = self.words_norm(x), None
        keys, values = self.words.make_keys(normed)
        x = x[:, :wanted] + self.dropout(self.words(normed[:, :wanted], keys, values, words[:, None, None])[0])
        if memory is not None:
            query = slots.spread(self.regions_norm(x)).flatten(1, 2)  # (P, K T, W)
            keys, values = self.regions.make_keys(memory)
            seen, weights = self.regions(query, keys, values, None if mask is None else mask[:, None, None])
            x = x + self.dropout(slots.collect(seen.view(len(seen), slots.most, *x.shape[1:])))
        return x + self.dropout(self.feedforward(x)), weights


class Counter(nn.Module):
    """Gates of each region by the question, summed: what a softmax can't give, for its weights always sum to one (Zhang
    et al., Learning to count objects in natural images for VQA, ICLR 2018)."""

    def __init__(self, width: int, gates: int) -> None:
        super().__init__()
        self.region, self.question = nn.Linear(width, gates * 16), nn.Linear(width, gates * 16)
        self.bias = nn.Parameter(torch.full((gates,), -2.0))  # most regions show nothing that is asked for
        self.out = nn.Linear(2 * gates, width)

    def forward(self, question: Tensor, memory: Tensor, mask: Tensor | None, slots: Slots) -> Tensor:
        """`question` (B, W), `memory` (P, N, W) -> (B, W)."""
        gates = len(self.bias)
        asked = slots.spread(self.question(question).view(-1, gates, 16)).transpose(1, 2)  # (P, G, K, 16)
        seen = self.region(memory).view(*memory.shape[:2], gates, 16).permute(0, 2, 3, 1)  # (P, G, 16, N)
        scores = (asked @ seen).float() / 4 + self.bias[:, None, None]  # (P, G, K, N)
        open_ = scores.sigmoid()
        if mask is not None:
            open_ = open_.masked_fill(~mask[:, None, None], 0)
        count = slots.collect(open_.sum(-1).transpose(1, 2))  # (B, G)
        out: Tensor = self.out(torch.cat([count, count.log1p()], 1))
        return out


class FusionTransformer(nn.Module):
    """Regions -> the tower's last convolution, trained -> memory; a start token and the question's words over it.

    The start token's last state and the counted regions give the answer.

    Args:
        in_width: channels of the regions.
        answers: how many the model chooses from.
        features: channels after the tower's last convolution, which is then trained here (None: none is).
        tail: the tower's last blocks, where they are trained too (`Top`).
        regions: how many regions a picture has, each place with a code of its own (0: any number, placed by `boxes`).
        embedding: of words, None: as wide as the states. `limit`: most words of a question.
        gates: counted glimpses beside the attention; 0: none.
        pointers: looks that follow one stretch of the question each; 0: none.
        blind: regions have no part: the language-only baseline.
        tower: where it is trained too: `regions` are then pixels (P, S, S, 3) uint8.
    """

    def __init__(
        self,
        in_width: int,
        vocabulary: int,
        answers: int,
        regions: int,
        *,
        features: int | None = None,
        tail: nn.Sequential | None = None,
        width: int = 384,
        embedding: int | None = None,
        layers: int = 3,
        heads: int = 6,
        feedforward: int = 768,
        gates: int = 4,
        pointers: int = 0,
        hidden: int | None = None,
        limit: int = 64,
        dropout: float = 0.1,
        word_dropout: float = 0.0,
        picture_dropout: float = 0.0,
        region_dropout: float = 0.0,
        classifier_dropout: float = 0.1,
        pad: int = 0,
        blind: bool = False,
        tower: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.word_dropout, self.region_dropout, self.blind, self.tower = word_dropout, region_dropout, blind, tower
        words = embedding or width
        self.embedding = nn.Embedding(vocabulary, words, padding_idx=pad)
        nn.init.normal_(self.embedding.weight, std=words**-0.5)
        with torch.no_grad():
            self.embedding.weight[pad].zero_()
        self.widen = nn.Linear(words, width) if words != width else nn.Identity()
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.places = nn.Parameter(torch.randn(limit, width) * 0.02)
        self.head: Top | None = None
        if not blind:
            self.head = Top(in_width, features, tail) if features else None
            seen = features or in_width
            self.memory = nn.Sequential(nn.LayerNorm(seen), nn.Linear(seen, width), nn.Dropout(picture_dropout))
            self.memory_norm = nn.LayerNorm(width)
            self.region_places = nn.Parameter(_code_places(regions, width, bool(pointers))) if regions else None
            self.box_places = None if regions else nn.Linear(4, width)
        self.layers = nn.ModuleList(Layer(width, heads, feedforward, dropout, blind) for _ in range(layers))
        self.counter = Counter(width, gates) if gates and not blind else None
        self.pointers = Pointers(width, pointers) if pointers and not blind else None
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        hidden = hidden or 2 * width
        drop = nn.Dropout(classifier_dropout)
        self.classifier = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), drop, nn.Linear(hidden, answers))

    def read(self, regions: Tensor, mask: Tensor | None = None, boxes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pixels (P, S, S, 3) uint8, or regions (P, N, D) -> what the words look at (P, N, W), and the same without the
        places, not normed yet."""
        if self.tower is not None:
            regions = self.tower(regions)
        regions = mask_out(regions, mask)
        if self.head is not None:
            regions = self.head(regions)
        memory = content = self.memory(regions)
        if self.region_places is not None:
            memory = memory + self.region_places
        elif boxes is not None and self.box_places is not None:
            memory = memory + self.box_places(boxes.to(memory.dtype))
        return self.memory_norm(memory), content

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

        `regions` (P, N, D), of which `mask` (P, N) says which exist (None: all), at `boxes` (P, N, 4), xyxy as shares
        of the picture, for questions `ids` (B, T) of `lengths` (B,); `owner` (B,) is each question's row of `regions`
        (None: one each).
        """
        logits: Tensor = self.classifier(self._fuse(regions, ids, lengths, mask, boxes, owner)[0])
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
        """The last layer's attention of the start token, a mean over heads: (B, N), rows sum to 1. None if blind."""
        return self._fuse(regions, ids, lengths, mask, boxes, owner)[1]

    def _fuse(
        self,
        regions: Tensor,
        ids: Tensor,
        lengths: Tensor,
        mask: Tensor | None,
        boxes: Tensor | None,
        owner: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The fused state (B, W), and the attention (B, N)."""
        memory, content = (None, None) if self.blind else self.read(regions, mask, boxes)
        mask = self._drop_regions(memory, mask)
        slots = Slots(len(regions), owner, len(ids))
        spelled = self._spell(ids)
        x = torch.cat([self.start.expand(len(ids), 1, -1).to(spelled.dtype), spelled], 1)
        x = self.dropout(x + self.places[: x.shape[1]])
        words = length_mask(lengths + 1, x.shape[1])
        weights = None
        for depth, layer in enumerate(self.layers, 1):
            wanted = 1 if depth == len(self.layers) else x.shape[1]  # in the end the start token alone is read
            x, weights = layer(x, words, memory, mask, slots, wanted)
        state = fused = self.norm(x[:, 0])
        if self.counter is not None and memory is not None:
            fused = fused + self.counter(state, memory, mask, slots)
        if self.pointers is not None and memory is not None and content is not None:
            things, places = self.memory_norm(content), self._place(boxes)
            fused = fused + self.pointers(state, spelled, words[:, 1:], things, memory, places, mask, slots)
        if weights is None:
            return fused, None
        return fused, slots.collect(weights.mean(1))  # (P, H, K, N): one word, the start token

    def _place(self, boxes: Tensor | None) -> Tensor:
        """The middles of the regions (P or 1, N, 2)."""
        if boxes is not None:
            return (boxes[..., :2] + boxes[..., 2:]) / 2
        if self.region_places is None:
            raise ValueError("pointers compare places: give boxes")
        return grid_places(len(self.region_places)).to(self.region_places.device)[None]

    def _spell(self, ids: Tensor) -> Tensor:
        """The words alone (B, T, W)."""
        x: Tensor = self.widen(self.embedding(ids))
        if self.training and self.word_dropout:
            x = x * (torch.rand(ids.shape, device=ids.device) >= self.word_dropout)[..., None]
        return x

    def _drop_regions(self, memory: Tensor | None, mask: Tensor | None) -> Tensor | None:
        """While training, some regions of each picture are as if they were padding; a picture keeps at least one."""
        if memory is None or not (self.training and self.region_dropout):
            return mask
        luck = torch.rand(memory.shape[:2], device=memory.device)
        luck = luck if mask is None else luck.masked_fill(~mask, -1.0)
        kept = (luck >= self.region_dropout).scatter(1, luck.argmax(1, keepdim=True), True)
        return kept if mask is None else kept & mask


def _code_places(regions: int, width: int, plane: bool) -> Tensor:
    """Codes of a grid's places (N, W) to begin with: noise; on a `plane`, right and down are directions beside."""
    codes = torch.randn(regions, width) * 0.02
    if plane:
        codes = codes + (grid_places(regions) - 0.5) @ torch.randn(2, width) * PLANE
    return codes
