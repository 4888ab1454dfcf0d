"""What a small data set is judged by: pictures, identities and sentences that training never saw."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tuwen.dataset import Dataset, content_hashes, fill_splits
from tuwen.errors import DataError
from tuwen.files import sha256_text
from tuwen.records import Picture
from tuwen.text import normalise

LEAST = 50  # captioned pictures
LEAST_TRAIN, LEAST_TEST = 30, 20  # of them, in the data's own splits
SHARE, MOST = 0.3, 500  # held out where the data has no splits
CHOOSING, LEAST_VAL = 0.2, 10  # of what is left, to choose the step by
ENOUGH = 100  # test pictures that need no help from `val`
TRAIN, VAL, TEST = "train", "val", "test"
SIGNS = re.compile(r"\W+")


@dataclass(frozen=True)
class Holdout:
    """`data` holds the pictures of the parts in the data's order, `train`, `val` and `test` by their `split`.

    `rule`: how they were told apart. `repeated`: held-out captions left out because their sentence stands in training.
    `left_out`: captioned pictures in no part.
    """

    data: Dataset
    rule: str
    repeated: int
    left_out: int


def hold_out(dataset: Dataset, lang: str | None = None, seed: int = 0) -> Holdout:
    """Tell the pictures with human captions (of `lang`, or of any language) into three parts.

    Where the data names splits, and at least 30 such pictures are `train` and 20 are `test`, these are the parts;
    fewer than 100 in `test` are joined by `val`. Other splits stay out, as does a picture of an identity (`group`) or
    a content that stands in a part before it. Else 30% are `test`, at least 20 and at most 500, by a hash of seed and
    `group` (without one, of the content): equal pictures stay together. `val`, which chooses how long to train, is the
    data's own where it is free, else 20% of `train`, at least 10, drawn in the same way.

    A `test` caption is not scored where its sentence (case, width, spaces and punctuation aside) stands in `train` or
    `val`; its picture stays, among what the other captions search.

    Raises:
        DataError: fewer than 50 such pictures, or no held-out sentence is new.
    """
    captioned = _captioned(dataset, lang)
    spoken = f" in {lang}" if lang else ""
    if len(captioned) < LEAST:
        raise DataError(
            f"{dataset.folder}: {len(captioned)} pictures with human captions{spoken}: tuning needs at least {LEAST}; "
            "caption some more"
        )
    keys = _identities(captioned)
    named = any(picture.split for picture in captioned.pictures)
    if named:
        fill_splits(captioned)
    parts = _named_parts(captioned.pictures) if named else None
    if parts is not None:
        rule = "the data's own splits" + (", test and val together" if VAL in parts else "")
        told = [TEST if picture.split in parts else picture.split for picture in captioned.pictures]
    else:
        rule = f"by a hash of each picture's group or content, seed {seed}"
        held = _draw(keys, seed, SHARE, LEAST_TEST)
        told = [TEST if key in held else TRAIN for key in keys]
    if VAL not in told:
        learnt = [key for key, split in zip(keys, told, strict=True) if split == TRAIN]
        choosing = _draw(learnt, seed, CHOOSING, LEAST_VAL)
        told = [VAL if split == TRAIN and key in choosing else split for key, split in zip(keys, told, strict=True)]
    told = _apart(keys, told)
    kept = [i for i, split in enumerate(told) if split is not None]
    pictures = [captioned.pictures[i].model_copy(update={"split": told[i]}) for i in kept]
    repeated = _drop_repeated(pictures)
    if not any(picture.captions for picture in pictures if picture.split == TEST):
        raise DataError(
            f"{dataset.folder}: every held-out sentence{spoken} stands in training too, so nothing can be scored: "
            "give the pictures captions of their own"
        )
    data = replace(captioned, pictures=pictures, rows=[captioned.rows[i] for i in kept])
    return Holdout(data, rule, repeated, len(captioned) - len(kept))


def same_sentence(text: str) -> str:
    """What two captions have in common that say the same: no case, no width, no punctuation, single spaces."""
    return SIGNS.sub(" ", normalise(text)).strip()


def _captioned(dataset: Dataset, lang: str | None) -> Dataset:
    """The pictures with human captions of a language, with these alone."""
    chosen = [(i, picture.human(lang)) for i, picture in enumerate(dataset.pictures)]
    kept = [(i, captions) for i, captions in chosen if captions]
    return replace(
        dataset,
        pictures=[dataset.pictures[i].model_copy(update={"captions": captions}) for i, captions in kept],
        rows=[dataset.rows[i] for i, _ in kept],
    )


def _identities(dataset: Dataset) -> list[str]:
    """What must not stand in both parts: the group of each picture, else its content."""
    alone = [picture for picture in dataset.pictures if picture.group is None]
    contents = content_hashes(dataset, alone)
    return [
        f"content {next(contents)}" if picture.group is None else f"group {picture.group}"
        for picture in dataset.pictures
    ]


def _named_parts(pictures: list[Picture]) -> tuple[str, ...] | None:
    """The splits that are held out, where the data's own are large enough."""
    count = {name: sum(picture.split == name for picture in pictures) for name in (TRAIN, VAL, TEST)}
    parts = (TEST,) if count[TEST] >= ENOUGH or not count[VAL] else (TEST, VAL)
    enough = count[TRAIN] >= LEAST_TRAIN and sum(count[name] for name in parts) >= LEAST_TEST
    return parts if enough else None


def _draw(keys: list[str], seed: int, share: float, least: int) -> set[str]:
    """The identities of a share of the pictures."""
    wanted = min(MOST, max(least, round(share * len(keys))))
    held: set[str] = set()
    for key in sorted(set(keys), key=lambda key: sha256_text(f"{seed} {key}")):
        if sum(other in held for other in keys) >= wanted:
            break
        held.add(key)
    return held


def _apart(keys: list[str], told: list[str | None]) -> list[str | None]:
    """The parts without what stands in one before: no identity in two, and no split but the three."""
    known: set[str] = set()
    out: list[str | None] = [None] * len(told)
    for part in (TRAIN, VAL, TEST):
        rows = [i for i, split in enumerate(told) if split == part and keys[i] not in known]
        known.update(keys[i] for i in rows)
        for i in rows:
            out[i] = part
    return out


def _drop_repeated(pictures: list[Picture]) -> int:
    """Take the captions that `train` or `val` hold too from the `test` pictures; how many."""
    learnt = {same_sentence(c.text) for picture in pictures if picture.split != TEST for c in picture.captions}
    dropped = 0
    for picture in pictures:
        if picture.split == TEST:
            new = [caption for caption in picture.captions if same_sentence(caption.text) not in learnt]
            dropped += len(picture.captions) - len(new)
            picture.captions = new
    return dropped
