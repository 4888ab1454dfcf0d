"""What is wrong with a data set: files that can't be read, one picture in two splits, texts that look wrong."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tuwen import images
from tuwen.check.near import CONTRAST, SIDE, Thumbs, contrasts, find_near
from tuwen.dataset import MANIFEST, ROWS, Dataset, feature_rows, fill_splits, read_manifest, read_rows
from tuwen.errors import DataError, PictureError
from tuwen.progress import track
from tuwen.records import HAN, Caption, Picture
from tuwen.regions import read_regions

MAX_WORDS = 50
SIGNS = {"exploding": "pixels are more than|too large", "truncated": "truncat|incomplete|premature|is empty"}


@dataclass
class Finding:
    """One thing found: a slug, the file it is about, and what it is."""

    kind: str
    file: str
    detail: str


@dataclass
class CheckReport:
    """Counts of the whole data set (captions and questions: those that people wrote) and what was found."""

    pictures: int = 0
    captions: int = 0
    questions: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    languages: dict[str, int] = field(default_factory=dict)
    machine_captions: int = 0
    machine_questions: int = 0
    errors: list[Finding] = field(default_factory=list)
    warnings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The JSON contract of `tuwen check --json`."""
        return asdict(self)


def check(folder: Path | str) -> CheckReport:
    """Read every row and decode every picture. DataError only where there is no data set to read."""
    report = CheckReport()
    dataset = _read(Path(folder), report)
    named = [picture.split for picture in dataset.pictures]
    fill_splits(dataset)
    _count(dataset, report)
    thumbs, of = _look(dataset, report)
    _compare(dataset, thumbs, of, named, report)
    _check_regions(dataset, report)
    _check_groups(dataset, report)
    _check_texts(dataset, report)
    _check_languages(dataset, report)
    _check_answers(dataset, report)
    return report


def _read(folder: Path, report: CheckReport) -> Dataset:
    """The rows that can be read; a bad line, root or matrix is an error of the report."""
    rows = read_rows(folder)
    manifest = read_manifest(folder)
    dataset = Dataset(folder, manifest, [])
    pictures, positions = [], []
    for position, (number, picture) in enumerate(rows):
        if isinstance(picture, str):
            report.errors.append(Finding("bad_line", f"{ROWS}:{number}", picture))
        elif picture.root is not None and picture.root not in manifest.roots:
            why = f"root '{picture.root}' is not among the roots of {MANIFEST}"
            report.errors.append(Finding("bad_line", f"{ROWS}:{number}", why))
        else:
            pictures.append(picture)
            positions.append(position)
    if not pictures and not report.errors:
        raise DataError(f"{folder / ROWS}: empty; bring pictures with 'tuwen import FORMAT SRC {folder}'")
    dataset = Dataset(folder, manifest, pictures, positions)
    for name, path in manifest.features.items():
        try:
            known = [i for i, p in enumerate(pictures) if name in feature_rows(p)]
            some = known or range(len(pictures))
            Dataset(folder, manifest, [pictures[i] for i in some], [positions[i] for i in some]).features(name)
        except DataError as error:
            report.errors.append(Finding("features", path, str(error).removeprefix(f"{dataset.folder / path}: ")))
    return dataset


def _count(dataset: Dataset, report: CheckReport) -> None:
    report.pictures, report.splits = len(dataset), dataset.splits()
    report.languages = dict(Counter(caption.lang for _, caption in dataset.captions()))
    report.captions = sum(report.languages.values())
    report.machine_captions = sum(len(p.captions) for p in dataset.pictures) - report.captions
    report.questions = sum(q.source == "human" for p in dataset.pictures for q in p.qa)
    report.machine_questions = sum(len(p.qa) for p in dataset.pictures) - report.questions


def show(dataset: Dataset, picture: Picture) -> str:
    """A picture's file for people: as its row has it, or whole where it lies outside the data set's folder."""
    return picture.file_name if picture.root is None else str(dataset.path(picture))


def _look(dataset: Dataset, report: CheckReport) -> tuple[Thumbs, list[int]]:
    """Decode every file once: thumbnails (n, 16, 16, 3) of those that can be read, and the picture of each."""
    first: dict[str, int] = {}
    for index, picture in enumerate(dataset.pictures):
        place = os.path.normpath(dataset.path(picture))
        if place in first:
            _report_pair(dataset, report, first[place], index, "is the file of")
        first.setdefault(place, index)
    thumbs, of, without = [], [], []
    looked = track(_map(_thumb, list(first)), len(first), "decoding pictures")
    for index, thumb in zip(first.values(), looked, strict=True):
        picture = dataset.pictures[index]
        if not isinstance(thumb, tuple):
            thumbs.append(thumb)
            of.append(index)
        elif thumb[0] == "missing" and feature_rows(picture):
            without.append(show(dataset, picture))
        else:
            report.errors.append(Finding(thumb[0], show(dataset, picture), thumb[1]))
    if without:
        what = f"{len(without):,} pictures have features but no file: nothing that needs pixels can use them"
        report.warnings.append(Finding("features_only", without[0], what))
    return np.array(thumbs, dtype=np.uint8).reshape(-1, SIDE, SIDE, 3), of


def _map(work: Any, paths: list[str]) -> Iterator[Any]:
    """In threads (decoders let go of the lock), a few thousand at a time, so that memory stays flat."""
    rest = iter(paths)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        while batch := list(islice(rest, 2048)):
            yield from pool.map(work, batch, chunksize=1)


def _thumb(path: str) -> Thumbs | tuple[str, str]:
    """(16, 16, 3), or what is wrong with the file: (kind, detail)."""
    try:
        pixels = images.load(path, 2 * SIDE)
    except PictureError as error:
        why = str(error).removeprefix(f"{path}: ")
        if not Path(path).is_file():
            return "missing", "no such file; bring it back or remove the row"
        return next((kind for kind, sign in SIGNS.items() if re.search(sign, why.lower())), "broken"), why
    # The mean of 2x2 pixels: (16, 2, 16, 2, 3) -> (16, 16, 3).
    small: Thumbs = np.rint(pixels.reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3))).astype(np.uint8)
    return small


def _compare(dataset: Dataset, thumbs: Thumbs, of: list[int], named: list[str | None], report: CheckReport) -> None:
    labels = np.unique([dataset.pictures[i].split or "" for i in of], return_inverse=True)[1]
    flat = contrasts(thumbs) < CONTRAST
    for a, b in find_near(thumbs, labels):
        first, second = of[a], of[b]
        same = _equal(dataset.path(dataset.pictures[first]), dataset.path(dataset.pictures[second]))
        if same or not flat[b]:
            drawn = "" if named[first] and named[second] else " (drawn by hash)"
            _report_pair(dataset, report, first, second, "has the bytes of" if same else "looks like", same, drawn)


def _equal(a: Path, b: Path) -> bool:
    return a.stat().st_size == b.stat().st_size and images.content_id(a) == images.content_id(b)


def _report_pair(
    dataset: Dataset, report: CheckReport, first: int, second: int, how: str, same: bool = True, drawn: str = ""
) -> None:
    """One picture, or nearly one, in two rows: an error across splits, else a warning."""
    a, b = dataset.pictures[first], dataset.pictures[second]
    kind, file, other = "one_picture" if same else "near_duplicate", show(dataset, b), show(dataset, a)
    if a.split != b.split:
        mend = "give both one split or one group, or remove one"
        detail = f"of split {b.split} {how} {other} of split {a.split}{drawn}; {mend}"
        report.errors.append(Finding(f"{kind}_in_two_splits", file, detail))
    elif a.group is None or a.group != b.group:
        kind = "duplicate" if same else "near_duplicate"
        report.warnings.append(Finding(f"{kind}_in_split", file, f"{how} {other}; both are of split {b.split}"))


def _check_regions(dataset: Dataset, report: CheckReport) -> None:
    """Files that are missing, broken or of several widths, and pictures without where others have theirs."""
    named = [picture for picture in dataset.pictures if picture.regions]
    files = [str(dataset.folder / str(picture.regions)) for picture in named]
    widths: dict[int, str] = {}
    read = track(_map(_width, files), len(files), "reading regions")
    for picture, found in zip(named, read, strict=True):
        if isinstance(found, int):
            widths.setdefault(found, str(picture.regions))
        else:
            detail = found or f"regions of {show(dataset, picture)}"
            report.errors.append(Finding("broken" if found else "missing", str(picture.regions), detail))
    if len(widths) > 1:
        (width, _), (other, file_name) = list(widths.items())[:2]
        what = f"regions {other} wide, others {width}: one model takes one kind; find or import all by one detector"
        report.errors.append(Finding("region_widths", file_name, what))
    without = [picture for picture in dataset.pictures if not picture.regions]
    if named and without:
        what = f"{len(without):,} of {len(dataset):,} pictures have no regions; 'tuwen regions' finds them in all"
        report.warnings.append(Finding("regions_missing", show(dataset, without[0]), what))


def _width(path: str) -> int | str:
    """Of the regions in a file, or what is wrong with it; nothing where there is none."""
    if not Path(path).is_file():
        return ""
    try:
        return int(read_regions(Path(path)).features.shape[1])
    except DataError as error:
        return str(error).removeprefix(f"{path}: ")


def _check_groups(dataset: Dataset, report: CheckReport) -> None:
    split_of: dict[str, dict[str, Picture]] = defaultdict(dict)
    for picture in dataset.pictures:
        if picture.group is not None:
            split_of[picture.group].setdefault(picture.split or "", picture)
    for group, found in split_of.items():
        if len(found) > 1:
            detail = f"group '{group}' is in splits {', '.join(found)}: one identity trains and tests"
            report.warnings.append(Finding("group_in_two_splits", show(dataset, list(found.values())[1]), detail))


def _check_texts(dataset: Dataset, report: CheckReport) -> None:
    for picture in dataset.pictures:
        for number, caption in enumerate(picture.captions, 1):
            if not caption.text.strip():
                where = f"caption {number} of {len(picture.captions)} is empty; write it or remove it"
                report.errors.append(Finding("empty_caption", show(dataset, picture), where))
                continue
            words = count_words(caption)
            if words > MAX_WORDS:
                detail = f"a caption of {words} words (over {MAX_WORDS}): {caption.text[:40]}..."
                report.warnings.append(Finding("over_50_words", show(dataset, picture), detail))
            if wrong := _wrong_language(caption):
                report.warnings.append(Finding("language_mix", show(dataset, picture), f"{wrong}: {caption.text[:40]}"))


def count_words(caption: Caption) -> int:
    """Words of a caption, Chinese ones by jieba (asked only where there could be too many)."""
    if not HAN.search(caption.text):
        return len(caption.text.split())
    if len(caption.text) <= MAX_WORDS:
        return 0
    from tuwen.text import split_words  # jieba takes a second to start

    return len(split_words(caption.text))


def _wrong_language(caption: Caption) -> str:
    han, latin = len(HAN.findall(caption.text)), len(re.findall(r"[A-Za-z]", caption.text))
    if caption.lang == "zh" and han == 0:
        return "marked zh, but holds no Chinese"
    if caption.lang == "zh" and latin >= 12 and latin > 3 * han:
        return "counted as zh, but mostly Latin letters"
    if caption.lang == "en" and han:
        return "marked en, but holds Chinese"
    return ""


def _check_languages(dataset: Dataset, report: CheckReport) -> None:
    """A language that only some of the captioned pictures have: by split where a split has none of it."""
    have: dict[str, Counter[str]] = defaultdict(Counter)
    captioned: Counter[str] = Counter()
    first: dict[tuple[str, str], Picture] = {}
    for picture in dataset.pictures:
        spoken, split = {caption.lang for caption in picture.human()}, picture.split or ""
        if spoken:
            captioned[split] += 1
            first.setdefault((split, ""), picture)
        for lang in spoken:
            have[lang][split] += 1
    for lang, counts in have.items() if len(have) > 1 else ():
        for split, total in captioned.items():
            if counts[split] < total:
                detail = f"{total - counts[split]:,} of {total:,} captioned pictures of {split} have no {lang} caption"
                report.warnings.append(Finding("language_mix", show(dataset, first[split, ""]), detail))


def _check_answers(dataset: Dataset, report: CheckReport) -> None:
    known: set[str] = set()
    asked: dict[str, list[tuple[Picture, list[str]]]] = defaultdict(list)
    for picture in dataset.pictures:
        for question in picture.qa:
            answers = [answer.strip().lower() for answer in question.answers if answer.strip()]
            if answers and question.source == "human":
                asked[picture.split or ""].append((picture, answers))
                known.update(answers if picture.split == "train" else ())
    for split, questions in asked.items():
        lost = [(picture, answers) for picture, answers in questions if known.isdisjoint(answers)]
        if lost and split != "train":
            what = f"{len(lost):,} of {len(questions):,} questions of {split} have no answer that train knows"
            report.warnings.append(
                Finding("answer_out_of_vocabulary", show(dataset, lost[0][0]), f"{what} (such as '{lost[0][1][0]}')")
            )
