"""The pages of `tuwen eval --visualise`: pictures, what people said or asked of them, and what the model says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tuwen import images, viz
from tuwen.answering import jpeg
from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.evaluate.captioning import describe
from tuwen.evaluate.vqa import ask, choose, find_parts
from tuwen.files import write_atomic
from tuwen.metrics.vqa import official_accuracy
from tuwen.pipelines import Answer, Answerer, Describer
from tuwen.records import Question
from tuwen.report import Page, write_page
from tuwen.text.answers import commonest

NAME, ANSWERS = "captions.html", "answers.html"
ORIGINAL, ATTENTION, WORDS = "original.jpg", "topdown_att.jpg", "qa.txt"  # of a question's folder, as published
SIDE = 800  # pixels of the longer side
BEST = 3  # answers shown


def write_captions(
    folder: Path,
    pipeline: Describer,
    dataset: Dataset,
    split: str,
    count: int,
    lang: str | None = None,
    beams: int | None = None,
) -> Path:
    """Write `captions.html` with the first `count` pictures of a split, in its order; its path.

    The model speaks `lang`, or every language of its own in which people described these pictures (where they
    described none, every language of its own).

    Raises:
        DataError: no such split.
    """
    part = dataset.select(split)
    part = replace(part, pictures=part.pictures[:count], rows=part.rows[:count])
    used = {caption.lang for _, caption in part.captions()}
    languages = [lang] if lang else [own for own in pipeline.languages if own in used] or pipeline.languages
    rows = range(len(part))
    said = {own: describe(pipeline, part, rows, own, beams) for own in languages}
    page = Page(
        title=(f"{pipeline.name}: captions", f"{pipeline.name}：图片描述"),
        lead=(
            f"The first {len(part)} pictures of {split}, in order: people on the left, the model on the right.",
            f"{split} 的前 {len(part)} 张图片，按顺序：左为人工描述，右为模型描述。",
        ),
        footer=[f"model {pipeline.name} {pipeline.fingerprint}", f"data {dataset.manifest.name or dataset.folder}"],
    )
    cards = []
    for row, picture in enumerate(part.pictures):
        path = part.path(picture)
        hits = [
            {
                "picture": None,
                "title": own,
                "rank": None,
                "score": None,
                "bar": 0,
                "said": said[own][row] or "-",
                "meant": False,
            }
            for own in languages
        ]
        lines = [caption.text for caption in picture.human() if caption.lang in languages]
        cards.append({"picture": page.picture(path), "title": path.name, "lines": lines, "hits": hits})
    page.sections = [{"kind": "like", "title": ("Captions", "描述"), "note": None, "cards": cards}]
    write_page(folder / NAME, page)
    return folder / NAME


def write_answers(
    folder: Path,
    pipeline: Answerer,
    dataset: Dataset,
    split: str,
    count: int,
    lang: str | None = None,
    made: bool | None = None,
) -> Path:
    """Write a folder a question (the picture, where the model looked, question and answers) and `answers.html`; its
    path. The first question of each picture in the order of the split, then the second of each, `count` in all.

    Raises:
        DataError: no such split, or no question in it.
    """
    _, part = find_parts(pipeline, dataset, split)
    questions, owner = choose(part, [lang] if lang else pipeline.languages, made)
    if not questions:
        raise DataError(f"{dataset.folder}: split '{split}' holds no answered question to show: name another --split")
    order = turns(owner.tolist())[:count]
    questions, owner = [questions[place] for place in order], owner[order]
    answers = ask(pipeline, part, questions, owner, BEST, attend=True)
    page = Page(
        title=(f"{pipeline.name}: answers", f"{pipeline.name}：图片问答"),
        lead=(
            f"{len(order)} questions of {split} by a fixed rule: the first of each picture in order, then the second. "
            "Right: where the model looked, and its best answers; a green frame marks what people answered.",
            f"{split} 的 {len(order)} 个问题，按固定规则选取：依次为每张图片的第一个问题，然后是第二个。"
            "右侧为模型注视的位置及其最佳答案；绿框为人工答案。",
        ),
        footer=[f"model {pipeline.name} {pipeline.fingerprint}", f"data {dataset.manifest.name or dataset.folder}"],
    )
    cards = []
    for number, (question, row, answer) in enumerate(zip(questions, owner, answers, strict=True), 1):
        place = folder / f"{number:04d}"
        _write_question(place, part.path(part.pictures[row]), question, answer)
        cards.append(_card(page, place, question, answer))
    page.sections = [{"kind": "like", "title": ("Answers", "问答"), "note": None, "cards": cards}]
    write_page(folder / ANSWERS, page)
    return folder / ANSWERS


def turns(owner: Sequence[int]) -> list[int]:
    """Places of questions, each with its picture: the first of every picture, then the second of every picture, ..."""
    met: Counter[int] = Counter()
    turn = []
    for place, picture in enumerate(owner):
        turn.append((met[picture], place))
        met[picture] += 1
    return [place for _, place in sorted(turn)]


def _write_question(folder: Path, path: Path, question: Question, answer: Answer) -> None:
    """The published folder of a question; without `topdown_att.jpg` where the model has no attention."""
    write_atomic(folder / ORIGINAL, images.thumbnail(path, SIDE, quality=90))
    if gaze := answer.attention:
        lit = viz.attention_overlay(images.open_image(path), gaze.weights, gaze.grid, gaze.boxes, SIDE)
        write_atomic(folder / ATTENTION, jpeg(lit))
    told = ", ".join(f"{one.text} ({one.score:.2f})" for one in answer.best)
    lines = [f"question: {question.question}", f"gt: {commonest(question.answers, 'plain')}", f"answer: {told}"]
    write_atomic(folder / WORDS, "\n".join([*lines, f"sure: {'yes' if answer.sure else 'no'}"]) + "\n")


def _card(page: Page, folder: Path, question: Question, answer: Answer) -> dict[str, object]:
    truth = commonest(question.answers, "plain")
    hits = []
    for rank, one in enumerate(answer.best, 1):
        lit = page.picture(folder / ATTENTION) if rank == 1 and answer.attention else None
        hits.append(
            {
                "picture": lit,
                "title": "",
                "rank": rank,
                "score": one.score,
                "bar": round(100 * one.score, 1),
                "said": one.text,
                "meant": official_accuracy(one.text, question.answers) > 0,
            }
        )
    picture, lines = page.picture(folder / ORIGINAL), [f"gt: {truth}", *([] if answer.sure else ["not sure"])]
    return {"picture": picture, "title": question.question, "lines": lines, "hits": hits}
