"""Recipes of retrieval: two encoders, and the losses that bring them together."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tuwen.config.parts import Part, Recipe, TowerConfig


class TextConfig(Part):
    """The sentence encoder."""

    kind: Literal["gru", "lstm", "bert"] = "gru"
    embedding: int = Field(300, ge=1)
    width: int = Field(1024, ge=1)
    layers: int = Field(1, ge=1)
    heads: int = Field(12, ge=1)
    bidirectional: bool = False
    bias: bool = True
    pooling: Literal["last", "max", "mean", "gpo", "first"] = "last"
    dropout: float = Field(0.0, ge=0, lt=1)
    word_dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["uniform", "xavier", "normal"] = "uniform"
    pretrained: str | None = None  # bert: `minilm`, a local folder or a hub name to start from


class ImageConfig(TowerConfig):
    """The picture encoder: a tower, a pooling over its grid and a projection."""

    pooling: Literal["mean", "topk", "gpo", "attention"] = (
        "mean"  # attention goes with the map, and trains what is above
    )
    topk: int = Field(5, ge=1)
    heads: int = Field(8, ge=1)
    hidden: int = Field(0, ge=0)  # a residual MLP of this width beside the linear projection; 0: none
    dropout: float = Field(0.0, ge=0, lt=1)
    region_dropout: float = Field(0.0, ge=0, lt=1)
    init: Literal["xavier", "normal", "default"] = "xavier"
    looks: int = Field(1, ge=1, le=4)  # at a picture to embed it: whole, its middle mirrored, mirrored, its middle

    @model_validator(mode="after")
    def _attention_over_the_map(self) -> ImageConfig:
        if (self.features == "map") != (self.pooling == "attention"):
            raise ValueError("features=map and pooling=attention go together")
        return self


class HubsConfig(Part):
    """What is taken off similarities for lying near everything: `weight` times the log-mean-exp over training items."""

    weight: float = Field(0.0, ge=0)  # 0: nothing, and vectors as wide as `model.width`
    beta: float = Field(20.0, gt=0)  # of the log-mean-exp: 0 would be the mean, large is the nearest item
    pictures: int = Field(3000, ge=1)  # training pictures kept, or all where there are fewer
    sentences: int = Field(2000, ge=1)  # training captions kept, as many of each language
    picture_axes: int = Field(48, ge=1)  # principal axes that they are kept in
    sentence_axes: int = Field(24, ge=1)


class RetrievalConfig(Part):
    """Two encoders into one space."""

    width: int = Field(1024, ge=1)
    image: ImageConfig = ImageConfig()
    text: TextConfig = TextConfig()
    scale: float = Field(14.3, gt=0)  # first logit scale, 1 / temperature
    max_scale: float = Field(100.0, gt=0)
    hubs: HubsConfig = HubsConfig()
    members: int = Field(1, ge=1)  # dual encoders of other seeds, whose vectors stand side by side in one index

    @model_validator(mode="after")
    def _members_share(self) -> RetrievalConfig:
        if self.members > 1 and self.image.finetune:
            raise ValueError("members share one frozen tower: model.members=1 or model.image.finetune=false")
        return self

    @model_validator(mode="after")
    def _heads_divide(self) -> RetrievalConfig:
        if self.image.pooling == "attention" and self.width % self.image.heads:
            raise ValueError(f"model.width {self.width} is no multiple of model.image.heads {self.image.heads}")
        if self.text.kind == "bert" and self.text.width % self.text.heads:
            raise ValueError(f"model.text.width {self.text.width} is no multiple of model.text.heads {self.text.heads}")
        return self


class LossConfig(Part):
    """Weights of the named loss parts, and their settings. A part of weight 0 is not computed."""

    hinge: float = Field(0.0, ge=0)
    margin: float = Field(0.2, ge=0)
    hinge_reduction: Literal["mean", "sum"] = "mean"  # over the pairs of a batch
    hardest: float = Field(1.0, ge=0, le=1)  # 0: sum of all hinges, 1: the hardest negative alone
    hardest_warmup: float = Field(0.0, ge=0)  # epochs over which the hardest negative fades in
    mine_offline: int = Field(0, ge=0)  # after each epoch: this many hard pictures each, put together in batches
    info_nce: float = Field(0.0, ge=0)
    smoothing: float = Field(0.0, ge=0, lt=1)
    n_pair: float = Field(0.0, ge=0)
    cmpm: float = Field(0.0, ge=0)
    cmpc: float = Field(0.0, ge=0)
    sdm: float = Field(0.0, ge=0)
    reconstruction: float = Field(0.0, ge=0)  # a picture's feature read back from it and from its captions
    adversarial: float = Field(0.0, ge=0)  # a discriminator that must not tell pictures from captions
    captions: float = Field(0.0, ge=0)  # InfoNCE between the captions of one picture in two languages
    distil: float = Field(0.0, ge=0)  # cross entropy to how `teachers`, on average, find the batch's pictures alike
    distil_scale: float = Field(10.0, gt=0)  # of both sides' similarities there: softer than the model's own
    teachers: str | None = None  # runs parted by commas, above the same frozen tower

    @model_validator(mode="after")
    def _taught(self) -> LossConfig:
        if bool(self.distil) != bool(self.teachers):
            raise ValueError("loss.distil and loss.teachers go together")
        return self

    @model_validator(mode="after")
    def _some_loss(self) -> LossConfig:
        if not any((self.hinge, self.info_nce, self.n_pair, self.cmpm, self.cmpc, self.sdm)):
            raise ValueError("no loss has a weight above 0: set loss.hinge, loss.info_nce or another")
        return self


class RetrievalRecipe(Recipe):
    """One run: `tuwen train RECIPE`."""

    task: Literal["retrieval"] = "retrieval"
    model: RetrievalConfig = RetrievalConfig()
    loss: LossConfig
