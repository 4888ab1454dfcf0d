"""Pieces of words with a fallback to bytes, so that no word is unknown: what the shipped models use."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

from tuwen.errors import ConfigError
from tuwen.text.batch import SPECIAL, Ids, Special, pad_batch, read_json, write_files
from tuwen.text.words import HAN_RUN, SPACE, dictionary, normalise, segmenter, split_words

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
ENGLISH = {SPACE, *map(chr, range(0x21, 0x41)), *map(chr, range(0x5B, 0x7F))}  # ASCII without capitals
MIN_SIZE = len(SPECIAL) + len(BYTES) + 256
CUT = "\x1f"  # stands between two words that no merge may join; `normalise` leaves none in a text
# One digit, one run of Han, one word with the space before it, or one other sign: no piece spans two.
PIECE = r"▁?\p{N}|\p{Han}+|▁?[^▁\p{N}\p{Han}\p{P}\p{S}]+|▁?[^▁\p{Han}]|▁"


def mark_spaces(text: str) -> str:
    """Normalise and show the space before each word; none at a Chinese start: 狗 is one piece anywhere."""
    text = normalise(text)
    start = SPACE if text and not HAN_RUN.match(text) else ""
    return start + text.replace(" ", SPACE)


class SubwordTokenizer(Special):
    """Byte-pair encoding (Sennrich et al. 2016, arXiv:1508.07909) with SentencePiece's fallback to bytes.

    No text is unknown and `decode(encode(x)) == normalise(x)`. `seen` holds the words of the training texts,
    for one use: to warn about a query with a word that the model never met.
    """

    kind = "subword"

    def __init__(self, backend: str, seen: Iterable[str] = (), lines: str = "") -> None:
        # One thread is fast enough, and forked data workers then have nothing to complain about.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from tokenizers import Tokenizer as Backend

        self._backend = Backend.from_str(backend)
        self.size: int = self._backend.get_vocab_size()
        self.seen = frozenset(seen)
        self.lines = lines  # its own jieba words
        plain = {name: bytes([i]) for i, name in enumerate(BYTES)}
        plain.update(dict.fromkeys(SPECIAL, b""))
        tokens = [str(self._backend.id_to_token(i)) for i in range(self.size)]
        self._bytes = [plain.get(token, token.replace(SPACE, " ").encode()) for token in tokens]

    @classmethod
    def train(cls, texts: Iterable[str], size: int = 8000) -> SubwordTokenizer:
        """Learn at most `size` pieces, always the same ones. ConfigError where `size` is too small."""
        if size < MIN_SIZE:
            raise ConfigError(f"a subword vocabulary of {size} is too small: make it at least {MIN_SIZE}")
        lines, seen = _training_lines(texts)
        return cls(_learn(lines, size), seen, dictionary())

    def encode(
        self, texts: Sequence[str], max_length: int = 64, *, bos: bool = False, eos: bool = False
    ) -> tuple[Ids, Ids]:
        """Ids (B, T) and lengths (B,); the start and end words count towards `max_length`."""
        coded = self._backend.encode_batch([mark_spaces(text) for text in texts], add_special_tokens=False)
        return pad_batch((row.ids for row in coded), max_length, bos, eos)

    def decode(self, ids: Iterable[int]) -> str:
        """The normalised text up to the end word; bytes that make no character show as U+FFFD."""
        parts = []
        for i in ids:
            if i == self.eos_id:
                break
            parts.append(self._bytes[int(i)])
        return b"".join(parts).decode("utf-8", "replace").removeprefix(" ")

    def pieces(self, text: str) -> list[str]:
        """The pieces as they stand in the vocabulary (`▁` is a space, `<0xF0>` a byte)."""
        tokens: list[str] = self._backend.encode(mark_spaces(text), add_special_tokens=False).tokens
        return tokens

    def unknown(self, text: str) -> list[str]:
        """Words that no training text held. A Chinese word made of words that were held is no news."""
        return [word for word in split_words(text, lines=self.lines) if not self._composed(word)]

    def _composed(self, word: str) -> bool:
        if word in self.seen or not HAN_RUN.fullmatch(word):
            return word in self.seen
        return any(word[:i] in self.seen and self._composed(word[i:]) for i in range(1, len(word)))

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` (the format of `tokenizers`) and `tokenizer_config.json`, with `seen`."""
        seen = " ".join(sorted(self.seen))
        config = {"kind": self.kind, "size": self.size, "dictionary": self.lines, "seen": seen}
        write_files(folder, self._backend.to_str(pretty=False), config)

    @classmethod
    def load(cls, folder: Path) -> SubwordTokenizer:
        """Read what `save` wrote."""
        config = read_json(folder / "tokenizer_config.json")
        backend = (folder / "tokenizer.json").read_text("utf-8")
        return cls(backend, config["seen"].split(), config["dictionary"])


def _training_lines(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Marked texts with CUT between jieba's words, and all words seen."""
    lines: list[str] = []
    seen: set[str] = set()
    for text in texts:
        lines.append(HAN_RUN.sub(lambda run: CUT.join(segmenter(dictionary()).cut(run[0])), mark_spaces(text)))
        seen.update(split_words(text))
    return lines, seen


def _learn(lines: list[str], size: int) -> str:
    """Train the pieces; the tokeniser as the JSON of `tokenizers`."""
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    counts = Counter(chain.from_iterable(lines))
    # Beside English, the signs that come twice, the commonest first, in half of the room; the rest is bytes.
    others = sorted((c for c, n in counts.items() if n > 1 and c not in ENGLISH and c != CUT), key=str)
    others.sort(key=lambda c: -counts[c])
    alphabet = ENGLISH.union(others[: (size - len(SPECIAL) - len(BYTES) - len(ENGLISH)) // 2])
    split = pre_tokenizers.Split(Regex(PIECE), "isolated")
    learner = Backend(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(CUT, "removed"), split])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=[*SPECIAL, *BYTES],
        initial_alphabet=sorted(alphabet),
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    learner.train_from_iterator(lines, trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges = [(left, right) for left, right in learnt["merges"]]
    # Rebuilt without added tokens, so that a typed "<eos>" is five signs and nothing else.
    backend = Backend(models.BPE(learnt["vocab"], merges, unk_token=SPECIAL[1], byte_fallback=True))
    backend.pre_tokenizer = split
    text: str = backend.to_str()
    return text
