"""`tuwen scenes`: make the data set of flat shapes in which tests and demos live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuwen.cli.common import print_json, say
from tuwen.scenes import MOST, write_scenes


def scenes(
    dest: Annotated[Path, typer.Argument(help="Folder to make; one with other scenes in it is replaced.")],
    n: Annotated[int, typer.Option("-n", help="How many pictures.", min=1)] = 1000,
    size: Annotated[int, typer.Option(help="Pixels a side.", min=16)] = 64,
    seed: Annotated[int, typer.Option(help="The same seed makes the same bytes.")] = 0,
    things: Annotated[int, typer.Option(help="Most things of a picture.", min=1, max=MOST)] = MOST,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make N pictures of coloured shapes with captions, questions and their true scenes."""
    dataset = write_scenes(dest, n, size, seed, things)
    splits = dataset.splits()
    if json:
        print_json({"folder": str(dest), "pictures": len(dataset), "splits": splits, "size": size, "seed": seed})
        return
    parts = ", ".join(f"{count:,} {split}" for split, count in splits.items())
    say(f"{dest}: {len(dataset):,} pictures of {size} pixels ({parts}), 10 captions and 10 questions each")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("scenes")(scenes)
