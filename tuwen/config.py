"""Recipes: what a run is made of, as validated models. Config stops here: modules take `width`, never `cfg`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tuwen.errors import ConfigError, suggest

RECIPES = Path(__file__).resolve().parent.parent / "recipes"


class Part(BaseModel):
    """Base of every part of a recipe: an unknown key is an error, never ignored."""

    model_config = ConfigDict(extra="forbid")


class TokenizerConfig(Part):
    """How sentences become ids; trained on the captions of `splits` alone."""

    kind: Literal["word", "subword", "hub"] = "word"
    min_count: int = Field(1, ge=1)
    size: int | None = Field(None, ge=8)  # largest vocabulary; None: no limit (subword: 8,000)
    source: str | None = None  # hub: name or folder
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


class ImageConfig(Part):
    """The picture encoder: a tower, a pooling over its grid and a projection."""

    tower: str = "lite2"
    size: int | None = Field(None, ge=16)  # input side; None: the tower's own
    weights: str | None = None  # a local torchvision state dict
    pretrained: bool = True
    features: Literal["pooled", "grid", "map"] = "pooled"  # map: the grid before the last 1x1 convolution
    pooling: Literal["mean", "topk", "gpo", "attention"] = (
        "mean"  # attention goes with the map, and trains what is above
    )
    topk: int = Field(5, ge=1)
    heads: int = Field(8, ge=1)
    hidden: int = Field(0, ge=0)  # a residual MLP of this width beside the linear projection; 0: none
    dropout: float = Field(0.0, ge=0, lt=1)
    region_dropout: float = Field(0.0, ge=0, lt=1)
    finetune: bool = False
    init: Literal["xavier", "normal", "default"] = "xavier"

    @model_validator(mode="after")
    def _attention_over_the_map(self) -> ImageConfig:
        if (self.features == "map") != (self.pooling == "attention"):
            raise ValueError("features=map and pooling=attention go together")
        if self.features == "map" and self.finetune:
            raise ValueError("features=map is for a frozen tower: finetune=false")
        return self


class RetrievalConfig(Part):
    """Two encoders into one space."""

    width: int = Field(1024, ge=1)
    image: ImageConfig = ImageConfig()
    text: TextConfig = TextConfig()
    scale: float = Field(14.3, gt=0)  # first logit scale, 1 / temperature
    max_scale: float = Field(100.0, gt=0)

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

    @model_validator(mode="after")
    def _some_loss(self) -> LossConfig:
        if not any((self.hinge, self.info_nce, self.n_pair, self.cmpm, self.cmpc, self.sdm)):
            raise ValueError("no loss has a weight above 0: set loss.hinge, loss.info_nce or another")
        return self


class TrainConfig(Part):
    """The loop's settings."""

    epochs: float = Field(10, gt=0)
    batch_size: int = Field(128, ge=1)
    optimiser: Literal["adam", "adamw", "adamax"] = "adam"
    lr: float = Field(2e-4, gt=0)
    tower_lr: float = Field(0.1, ge=0)  # factor on lr for a fine-tuned tower
    pretrained_lr: float = Field(1.0, ge=0)  # for the layers of a text model that was loaded
    words_lr: float = Field(1.0, ge=0)  # and for its word embeddings
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    step_epochs: float = Field(15, gt=0)
    gamma: float = Field(0.5, gt=0, le=1)
    floor: float = Field(0.0, ge=0)  # the learning rate never falls under it
    warmup: float = Field(0.0, ge=0)  # epochs of linear rise
    clip: float = Field(0.0, ge=0)  # largest norm of the gradient; 0: no clipping
    ema: float = Field(0.0, ge=0, lt=1)  # decay of the averaged weights; 0: none
    precision: Literal["no", "bf16", "fp16"] = "no"
    evaluate_every: int | None = Field(None, ge=1)  # steps; None: one epoch
    patience: int | None = Field(None, ge=1)  # evaluations without a better score before the run stops


class Recipe(Part):
    """One run: `tuwen train RECIPE`."""

    task: Literal["retrieval"] = "retrieval"
    name: str = "run"
    notes: str = ""
    seed: int = Field(0, ge=0)
    tokenizer: TokenizerConfig = TokenizerConfig()
    data: DataConfig = DataConfig()
    model: RetrievalConfig = RetrievalConfig()
    loss: LossConfig
    train: TrainConfig = TrainConfig()


def _leaves(part: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of a recipe that holds a value."""
    keys = []
    for name, field in part.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += _leaves(kind, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _full_key(key: str) -> str:
    """The dotted key that `key` means: itself, or the one key that ends in it."""
    keys = _leaves(Recipe)
    if key in keys:
        return key
    if key in Recipe.model_fields:
        first = next(k for k in keys if k.startswith(f"{key}."))
        raise ConfigError(f"recipe key '{key}' holds keys of its own: set one of them, as in {first}")
    ends = [k for k in keys if k.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(f"recipe key '{key}' could be {' or '.join(ends)}: write it in full")
    near = suggest(key, [*Recipe.model_fields, *keys]) or suggest(key, [k.rsplit(".", 1)[-1] for k in keys])
    raise ConfigError(f"unknown recipe key '{key}'{near or ': every key stands in ' + str(RECIPES)}")


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise ConfigError(f"recipe key '{parent}' should hold keys, but it is {tree!r}")
    tree[leaf] = value


def _explain(error: ValidationError, where: str) -> str:
    """The first fault of a recipe, on one line, with the nearest key where one is unknown."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown recipe key '{key}'{suggest(key, [*Recipe.model_fields, *_leaves(Recipe)])}"
    return f"{where}: {f'{key}: ' if key else ''}{fault['msg'].removeprefix('Value error, ')}"


def find_recipe(name: str) -> Path:
    """The file of a recipe: a path, or the name of one that comes with the project."""
    path = Path(name)
    if path.is_file():
        return path
    own = RECIPES / f"{path.stem}.yaml"
    if own.is_file() and path.parent == Path():
        return own
    names = sorted(file.stem for file in RECIPES.glob("*.yaml"))
    near = suggest(path.stem, names) or f": there are {', '.join(names)}"
    raise ConfigError(f"no recipe {name}{near}")


def load_recipe(name: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe and set `key=value` overrides; keys are dotted, or just their end where it is unique.

    Raises:
        ConfigError: no such file, bad YAML, an unknown key (the nearest is suggested) or a value out of range.
    """
    path = find_recipe(name)
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of keys, this is a {type(tree).__name__}")
    for override in overrides or []:
        key, found, value = override.partition("=")
        if not found:
            raise ConfigError(f"'{override}' is not key=value")
        try:
            _set(tree, _full_key(key.strip()), yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"'{override}': the value is not YAML") from error
    return parse_recipe(tree, str(path))


def parse_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from a plain dict; `where` names its file in messages."""
    try:  # a section left empty stands for its defaults
        return Recipe.model_validate({key: value for key, value in tree.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(_explain(error, where)) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every setting written out."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)
