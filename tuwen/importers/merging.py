"""Two data sets made one, picture by picture: how a second import joins the first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tuwen.dataset import Dataset, add_root, copied, feature_rows, free_name, pin, rebase
from tuwen.records import Manifest, Picture

T = TypeVar("T")


def places(dataset: Dataset, copies: dict[str, str]) -> list[str]:
    """Where each picture came from: one absolute path a picture, whatever its root is called.

    `copies` maps folders that hold copied pictures to the folders these came from.
    """
    bases = {name: dataset.root(name).resolve() for name in {p.root for p in dataset.pictures}}
    origins = [(os.path.realpath(dataset.folder / to) + os.sep, of) for to, of in copies.items()]
    found = []
    for picture in dataset.pictures:
        place = os.path.normpath(bases[picture.root] / picture.file_name)
        for prefix, origin in origins:
            if place.startswith(prefix):
                place = f"{origin}/{place[len(prefix) :]}"
        found.append(place)
    return found


@dataclass
class Joined:
    """What a merge did: rows added and rows met again, and what these gained."""

    added: int = 0
    met: int = 0
    captions: int = 0
    questions: int = 0
    kept_splits: list[str] = field(default_factory=list)  # pictures that came with another split than they have


def merge(a: Dataset, b: Dataset) -> Dataset:
    """The rows of `a`, then those of `b` that `a` lacks; a picture in both gains what only `b` says.

    `a` wins where they differ: splits that are there stay. Neither is changed.
    """
    return join(a, b)[0]


def join(a: Dataset, b: Dataset) -> tuple[Dataset, Joined]:
    """`merge`, with an account of it."""
    b = rebase(b, a.folder)
    manifest, done = a.manifest.model_copy(deep=True), Joined()
    roots = {name: add_root(manifest, a.folder, b.root(name)) for name in b.manifest.roots}
    named = _add_features(manifest, b)
    origins = {**copied(b.manifest), **copied(a.manifest)}
    extra = {
        **(b.manifest.model_extra or {}),
        **(a.manifest.model_extra or {}),
        **({"copied": origins} if origins else {}),
    }
    manifest = manifest.model_copy(update={"name": manifest.name or b.manifest.name, **extra})
    pictures = pin(a)
    at = {place: index for index, place in reversed(list(enumerate(places(a, origins))))}
    for picture, place in zip(pin(b), places(b, origins), strict=True):
        update: dict[str, Any] = {"root": roots.get(picture.root or "", picture.root)}
        if named:
            update["features"] = {named.get(name, name): row for name, row in feature_rows(picture).items()}
        picture = picture.model_copy(update=update)
        if place in at:
            pictures[at[place]] = _combine(pictures[at[place]], picture, done)
        else:
            at[place] = len(pictures)
            pictures.append(picture)
            done.added += 1
            done.captions += len(picture.captions)
            done.questions += len(picture.qa)
    return Dataset(a.folder, manifest, pictures), done


def _add_features(manifest: Manifest, b: Dataset) -> dict[str, str]:
    """Names of b's matrices in the joined manifest: the same name for the same file, else a free one."""
    named = {}
    for name, path in b.manifest.features.items():
        same = [known for known, place in manifest.features.items() if b.folder / place == b.folder / path]
        named[name] = same[0] if same else free_name(name, manifest.features)
        manifest.features[named[name]] = path
    return named


def _combine(old: Picture, new: Picture, done: Joined) -> Picture:
    captions = _unseen(old.captions, new.captions, lambda c: (" ".join(c.text.split()), c.lang, c.source))
    qa, rest = list(old.qa), []
    by_id = {question.id: index for index, question in enumerate(qa) if question.id is not None}
    for question in new.qa:
        index = by_id.get(question.id or "")
        if index is None or qa[index].question != question.question:
            rest.append(question)
        elif not qa[index].answers:  # asked in one file, answered in the next
            qa[index] = question
    rest = _unseen(qa, rest, lambda q: (q.question, tuple(q.answers), q.source))
    done.met, done.captions, done.questions = (
        done.met + 1,
        done.captions + len(captions),
        done.questions + len(rest),
    )
    if old.split and new.split and old.split != new.split:
        done.kept_splits.append(old.file_name)
    update = {
        **(new.model_extra or {}),
        **(old.model_extra or {}),
        "captions": old.captions + captions,
        "qa": qa + rest,
    }
    update.update({key: getattr(old, key) or getattr(new, key) for key in ("id", "split", "group")})
    update["regions"] = new.regions or old.regions  # as of features, those that come last are meant
    if features := {**feature_rows(old), **feature_rows(new)}:
        update["features"] = features
    if old.root is not None and new.root is None:  # it has been copied into the data set
        update.update(root=None, file_name=new.file_name)
    return old.model_copy(update=update)


def _unseen(old: list[T], new: list[T], key: Callable[[T], Hashable]) -> list[T]:
    """The items of `new` that `old` lacks. Two people may say the same: a text twice in `new` stays twice."""
    left = Counter(map(key, old))
    unseen = []
    for item in new:
        if left[key(item)] > 0:
            left[key(item)] -= 1
        else:
            unseen.append(item)
    return unseen
