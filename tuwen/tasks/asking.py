"""Questions about pictures, made into batches: those of one picture come together, so that it is read once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from tuwen.dataset import Dataset, content_hashes
from tuwen.errors import DataError
from tuwen.files import sha256_text
from tuwen.records import Question, guess_language
from tuwen.tasks.pairs import pad
from tuwen.tasks.pictures import PictureSource
from tuwen.tasks.regions import RegionFiles
from tuwen.text import Tokenizer
from tuwen.text.answers import AnswerVocabulary, Worth

Ints = NDArray[np.int64]

POOL = 16  # batches among which questions are sorted by length

OWN_SPLIT = "the data's own val split"


def read_questions(
    dataset: Dataset, langs: list[str] | None = None, sources: list[str] | None = None, max_words: int | None = None
) -> tuple[list[Question], Ints]:
    """The answered questions of a data set and each one's picture (m,); none is no error."""
    asked, owner = [], []
    for index, picture in enumerate(dataset.pictures):
        for question in picture.qa:
            if not question.answers or (sources is not None and question.source not in sources):
                continue
            if langs is not None and guess_language(question.question) not in langs:
                continue
            if max_words is not None and len(question.question.split()) > max_words:
                continue
            asked.append(question)
            owner.append(index)
    return asked, np.array(owner, dtype=np.int64)


def keep_asked(dataset: Dataset, source: str | None = None) -> Dataset:
    """The pictures that have an answered question, of that source where one is named: no other needs features."""

    def told(question: Question) -> bool:
        return bool(question.answers) and source in {None, question.source}

    return _take(dataset, [i for i, picture in enumerate(dataset.pictures) if any(map(told, picture.qa))])


def _take(dataset: Dataset, kept: Sequence[int]) -> Dataset:
    return replace(dataset, pictures=[dataset.pictures[i] for i in kept], rows=[dataset.rows[i] for i in kept])


def _join(one: Dataset, other: Dataset) -> Dataset:
    return replace(one, pictures=one.pictures + other.pictures, rows=[*one.rows, *other.rows])


def hold_out(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The pictures of a part, told into those to learn from and those to validate on, `share` of them.

    By a hash of seed and `group`, without one of the content: no picture, nor its copy, is in both.

    Raises:
        DataError: fewer than two pictures.
    """
    keys = [f"g {picture.group}" if picture.group is not None else "" for picture in dataset.pictures]
    lone = [i for i, key in enumerate(keys) if not key]
    for i, digest in zip(lone, content_hashes(dataset, [dataset.pictures[i] for i in lone]), strict=True):
        keys[i] = digest
    different = set(keys)
    if len(different) < 2:
        raise DataError(f"{dataset.folder}: {len(different)} training pictures with answered questions: 2 at least")
    order = sorted(different, key=lambda key: sha256_text(f"{seed} {key}"))
    held = set(order[: min(len(order) - 1, max(1, round(share * len(order))))])
    learn, keep = ([i for i, key in enumerate(keys) if (key in held) is wanted] for wanted in (False, True))
    return _take(dataset, learn), _take(dataset, keep)


def tell_apart(dataset: Dataset, share: float, seed: int) -> tuple[dict[str, Dataset], str]:
    """The pictures with questions to learn from (`train`) and to validate on (`val`), and how they were told apart.

    By the data's own splits where its `val` has questions of people, or nobody's are in `train` either; else part of
    the training pictures that people asked about is held out, for what people ask is what a model is judged by.
    """
    train = keep_asked(dataset.select("train"))
    val = keep_asked(dataset.select("val")) if "val" in dataset.splits() else _take(dataset, [])
    asked = keep_asked(train, "human")
    if len(val) and (len(keep_asked(val, "human")) or not len(asked)):
        return {"train": train, "val": val}, OWN_SPLIT
    asked = asked if len(asked) else train
    learn, held = hold_out(asked, share, seed)
    rows = set(asked.rows)
    rest = _take(train, [i for i, row in enumerate(train.rows) if row not in rows])
    rule = f"{len(held)} of {len(asked)} train pictures, by a hash of seed {seed} and group or content"
    return {"train": _join(rest, learn), "val": _join(held, val)}, rule


@dataclass
class Asked:
    """One split: n pictures and m questions; `owner` (m,) is each one's picture, `targets` the worth of its answers."""

    pictures: PictureSource
    questions: list[Question]
    owner: Ints
    ids: list[Ints]
    targets: list[list[tuple[int, float]]]

    def __len__(self) -> int:
        return len(self.questions)

    @cached_property
    def answers(self) -> list[list[str]]:
        """What people said to each question. Kept: half a million questions are not read through at each access."""
        return [question.answers for question in self.questions]

    def batch(
        self, chosen: Sequence[int], answers: int, pad_id: int, draw: np.random.Generator | None
    ) -> dict[str, Tensor]:
        """Questions with their pictures, each once: `owner` (B,) is the row of `pictures` that a question is about."""
        rows, owner = np.unique(self.owner[list(chosen)], return_inverse=True)
        ids, lengths = pad([self.ids[q] for q in chosen], pad_id)
        scores = torch.zeros(len(chosen), answers)
        for line, q in zip(scores, chosen, strict=True):
            for answer, worth in self.targets[q]:
                line[answer] = worth
        source = self.pictures
        seen = source.read(rows) if isinstance(source, RegionFiles) else {"pictures": source.gather(rows, draw)}
        return {**seen, "ids": ids, "lengths": lengths, "owner": torch.from_numpy(owner), "scores": scores}

    def walk(self, size: int, only: Sequence[int] | None = None) -> Iterator[list[int]]:
        """All questions, or those of `only`, in the order of their pictures, about `size` at a time."""
        order = sorted(range(len(self)) if only is None else only, key=lambda q: (self.owner[q], q))
        for start in range(0, len(order), size):
            yield order[start : start + size]


def encode_questions(
    pictures: PictureSource,
    questions: list[Question],
    owner: Ints,
    tokenizer: Tokenizer,
    vocabulary: AnswerVocabulary,
    max_tokens: int,
    worth: Worth,
) -> Asked:
    """A split as ids and targets."""
    ids, lengths = tokenizer.encode([question.question for question in questions], max_tokens)
    rows = [row[:n] for row, n in zip(ids, lengths, strict=True)]
    targets = [vocabulary.targets(question.answers, worth) for question in questions]
    return Asked(pictures, questions, owner, rows, targets)


class QuestionBatches(TorchDataset[dict[str, Tensor]]):
    """The batches of one epoch, each a function of (seed, epoch, index) alone, so that a resumed run sees the same.

    In an epoch every question comes once; up to `together` of a picture's questions stand side by side, drawn anew each
    time. Questions of which no answer is known teach nothing and stay out.

    Args:
        batch_size: questions a step over all processes; this process takes its share.
    """

    def __init__(
        self,
        asked: Asked,
        answers: int,
        together: int,
        batch_size: int,
        seed: int,
        pad_id: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.asked, self.answers, self.together, self.seed, self.pad_id = asked, answers, together, seed, pad_id
        self.rank, self.world = rank, world
        by_picture: dict[int, list[int]] = {}
        for question, owner in enumerate(asked.owner.tolist()):
            if asked.targets[question]:
                by_picture.setdefault(owner, []).append(question)
        self.by_picture = list(by_picture.values())
        self.count = sum(map(len, self.by_picture))
        self.batch_size = min(batch_size, self.count)
        if self.batch_size < world or self.batch_size % world:
            raise DataError(f"train.batch_size={self.batch_size} does not divide among {world} processes")
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the epoch's order."""
        self.epoch = epoch
        draw = np.random.default_rng((self.seed, epoch))
        handfuls = []
        for own in self.by_picture:
            mixed = draw.permutation(own).tolist()
            handfuls += [mixed[start : start + self.together] for start in range(0, len(mixed), self.together)]
        mixed_handfuls = [handfuls[place] for place in draw.permutation(len(handfuls))]
        # Questions of about one length share a batch, for all are padded to the longest; the batches come in any order.
        window = max(1, POOL * self.batch_size // self.together)
        order: list[int] = []
        for start in range(0, len(mixed_handfuls), window):
            near = sorted(mixed_handfuls[start : start + window], key=self._longest, reverse=bool(draw.integers(2)))
            order += [question for handful in near for question in handful]
        size, full = self.batch_size, len(self)
        shuffled = [question for i in draw.permutation(full) for question in order[i * size : (i + 1) * size]]
        self.order = shuffled + order[full * size :]

    def _longest(self, handful: list[int]) -> int:
        return max(len(self.asked.ids[question]) for question in handful)

    def __len__(self) -> int:
        return self.count // self.batch_size  # the last, smaller batch waits for the next draw

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        share = self.batch_size // self.world
        first = index * self.batch_size + self.rank * share
        draw = np.random.default_rng((self.seed, self.epoch, index, self.rank, 1))
        return self.asked.batch(self.order[first : first + share], self.answers, self.pad_id, draw)
