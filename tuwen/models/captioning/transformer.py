"""The stronger captioner: a small transformer decoder that attends to the regions of a frozen tower."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tuwen.decode import State
from tuwen.layers import Attention, length_mask, silence
from tuwen.models.captioning.common import Captions
from tuwen.towers import Top


class Layer(nn.Module):
    """Self-attention over the words so far, attention over the regions, feed-forward; each normed before."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.words = Attention(width, heads)
        self.regions = Attention(width, heads)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, past: tuple[Tensor, Tensor], memory: tuple[Tensor, Tensor], mask: Tensor | None, beams: int
    ) -> tuple[Tensor, Tensor]:
        """(P K, T, W) -> the same and the attention over regions (P, H, K T, N).

        `past` are the keys and values of the words (P K, H, T', .), `memory` those of the regions (P, H, N, .), which
        all K captions of a picture share.
        """
        x = x + self.dropout(self.words(self.norms[0](x), *past, mask)[0])
        count, places, width = x.shape
        together = self.norms[1](x).view(count // beams, beams * places, width)
        seen, weights = self.regions(together, *memory)
        x = x + self.dropout(seen).view_as(x)
        return x + self.dropout(self.feedforward(self.norms[2](x))), weights


class TransformerCaptioner(nn.Module):
    """Regions -> the tower's last convolution, trained -> linear -> memory; a decoder with tied words over it.

    Args:
        in_width: channels of the regions.
        features: channels after the tower's last convolution, which is then trained here (None: none is).
        tail: the tower's last blocks, where they are trained too (`Top`).
        regions: how many regions a picture has: each place has a code of its own.
        langs: one start word each.
        silent: words that are never said, such as the unknown one.
        limit: most words of a caption, the end included.
    """

    def __init__(
        self,
        in_width: int,
        vocabulary: int,
        regions: int,
        *,
        features: int | None = None,
        tail: nn.Sequential | None = None,
        width: int = 512,
        layers: int = 2,
        heads: int = 8,
        feedforward: int = 1024,
        langs: int = 1,
        limit: int = 64,
        dropout: float = 0.1,
        region_dropout: float = 0.0,
        picture_dropout: float = 0.0,
        word_dropout: float = 0.0,
        tied: bool = True,
        pad: int = 0,
        silent: Sequence[int] = (),
        tower: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.region_dropout, self.word_dropout = region_dropout, word_dropout
        self.tower, self.silent = tower, list(silent)
        self.head = Top(in_width, features, tail) if features else None
        seen = features or in_width
        self.memory = nn.Sequential(nn.LayerNorm(seen), nn.Linear(seen, width), nn.Dropout(picture_dropout))
        self.region_places = nn.Parameter(torch.randn(regions, width) * 0.02)
        self.memory_norm = nn.LayerNorm(width)
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=pad)
        self.starts = nn.Parameter(torch.randn(langs, width) * 0.5)
        self.places = nn.Parameter(torch.randn(limit, width) * 0.1)
        self.layers = nn.ModuleList(Layer(width, heads, feedforward, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)
        self.scale = math.sqrt(width)
        nn.init.normal_(self.embedding.weight, std=0.5 / self.scale)  # tied logits then start near zero
        with torch.no_grad():
            self.embedding.weight[pad].zero_()
        nn.init.zeros_(self.output.bias)
        if tied:
            self.output.weight = self.embedding.weight

    def read(self, pictures: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pixels (P, S, S, 3) uint8, or regions (P, N, D) -> each layer's keys and values of the regions."""
        regions: Tensor = pictures if self.tower is None else self.tower(pictures)
        if self.head is not None:
            regions = self.head(regions)
        memory = self.memory_norm(self.memory(regions) + self.region_places)
        if self.training and self.region_dropout:
            count = max(1, round(memory.shape[1] * (1 - self.region_dropout)))
            chosen = torch.rand(memory.shape[:2], device=memory.device).argsort(1)[:, :count]
            memory = memory.gather(1, chosen[..., None].expand(-1, -1, memory.shape[2]))
        return [layer.regions.make_keys(memory) for layer in self.layers]  # type: ignore[operator, union-attr]

    def forward(self, pictures: Tensor, captions: Captions) -> dict[int, Tensor]:
        """Logits of every word of a picture's captions, given those before it; the regions are read once for all.

        `captions` by language: `ids` (P, K, T), end words included, and `lengths` (P, K), 0 where a picture has fewer.
        Returns (M, V) by language: M = lengths.sum(), caption after caption.
        """
        memory = self.read(pictures)
        logits = {}
        for lang, (ids, lengths) in captions.items():
            states, _ = self._states(memory, ids, lang)  # (P K, T, W)
            spoken = length_mask(lengths.flatten(), ids.shape[2])
            logits[lang] = self.output(self.norm(states[spoken]))
        return logits

    def _states(self, memory: list[tuple[Tensor, Tensor]], ids: Tensor, lang: int) -> tuple[Tensor, Tensor]:
        """States (P K, T, W) that predict each of `ids` (P, K, T), and the last layer's attention (P, H, K T, N)."""
        beams, places = ids.shape[1:]
        words = self.embedding(ids[..., :-1].flatten(0, 1)) * self.scale  # (P K, T - 1, W)
        if self.training and self.word_dropout:
            kept = torch.rand(words.shape[:2], device=words.device) >= self.word_dropout
            words = words * kept[..., None]
        start = self.starts[lang].expand(len(words), 1, -1)
        x = self.dropout(torch.cat([start, words], 1) + self.places[:places])
        causal = torch.ones(places, places, dtype=torch.bool, device=ids.device).tril()
        weights = x
        for layer, seen in zip(self.layers, memory, strict=True):
            past = layer.words.make_keys(layer.norms[0](x))  # type: ignore[operator, union-attr, index]
            x, weights = layer(x, past, seen, causal, beams)
        return x, weights

    def attend(self, pictures: Tensor, ids: Tensor, lang: int = 0) -> Tensor:
        """Attention of each word of one caption a picture, `ids` (P, T), over the regions: (P, T, N), rows sum to 1."""
        _, weights = self._states(self.read(pictures), ids[:, None], lang)
        return weights.mean(1)

    def stepper(self, pictures: Tensor, lang: int = 0) -> TransformerStepper:
        """For `tuwen.decode`."""
        # Read at every step: laid out for it once.
        memory = [(keys.contiguous(), values.contiguous()) for keys, values in self.read(pictures)]
        return TransformerStepper(self, memory, len(pictures), lang)


class TransformerStepper:
    """The state of a decoding: keys and values of the words so far, (B, K, H, t, W / H) each."""

    def __init__(self, model: TransformerCaptioner, memory: list[tuple[Tensor, Tensor]], count: int, lang: int) -> None:
        self.model, self.memory, self.count, self.lang = model, memory, count, lang

    def start(self) -> tuple[Tensor, State]:
        x = self.model.starts[self.lang].expand(self.count, 1, -1)
        return self._run(x, {})

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        return self._run(self.model.embedding(ids) * self.model.scale, state)

    def _run(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        model, beams, after = self.model, x.shape[1], {}
        place = state["keys0"].shape[3] if state else 0
        x = (x + model.places[place]).flatten(0, 1)[:, None]  # (B K, 1, W)
        for index, (layer, seen) in enumerate(zip(model.layers, self.memory, strict=True)):
            made = layer.words.make_keys(layer.norms[0](x))  # type: ignore[operator, union-attr, index]
            past = []
            for name, new in zip((f"keys{index}", f"values{index}"), made, strict=True):
                whole = torch.cat([state[name].flatten(0, 1), new], 2) if state else new  # (B K, H, t, .)
                after[name] = whole.unflatten(0, (self.count, beams))
                past.append(whole)
            x, _ = layer(x, tuple(past), seen, None, beams)
        logits = model.output(model.norm(x))[:, 0].unflatten(0, (self.count, beams))
        return silence(logits, model.silent), after
