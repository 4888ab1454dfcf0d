"""The vocabulary that every task shares the making of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tuwen.config import Recipe, TokenizerConfig
from tuwen.dataset import Dataset
from tuwen.errors import ConfigError
from tuwen.tasks.pairs import read_captions
from tuwen.text import HubTokenizer, SubwordTokenizer, Tokenizer, WordTokenizer, set_dictionary


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """The recipe's tokeniser, from these texts."""
    if config.kind == "hub":
        if not config.source:
            raise ConfigError("tokenizer.kind is hub: set tokenizer.source to a name or a folder")
        return HubTokenizer(config.source)
    set_dictionary(Path(config.dictionary) if config.dictionary else None)
    if config.kind == "subword":
        return SubwordTokenizer.train(list(texts), size=config.size or 8000)
    return WordTokenizer.train(list(texts), min_count=config.min_count, max_size=config.size)


def caption_texts(recipe: Recipe, dataset: Dataset) -> Iterator[str]:
    """The captions that a tokeniser is trained on: of its splits, the train split alone unless the recipe says more."""
    for split in recipe.tokenizer.splits:
        yield from read_captions(dataset.select(split), recipe.data.langs)[0]
