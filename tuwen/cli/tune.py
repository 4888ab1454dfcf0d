"""`tuwen tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tuwen.cli.common import print_json, say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("tune")(tune)


def tune(
    data: Annotated[Path, typer.Option(help="Your captioned pictures, a data set of at least 50.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="The run's folder, made new.")] = ...,  # type: ignore[assignment]
    model: Annotated[
        str, typer.Option("--from", help="What to adapt: a shipped model, a run's folder, or hf:REPO.")
    ] = "retrieval",
    lang: Annotated[str | None, typer.Option(help="Captions of this language alone: en or zh.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0.1, help="Passes over the captions; default: by size.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the training, and of what is held out.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Adapt the search to your own captions, and say by pictures held out whether that brought anything."""
    from tuwen.tune import tune as run
    from tuwen.tune_page import write_tuned

    result = run(data, model, out, lang=lang, epochs=epochs, seed=seed, resume=resume)
    result["report"] = str(write_tuned(out))
    if json:
        print_json(result)
    else:
        tell(result)


def tell(result: dict[str, Any]) -> None:
    """What came out, for people."""
    parts = f"{result['n_train']} pictures to train on, {result['n_val']} to choose by, {result['n_test']} held out"
    title = f"{result['data']}: {parts}"
    table = Table(title=title, title_justify="left")
    for name in ("score", "before", "after", "difference, 95%"):
        table.add_column(name, justify="left" if name == "score" else "right", no_wrap=True)
    for key, (low, high) in result["interval"].items():
        before, after = result["before"][key], result["after"][key]
        table.add_row(
            key, f"{before:.1f}", f"{after:.1f}", f"{after - before:+.1f} [dim]{low:+.1f} to {high:+.1f}[/dim]"
        )
    say(table)
    if repeated := result["captions_repeated"]:
        say(Text(f"{repeated} held-out captions stand in training too and are not scored", "dim"))
    say(Text(result["words"][0], "bold"))
    say(Text(f"report: {result['report']}"))
