"""`tuwen draw`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuwen.cli.common import print_json, say, warn
from tuwen.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuwen.pipelines import Drawer

MODEL = "text-to-image"
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("draw")(draw)


def draw(
    words: Annotated[str, typer.Argument(help="What to draw, in English or Chinese.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The file (.png, .jpg, .webp), or a folder for one PNG a picture.")
    ],
    n: Annotated[int, typer.Option("-n", min=1, max=256, help="How many: a grid, in a file.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same; the next picture has the next.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="From noise to picture; default: its own.")] = None,
    guidance: Annotated[
        float | None, typer.Option(min=0, max=100, help="How much the words count: 1 plainly, more for more.")
    ] = None,
    tries: Annotated[
        int | None, typer.Option(min=1, max=64, help="Draw again, so often at most, what shows the wrong flat shapes.")
    ] = None,
    scale: Annotated[int, typer.Option(min=1, max=16, help="Pixels for each pixel drawn.")] = 1,
    model: Annotated[str, typer.Option(help="A shipped model or a run's folder.")] = MODEL,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Draw small pictures from a sentence."""
    folder = out.is_dir() or not out.suffix
    _check_out(out, folder)
    from tuwen import pipelines
    from tuwen.files import write_atomic
    from tuwen.pipelines.drawer import sheet, tell_faults
    from tuwen.progress import track

    drawer = pipelines.as_drawer(pipelines.load(model))
    warnings = _warnings(drawer, words)
    drawings = list(track(drawer.each([words], n, seed, steps=steps, guidance=guidance, tries=tries), n, "pictures"))
    warnings += tell_faults(drawings)
    if folder:
        files = [out / f"{one.seed}.png" for one in drawings]
        for file, one in zip(files, drawings, strict=True):
            write_atomic(file, _encoded(sheet([one], scale=scale), "PNG"))
    else:
        files = [out] * n
        write_atomic(out, _encoded(sheet(drawings, scale=scale), FORMATS[out.suffix.lower()]))
    if json:
        pictures = [
            {"file": str(file), "prompt": one.prompt, "seed": one.seed, "wrong": one.wrong}
            for file, one in zip(files, drawings, strict=True)
        ]
        print_json({"pictures": pictures, "model": drawer.name}, warnings)
        return
    for warning in warnings:
        warn(warning)
    last = f" to {drawings[-1].seed}" if n > 1 else ""
    say(f"{out}: {n} picture{'s' if n > 1 else ''} of {drawer.size} pixels, seed {seed}{last}")


def _check_out(out: Path, folder: bool) -> None:
    """What can be said of `--out` before the work."""
    if not folder and out.suffix.lower() not in FORMATS:
        raise ConfigError(f"{out}: pictures are written as {', '.join(FORMATS)}: name one of these, or a folder")
    if not out.absolute().parent.is_dir():
        raise DataError(f"{out}: there is no folder {out.parent}: make it first")


def _warnings(drawer: Drawer, words: str) -> list[str]:
    unknown = drawer.unknown_words(words)
    if not unknown:
        return []
    listed = ", ".join(f"'{word}'" for word in unknown)
    return [f"{drawer.name} never saw {listed} in training, so it cannot know what that looks like; say it otherwise"]


def _encoded(picture: Image, kind: str) -> bytes:
    data = io.BytesIO()
    picture.save(data, kind)
    return data.getvalue()
