"""Recipes of drawing: a text encoder, a generator, what criticises it, and how a flow is sampled."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tuwen.config.parts import Part, Recipe


class DrawingTextConfig(Part):
    """The sentence encoder."""

    kind: Literal["small", "bert"] = "small"  # of our own, over one vocabulary; or a BERT with its own tokeniser
    source: str | None = None  # bert: `minilm`, `bert`, `bert-chinese`, or hf: and a hub name or local folder
    pretrained: bool = True  # bert: with its weights
    frozen: bool = False  # bert: not trained with the rest
    width: int = Field(128, ge=4)
    layers: int = Field(2, ge=1)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    word_dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _fits(self) -> DrawingTextConfig:
        if self.kind == "bert" and not self.source:
            raise ValueError("model.text.kind is bert: set model.text.source to a name or a folder")
        if self.kind == "small" and self.width % self.heads:
            raise ValueError(f"model.text.width {self.width} is no multiple of model.text.heads {self.heads}")
        return self


class GeneratorConfig(Part):
    """What draws."""

    kind: Literal["published", "gan", "flow"] = "flow"
    noise: int = Field(0, ge=0)  # published, gan: numbers drawn at random beside the sentence
    conditioning: int = Field(0, ge=0)  # published, gan: width of the Gaussian that a sentence becomes; 0: none
    width: int = Field(32, ge=8, multiple_of=8)  # gan: channels at full size
    patch: int | None = Field(None, ge=1)  # flow: pixels a side; None: such that a picture has 16 a side
    widths: tuple[int, int] = (96, 192)  # flow: channels at the finer and the coarser resolution
    blocks: tuple[int, int] = (1, 2)  # flow: residual blocks at each, down; as many up
    heads: int = Field(4, ge=1)
    hidden: float = Field(0.1, ge=0, lt=1)  # flow: share of sentences hidden while training, for guidance
    centre: float = -0.8  # flow: of the logit of the times while training; below 0: more noise
    spread: float = Field(1.0, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> GeneratorConfig:
        if any(width % 8 for width in self.widths) or self.widths[1] % self.heads:
            raise ValueError(f"widths {self.widths} must be multiples of 8, the second of heads {self.heads}")
        if self.kind == "gan" and not self.noise:
            raise ValueError("model.draw.kind is gan: it draws from noise: set model.draw.noise, as 100")
        return self


class CriticConfig(Part):
    """What looks at pictures while training."""

    width: int = Field(32, ge=8)  # channels at full size
    space: int = Field(128, ge=1)  # width of the space in which pictures and sentences are matched


class SamplingConfig(Part):
    """How a flow draws unless told."""

    steps: int = Field(12, ge=1)
    method: Literal["euler", "midpoint", "multistep"] = "multistep"
    shift: float = Field(3.0, gt=0)
    guidance: float = Field(2.0, ge=0)


class TextToImageConfig(Part):
    """A sentence to a picture."""

    size: Literal[16, 32, 64, 128] = 64
    text: DrawingTextConfig = DrawingTextConfig()
    draw: GeneratorConfig = GeneratorConfig()
    critic: CriticConfig = CriticConfig()
    sampling: SamplingConfig = SamplingConfig()
    tries: int = Field(1, ge=1, le=64)  # a picture is drawn so often at most, until it shows the flat shapes asked for


class DrawingLossConfig(Part):
    """Weights of the named loss parts, and their settings. A part of weight 0 is not computed."""

    flow: float = Field(0.0, ge=0)  # flow matching
    mse: float = Field(0.0, ge=0)  # of the drawn picture to the true one
    adversarial: float = Field(0.0, ge=0)  # of the generator; the critic's own part has weight 1
    kind: Literal["bce", "hinge"] = "hinge"  # of the adversarial parts
    penalty: float = Field(0.0, ge=0)  # on the critic's slope at true pairs (DF-GAN: 2)
    kl: float = Field(0.0, ge=0)  # of the conditioning Gaussian
    contrastive: float = Field(0.0, ge=0)  # drawn pictures with their sentences, by the matching part
    matching: float = Field(0.0, ge=0)  # true pictures with their sentences: retrieval, trained together
    critic_lr: float = Field(1.0, gt=0)  # factor on lr for the critic
    best: Literal["loss", "last"] = "loss"  # which model is kept: by validation loss, or the newest

    @model_validator(mode="after")
    def _some_loss(self) -> DrawingLossConfig:
        if not (self.flow or self.mse or self.adversarial):
            raise ValueError("no loss has a weight above 0: set loss.flow, loss.mse or loss.adversarial")
        if self.penalty and not self.adversarial:
            raise ValueError("loss.penalty is for a critic: set loss.adversarial too")
        if self.contrastive and not self.matching:
            raise ValueError("loss.contrastive needs loss.matching, which teaches the matching part on true pictures")
        return self


class TextToImageRecipe(Recipe):
    """One run: `tuwen train RECIPE`."""

    task: Literal["text-to-image"] = "text-to-image"
    model: TextToImageConfig = TextToImageConfig()
    loss: DrawingLossConfig

    @model_validator(mode="after")
    def _fits(self) -> TextToImageRecipe:
        flow, loss = self.model.draw.kind == "flow", self.loss
        if flow and (loss.mse or loss.adversarial or loss.kl or loss.contrastive or not loss.flow):
            raise ValueError("model.draw.kind is flow: its losses are loss.flow and loss.matching")
        if not flow and loss.flow:
            raise ValueError(f"loss.flow is for model.draw.kind=flow, not {self.model.draw.kind}")
        if loss.kl and not self.model.draw.conditioning:
            raise ValueError("loss.kl needs the Gaussian of model.draw.conditioning: set its width")
        if self.model.text.kind == "bert" and self.tokenizer.kind != "hub":
            raise ValueError("a BERT reads by its own tokeniser: tokenizer.kind=hub (its source is model.text.source)")
        return self
