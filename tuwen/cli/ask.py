"""`tuwen ask`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tuwen.cli.common import print_json, say, tell_failed, warn
from tuwen.errors import DataError, ModelError

if TYPE_CHECKING:
    from tuwen.answering import Row
    from tuwen.pipelines import Answer, Answerer

MODEL = "vqa"
BAR = 20  # characters of a score of 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ask")(ask)


def ask(
    asked: Annotated[
        list[str] | None, typer.Argument(help='Pictures, or folders of them, and last the question: "what is it?"')
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="A file of rows {file, question}, paths relative to it.", metavar="F.jsonl")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Answers a question.")] = 3,
    model: Annotated[str, typer.Option(help="A shipped model, a run's folder or hf:REPO.")] = MODEL,
    attention: Annotated[
        Path | None, typer.Option(help="Draw into this folder where the model looked.", metavar="DIR")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Answer a question about pictures, in English or Chinese; "not sure" where the best guess is a weak one.

    For example: tuwen ask photo.jpg "what is the dog doing?"
    """
    from tuwen import answering, pipelines
    from tuwen.progress import track

    rows = _rows(asked or [], questions)
    pipeline = pipelines.as_answerer(pipelines.load(model))
    failed: list[dict[str, str]] = []
    show = questions is None or attention is not None
    said = pipeline.answer_each([r.path for r in rows], [r.question for r in rows], k, attend=show, failed=failed)
    answers = dict(track(said, len(rows), "questions"))
    order = sorted(answers)
    if not order:
        if len(failed) == 1:
            raise DataError(f"{failed[0]['file']}: {failed[0]['why']}")
        tell_failed(failed)
        raise DataError(f"none of {len(failed)} pictures can be read, so nothing is answered; replace them")
    drawn: dict[int, str] = {}
    if attention is not None:
        for place in order:
            sheet = answering.draw_attention(answers[place], rows[place].path, attention, drawn.values())
            if sheet is None:
                raise ModelError(f"{pipeline.name}: this model has no attention to draw: leave --attention out")
            drawn[place] = sheet
    warnings = _strange(pipeline, rows)
    if json:
        told = [_as_dict(rows[place], answers[place], drawn.get(place)) for place in order]
        unread = [f"{failure['file']}: {failure['why']}" for failure in failed]
        print_json({"answers": told, "model": pipeline.name, "failed": failed}, unread + warnings)
        return
    tell_failed(failed)
    for text in warnings:
        warn(text)
    for place in order:
        _tell(rows[place], answers[place], drawn.get(place))


def _rows(asked: list[str], questions: Path | None) -> list[Row]:
    """What is asked: rows of a file, or the last argument about each picture before it."""
    from tuwen.answering import Row, read_rows
    from tuwen.describing import find_pictures

    if questions is not None:
        if asked:
            raise typer.BadParameter("give pictures and a question, or --questions F.jsonl, which names both")
        return read_rows(questions)
    if len(asked) < 2:
        raise typer.BadParameter('give a picture and a question: tuwen ask photo.jpg "what is it?"')
    *pictures, question = asked
    if not question.strip():
        raise typer.BadParameter("the question is empty")
    if _is_path(question):
        raise typer.BadParameter(f'the question comes last, and {question} is a file: tuwen ask {question} "..."')
    return [Row(str(path), path, question) for path in find_pictures(map(Path, pictures))]


def _is_path(text: str) -> bool:
    try:
        return Path(text).exists()
    except OSError:  # a question may be longer than any file's name
        return False


def _strange(pipeline: Answerer, rows: list[Row]) -> list[str]:
    """A warning where questions hold words that the model never saw."""
    strange = {question: pipeline.unknown_words(question) for question in {row.question for row in rows}}
    hit = [question for question, words in strange.items() if words]
    if not hit:
        return []
    if len(strange) == 1:
        return [f"model '{pipeline.name}' never saw these words: {', '.join(strange[hit[0]])}"]
    return [f"{len(hit)} of {len(strange)} different questions hold words that model '{pipeline.name}' never saw"]


def _as_dict(row: Row, answer: Answer, drawn: str | None) -> dict[str, Any]:
    from tuwen.answering import as_dict

    return as_dict(answer, row.file, drawn) | ({} if row.id is None else {"id": row.id})


def _tell(row: Row, answer: Answer, drawn: str | None) -> None:
    """The picture and the question, then a line an answer."""
    link: Any = Style(link=row.path.resolve().as_uri())
    say(Text.assemble((row.file, link), "  ", (row.question, "bold")))
    if not answer.sure:
        say(Text("  not sure; the best guesses:", "yellow"))
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in answer.best:
        bar = "█" * round(one.score * BAR)
        table.add_row(Text(f"  {one.text}"), Text(f"{one.score:.0%}", justify="right"), Text(f"{bar:{BAR}}", "cyan"))
    say(table)
    if drawn is not None:
        say(Text(f"  {drawn}", "dim"))
