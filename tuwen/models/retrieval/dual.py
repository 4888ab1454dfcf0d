"""The dual encoder: one vector a picture, one a sentence, a learned temperature between them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tuwen.layers import l2_normalise
from tuwen.models.retrieval.attentive import AttentivePicture
from tuwen.models.retrieval.hubs import Hubs
from tuwen.models.retrieval.looks import embed_looks
from tuwen.models.retrieval.picture import PictureEncoder
from tuwen.models.retrieval.sentence import BertEncoder, RecurrentEncoder

if TYPE_CHECKING:
    from tuwen.towers import Tower


class DualEncoder(nn.Module):
    """Picture and sentence encoders into one space.

    Args:
        picture: features -> (B, W), not normalised.
        sentence: ids, lengths -> (B, W), not normalised.
        tower: a picture tower trained with the rest; None where its features are given.
        pooled: whether the tower gives one pooled region or its grid.
        scale: first factor on the similarities before a softmax (1 / temperature), learned up to `max_scale`.
        classifier: CMPC's class weights (classes, W); None for none.
        decoder: reads a picture's mean feature (D) back from an embedding (W), for the reconstruction loss.
        discriminator: tells embeddings of pictures from those of sentences, for the adversarial loss.
        hubs: takes hubness off what is embedded; the losses see the vectors without it.
        looks: at each picture whose pixels are given, to embed it (`looks.py`); the losses see one.
    """

    def __init__(
        self,
        picture: PictureEncoder | AttentivePicture,
        sentence: BertEncoder | RecurrentEncoder,
        *,
        tower: Tower | None = None,
        pooled: bool = True,
        scale: float = 14.3,
        max_scale: float = 100.0,
        classifier: Tensor | None = None,
        decoder: nn.Linear | None = None,
        discriminator: nn.Module | None = None,
        hubs: Hubs | None = None,
        looks: int = 1,
    ) -> None:
        super().__init__()
        self.picture, self.sentence, self.tower, self.pooled = picture, sentence, tower, pooled
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.max_scale = max_scale
        self.classifier = nn.Parameter(classifier) if classifier is not None else None
        self.decoder, self.discriminator, self.hubs, self.looks = decoder, discriminator, hubs, looks

    @property
    def scale(self) -> Tensor:
        """Factor on the similarities before a softmax."""
        return self.log_scale.exp().clamp(max=self.max_scale)

    def regions(self, batch: Tensor) -> Tensor:
        """Features (B, N, D) as they are, or of uint8 pixels (B, S, S, 3) where the tower is inside."""
        if self.tower is None:
            return batch
        features: Tensor = self.tower.pooled(batch).unsqueeze(1) if self.pooled else self.tower(batch)
        return features

    def embed_pictures(self, batch: Tensor, *, plain: bool = False) -> Tensor:
        """Features or pixels -> (B, W), unit length; (B, W + EXTRA) where there are `hubs`, unless `plain`."""
        looks = 1 if self.tower is None else self.looks
        vectors = embed_looks(lambda look: l2_normalise(self.picture(self.regions(look))), batch, looks)
        return vectors if self.hubs is None or plain else self.hubs.mark_pictures(vectors)

    def embed_sentences(self, ids: Tensor, lengths: Tensor, *, plain: bool = False) -> Tensor:
        """(B, T) ids, (B,) lengths -> (B, W), unit length; as for pictures with `hubs`."""
        vectors = l2_normalise(self.sentence(ids, lengths))
        return vectors if self.hubs is None or plain else self.hubs.mark_sentences(vectors)

    def forward(self, pictures: Tensor, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Both sides at once, not normalised (CMPM projects one on the other), and the pictures' mean features.

        Returns (P, W), (C, W), (P, D).
        """
        regions = self.regions(pictures)
        return self.picture(regions), self.sentence(ids, lengths), regions.mean(1)
