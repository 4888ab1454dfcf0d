"""Pictures with their captions, made into batches: each picture once, with several of its captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.tasks.pictures import PictureSource
from tuwen.text import Tokenizer

Ints = NDArray[np.int64]


@dataclass
class Pairs:
    """One split: n pictures and m captions.

    `owner` (m,) is each caption's picture, `groups` (n,) each picture's identity, `langs` (m,) each caption's language.
    """

    pictures: PictureSource
    ids: list[Ints]
    owner: Ints
    langs: NDArray[np.str_]
    groups: Ints
    captions: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.groups)


def group_labels(dataset: Dataset) -> Ints:
    """(n,) identity of each picture: its `group` where it has one, else itself; numbered in order of first sight."""
    seen: dict[str, int] = {}
    keys = [f"g {p.group}" if p.group is not None else f"p {i}" for i, p in enumerate(dataset.pictures)]
    return np.array([seen.setdefault(key, len(seen)) for key in keys], dtype=np.int64)


def read_captions(
    dataset: Dataset, langs: list[str] | None, max_words: int | None = None
) -> tuple[list[str], Ints, NDArray[np.str_]]:
    """Human captions of a data set: texts (m,), owners (m,), languages (m,)."""
    texts, owner, spoken = [], [], []
    for index, picture in enumerate(dataset.pictures):
        for caption in picture.human():
            if langs is not None and caption.lang not in langs:
                continue
            if max_words is not None and len(caption.text.split()) > max_words:
                continue
            texts.append(caption.text)
            owner.append(index)
            spoken.append(caption.lang)
    if not texts:
        raise DataError(
            f"{dataset.folder}: no human caption{f' in {langs}' if langs else ''} to learn from: import some"
        )
    return texts, np.array(owner, dtype=np.int64), np.array(spoken)


def encode_captions(texts: list[str], tokenizer: Tokenizer, max_tokens: int, framed: bool = False) -> list[Ints]:
    """Token ids of each caption, without padding, `framed` by the start and the end word."""
    ids, lengths = tokenizer.encode(texts, max_tokens, bos=framed, eos=framed)
    return [row[:n] for row, n in zip(ids, lengths, strict=True)]


def bilingual(pairs: Pairs, frame: Sequence[int] = ()) -> tuple[list[Ints], list[Ints]]:
    """Each Chinese caption's ids, and the ids that the English captions of its picture use; without `frame`."""
    words = [ids[~np.isin(ids, frame)] for ids in pairs.ids]
    english: dict[int, list[Ints]] = {}
    for owner, lang, ids in zip(pairs.owner, pairs.langs, words, strict=True):
        if lang == "en":
            english.setdefault(int(owner), []).append(ids)
    used = {owner: np.unique(np.concatenate(rows)) for owner, rows in english.items()}
    both = [
        (ids, used[int(owner)])
        for owner, lang, ids in zip(pairs.owner, pairs.langs, words, strict=True)
        if lang == "zh" and int(owner) in used
    ]
    return [ids for ids, _ in both], [ids for _, ids in both]


def pad(rows: Sequence[Ints], value: int) -> tuple[Tensor, Tensor]:
    """Rows of ids -> (B, T) padded ids, (B,) lengths."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), value, dtype=torch.long)
    for line, row in zip(ids, rows, strict=True):
        line[: len(row)] = torch.from_numpy(row)
    return ids, lengths


class PairBatches(TorchDataset[dict[str, Tensor]]):
    """The batches of one epoch, each a function of (seed, epoch, index) alone, so that a resumed run sees the same.

    In an epoch every picture comes `rounds` times, each time with the next `captions` of its captions of each language
    in an order drawn for this epoch; missing ones are repeated, surplus ones wait for another epoch.

    Args:
        batch_size: pictures a step over all processes; this process takes its share.
    """

    def __init__(
        self,
        pairs: Pairs,
        captions: int,
        batch_size: int,
        seed: int,
        pad_id: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pairs, self.captions, self.seed, self.pad_id = pairs, captions, seed, pad_id
        self.rank, self.world = rank, world
        by_picture: list[dict[str, list[int]]] = [{} for _ in range(len(pairs))]
        for caption, (owner, lang) in enumerate(zip(pairs.owner, pairs.langs, strict=True)):
            by_picture[owner].setdefault(str(lang), []).append(caption)
        self.by_picture = by_picture
        self.usable = np.array([i for i, own in enumerate(by_picture) if own], dtype=np.int64)
        most = max(len(own) for langs in by_picture for own in langs.values())
        self.rounds = max(1, round(most / captions)) if captions < most else 1
        self.batch_size = min(batch_size, len(self.usable))
        if self.batch_size < world or self.batch_size % world:
            raise DataError(f"train.batch_size={self.batch_size} does not divide among {world} processes")
        self.neighbours: Ints | None = None
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the epoch's order; with `neighbours` (n, k), hard pictures come together in a batch."""
        self.epoch = epoch
        rounds = []
        for number in range(self.rounds):
            draw = np.random.default_rng((self.seed, epoch, number))
            order = draw.permutation(self.usable)
            rounds.append(order if self.neighbours is None else _cluster(order, self.neighbours))
        self.order = rounds

    @property
    def per_round(self) -> int:
        return len(self.usable) // self.batch_size  # the last, smaller batch waits for the next draw

    def __len__(self) -> int:
        return self.rounds * self.per_round

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number, place = divmod(index, self.per_round)
        whole = self.order[number][place * self.batch_size : (place + 1) * self.batch_size]
        share = self.batch_size // self.world
        rows = whole[self.rank * share : (self.rank + 1) * share]
        draw = np.random.default_rng((self.seed, self.epoch, index, self.rank, 1))
        chosen, owner = [], []
        for place_in_batch, row in enumerate(rows):
            shuffle = np.random.default_rng((self.seed, self.epoch, int(row), 2))
            for captions in self.by_picture[row].values():
                mixed = shuffle.permutation(captions)
                first = number * self.captions
                chosen += [mixed[(first + i) % len(mixed)] for i in range(self.captions)]
                owner += [place_in_batch] * self.captions
        ids, lengths = pad([self.pairs.ids[c] for c in chosen], self.pad_id)
        labels = torch.from_numpy(self.pairs.groups[rows])
        owners = torch.tensor(owner)
        return {
            "pictures": self.pairs.pictures.gather(rows, draw),
            "ids": ids,
            "lengths": lengths,
            "rows": torch.from_numpy(rows),  # (P,) the pictures' places in the split
            "captions": torch.tensor(chosen),  # (C,) the captions' places in the split
            "owner": owners,  # (C,)
            "labels": labels,  # (P,)
            "caption_labels": labels[owners],  # (C,)
            "caption_zh": torch.tensor([self.pairs.langs[c] == "zh" for c in chosen]),  # (C,)
        }


def _cluster(order: Ints, neighbours: Ints) -> Ints:
    """The pictures of `order`, each followed by those of its hard neighbours that were not placed before."""
    placed, out = set[int](), []
    wanted = set(order.tolist())
    for row in order.tolist():
        for near in (row, *neighbours[row].tolist()):
            if near in wanted and near not in placed:
                placed.add(near)
                out.append(near)
    return np.array(out, dtype=np.int64)
