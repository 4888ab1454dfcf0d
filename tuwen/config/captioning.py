"""Recipes of captioning: a decoder over a picture's features, its losses, and how it is decoded."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tuwen.config.parts import Part, Recipe, TowerConfig


class DecoderConfig(Part):
    """What turns features into words."""

    kind: Literal["show-tell", "transformer"] = "transformer"
    width: int = Field(512, ge=1)
    embedding: int | None = Field(None, ge=1)  # show-tell: of words; None: as wide as the state
    layers: int = Field(2, ge=1)
    heads: int = Field(8, ge=1)
    feedforward: int = Field(1024, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    word_dropout: float = Field(0.0, ge=0, lt=1)  # words of the prefix that are hidden while training
    tied: bool = False  # one matrix for words in and words out

    @model_validator(mode="after")
    def _fits(self) -> DecoderConfig:
        if self.kind == "transformer" and self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        if self.kind == "transformer" and self.embedding not in (None, self.width):
            raise ValueError("a transformer's words are as wide as its states: leave embedding out")
        if self.tied and self.embedding not in (None, self.width):
            raise ValueError(f"tied words need embedding = width, not {self.embedding} and {self.width}")
        return self


class RegionsConfig(TowerConfig):
    """The picture side: a tower's pooled vector or its regions."""

    dropout: float = Field(0.0, ge=0, lt=1)
    region_dropout: float = Field(0.0, ge=0, lt=1)


class DecodingConfig(Part):
    """How captions are made, in validation and by default in use."""

    beams: int = Field(3, ge=1)
    limit: int = Field(30, ge=1)  # words
    minimum: int = Field(0, ge=0)
    length_penalty: float = Field(1.0, ge=0)  # scores are sums of log p / length ** this
    no_repeat: int = Field(0, ge=0)  # no run of so many words twice; 0: anything goes


class CaptioningConfig(Part):
    """A picture to a sentence."""

    image: RegionsConfig = RegionsConfig()
    decoder: DecoderConfig = DecoderConfig()
    decoding: DecodingConfig = DecodingConfig()


class CaptionLossConfig(Part):
    """Weights of the named loss parts, and their settings. A part of weight 0 is not computed."""

    cross_entropy: float = Field(1.0, ge=0)
    smoothing: float = Field(0.0, ge=0, lt=1)
    reinforce: float = Field(0.0, ge=0)  # self-critical training on CIDEr-D
    samples: int = Field(5, ge=2)  # of each picture and language; each one's baseline is the mean of the others
    temperature: float = Field(
        1.0, gt=0
    )  # of the policy that samples: below 1 it stays near what is decoded in the end
    best: Literal["loss", "cider"] = "cider"  # the validation score that decides which model is kept

    @model_validator(mode="after")
    def _some_loss(self) -> CaptionLossConfig:
        if not (self.cross_entropy or self.reinforce):
            raise ValueError("no loss has a weight above 0: set loss.cross_entropy or loss.reinforce")
        return self


class CaptioningRecipe(Recipe):
    """One run: `tuwen train RECIPE`."""

    task: Literal["captioning"] = "captioning"
    model: CaptioningConfig = CaptioningConfig()
    loss: CaptionLossConfig = CaptionLossConfig()
