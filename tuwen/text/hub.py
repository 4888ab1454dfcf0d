"""A Hugging Face tokeniser behind our interface, for pretrained text towers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tuwen.errors import ModelError
from tuwen.text.batch import Ids
from tuwen.text.words import split_words


class HubTokenizer:
    """A tokeniser by hub name or local folder. Making one imports transformers; this module does not.

    It always adds the start and end words its model was trained with, so `bos` and `eos` change nothing.
    """

    kind = "hub"

    def __init__(self, name: str | Path) -> None:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast

        try:
            try:
                self._hub = AutoTokenizer.from_pretrained(str(name))
            except ImportError:  # its slow form needs a package (SigLIP's: sentencepiece), its tokenizer.json does not
                self._hub = PreTrainedTokenizerFast.from_pretrained(str(name))
        except Exception as error:  # it raises whatever its parts raise, with pages of advice
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{name}: no tokeniser there ({why}); give a local folder or a hub name") from None
        if self._hub.pad_token is None:
            self._hub.pad_token = self._hub.eos_token
        self._hub.padding_side = "right"
        self.size = len(self._hub)
        self.pad_id = self._id("pad_token_id")
        self.unk_id = self._id("unk_token_id")
        self.bos_id = self._id("bos_token_id", "cls_token_id")
        self.eos_id = self._id("eos_token_id", "sep_token_id")

    def _id(self, *names: str) -> int:
        """The first special id that this tokeniser has; -1, which never occurs, where it has none."""
        found = (getattr(self._hub, name, None) for name in names)
        return next((int(i) for i in found if i is not None), -1)

    def encode(
        self, texts: Sequence[str], max_length: int = 64, *, bos: bool = False, eos: bool = False
    ) -> tuple[Ids, Ids]:
        """Ids (B, T) and lengths (B,), special words included."""
        if not texts:
            return np.zeros((0, 1), np.int64), np.zeros(0, np.int64)
        coded = self._hub(list(texts), padding=True, truncation=True, max_length=max_length, return_attention_mask=True)
        lengths = np.asarray(coded["attention_mask"], np.int64).sum(1)
        return np.asarray(coded["input_ids"], np.int64), lengths

    def decode(self, ids: Iterable[int]) -> str:
        """Text without the special words."""
        text: str = self._hub.decode([int(i) for i in ids], skip_special_tokens=True)
        return text.strip()

    def pieces(self, text: str) -> list[str]:
        """The pieces as they stand in its vocabulary."""
        return list(self._hub.tokenize(text))

    def unknown(self, text: str) -> list[str]:
        """Words that hold its unknown token."""
        unk = self._hub.unk_token
        return [word for word in split_words(text) if unk is not None and unk in self._hub.tokenize(word)]

    def save(self, folder: Path) -> None:
        """Write the files of `save_pretrained`; `load_tokenizer` reads them back."""
        self._hub.save_pretrained(str(folder))
