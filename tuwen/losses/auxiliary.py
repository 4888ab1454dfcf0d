"""Side objectives of the VSE++ family: decode the embedding back, and hide which side it came from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, ones_like, zeros_like
from torch.nn import functional as F

from tuwen.layers import reverse_gradient, widen


def reconstruction(decoded: Tensor, feature: Tensor, kind: Literal["cosine", "mse"] = "cosine") -> Tensor:
    """How far `decoded` (n, d), read back from an embedding, is from the `feature` (n, d) that went in.

    `cosine`: mean of 1 - cos, blind to length; `mse`: mean squared difference over all entries. The feature
    is a target: no gradient flows into it (a trained tower would otherwise learn constant features).
    """
    decoded, feature = widen(decoded), widen(feature).detach()
    if kind == "cosine":
        return (1 - F.cosine_similarity(decoded, feature, dim=-1)).mean()
    if kind == "mse":
        return F.mse_loss(decoded, feature)
    raise ValueError(f"reconstruction must be 'cosine' or 'mse', not '{kind}'")


def adversarial(
    discriminator: Callable[[Tensor], Tensor], image_emb: Tensor, text_emb: Tensor, strength: float = 1.0
) -> Tensor:
    """A discriminator learns to tell pictures (1) from texts (0), the encoders to fool it (Ganin et al.
    2016).

    `discriminator` maps embeddings (n, d) to logits (n,) or (n, 1). The mean of both binary cross entropies
    (log 2 when fooled); its gradient reaches the discriminator as is, and the embeddings reversed and times
    `strength`.
    """
    image = widen(discriminator(reverse_gradient(image_emb, strength)))
    text = widen(discriminator(reverse_gradient(text_emb, strength)))
    return (
        F.binary_cross_entropy_with_logits(image, ones_like(image))
        + F.binary_cross_entropy_with_logits(text, zeros_like(text))
    ) / 2
