"""`tuwen index` and `tuwen search`."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tuwen.cli.common import print_json, say, warn
from tuwen.errors import DataError, ModelError

if TYPE_CHECKING:
    from tuwen.pipelines import Embedder
    from tuwen.searching import CaptionHit, Hit
    from tuwen.store import LanceStore

DB = Path("tuwen.db")
EMBEDDED = "retrieval"
SHOWN = 10  # unreadable files that are listed for people; --json lists all
BAR = 16  # characters of a cosine of 1

Db = Annotated[Path, typer.Option("--db", help="The index's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Wanted(str, Enum):
    """What `search --for` finds."""

    pictures = "pictures"
    captions = "captions"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("index")(index)
    app.command("search")(search)


def index(
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures, or a data set.")],
    db: Db = DB,
    model: Annotated[
        str | None,
        typer.Option(
            help="A shipped model, a run's folder, hf:REPO or best; default: the index's own, else 'retrieval'."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Index a folder of pictures. Again: only what changed. Ctrl-C keeps what is done.

    The index goes to tuwen.db in the current folder, where `tuwen search` looks for it.
    """
    from tuwen import pipelines
    from tuwen.indexing import index_folder
    from tuwen.store import read_model

    if not pictures.is_dir():
        raise DataError(f"{pictures}: there is no such folder")
    new = not (db / "index.json").exists()
    if model is None:
        model = EMBEDDED if new else read_model(db).name
    elif (Path(model) / "config.json").is_file():
        model = str(Path(model).resolve())  # `search` loads it again, from wherever it is called
    try:
        pipeline = pipelines.as_embedder(pipelines.load(model))
        named = pipeline.name if model.startswith("hf:") else model  # a folder's name is absolute there
        report = index_folder(pictures, db, pipeline, named)
    except KeyboardInterrupt:
        warn(f"stopped: what was embedded is in {db}; the same command goes on from there")
        raise
    result = asdict(report)
    warnings = result.pop("warnings")
    if json:
        print_json(result, warnings)
        return
    for text in warnings:
        warn(text)
    for failure in report.failed[:SHOWN]:
        warn(f"{failure['file']}: {failure['why']}")
    if len(report.failed) > SHOWN:
        warn(f"and {len(report.failed) - SHOWN} more files that cannot be read (--json lists them)")
    names = ("added", "updated", "moved", "removed", "unchanged")
    counts = [f"{result[name]:,} {name}" for name in names if result[name]]
    counts += [f"{len(report.failed):,} unreadable"] if report.failed else []
    rate = f", {report.pictures_per_second:,.0f} pictures/s" if report.decoded else ""
    say(Text(f"{db}, model {model}: {', '.join(counts)} ({report.seconds:.1f} s{rate})"))
    if new and model == EMBEDDED:
        say(
            Text(
                "This embedded model knows what 6,000 everyday photographs teach; --model takes one of your own, or "
                "hf:REPO. Where there is a network, `tuwen models get best` fetches a web-trained one.",
                "dim",
            )
        )


def search(
    words: Annotated[str | None, typer.Argument(help="What to look for, in English or Chinese.")] = None,
    image: Annotated[Path | None, typer.Option(help="Look for what is like this picture instead.")] = None,
    wanted: Annotated[
        Wanted, typer.Option("--for", help="With --image: the captions of indexed data that fit the picture.")
    ] = Wanted.pictures,
    k: Annotated[int, typer.Option("-k", min=1, max=10_000, help="How many hits.")] = 10,
    db: Db = DB,
    everything: Annotated[bool, typer.Option("--all", help="Show hits below the no-match threshold too.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write the hits as a page with pictures to this file.")] = None,
    json: Json = False,
) -> None:
    """Find pictures by words or by a picture, or the captions that fit a picture, in an index made before."""
    if (words is None) == (image is None):
        raise typer.BadParameter('give words, as in tuwen search "a red boat", or --image FILE: one of them')
    if wanted is Wanted.captions and image is None:
        raise typer.BadParameter("--for captions needs --image FILE")
    if words is not None and not words.strip():
        raise typer.BadParameter("the words are empty")
    store, pipeline = open_index(db)
    warnings: list[str] = []
    hits: list[Hit] | list[CaptionHit]
    if wanted is Wanted.captions:
        from tuwen.searching import search_captions

        hits = search_captions(store, pipeline, image or Path(), k)
        if not hits:
            warnings.append(f"{db}: no captions in it; index a data set that has some (metadata.jsonl)")
    elif words is None:
        from tuwen.searching import Query, find

        hits = find(store, pipeline, Query(image=image, k=k)).hits
    else:
        from tuwen.searching import Query, find

        warnings += unknown(pipeline, words)
        hits = find(store, pipeline, Query(words, k=k, everything=everything)).hits
    if html is not None:
        from tuwen.report import write_hits

        write_hits(html, words or image or "", hits, store.model)
    if json:
        print_json({"hits": [asdict(hit) for hit in hits], "model": store.model.name}, warnings)
        return
    for text in warnings:
        warn(text)
    say(
        table(hits) if hits else Text("no match" + ("" if everything or words is None else "; --all shows the nearest"))
    )


def open_index(db: Path) -> tuple[LanceStore, Embedder]:
    """An index with its own model, never another. StoreError, ModelError."""
    from tuwen import pipelines
    from tuwen.indexing import describe
    from tuwen.store import check_model, open_store

    store = open_store(db)
    try:
        pipeline = pipelines.as_embedder(pipelines.load(store.model.name))
    except ModelError as error:
        raise ModelError(f"{db}: its model {store.model} cannot be loaded: {error}") from None
    check_model(db, describe(pipeline, store.model.name))
    return store, pipeline


def unknown(pipeline: Embedder, words: str) -> list[str]:
    """A warning where the model knows none of the words."""
    from tuwen.text import split_words

    all_words, strange = split_words(words), set(pipeline.unknown_words(words))
    if all_words and strange.issuperset(all_words):
        return [f"model '{pipeline.name}' knows none of these words, so the hits mean little: {', '.join(all_words)}"]
    return []


def table(hits: list[Hit] | list[CaptionHit]) -> Table:
    """The hits for people: rank, cosine as a bar, what was found as a link to the file."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    for hit in hits:
        bar = "█" * round(max(hit.score, 0) * BAR)
        link = Style(link=Path(hit.file).resolve().as_uri())
        found = getattr(hit, "text", None) or _near(hit.file)
        about = getattr(hit, "caption", None) or (_near(hit.file) if hasattr(hit, "text") else "")
        shown.add_row(
            Text(f"{hit.rank}", justify="right"),
            Text(f"{bar:{BAR}}", "cyan"),
            Text(f"{hit.score:.3f}"),
            Text(found, link),
            Text(about, "dim"),
        )
    return shown


def _near(file: str) -> str:
    """A path as one would type it from here."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file
