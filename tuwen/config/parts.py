"""The parts that the recipes of every task are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Part(BaseModel):
    """Base of every part of a recipe: an unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid")


class TokenizerConfig(Part):
    """How sentences become ids; trained on the captions of `splits` alone."""

    kind: Literal["word", "subword", "hub"] = "word"
    min_count: int = Field(1, ge=1)
    size: int | None = Field(None, ge=8)  # largest vocabulary; None: no limit (subword: 8,000)
    source: str | None = None  # hub: name or folder
    dictionary: str | None = None  # a file of words of your own that jieba should know, one a line
    splits: list[str] = ["train"]


class DataConfig(Part):
    """Which captions and which views of the pictures a batch is made of."""

    langs: list[str] | None = None  # None: every language that the data holds
    captions: int = Field(5, ge=1)  # captions of each language a picture brings to a batch
    max_words: int | None = Field(None, ge=1)  # longer captions are left out of training
    max_tokens: int = Field(64, ge=2)  # and every sentence is cut here
    view: Literal["squash", "center", "crop"] = "squash"
    views: int = Field(1, ge=1)  # random crops kept of each picture (view: crop)
    zooms: int = Field(0, ge=0)  # and of random parts, squashed, beside the whole (view: squash)
    flip: bool = False
    workers: int = Field(0, ge=0)  # decoding processes, where pixels are read while training


class TowerConfig(Part):
    """The picture tower, and what of it a model takes."""

    tower: str = "lite2"
    size: int | None = Field(None, ge=16)  # input side; None: the tower's own
    weights: str | None = None  # a local torchvision state dict
    pretrained: bool = True
    features: Literal["pooled", "grid", "map"] = "pooled"  # map: the grid before the last 1x1 convolution
    tail: int = Field(0, ge=0)  # map: so many of the tower's last blocks are trained too
    top: str | None = None  # map: a run, of whatever task, whose trained convolution and blocks this one begins with
    finetune: bool = False

    @model_validator(mode="after")
    def _frozen_map(self) -> TowerConfig:
        if self.features == "map" and self.finetune:
            raise ValueError("features=map is for a frozen tower: finetune=false")
        if (self.tail or self.top) and self.features != "map":
            raise ValueError("tail and top are of what is trained above the map: features=map, or leave them out")
        return self


class TrainConfig(Part):
    """The loop's settings."""

    epochs: float = Field(10, ge=0)  # 0: nothing is learned; what a task takes from the data is still filled in
    batch_size: int = Field(128, ge=1)
    optimiser: Literal["adam", "adamw", "adamax", "muon"] = "adam"
    lr: float = Field(2e-4, gt=0)
    tower_lr: float = Field(0.1, ge=0)  # factor on lr for a fine-tuned tower
    tail_lr: float = Field(0.1, ge=0)  # and for its last blocks, where they are trained above a frozen one
    pretrained_lr: float = Field(1.0, ge=0)  # for the layers of a text model that was loaded
    words_lr: float = Field(1.0, ge=0)  # and for its word embeddings
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    step_epochs: float = Field(15, gt=0)
    steps: list[Annotated[float, Field(gt=0)]] = []  # epochs at which the rate falls; none: every step_epochs
    gamma: float = Field(0.5, gt=0, le=1)
    floor: float = Field(0.0, ge=0)  # the learning rate never falls under it
    warmup: float = Field(0.0, ge=0)  # epochs of linear rise
    warmup_from: float = Field(0.0, ge=0, lt=1)  # share of lr that it rises from
    clip: float = Field(0.0, ge=0)  # largest norm of the gradient; 0: no clipping
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights; 0: none
    precision: Literal["no", "bf16", "fp16"] = "no"
    evaluate_every: int | None = Field(None, ge=1)  # steps; None: one epoch
    patience: int | None = Field(None, ge=1)  # evaluations without a better score before the run stops


class Recipe(Part):
    """What the recipes of all tasks have in common; each task adds its `model` and its `loss`."""

    task: str
    name: str = "run"
    notes: str = ""
    seed: int = Field(0, ge=0)
    start: str | None = None  # a run or a shipped model whose weights and tokeniser this one begins with
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    train: TrainConfig = TrainConfig()
