"""Recipes of a re-ranker: what orders the best hits of a retrieval model anew."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tuwen.config.parts import Part, Recipe


class CrossConfig(Part):
    """Cross-attention between the words and the grid of a retrieval model that stays as it is."""

    base: str = "retrieval"  # that model: a shipped one or a run
    width: int = Field(256, ge=1)
    heads: int = Field(4, ge=1)
    hidden: int = Field(96, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    region_dropout: float = Field(0.5, ge=0, lt=1)
    word_dropout: float = Field(0.2, ge=0, lt=1)
    temperature: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> CrossConfig:
        if self.width % self.heads:
            raise ValueError(f"model.width {self.width} is no multiple of model.heads {self.heads}")
        return self


class RankingConfig(Part):
    """A softmax over a picture's captions and hard ones, and over a caption's picture and hard ones."""

    candidates: int = Field(12, ge=2)  # captions of each language that a picture is compared with, its own included
    near: int = Field(4, ge=0)  # pictures that its captions find wrongly, put into a picture's batch
    smoothing: float = Field(0.0, ge=0, lt=1)
    held: int = Field(300, ge=1)  # training pictures left out of training, on which the weight is chosen
    judged: int = Field(300, ge=1)  # validation pictures that are scored while training


class RerankerRecipe(Recipe):
    """One run: `tuwen train reranker`."""

    task: Literal["reranker"] = "reranker"
    model: CrossConfig = CrossConfig()
    loss: RankingConfig = RankingConfig()
