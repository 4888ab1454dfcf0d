"""`tuwen calibrate`, for whoever ships a model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from tuwen.cli.common import print_json, say
from tuwen.errors import ModelError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("calibrate", hidden=True)(calibrate)


def calibrate(
    model: Annotated[str, typer.Argument(help="A shipped model or a run's folder.")],
    data: Annotated[Path, typer.Option(help="A data set whose 'train' the model learnt from.")],
    split: Annotated[str, typer.Option(help="The pictures on which the floor is chosen.")] = "val",
    probes: Annotated[
        Path | None, typer.Option(help="A data set with questions, of another kind of pictures; needs --topics.")
    ] = None,
    topics: Annotated[
        Path | None, typer.Option(help="JSON: what the probes show (present) and never do (absent), [[en, zh], ...].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Choose when a search finds nothing, and write it beside the model's weights."""
    from tuwen import calibrate as calibration
    from tuwen import dataset, pipelines

    pipeline = pipelines.as_embedder(pipelines.load(model))
    folder = getattr(pipeline, "folder", None)
    if not isinstance(folder, Path):
        raise ModelError(f"{model}: lies in no folder of its own to note it in; name a run")
    if (probes is None) != (topics is None):
        raise typer.BadParameter("--probes and --topics go together")
    others = None
    if probes is not None and topics is not None:
        others = calibration.Probes(dataset.load(probes), *calibration.read_topics(topics))
    chosen = calibration.calibrate(pipeline, dataset.load(data), split, seed, others)
    chosen.save(folder)
    if json:
        print_json({"model": pipeline.name, "lines": {lang: asdict(line) for lang, line in chosen.lines.items()}})
        return
    for lang, line in chosen.lines.items():
        say(
            Text(
                f"{lang}: floor {line.base:.3f} + {line.slope:.2f} (3 - known) + {line.share:.1f} near, typically "
                f"{line.typical:.3f}; of {line.queries:,} queries {line.ranked:.0%} have their picture among the "
                f"first 3, {line.found:.0%} after the floor; {line.rejected:.0%} of absent ones find nothing"
            )
        )
    say(Text(str(folder / calibration.FILE)))
