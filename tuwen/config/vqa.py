"""Recipes of visual question answering: a question's encoder, its fusion with the regions, and the answers it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tuwen.config.captioning import RegionsConfig
from tuwen.config.parts import DataConfig, Part, Recipe


class AnswersConfig(Part):
    """The answers that the model chooses from, and what each is worth while it learns."""

    min_count: int = Field(9, ge=1)  # questions of which it is the commonest answer
    size: int | None = Field(None, ge=1)
    splits: list[str] = Field(["train"])  # or with val, as published for the leaderboard
    rule: Literal["official", "plain"] = "official"  # plain: case, width and spaces alone
    worth: Literal["official", "thirds"] = "official"


class VqaDataConfig(DataConfig):
    """Which questions a batch is made of; `train.batch_size` counts questions."""

    questions: int = Field(8, ge=1)  # of one picture that come together: its regions are read once for all
    sources: list[str] | None = None  # of questions to learn from; None: all (validation takes people's where it can)
    held_out: float = Field(0.1, gt=0, lt=1)  # of the training pictures, for validation, where the data has no val
    held_out_by: int = 0  # the draw of these pictures: the same for every seed, so that seeds compare and join


class QuestionConfig(Part):
    """How a question is read. A transformer takes `embedding` and `word_dropout` alone."""

    kind: Literal["gru", "lstm"] = "gru"
    embedding: int = Field(300, ge=1)
    vectors: str | None = None  # word vectors to start from: a text file of GloVe or word2vec
    layers: int = Field(1, ge=1)
    bidirectional: bool = False
    word_dropout: float = Field(0.0, ge=0, lt=1)
    question_dropout: float = Field(0.0, ge=0, lt=1)


class VqaImageConfig(RegionsConfig):
    """The picture side: `tower: regions` reads each picture's own file, at most `regions` of it."""

    features: Literal["pooled", "grid", "map"] = "grid"
    regions: int = Field(36, ge=1)


class AttentionConfig(Part):
    """joint: how the question weighs the regions."""

    kind: Literal["concat", "product"] = "product"
    dropout: float = Field(0.2, ge=0, lt=1)


class FusionConfig(Part):
    """fusion: the transformer."""

    layers: int = Field(3, ge=1)
    heads: int = Field(6, ge=1)
    feedforward: int = Field(768, ge=1)
    gates: int = Field(4, ge=0)  # counted glimpses beside the attention
    pointers: int = Field(0, ge=0)  # looks that follow one stretch of the question each, and compare places
    dropout: float = Field(0.1, ge=0, lt=1)


class ClassifierConfig(Part):
    """From the fused vector to the answers."""

    hidden: int | None = Field(None, ge=1)  # None: twice the width
    dropout: float = Field(0.5, ge=0, lt=1)


class VqaConfig(Part):
    """A picture and a question to an answer."""

    kind: Literal["joint", "fusion"] = "fusion"
    width: int = Field(384, ge=1)
    blind: bool = False  # regions have no part: the language-only baseline
    members: int = Field(1, ge=1)  # models of other seeds, whose log probabilities are averaged
    kinds: list[Literal["joint", "fusion"]] | None = None  # each member's, where they are not all of `kind`
    image: VqaImageConfig = VqaImageConfig()
    question: QuestionConfig = QuestionConfig()
    attention: AttentionConfig = AttentionConfig()
    fusion: FusionConfig = FusionConfig()
    classifier: ClassifierConfig = ClassifierConfig()

    @model_validator(mode="after")
    def _fits(self) -> VqaConfig:
        if self.kind == "fusion" and self.width % self.fusion.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.fusion.heads}")
        if self.kinds is not None and len(self.kinds) != self.members:
            raise ValueError(f"model.kinds names {len(self.kinds)} kinds for model.members={self.members}")
        if self.image.finetune and self.image.features != "grid":
            raise ValueError("a tower that is trained too gives its grid: features=grid")
        if self.members > 1 and self.image.finetune:
            raise ValueError("members share one frozen tower: model.members=1 or model.image.finetune=false")
        if self.image.tower == "regions" and (self.image.finetune or self.image.features != "grid"):
            raise ValueError("tower=regions reads kept features: leave finetune and features out")
        return self


class VqaLossConfig(Part):
    """Weights of the named loss parts, and their settings. A part of weight 0 is not computed."""

    bce: float = Field(0.0, ge=0)  # logistic loss on soft scores
    cross_entropy: float = Field(0.0, ge=0)  # softmax, on soft scores as shares
    smoothing: float = Field(0.0, ge=0, lt=1)  # of the softmax
    times_answers: bool = True  # as published

    @model_validator(mode="after")
    def _some_loss(self) -> VqaLossConfig:
        if not (self.bce or self.cross_entropy):
            raise ValueError("no loss has a weight above 0: set loss.bce or loss.cross_entropy")
        return self


class VqaRecipe(Recipe):
    """One run: `tuwen train RECIPE`."""

    task: Literal["vqa"] = "vqa"
    answers: AnswersConfig = AnswersConfig()
    data: VqaDataConfig = VqaDataConfig()
    model: VqaConfig = VqaConfig()
    loss: VqaLossConfig = VqaLossConfig(bce=1.0)
