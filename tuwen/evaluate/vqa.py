"""Scores of an answering model on one split: official accuracy, exact match and WUPS, beside what needs no picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.evaluate import common
from tuwen.evaluate.sureness import HELD_OUT, tell_parts
from tuwen.metrics import vqa as metrics
from tuwen.metrics.bootstrap import bootstrap_difference, bootstrap_interval
from tuwen.pipelines import Answer, Answerer, Vqa
from tuwen.pipelines.pictures import Source
from tuwen.progress import track
from tuwen.records import Question, guess_language
from tuwen.tasks.asking import read_questions
from tuwen.text.answers import Rule

HUMAN = "human"

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Columns = dict[str, NDArray[np.float64]]  # a value a question, from 0 to 1


def score(
    pipeline: Answerer,
    dataset: Dataset,
    split: str = "test",
    lang: str | None = None,
    baseline: Answerer | None = None,
    made: bool | None = None,
) -> dict[str, Any]:
    """Accuracy of an answering model on one split, by type and language: the `eval` contract of DESIGN.

    Questions in the languages of the model count, or in `lang` alone: those that people asked, with `made` those that a
    tool wrote (None: these where nobody asked any), never both. `held-out` is the split of the pictures that a run
    validated on. `baseline`: a run of the same recipe with `model.blind=true`, scored on the same questions; without it
    `language_only` is None. `majority` says, in each language, the commonest answer of the data's training questions,
    None where there are none.

    Raises:
        DataError: the split has no such question in a language that the model knows, or `baseline` is not blind.
    """
    learnt, part = find_parts(pipeline, dataset, split)
    if baseline is not None:
        _check_blind(pipeline, baseline, split)
    questions, owner = choose(part, [lang] if lang else pipeline.languages, made)
    if not questions:
        spoken = f" in {lang}" if lang else ""
        raise DataError(
            f"{dataset.folder}: split '{split}' holds no answered question{spoken} of this kind: name another --split"
        )
    made = questions[0].source != HUMAN
    tongues = np.array([guess_language(question.question) for question in questions])
    rule: Rule = pipeline.vocabulary.rule if isinstance(pipeline, Vqa) else "official"
    columns = _columns(pipeline, part, questions, owner, rule)
    if (common_answer := _majority(learnt, made, rule)) is not None:
        said = [common_answer.get(tongue, "") for tongue in tongues]
        columns["majority"] = metrics.accuracy(said, _answers(questions))
    if baseline is not None:
        said = [answer.best[0].text for answer in ask(baseline, part, questions, owner)]
        columns["language_only"] = metrics.accuracy(said, _answers(questions))
    groups = {lang: tongues == lang for lang in sorted(set(tongues.tolist()))}
    everything = np.ones(len(questions), np.bool_)
    return {
        "task": pipeline.task,
        "model": pipeline.name,
        "data": dataset.manifest.name or str(dataset.folder),
        "split": split,
        "n": len(questions),
        "metrics": _measure(columns, questions, everything),
        "per_language": {lang: _measure(columns, questions, chosen) for lang, chosen in groups.items()},
        "intervals": {name: _intervals(columns, owner, own) for name, own in {**groups, "all": everything}.items()},
        "baseline": None if baseline is None else _compare(baseline, columns, owner),
        "machine_text": 0 if made else sum(q.source != HUMAN for p in part.pictures for q in p.qa),
        "protocol": _protocol(pipeline, dataset, part, questions, owner, rule, common_answer),
    }


def choose(part: Dataset, langs: list[str] | None = None, made: bool | None = None) -> tuple[list[Question], Ints]:
    """The questions of a part that count, and each one's picture: people's, with `made` those that a tool wrote (None:
    these where nobody asked any)."""
    questions, owner = read_questions(part, langs)
    if made is None:
        made = all(question.source != HUMAN for question in questions)
    kept = [place for place, question in enumerate(questions) if (question.source != HUMAN) is made]
    return [questions[place] for place in kept], owner[kept]


def ask(
    pipeline: Answerer, part: Dataset, questions: Sequence[Question], owner: Ints, k: int = 1, attend: bool = False
) -> list[Answer]:
    """What a model says to questions about pictures of a part, by row, in their order."""
    asked = [question.question for question in questions]
    if isinstance(pipeline, Vqa):
        each = pipeline.answer_part(part, owner.tolist(), asked, k, attend)
    else:
        paths: list[Source] = [part.path(part.pictures[row]) for row in owner]
        each = pipeline.answer_each(paths, asked, k, attend=attend)
    answers = dict(track(each, len(asked), f"questions to {pipeline.name}"))
    return [answers[place] for place in range(len(asked))]


def find_parts(pipeline: Answerer, dataset: Dataset, split: str) -> tuple[Dataset | None, Dataset]:
    """The pictures to learn a majority from, where there are any, and those to score."""
    if split != HELD_OUT:
        part = dataset.select(split)
        return (dataset.select("train") if "train" in dataset.splits() else None), part
    if not isinstance(pipeline, Vqa):
        raise DataError(f"{pipeline.name}: held nothing out, for it is no run of yours: name another --split")
    parts = tell_parts(pipeline, dataset)
    return parts["train"], parts["val"]


def _check_blind(pipeline: Answerer, baseline: Answerer, split: str) -> None:
    if not (isinstance(baseline, Vqa) and baseline.blind):
        raise DataError(f"{baseline.name}: it sees the pictures: train a baseline with model.blind=true")
    if split == HELD_OUT and isinstance(pipeline, Vqa):
        own, other = (one.config["validation_split"] for one in (pipeline, baseline))
        if own != other:
            raise DataError(f"{baseline.name}: held out other pictures ({other}) than {pipeline.name} ({own})")


def _answers(questions: Sequence[Question]) -> list[list[str]]:
    return [question.answers for question in questions]


def _columns(pipeline: Answerer, part: Dataset, questions: list[Question], owner: Ints, rule: Rule) -> Columns:
    told, truth = ask(pipeline, part, questions, owner), _answers(questions)
    said = [answer.best[0].text for answer in told]
    columns = {
        "accuracy": metrics.accuracy(said, truth),
        "exact": metrics.exact_match(said, truth, rule),
        "confidence": np.array([answer.best[0].score for answer in told]),
        "sure": np.array([answer.sure for answer in told], np.float64),
    }
    if isinstance(pipeline, Vqa):
        columns["upper_bound"] = metrics.upper_bound(truth, pipeline.vocabulary)
    if (wups := metrics.wups(said, truth, 0.9)) is not None:
        columns["wups9"] = wups
    return columns


def _majority(learnt: Dataset | None, made: bool, rule: Rule) -> dict[str, str] | None:
    """The commonest training answer in each language; None without training questions."""
    if learnt is None:
        return None
    said: dict[str, list[list[str]]] = {}
    for question in choose(learnt, None, made)[0]:
        said.setdefault(guess_language(question.question), []).append(question.answers)
    return {lang: metrics.majority(own, rule) for lang, own in said.items()} or None


def _measure(columns: Columns, questions: Sequence[Question], chosen: Flags) -> dict[str, Any]:
    """The scores of some questions, in percent; None for what was not measured."""
    own = {name: column[chosen] for name, column in columns.items()}
    asked = [question for question, there in zip(questions, chosen, strict=True) if there]
    english = np.array([guess_language(question.question) == "en" for question in asked])
    wups = own["wups9"][english] if "wups9" in own else np.zeros(0)  # WordNet is English
    sure = own["sure"] > 0
    values = {
        "accuracy": own["accuracy"].mean(),
        "exact": own["exact"].mean(),
        "upper_bound": own["upper_bound"].mean() if "upper_bound" in own else None,
        "wups9": wups.mean() if len(wups) else None,
        "ece": metrics.calibration_error(own["confidence"], own["accuracy"]),
        "sure": sure.mean(),
        "sure_accuracy": own["accuracy"][sure].mean() if sure.any() else None,
        "language_only": own["language_only"].mean() if "language_only" in own else None,
        "majority": own["majority"].mean() if "majority" in own else None,
    }
    types: dict[str, list[str | None]] = {
        "answer_type": [answer_type(question) for question in asked],
        "question_type": [question.question_type for question in asked],
    }
    return {name: None if value is None else 100 * float(value) for name, value in values.items()} | {
        "by_type": {
            group: {kind: 100 * mean for kind, (mean, _) in metrics.by_type(own["accuracy"], kinds).items()}
            for group, kinds in types.items()
        }
    }


def answer_type(question: Question) -> str:
    """What the data names, or `yes/no`, `number` or `other` by the commonest answer."""
    return (question.model_extra or {}).get("answer_type") or metrics.answer_type(question.answers)


def _intervals(columns: Columns, owner: Ints, chosen: Flags) -> dict[str, list[float]]:
    """95% intervals, a picture drawn with all its questions."""
    out = {}
    for name in ("accuracy", "exact"):
        found = bootstrap_interval(100 * columns[name][chosen], groups=owner[chosen], seed=common.INTERVAL_SEED)
        out[name] = [round(found.low, 2), round(found.high, 2)]
    return out


def _compare(baseline: Answerer, columns: Columns, owner: Ints) -> dict[str, Any]:
    """The model less the blind one on the same questions, in points."""
    before, after = (100 * columns[name] for name in ("language_only", "accuracy"))
    found = bootstrap_difference(before, after, groups=owner, seed=common.INTERVAL_SEED)
    return {
        "model": baseline.name,
        "fingerprint": baseline.fingerprint,
        "accuracy": float(before.mean()),
        "difference": found.value,
        "interval": [round(found.low, 2), round(found.high, 2)],
    }


def _protocol(
    pipeline: Answerer,
    dataset: Dataset,
    part: Dataset,
    questions: Sequence[Question],
    owner: Ints,
    rule: Rule,
    majority: dict[str, str] | None,
) -> dict[str, Any]:
    """What an accuracy needs beside it to be one."""
    types = {
        "answer_type": Counter(map(answer_type, questions)),
        "question_type": Counter(q.question_type for q in questions if q.question_type),
    }
    wordnet = metrics.wordnet_similarity() is not None
    return common.protocol(pipeline, dataset) | {
        "questions": len(questions),
        "pictures": len(np.unique(owner)),
        "sources": dict(Counter(question.source for question in questions)),
        "annotators": round(float(np.mean([len(question.answers) for question in questions])), 2),
        "accuracy": "official VQA: mean over all ways to leave one person out of min(n/3, 1); of one annotator a match",
        "exact": f"the commonest answer, by the {rule} rule",
        "wups9": "WUPS at 0.9, English questions, WordNet 3.0 nouns" if wordnet else "not run: needs a WordNet",
        "majority": majority,
        "ece": "15 bins of equal width, calibrated confidence",
        "types": {group: dict(counts.most_common()) for group, counts in types.items()},
        "held_out": pipeline.config["validation_split"] if isinstance(pipeline, Vqa) else None,
    }
