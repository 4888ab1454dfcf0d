"""Recipes of an adapter: what `tuwen tune` trains on the vectors of a model that stays as it is."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuwen.config.parts import Part, Recipe


class AdapterConfig(Part):
    """A residual linear map on each side of a frozen model."""

    base: str  # the model, as `tuwen.load` takes it
    fingerprint: str  # of its weights: on another model's vectors the maps mean nothing
    dropout: float = Field(0.1, ge=0, lt=1)
    scale: float = Field(30.0, gt=0)  # first logit scale, 1 / temperature
    max_scale: float = Field(100.0, gt=0)


class AdapterLossConfig(Part):
    """InfoNCE between pictures and the captions of each language."""

    info_nce: float = Field(1.0, gt=0)
    smoothing: float = Field(0.0, ge=0, lt=1)


class AdapterRecipe(Recipe):
    """A training of `tuwen tune`."""

    task: Literal["adapter"] = "adapter"
    model: AdapterConfig
    loss: AdapterLossConfig = AdapterLossConfig()
