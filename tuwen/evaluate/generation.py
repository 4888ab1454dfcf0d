"""Scores of a drawing model on one split: how real its pictures look, and whether they show what was asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tuwen import __version__, images
from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.evaluate import common
from tuwen.evaluate.extractors import find_extractor
from tuwen.metrics import generation as scorers
from tuwen.pipelines import Drawer, Embedder, as_embedder, load
from tuwen.progress import track
from tuwen.scenes.reader import read_scene
from tuwen.scenes.request import ATTRIBUTES, Request, satisfies, understand
from tuwen.scenes.world import Scene
from tuwen.tasks.generation_data import keep_pixels

if TYPE_CHECKING:
    from PIL.Image import Image

LIMIT = 250  # pictures of a split, by default: drawing takes its time
LEAST = 8  # and fewer say nothing
FEATURES = "lite0"
ALWAYS = ("r_precision", "r_precision_shuffled", "scenes_right")  # null where there is no judge, or no scene
KINDS = ("one", "two", "more")
Shares = dict[str, NDArray[np.float64]]  # by score: (samples,), 0 to 100, NaN where it says nothing of a sample


@dataclass(frozen=True)
class Sample:
    """A picture to draw: for which row of the split, from which of its captions and which seed."""

    row: int
    lang: str
    prompt: str
    seed: int


def score(
    pipeline: Drawer,
    dataset: Dataset,
    split: str = "test",
    lang: str | None = None,
    *,
    judge: str | Embedder | None = None,
    features: str = FEATURES,
    limit: int = LIMIT,
    steps: int | None = None,
    guidance: float | None = None,
    tries: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """KID, FID, R-precision and, on scenes, the share of right ones of a drawing model: the `eval` contract of DESIGN.

    The first `limit` pictures of the split are drawn anew, in each language from one of their captions. `judge`: a
    retrieval model, or its name, that no drawing model was trained with; without one there is no R-precision.
    `features` names what KID and FID look through: a tower, or `inception`. `steps` and `guidance`: a flow's;
    `tries`: how often a picture is drawn until the checker finds it right; 1 tells of the model alone.

    Raises:
        DataError: the split has too few pictures or captions.
        ConfigError: no such feature module.
        ModelError: the judge is no retrieval model.
    """
    extractor = find_extractor(features)
    referee = as_embedder(load(judge)) if isinstance(judge, str) else judge
    part = dataset.select(split)
    samples = plan(dataset, part, split, pipeline.languages, lang, limit, seed)
    drawn = list(track(draw(pipeline, samples, steps, guidance, tries), len(samples), "drawing"))
    rows = sorted({sample.row for sample in samples})
    kept = kept_pixels(pipeline, part, rows)
    real = {row: PIL.Image.fromarray(pixels) for row, pixels in zip(rows, kept, strict=True)}
    is_scenes = all("scene" in (part.pictures[row].model_extra or {}) for row in rows)
    shares = _judge(referee, samples, drawn, real) if referee else {}
    if is_scenes:
        shares |= _check(samples, drawn, real)
    looks = extractor(drawn), dict(zip(rows, extractor(real.values()), strict=True))
    languages = np.array([sample.lang for sample in samples])
    chosen = {spoken: languages == spoken for spoken in sorted(set(languages.tolist()))}
    parts = {spoken: _summarise(samples, shares, looks, mask) for spoken, mask in chosen.items()}
    whole = _summarise(samples, shares, looks, languages != "")
    return {
        "task": pipeline.task,
        "model": pipeline.name,
        "data": dataset.manifest.name or str(dataset.folder),
        "split": split,
        "n": len(rows),
        "metrics": whole[0],
        "per_language": {spoken: metrics for spoken, (metrics, _) in parts.items()},
        "intervals": {spoken: intervals for spoken, (_, intervals) in parts.items()} | {"all": whole[1]},
        "machine_text": common.machine_captions(part),
        "protocol": _protocol(pipeline, dataset, samples, steps, guidance, tries, seed)
        | {"features": extractor.about, "judge": _about_judge(referee)},
    }


def plan(
    dataset: Dataset,
    part: Dataset,
    split: str,
    speaks: Sequence[str],
    lang: str | None,
    limit: int,
    seed: int,
    least: int = LEAST,
) -> list[Sample]:
    """What is drawn: for picture i of the first `limit`, caption i of each language, counted round; seed `seed` + i.

    Raises:
        DataError: fewer than `least` pictures with a human caption in a language that the model speaks.
    """
    common.human_captions(dataset, part, split, lang)
    samples = []
    for spoken in sorted(speaks):
        if lang not in (None, spoken):
            continue
        for row, picture in enumerate(part.pictures[:limit]):
            if captions := picture.human(spoken):
                samples.append(Sample(row, spoken, captions[row % len(captions)].text, seed + row))
    if len({sample.row for sample in samples}) < least:
        raise DataError(
            f"{dataset.folder}: split '{split}' has fewer than {least} pictures with a caption in "
            f"{' or '.join(speaks)}: name another --split, or raise --limit"
        )
    return samples


def draw(
    pipeline: Drawer, samples: Sequence[Sample], steps: int | None, guidance: float | None, tries: int | None = None
) -> Iterator[Image]:
    """Their pictures, one by one."""
    wanted = [(sample.prompt, sample.seed) for sample in samples]
    for one in pipeline.each_of(wanted, steps=steps, guidance=guidance, tries=tries):
        yield one.image


def kept_pixels(pipeline: Drawer, part: Dataset, rows: Sequence[int]) -> NDArray[np.uint8]:
    """These rows' pictures as the model saw its training pictures: (n, S, S, 3), of its own size."""
    paths = [part.path(part.pictures[row]) for row in rows]
    return keep_pixels(paths, pipeline.size, pipeline.view)


def _judge(judge: Embedder, samples: Sequence[Sample], drawn: Sequence[Image], real: Mapping[int, Image]) -> Shares:
    """R-precision of drawn pictures, of drawn ones with captions of others, and of the real ones; by language."""
    seen = judge.embed_images(drawn)
    known = dict(zip(real, judge.embed_images(list(real.values())), strict=True))
    said = judge.embed_texts([sample.prompt for sample in samples])
    out = {name: np.full(len(samples), np.nan) for name in ("", "_shuffled", "_real")}
    for spoken in {sample.lang for sample in samples}:
        own = np.array([i for i, sample in enumerate(samples) if sample.lang == spoken])
        texts = [samples[i].prompt for i in own]
        if len(set(texts)) < 2:
            continue
        order = scorers.shuffle(len(own), common.INTERVAL_SEED)
        truth = np.stack([known[samples[i].row] for i in own])
        for name, pictures, places in (
            ("", seen[own], np.arange(len(own))),
            ("_shuffled", seen[own], order),
            ("_real", truth, np.arange(len(own))),
        ):
            found = scorers.r_precision(
                pictures, said[own][places], [texts[i] for i in places], seed=common.INTERVAL_SEED
            )
            out[name][own] = 100.0 * found.hits
    return {f"r_precision{name}": values for name, values in out.items()}


def _check(samples: Sequence[Sample], drawn: Sequence[Image], real: Mapping[int, Image]) -> Shares:
    """What the checker of scenes finds right: of drawn pictures, against captions of others, and of the real ones."""
    requests = [understand(sample.prompt) for sample in samples]
    read = [read_scene(picture) for picture in track(drawn, len(drawn), "reading")]
    truth = {row: read_scene(picture) for row, picture in track(real.items(), len(real), "reading the real ones")}
    order = scorers.shuffle(len(samples), common.INTERVAL_SEED)
    faults = [_faults(scene, request) for scene, request in zip(read, requests, strict=True)]
    out = {
        "scenes_right": [_right(one) for one in faults],
        "scenes_right_shuffled": [
            _right(_faults(scene, requests[i])) for scene, i in zip(read, order.tolist(), strict=True)
        ],
        "checker_right": [
            _right(_faults(truth[sample.row], request)) for sample, request in zip(samples, requests, strict=True)
        ],
    }
    for kind in KINDS:
        out[f"scenes_right_{kind}"] = [
            right if request is not None and kind_of(request) == kind else np.nan
            for right, request in zip(out["scenes_right"], requests, strict=True)
        ]
    for name in ATTRIBUTES:
        out[f"{name}_right"] = [
            _right([name] if name in wrong else []) if wrong is not None and request and says(request, name) else np.nan
            for wrong, request in zip(faults, requests, strict=True)
        ]
    return {name: np.array(values, np.float64) for name, values in out.items()}


def kind_of(request: Request) -> str:
    """`one` thing, `two` in a relation that the sentence states, or `more`: all others."""
    if request.count == 1:
        return "one"
    return "two" if request.count == 2 and request.relations else "more"


def says(request: Request, name: str) -> bool:
    """Whether a sentence says anything of an attribute."""
    if name in ("relation", "ground"):
        return bool(request.relations) if name == "relation" else request.ground is not None
    place = ("size", "colour", "shape").index(name) if name != "count" else None
    return place is None or any(group.key[place] is not None for group in request.groups)


def _faults(scene: Scene, request: Request | None) -> list[str] | None:
    return None if request is None else satisfies(scene, request)


def _right(faults: list[str] | None) -> float:
    return np.nan if faults is None else 100.0 * (not faults)


def _summarise(
    samples: Sequence[Sample],
    shares: Shares,
    looks: tuple[NDArray[np.float32], Mapping[int, NDArray[np.float32]]],
    chosen: NDArray[np.bool_],
) -> tuple[dict[str, float | None], dict[str, list[float]]]:
    """Scores and 95% intervals of some samples; of KID's, one of each picture, the languages in turn."""
    mine = np.flatnonzero(chosen)
    by_row: dict[int, list[int]] = {}
    for i in mine.tolist():
        by_row.setdefault(samples[i].row, []).append(i)
    once = [own[place % len(own)] for place, own in enumerate(by_row.values())]
    drawn, real = looks[0][once], np.stack([looks[1][row] for row in by_row])
    near, floor = scorers.kid(real, drawn), scorers.floor_kid(real)
    half = len(real) // 2
    metrics: dict[str, float | None] = {
        **dict.fromkeys(ALWAYS),
        "kid": near.value,
        "kid_floor": floor.value,
        "fid": scorers.fid(real, drawn),
        "fid_floor": scorers.fid(real[:half], real[half:]),
    }
    intervals = {"kid": [near.low, near.high], "kid_floor": [floor.low, floor.high]}
    rows = np.array([sample.row for sample in samples])
    for name, values in shares.items():
        held = mine[~np.isnan(values[mine])]
        metrics[name] = float(values[held].mean()) if len(held) else None
        if len(held):
            low, high = scorers.share_interval(values[held] / 100, rows[held])
            intervals[name] = [round(low, 2), round(high, 2)]
    return metrics, intervals


def _about_judge(judge: Embedder | None) -> dict[str, Any] | None:
    return None if judge is None else {"name": judge.name, "fingerprint": judge.fingerprint, **judge.about()}


def _candidates(samples: Sequence[Sample]) -> dict[str, int]:
    """Captions a picture chooses among, by language: 100, or all different ones where there are fewer."""
    texts: dict[str, set[str]] = {}
    for sample in samples:
        texts.setdefault(sample.lang, set()).add(sample.prompt)
    return {lang: min(scorers.CANDIDATES, len(own)) for lang, own in texts.items()}


def _protocol(
    pipeline: Drawer,
    dataset: Dataset,
    samples: Sequence[Sample],
    steps: int | None,
    guidance: float | None,
    tries: int | None,
    seed: int,
) -> dict[str, Any]:
    """What a score of drawn pictures needs beside it to be one."""
    about = pipeline.about()
    sampling = dict(about.pop("sampling", {}))
    sampling |= {name: value for name, value in (("steps", steps), ("guidance", guidance)) if value is not None}
    kinds = [kind_of(request) for sample in samples if (request := understand(sample.prompt))]
    return {
        "version": __version__,
        "fingerprint": pipeline.fingerprint,
        **about,
        "size": pipeline.size,
        "tries": tries or pipeline.tries,
        "sampling": sampling,
        "sampling_seed": f"{seed} + the picture's number",
        "samples": len(samples),
        "kinds": {kind: kinds.count(kind) for kind in KINDS},
        "prompts": "picture i's caption i of each language, counted round",
        "kid": f"unbiased, cubic kernel; interval of {scorers.HALVES} random halves; floor: halves of the real",
        "fid": f"from {scorers.FEWEST} pictures a side",
        "r_precision": "own caption first among the candidates of its language; control: captions of others",
        "candidates": _candidates(samples),
        "checker": "tuwen.scenes.reader, which tries above 1 are chosen by too; checker_right: of the real pictures",
        "decoder": images.DECODER,
        "data_sha256": dataset.fingerprint(),
        "intervals": "95%, Wilson's, a picture one trial; KID's by halves",
    }
