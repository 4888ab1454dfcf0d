"""Text to numbers and back: words, subwords and Hugging Face tokenisers behind one interface. No torch here.

Two languages share one vocabulary. English words are lower-cased; Chinese is cut by jieba in exact mode, for
words always, for subwords only while training (encoding a query needs no jieba then). A vocabulary is built
from the texts given: give it those of `train` only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from tuwen.errors import ModelError
from tuwen.text.batch import SPECIAL, Ids, read_json
from tuwen.text.hub import HubTokenizer
from tuwen.text.subword import SubwordTokenizer
from tuwen.text.word import WordTokenizer
from tuwen.text.words import normalise, protocol, set_dictionary, split_words

__all__ = [
    "SPECIAL",
    "HubTokenizer",
    "Ids",
    "SubwordTokenizer",
    "Tokenizer",
    "WordTokenizer",
    "load_tokenizer",
    "normalise",
    "protocol",
    "set_dictionary",
    "split_words",
]


class Tokenizer(Protocol):
    """Text -> ids -> text. `encode`: right-padded ids (B, T), lengths (B,); int64, no length is 0."""

    @property
    def kind(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...
    @property
    def unk_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...

    def encode(
        self, texts: Sequence[str], max_length: int = 64, *, bos: bool = False, eos: bool = False
    ) -> tuple[Ids, Ids]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def pieces(self, text: str) -> list[str]: ...

    def unknown(self, text: str) -> list[str]: ...

    def save(self, folder: Path) -> None: ...


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokeniser of a folder, by `kind` in `tokenizer_config.json` (none there: a Hugging Face one).

    ModelError, in one line, where the files are missing or broken.
    """
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        raise ModelError(f"{path}: no such file; a tokeniser is tokenizer.json and tokenizer_config.json")
    try:
        kind = read_json(path).get("kind")
        if kind == "word":
            return WordTokenizer.load(folder)
        if kind == "subword":
            return SubwordTokenizer.load(folder)
    except Exception as error:  # `tokenizers` raises bare Exception
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{folder}: broken tokeniser files ({why}); copy them again or train again") from None
    if kind is not None:
        raise ModelError(f"{path}: unknown kind '{kind}'; it is 'word' or 'subword'")
    return HubTokenizer(folder)
