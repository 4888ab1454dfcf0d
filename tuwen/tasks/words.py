"""The vocabulary that every task shares the making of."""

from __future__ import annotations

from pathlib import Path

from tuwen.config import Recipe
from tuwen.dataset import Dataset
from tuwen.errors import ConfigError
from tuwen.tasks.pairs import read_captions
from tuwen.text import HubTokenizer, SubwordTokenizer, Tokenizer, WordTokenizer, set_dictionary


def train_tokenizer(recipe: Recipe, dataset: Dataset) -> Tokenizer:
    """The recipe's tokeniser, from the captions of its splits (the train split alone unless the recipe says more)."""
    config = recipe.tokenizer
    if config.kind == "hub":
        if not config.source:
            raise ConfigError("tokenizer.kind is hub: set tokenizer.source to a name or a folder")
        return HubTokenizer(config.source)
    set_dictionary(Path(config.dictionary) if config.dictionary else None)
    texts = [text for split in config.splits for text in read_captions(dataset.select(split), recipe.data.langs)[0]]
    if config.kind == "subword":
        return SubwordTokenizer.train(texts, size=config.size or 8000)
    return WordTokenizer.train(texts, min_count=config.min_count, max_size=config.size)
