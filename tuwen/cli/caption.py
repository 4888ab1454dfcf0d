"""`tuwen caption`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.style import Style
from rich.text import Text

from tuwen.cli.common import print_json, say, tell_failed, warn
from tuwen.errors import DataError

if TYPE_CHECKING:
    from tuwen.pipelines import Described

MODEL = "captioning"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("caption")(caption)


def caption(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them.", metavar="PICTURE")],
    lang: Annotated[str | None, typer.Option(help="en or zh; default: English, where the model speaks it.")] = None,
    beams: Annotated[
        int | None, typer.Option(min=1, max=50, help="Width of the search; default: the model's own, mostly 3.")
    ] = None,
    samples: Annotated[int, typer.Option(min=0, max=100, help="Draw so many captions at random instead.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    model: Annotated[str, typer.Option(help="A shipped model, a run's folder or hf:REPO.")] = MODEL,
    out: Annotated[
        Path | None,
        typer.Option(help="Write to F.json, F.csv, or DIR/metadata.jsonl: a data set to correct by hand."),
    ] = None,
    attention: Annotated[
        Path | None, typer.Option(help="Draw into this folder where the model looked, word by word.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Describe pictures in English or Chinese.

    In a metadata.jsonl the captions have the source model:NAME, and what people wrote there stays. Whoever corrects
    one deletes its source: then it counts as human.
    """
    from tuwen import describing, pipelines
    from tuwen.progress import track

    if samples and beams is not None:
        raise typer.BadParameter("give --beams or --samples: captions are searched for or drawn")
    if out is not None:
        describing.check_out(out)
    files = describing.find_pictures(pictures)
    pipeline = pipelines.as_describer(pipelines.load(model))
    lang = lang or ("en" if "en" in pipeline.languages else pipeline.languages[0])
    failed: list[dict[str, str]] = []
    rows: list[Described] = []
    sheets: dict[str, str | None] = {}
    said = pipeline.describe(files, lang, beams=beams, samples=samples, seed=seed, failed=failed)
    stopped = False
    try:
        for row in track(said, len(files), "pictures"):
            rows.append(row)
            if attention is not None:
                sheets[row.file] = describing.draw_attention(pipeline, row, attention, filter(None, sheets.values()))
    except KeyboardInterrupt:
        stopped = True
        if out is None or not rows:
            raise
    if not rows:
        _refuse(failed, pictures)
    told = describing.write(out, rows, pipeline.name, bool(samples)) if out is not None else None
    if json:
        captions = [{**describing.as_dict(row), "attention": sheets.get(row.file)} for row in rows]
        warnings = [f"{failure['file']}: {failure['why']}" for failure in failed]
        print_json({"captions": captions, "model": pipeline.name, "failed": failed}, warnings)
    else:
        tell_failed(failed)
        _tell(rows, bool(samples)) if told is None else say(Text(f"{out}: {told}"))
    if stopped:
        warn(f"stopped: {out} holds the first {len(rows)} of {len(files)} pictures")
        raise KeyboardInterrupt


def _refuse(failed: list[dict[str, str]], asked: list[Path]) -> None:
    """Nothing was described: the one reason, or a line each and then the sum."""
    if len(failed) == 1:
        raise DataError(f"{failed[0]['file']}: {failed[0]['why']}")
    tell_failed(failed)
    raise DataError(f"{asked[0]}: none of {len(failed)} pictures can be read, so nothing is described; replace them")


def _tell(rows: list[Described], every: bool) -> None:
    """A line a picture; where captions were drawn, a line each below its name."""
    width = max(len(row.file) for row in rows)
    for row in rows:
        link: Any = Style(link=Path(row.file).resolve().as_uri())
        texts = [one.text for one in row.texts] or [""]
        if every:
            say(Text.assemble((row.file, link), *(f"\n  {text}" for text in texts)))
        else:
            say(Text.assemble((row.file, link), " " * (width - len(row.file)), f"  {texts[0]}"))
