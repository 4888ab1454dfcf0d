"""`tuwen questions`: write questions from captions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from tuwen.cli.common import print_json, say

SHOWN = 4  # answers of a type that the table names; --json prints ten


def questions(
    data: Annotated[Path, typer.Argument(help="A data set with captions; its metadata.jsonl gets the questions.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed and captions make the same questions.")] = 0,
    per_picture: Annotated[int, typer.Option(help="At most so many a picture.", min=1)] = 8,
    lang: Annotated[
        str | None, typer.Option(help="Ask in this language alone: en or zh; default: those of the captions.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask about pictures what their captions answer; made questions are replaced, a person's stay."""
    from tuwen.questions import write

    result = write(data, seed=seed, per_picture=per_picture, lang=lang)
    if json:
        print_json(result)
    else:
        tell(result)


def tell(result: dict[str, Any]) -> None:
    """Counts by type and language, for people."""
    table = Table(title_justify="left")
    for name in ("type", "language", "questions", "most common answers"):
        table.add_column(name, justify="right" if name == "questions" else "left")
    for lang, types in result["answers"].items():
        for type_, answers in types.items():
            shown = ", ".join(f"{answer} {number:,}" for answer, number in list(answers.items())[:SHOWN])
            table.add_row(type_, lang, f"{result['asked'][lang][type_]:,}", escape(shown))
    say(table)
    again = f", in place of {result['replaced']:,} made before" if result["replaced"] else ""
    say(escape(f"{result['data']}: {result['questions']:,} questions on {result['pictures']:,} pictures{again}"))
    say(escape(result["note"]))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("questions")(questions)
