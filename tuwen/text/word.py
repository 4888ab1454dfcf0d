"""A vocabulary of whole words: what the published recipes use."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tuwen.text.batch import SPECIAL, Ids, Special, pad_batch, read_json, write_files
from tuwen.text.words import HAN_RUN, dictionary, split_words


class WordTokenizer(Special):
    """Words of both languages, the commonest first (ties by the word), after the four special ones."""

    kind = "word"

    def __init__(self, words: Sequence[str], lines: str = "") -> None:
        self.words = [*SPECIAL, *words]
        self.lines = lines  # its own jieba words
        self.size = len(self.words)
        self._ids = {word: i for i, word in enumerate(self.words) if i >= len(SPECIAL)}

    @classmethod
    def train(cls, texts: Iterable[str], min_count: int = 1, max_size: int | None = None) -> WordTokenizer:
        """Keep words seen `min_count` times, of those the `max_size` commonest, without the special ones."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(split_words(text))
        order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return cls([word for word, count in order if count >= min_count][:max_size], dictionary())

    def pieces(self, text: str) -> list[str]:
        """The words of a text, known or not."""
        return split_words(text, lines=self.lines)

    def encode(
        self, texts: Sequence[str], max_length: int = 64, *, bos: bool = False, eos: bool = False
    ) -> tuple[Ids, Ids]:
        """Ids (B, T) and lengths (B,); the start and end words count towards `max_length`."""
        rows = ([self._ids.get(word, self.unk_id) for word in self.pieces(text)] for text in texts)
        return pad_batch(rows, max_length, bos, eos)

    def decode(self, ids: Iterable[int]) -> str:
        """Words up to the end word; no space between two Chinese words, nor before a clitic."""
        text, chinese = "", False
        for i in ids:
            if i == self.eos_id:
                break
            if i in (self.pad_id, self.bos_id):
                continue
            word = self.words[int(i)]
            was, chinese = chinese, HAN_RUN.search(word) is not None
            text += word if not text or word[0] == "'" or (was and chinese) else f" {word}"
        return text

    def unknown(self, text: str) -> list[str]:
        """Words of the text outside the vocabulary."""
        return [word for word in self.pieces(text) if word not in self._ids]

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` (words in order, its jieba words) and `tokenizer_config.json`."""
        body = {"words": self.words[len(SPECIAL) :], "dictionary": self.lines}
        text = json.dumps(body, ensure_ascii=False, indent=0) + "\n"
        write_files(folder, text, {"kind": self.kind, "size": self.size})

    @classmethod
    def load(cls, folder: Path) -> WordTokenizer:
        """Read what `save` wrote."""
        body = read_json(folder / "tokenizer.json")
        return cls(body["words"], body["dictionary"])
