"""The two sides of a dual encoder as modules that ONNX can hold: no packing, no shape that depends on values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tuwen.layers import GPO, encode_sequence, l2_normalise, length_mask
from tuwen.models.retrieval.dual import DualEncoder
from tuwen.models.retrieval.ensemble import Ensemble, join, members_of
from tuwen.models.retrieval.hubs import Hubs
from tuwen.models.retrieval.picture import PictureEncoder
from tuwen.models.retrieval.sentence import BertEncoder, RecurrentEncoder


class Table(nn.Module):
    """Generalised pooling with its coefficients worked out for every number of items up to `width`."""

    table: Tensor

    def __init__(self, pool: GPO, width: int) -> None:
        super().__init__()
        with torch.no_grad():
            self.register_buffer("table", pool.coefficients(torch.arange(1, width + 1), width))  # (width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            return (x.sort(1, descending=True).values * self.table[-1, :, None]).sum(1)
        lengths = mask.sum(1)  # (B,)
        ordered = x.masked_fill(~mask[..., None], torch.finfo(x.dtype).min).sort(1, descending=True).values
        kept = torch.where(length_mask(lengths, x.shape[1])[..., None], ordered, 0.0)
        return (kept * self.table[lengths - 1, : x.shape[1], None]).sum(1)


class PictureSide(nn.Module):
    """(B, S, S, 3) uint8 -> (B, W), unit length; EXTRA wider where the model has hubs."""

    def __init__(self, model: DualEncoder | Ensemble) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.embed_pictures(pixels)


class SentenceSide(nn.Module):
    """(B, T) ids, (B,) lengths -> (B, W), unit length; EXTRA wider with `hubs`."""

    def __init__(self, sentences: Sequence[BertEncoder | PaddedRecurrent], hubs: Hubs | None = None) -> None:
        super().__init__()
        self.sentences, self.hubs = nn.ModuleList(sentences), hubs
        self.encode = [side.encode if isinstance(side, BertEncoder) else side for side in sentences]

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        vectors = join([l2_normalise(encode(ids, lengths)) for encode in self.encode])
        return vectors if self.hubs is None else self.hubs.mark_sentences(vectors)


class PaddedRecurrent(nn.Module):
    """A `RecurrentEncoder` without packing, which ONNX has not."""

    def __init__(self, encoder: RecurrentEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        states, last = encode_sequence(self.encoder.rnn, self.encoder.embedding(ids), lengths, padded=True)
        return self.encoder.pool(states, last, length_mask(lengths, ids.shape[1]))


def picture_side(model: DualEncoder | Ensemble, size: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """The picture side of a model with its tower inside, and an example input by name."""
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    for member in members_of(model):
        if isinstance(member.picture, PictureEncoder) and isinstance(member.picture.gpo, GPO):
            with torch.inference_mode():
                regions = model.regions(pixels).shape[1]
            member.picture.gpo = Table(member.picture.gpo, regions)
    return PictureSide(model).eval(), {"pixels": pixels}


def sentence_side(model: DualEncoder | Ensemble, max_tokens: int) -> tuple[nn.Module, dict[str, Tensor]]:
    """The sentence side of a model and example inputs by name."""
    encoders = []
    for member in members_of(model):
        sentence = member.sentence
        if isinstance(sentence.gpo, GPO):
            sentence.gpo = Table(sentence.gpo, max_tokens)
        encoders.append(PaddedRecurrent(sentence) if isinstance(sentence, RecurrentEncoder) else sentence)
    side = SentenceSide(encoders, model.hubs)
    return side.eval(), {"ids": torch.ones(2, 7, dtype=torch.long), "lengths": torch.tensor([7, 5])}
