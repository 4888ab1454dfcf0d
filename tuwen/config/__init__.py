"""Recipes: what a run is made of, as validated models. Config stops here: modules take `width`, never `cfg`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tuwen.config.adapter import AdapterConfig, AdapterRecipe
from tuwen.config.captioning import CaptioningConfig, CaptioningRecipe, CaptionLossConfig, RegionsConfig
from tuwen.config.parts import DataConfig, Recipe, TokenizerConfig, TowerConfig, TrainConfig
from tuwen.config.reranker import CrossConfig, RankingConfig, RerankerRecipe
from tuwen.config.retrieval import HubsConfig, ImageConfig, LossConfig, RetrievalConfig, RetrievalRecipe, TextConfig
from tuwen.config.text_to_image import (
    DrawingLossConfig,
    DrawingTextConfig,
    GeneratorConfig,
    TextToImageConfig,
    TextToImageRecipe,
)
from tuwen.config.vqa import VqaConfig, VqaRecipe
from tuwen.errors import ConfigError, suggest

__all__ = [
    "AdapterConfig",
    "AdapterRecipe",
    "CaptionLossConfig",
    "CaptioningConfig",
    "CaptioningRecipe",
    "CrossConfig",
    "DataConfig",
    "DrawingLossConfig",
    "DrawingTextConfig",
    "GeneratorConfig",
    "HubsConfig",
    "ImageConfig",
    "LossConfig",
    "RankingConfig",
    "Recipe",
    "RegionsConfig",
    "RerankerRecipe",
    "RetrievalConfig",
    "RetrievalRecipe",
    "TextConfig",
    "TextToImageConfig",
    "TextToImageRecipe",
    "TokenizerConfig",
    "TowerConfig",
    "TrainConfig",
    "VqaConfig",
    "VqaRecipe",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "parse_recipe",
]

RECIPES = Path(__file__).resolve().parent.parent.parent / "recipes"
KINDS: dict[str, type[Recipe]] = {
    "retrieval": RetrievalRecipe,
    "captioning": CaptioningRecipe,
    "vqa": VqaRecipe,
    "text-to-image": TextToImageRecipe,
    "adapter": AdapterRecipe,
    "reranker": RerankerRecipe,
}


def _kind(tree: dict[str, Any], where: str) -> type[Recipe]:
    """The recipe model of the task that a tree names; retrieval where it names none."""
    task = tree.get("task", "retrieval")
    if not isinstance(task, str) or task not in KINDS:
        near = suggest(str(task), list(KINDS))
        raise ConfigError(f"{where}: unknown task '{task}'{near or ': there are ' + ', '.join(KINDS)}")
    return KINDS[task]


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


def _full_key(key: str, kind: type[Recipe]) -> str:
    """The dotted key that `key` means: itself, or the one key that ends in it."""
    keys = _leaves(kind)
    if key in keys:
        return key
    if key in kind.model_fields:
        first = next(k for k in keys if k.startswith(f"{key}."))
        raise ConfigError(f"recipe key '{key}' holds keys of its own: set one of them, as in {first}")
    ends = [k for k in keys if k.endswith(f".{key}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(f"recipe key '{key}' could be {' or '.join(ends)}: write it in full")
    near = suggest(key, [*kind.model_fields, *keys]) or suggest(key, [k.rsplit(".", 1)[-1] for k in keys])
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


def _explain(error: ValidationError, where: str, kind: type[Recipe]) -> str:
    """The first fault of a recipe, on one line, with the nearest key where one is unknown."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{where}: unknown recipe key '{key}'{suggest(key, [*kind.model_fields, *_leaves(kind)])}"
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
    kind = _kind(tree, str(path))
    for override in overrides or []:
        key, found, value = override.partition("=")
        if not found:
            raise ConfigError(f"'{override}' is not key=value")
        try:
            _set(tree, _full_key(key.strip(), kind), yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise ConfigError(f"'{override}': the value is not YAML") from error
    return parse_recipe(tree, str(path))


def parse_recipe(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from a plain dict; `where` names its file in messages."""
    kind = _kind(tree, where)
    try:  # a section left empty stands for its defaults
        return kind.model_validate({key: value for key, value in tree.items() if value is not None})
    except ValidationError as error:
        raise ConfigError(_explain(error, where, kind)) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every setting written out."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)
