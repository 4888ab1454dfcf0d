"""`tuwen regions`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tuwen.cli.common import print_json, say, tell_failed


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("regions")(regions)


def regions(
    data: Annotated[Path, typer.Argument(help="A data set; its metadata.jsonl then names each picture's regions.")],
    detector: Annotated[
        str, typer.Option(help="A DETR-like detector of transformers: a folder, or hf:REPO that was fetched.")
    ],
    most: Annotated[int, typer.Option(min=1, max=1000, help="Boxes a picture, the surest ones.")] = 36,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Find regions (boxes and their features) in a data set's pictures, for models that look at these.

    Stopped, it goes on with the next picture. Public features come by `tuwen import regions` instead.
    """
    from tuwen import detecting

    result = detecting.write(data, detector, most)
    failed = result["failed"]
    if json:
        print_json(result, [f"{one['file']}: {one['why']}" for one in failed])
        return
    tell_failed(failed)
    there = f", {result['kept']:,} were there" if result["kept"] else ""
    other = f", {result['replaced']:,} in place of others" if result["replaced"] else ""
    say(escape(f"{data}: regions of {result['found']:,} pictures by {result['detector']}{there}{other}"))
    say(escape(f"they lie in {data / result['folder']}; train on them with model.image.tower=regions"))
