"""Adapting a retrieval model to a small captioned folder, and saying truthfully whether that brought anything."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuwen import __version__, checkpoint, pipelines, train
from tuwen import dataset as datasets
from tuwen.config import Recipe, parse_recipe
from tuwen.dataset import Dataset
from tuwen.errors import ConfigError, DataError
from tuwen.evaluate.retrieval import protocol
from tuwen.files import write_atomic
from tuwen.holdout import TEST, TRAIN, VAL, Holdout, hold_out
from tuwen.metrics.gain import Gain, recall_gain
from tuwen.metrics.retrieval import CUTS, Scores, retrieval_metrics
from tuwen.pipelines import Embedder, Vectors
from tuwen.progress import track
from tuwen.tasks.adapter import PICTURES, SENTENCES

RESULT, DATA = "tune.json", "data"  # in the run: what came out, and the parts that it was trained and judged on
KEYS = tuple(f"{way}_r{k}" for way in ("i2t", "t2i") for k in CUTS)
SHOWN = 12  # pictures that got better, and as many that got worse
HITS = 3  # captions that are shown for each
STEPS, BATCH, EVERY = 200, 256, 5  # steps in all, pictures a step, steps between two looks at `val`
RATE = 0.5  # learning rate times width: a step then turns vectors of any width about as far


@dataclass(frozen=True)
class Judged:
    """One model on the held-out part: its scores, and the vectors behind them."""

    scores: Scores
    pictures: Vectors  # (n, d)
    sentences: Vectors  # (m, d)
    per_language: dict[str, dict[str, float]]


def tune(
    data: Path,
    model: str,
    out: Path,
    *,
    lang: str | None = None,
    epochs: float | None = None,
    seed: int = 0,
    resume: bool = False,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Adapt a model to a data set of at least 50 captioned pictures; the `tune` contract of DESIGN.

    The model (shipped, a run, or an `hf:` model) stays as it is, and a residual linear map is trained on its vectors,
    one a side, through `train.fit`. The learning rate rises slowly from nothing, so that the model's vectors move a
    little at first and far later; `val` chooses how far. `test` chooses nothing: before and after are fair
    (`holdout.hold_out` draws the parts). The run folder loads as any other; it also holds `tune.json` (this result), a
    model card and `data/`, the three parts as a data set.

    Raises:
        DataError, ConfigError, ModelError: bad input, said in one line, before anything is written.
    """
    if not resume and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists already: name another --out, delete it, or go on with it by --resume")
    base = pipelines.as_embedder(pipelines.load(model))
    held = hold_out(datasets.read(data), lang, seed)
    test = held.data.select(TEST)
    recipe = make_recipe(base, held, out.name, epochs, seed)
    vectors = embed(base, held.data)
    before = judge(test, *_part(held.data, TEST, *vectors))
    with tempfile.TemporaryDirectory(prefix="tuwen-tune-") as folder:
        write_parts(held.data, Path(folder), *vectors)
        summary = train.fit(recipe, Path(folder), out, resume=resume, cache=cache)
    tuned = pipelines.as_embedder(pipelines.load(str(out)))
    after = judge(test, *embed(tuned, test))
    labels = np.unique([p.group or f"\0{i}" for i, p in enumerate(test.pictures)], return_inverse=True)[1]
    gain = recall_gain(before.scores, after.scores, labels)
    result = _tell(base, out, held, before, after, gain, summary)
    datasets.save(held.data, out / DATA)
    captions = sum(len(picture.captions) for picture in test.pictures)
    result["protocol"] = protocol(tuned, test, captions) | {"held_out": held.rule}
    result |= _changed(test, before, after)
    write_atomic(out / RESULT, json.dumps(result, ensure_ascii=False, indent=2))
    write_atomic(out / "README.md", card(result))
    return result


def judge(test: Dataset, pictures: Vectors, sentences: Vectors) -> Judged:
    """The scores of a model's vectors, (n, d) and (m, d), both ways: all languages together, and each alone."""
    texts = [(i, caption) for i, caption in test.captions()]
    owner = np.array([i for i, _ in texts])
    langs = np.array([caption.lang for _, caption in texts])
    groups = [picture.group for picture in test.pictures]
    alone = {}
    for lang in sorted(set(langs.tolist())):
        chosen = langs == lang
        alone[lang] = _recalls(retrieval_metrics(pictures, sentences[chosen], owner[chosen], groups))
    return Judged(retrieval_metrics(pictures, sentences, owner, groups), pictures, sentences, alone)


def embed(pipeline: Embedder, part: Dataset) -> tuple[Vectors, Vectors]:
    """(n, d) of the pictures and (m, d) of their captions."""
    paths = [part.path(picture) for picture in part.pictures]
    pictures = pipeline.embed_images(track(paths, len(paths), "pictures"))
    return pictures, pipeline.embed_texts([caption.text for _, caption in part.captions()])


def _part(data: Dataset, split: str, pictures: Vectors, sentences: Vectors) -> tuple[Vectors, Vectors]:
    """Of the vectors of all parts those of one."""
    rows = np.array([picture.split == split for picture in data.pictures])
    return pictures[rows], sentences[rows[[i for i, _ in data.captions()]]]


def _recalls(scores: Scores) -> dict[str, float]:
    return {key: round(scores.metrics[key], 2) for key in (*KEYS, "rsum")}


# What is trained ---------------------------------------------------------------------------------------------------


def make_recipe(base: Embedder, held: Holdout, name: str, epochs: float | None, seed: int) -> Recipe:
    """The recipe of a tuning. ConfigError where the base can't look at pictures."""
    if getattr(base, "precomputed", False):
        raise ConfigError(
            f"{base.name}: trained on a feature matrix, so it can't look at pictures: name another --from"
        )
    learnt = held.data.select(TRAIN)
    captions = sum(len(picture.captions) for picture in learnt.pictures)
    batch = min(BATCH, len(learnt))
    passes = epochs or _epochs(learnt, batch)
    tree = {
        "task": "adapter",
        "name": name,
        "notes": (
            f"Tuned from {base.name} ({base.fingerprint}) on {len(learnt)} pictures with {captions} captions of "
            f"{learnt.manifest.name or learnt.folder.name}."
        ),
        "seed": seed,
        "data": {"captions": 1},
        "model": {"base": _reference(base), "fingerprint": base.fingerprint},
        "loss": {"smoothing": 0.05},
        "train": {
            "epochs": passes,
            "batch_size": batch,
            "optimiser": "adamw",
            "lr": RATE / base.dim,
            "weight_decay": 0.1,
            "schedule": "cosine",
            "warmup": passes / 2,
            "evaluate_every": EVERY,
        },
    }
    return parse_recipe(tree, "tune")


def _reference(base: Embedder) -> str:
    """How a run names the model that it was tuned from, so that it is found again from any folder."""
    folder: Path | None = getattr(base, "folder", None)
    if folder is None or base.name.startswith(pipelines.HUB):
        return base.name
    return folder.name if folder.parent == checkpoint.SHIPPED else str(folder.resolve())


def _epochs(learnt: Dataset, batch: int) -> float:
    """Passes over the captions that take about `STEPS` steps: at least 2, at most 30."""
    langs = {caption.lang for picture in learnt.pictures for caption in picture.captions}
    most = max(len(picture.human(lang)) for picture in learnt.pictures for lang in langs)
    return float(min(30, max(2, round(STEPS / (most * (len(learnt) // batch))))))


def write_parts(data: Dataset, folder: Path, pictures: Vectors, sentences: Vectors) -> None:
    """The data set as the loop wants it: the vectors of the base are its features."""
    datasets.save(data, folder)
    parts = datasets.read(folder)
    most = max(len(picture.captions) for picture in parts.pictures)
    by_picture = np.zeros((len(parts), most, sentences.shape[1]), np.float32)
    place = 0
    for row, picture in zip(by_picture, parts.pictures, strict=True):
        count = len(picture.captions)
        row[:count] = sentences[place : place + count]
        place += count
    for name, matrix in ((PICTURES, pictures), (SENTENCES, by_picture)):
        np.save(folder / f"{name}.npy", matrix)
        parts.manifest.features[name] = f"{name}.npy"
    datasets.save(parts)


# What came out -----------------------------------------------------------------------------------------------------


def _tell(
    base: Embedder, out: Path, held: Holdout, before: Judged, after: Judged, gain: Gain, summary: dict[str, Any]
) -> dict[str, Any]:
    """The contract's keys, and what it takes to believe them."""
    test, learnt = held.data.select(TEST), held.data.select(TRAIN)
    improved = gain.verdict == "improved"
    result = {
        "task": "retrieval",
        "from": base.name,
        "from_fingerprint": base.fingerprint,
        "run": str(out),
        "data": held.data.manifest.name or held.data.folder.name,
        "before": _recalls(before.scores),
        "after": _recalls(after.scores),
        "interval": {key: [round(d.low, 2), round(d.high, 2)] for key, d in gain.recalls.items()},
        "per_language": {
            lang: {"before": scores, "after": after.per_language[lang]} for lang, scores in before.per_language.items()
        },
        "mean_recall": {
            "gain": round(gain.mean.value, 2),
            "interval": [round(gain.mean.low, 2), round(gain.mean.high, 2)],
            "smallest_seen": round(gain.smallest, 2),
        },
        "n_train": len(learnt),
        "n_val": len(held.data.select(VAL)),
        "n_test": len(test),
        "captions_train": sum(len(picture.captions) for picture in learnt.pictures),
        "captions_test": sum(len(picture.captions) for picture in test.pictures),
        "captions_repeated": held.repeated,
        "pictures_left_out": held.left_out,
        "verdict": gain.verdict,
        "recommended": str(out) if improved else base.name,
        "training": summary,
        "version": __version__,
    }
    return {**result, "words": list(in_words(result))}


def in_words(result: dict[str, Any]) -> tuple[str, str]:
    """The verdict as two sentences, in English and in Chinese."""
    mean = result["mean_recall"]
    low, high = mean["interval"]
    n, best = result["n_test"], result["recommended"]
    change = f"{mean['gain']:+.1f} points of mean recall (95% {low:+.1f} to {high:+.1f}) on {n} held-out pictures"
    zh_change = f"在 {n} 张留出图片上，平均召回率变化 {mean['gain']:+.1f} 点（95% 区间 {low:+.1f} 至 {high:+.1f}）"
    seen, zh_seen = (f"{mean['smallest_seen']:.1f}", f"{mean['smallest_seen']:.1f} 点")
    said = {
        "improved": (f"Improved: {change}. Use {best}.", f"有提高：{zh_change}。请使用 {best}。"),
        "worse": (f"Worse: {change}. Keep {best}.", f"变差了：{zh_change}。请继续使用 {best}。"),
        "no gain to be seen": (
            f"No gain to be seen: {change}; one of {seen} points would have shown. Keep {best}.",
            f"看不出提高：{zh_change}；若有 {zh_seen}的变化应能看出。请继续使用 {best}。",
        ),
        "the data is too small to tell": (
            f"The data is too small to tell: {change}; nothing under {seen} points would have shown. Keep {best} until "
            "there are more captioned pictures.",
            f"数据太少，无法判断：{zh_change}；小于 {zh_seen}的变化看不出来。在有更多图片说明之前，请继续使用 {best}。",
        ),
    }
    return said[result["verdict"]]


def _changed(test: Dataset, before: Judged, after: Judged) -> dict[str, Any]:
    """The held-out pictures whose own captions rose and fell most: by change of rank, ties in the data's order."""
    old, new = before.scores.i2t_ranks, after.scores.i2t_ranks
    rose = old - new  # (q,)
    better = [q for q in np.argsort(-rose, kind="stable") if rose[q] > 0]
    worse = [q for q in np.argsort(rose, kind="stable") if rose[q] < 0]
    texts = [(i, caption.text) for i, caption in test.captions()]
    shown = {
        name: [_example(test, texts, before, after, int(q)) for q in queries[:SHOWN]]
        for name, queries in (("better", better), ("worse", worse))
    }
    same = int((rose == 0).sum())
    return {**shown, "pictures": {"better": len(better), "worse": len(worse), "same": same}}


def _example(test: Dataset, texts: list[tuple[int, str]], before: Judged, after: Judged, query: int) -> dict[str, Any]:
    """One held-out picture: its ranks, its captions' ranks, and the captions that each model puts first."""
    row = int(before.scores.i2t_owner[query])
    picture = test.pictures[row]
    own = [m for m, (owner, _) in enumerate(texts) if owner == row]
    first = {}
    for name, judged in (("before", before), ("after", after)):
        similar = judged.sentences @ judged.pictures[row]
        order = np.argsort(-similar, kind="stable")[:HITS]
        first[name] = [{"text": texts[m][1], "score": float(similar[m]), "right": m in own} for m in order]
    return {
        "file": str(test.path(picture)),
        "title": Path(picture.file_name).name,
        "before": int(before.scores.i2t_ranks[query]),
        "after": int(after.scores.i2t_ranks[query]),
        "captions": [
            {"text": texts[m][1], "before": int(before.scores.t2i_ranks[m]), "after": int(after.scores.t2i_ranks[m])}
            for m in own
        ],
        "first": first,
    }


def card(result: dict[str, Any]) -> str:
    """The model card of a tuned run, as Markdown."""
    head = "| captions | model | " + " | ".join(KEYS) + " |"
    lines = ["# " + Path(result["run"]).name, "", result["words"][0], "", "| | |", "|---|---|"]
    lines += [
        f"| tuned from | {result['from']} ({result['from_fingerprint']}) |",
        f"| on | {result['data']}: {result['n_train']} pictures, {result['captions_train']} captions |",
        f"| best | step {result['training']['best_step']}, by {result['n_val']} other pictures |",
        f"| judged on | {result['n_test']} pictures, {result['captions_test']} captions |",
        f"| held out | {result['protocol']['held_out']} |",
        f"| not scored | {result['captions_repeated']} held-out captions whose sentence stands in training |",
        f"| training | {result['training']['steps']} steps, {result['training']['seconds']:.0f} s |",
        "",
        f"## Before and after, on {result['n_test']} held-out pictures",
        "",
        head,
        "|---" * (len(KEYS) + 2) + "|",
    ]
    rows = {"all": result, **(result["per_language"] if len(result["per_language"]) > 1 else {})}
    for name, scores in rows.items():
        for state in ("before", "after"):
            cells = " | ".join(f"{scores[state][key]:.1f}" for key in KEYS)
            lines.append(f"| {name} | {state} | {cells} |")
    spans = " | ".join("{:+.1f} to {:+.1f}".format(*result["interval"][key]) for key in KEYS)
    lines += [f"| all | 95% of the difference | {spans} |", ""]
    shown = {key: value for key, value in result["protocol"].items() if value not in (None, {}, "")}
    lines += [
        "Protocol: " + "; ".join(f"{key} {value}" for key, value in shown.items()) + ".",
        "",
        "The intervals cover the choice of the scored pictures, not that of the training's seed. The pictures and "
        "captions stay under their makers' terms; look there before a commercial use.",
    ]
    return "\n".join(lines) + "\n"
