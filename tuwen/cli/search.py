"""`tuwen search` and `tuwen duplicates`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.style import Style
from rich.table import Table
from rich.text import Text

from tuwen.cli.common import print_json, say, warn
from tuwen.cli.index import DB, Db, Json
from tuwen.errors import DataError, ModelError

if TYPE_CHECKING:
    from tuwen.pipelines import Embedder
    from tuwen.searching import CaptionHit, Found, Hit
    from tuwen.store import LanceStore

BAR = 16  # characters of a cosine of 1
QUERY, FILTER, PAGES, OUT = "What to look for", "Which pictures", "How many, in which order", "Where the hits go"


class Wanted(str, Enum):
    """What `search --for` finds."""

    pictures = "pictures"
    captions = "captions"


class Mode(str, Enum):
    """What words are held against: pictures, the words of captions, or both."""

    vector = "vector"
    words = "words"
    hybrid = "hybrid"


class Order(str, Enum):
    """What comes first."""

    score = "score"
    date = "date"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("search")(search)
    app.command("duplicates")(duplicates)


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def search(
    words: Annotated[str | None, typer.Argument(help="What to look for, in English or Chinese.")] = None,
    image: Annotated[Path | None, _option(QUERY, help="What is like this picture; with words: like both.")] = None,
    weight: Annotated[float, _option(QUERY, help="The picture's share where words are given too.", min=0, max=1)] = 0.5,
    without: Annotated[str | None, _option(QUERY, "--not", help="Words for what should be absent.")] = None,
    like: Annotated[
        str | None, _option(QUERY, "--similar", help="Like a picture of the index: its file, or its id.")
    ] = None,
    mode: Annotated[
        Mode,
        _option(QUERY, "--by", help="Hold the words against pictures (vector), against captions (words), or both."),
    ] = Mode.vector,
    wanted: Annotated[
        Wanted, _option(QUERY, "--for", help="With --image: the captions of indexed data that fit the picture.")
    ] = Wanted.pictures,
    folder: Annotated[str | None, _option(FILTER, help="Below this folder, whole or a part of the path.")] = None,
    after: Annotated[datetime | None, _option(FILTER, help="Taken on this day or later.", formats=["%Y-%m-%d"])] = None,
    before: Annotated[
        datetime | None, _option(FILTER, help="Taken on this day or earlier.", formats=["%Y-%m-%d"])
    ] = None,
    camera: Annotated[str | None, _option(FILTER, help="A part of the camera's name.")] = None,
    format: Annotated[str | None, _option(FILTER, help="jpeg, png, webp ...")] = None,
    min_side: Annotated[int | None, _option(FILTER, help="Pixels of the shorter side, at least.", min=1)] = None,
    k: Annotated[int, _option(PAGES, "-k", help="How many hits.", min=1, max=10_000)] = 10,
    offset: Annotated[int, _option(PAGES, help="Hits to pass over.", min=0, max=1_000_000)] = 0,
    order: Annotated[Order, _option(PAGES, "--sort", help="Best first, or newest first.")] = Order.score,
    everything: Annotated[bool, _option(PAGES, "--all", help="Hits below the no-match floor too.")] = False,
    db: Db = DB,
    json: Json = False,
    html: Annotated[Path | None, _option(OUT, help="Write the hits as a page with pictures to this file.")] = None,
    table: Annotated[Path | None, _option(OUT, "--csv", help="Write the hits as a table to this file.")] = None,
    copy: Annotated[Path | None, _option(OUT, help="Copy the hits' files into this folder.")] = None,
    link: Annotated[Path | None, _option(OUT, help="Make links to the hits' files in this folder.")] = None,
) -> None:
    """Find pictures by words, by a picture or by both, or the captions that fit a picture, in an index made before."""
    if [words is None and image is None, like is None].count(False) != 1:
        raise typer.BadParameter('give words, as in tuwen search "a red boat", --image FILE, both, or --similar FILE')
    if wanted is Wanted.captions and (image is None or words is not None):
        raise typer.BadParameter("--for captions needs --image FILE, and no words")
    if words is not None and not words.strip():
        raise typer.BadParameter("the words are empty")
    if mode is not Mode.vector and (words is None or image is not None):
        raise typer.BadParameter("--by words and --by hybrid take words, and no picture")
    if wanted is Wanted.captions:
        _captions(db, image or Path(), k, html, json)
        return
    from tuwen.searching import Filter, Query

    passing = Filter(
        folder, after.date() if after else None, before.date() if before else None, camera, format, min_side
    )
    query = Query(
        words, image, weight, without, mode.value, passing, order.value, offset=offset, k=k, everything=everything
    )
    store, found = _similar(db, like, query) if like is not None else _find(db, query)
    _hand_out(found.hits, copy, link, table)
    if html is not None:
        from tuwen.report import write_hits

        write_hits(html, words or image or like or "", found.hits, store.model)
    if json:
        print_json(
            {"hits": [asdict(hit) for hit in found.hits], "model": store.model.name, "more": found.more}, found.warnings
        )
        return
    for text in found.warnings:
        warn(text)
    if not found.hits:
        floored = words is not None and not everything and mode is Mode.vector and not offset
        say(Text("no match" + ("; --all shows the nearest" if floored else "")))
        return
    say(as_table(found.hits))
    if found.more:
        say(Text(f"more: --offset {offset + k}", "dim"))


def duplicates(db: Db = DB, json: Json = False) -> None:
    """List pictures of an index that are alike to the eye, in groups: the one with most pixels first."""
    from tuwen.searching import duplicates as find_duplicates
    from tuwen.store import open_store

    groups = find_duplicates(open_store(db))
    if json:
        print_json({"groups": [[asdict(hit) for hit in group] for group in groups]})
        return
    for group in groups:
        say(as_table(group))
        say("")
    count = sum(len(group) - 1 for group in groups)
    say(Text(f"{len(groups):,} groups, {count:,} pictures beyond the first of each" if groups else "no duplicates"))


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


def _find(db: Path, query: Any) -> tuple[LanceStore, Found]:
    from tuwen.searching import find

    store, pipeline = open_index(db)
    return store, find(store, pipeline, query)


def _similar(db: Path, like: str, query: Any) -> tuple[LanceStore, Found]:
    """Like a picture of the index, by its id or its file; a file that is not in it is looked at."""
    from dataclasses import replace

    from tuwen import images
    from tuwen.searching import Filter, find, read_picture, similar
    from tuwen.store import VECTORS, open_store

    plain = query.filter == Filter() and query.order == "score" and not query.without
    store, path = open_store(db), Path(like)
    id = images.content_id(path) if path.is_file() else like
    known = any(store.scan(VECTORS, ["key"], ("key", [id])))
    if plain and known:
        return store, similar(store, id, query.k, query.offset)
    if known and not path.is_file():
        path = Path(read_picture(store, id)["file"])
    if not path.is_file():
        raise DataError(f"{like}: neither a file nor the id of a picture in {db}; `tuwen search --json` prints ids")
    store, pipeline = open_index(db)
    return store, find(store, pipeline, replace(query, image=path, itself=id))


def _captions(db: Path, image: Path, k: int, html: Path | None, json: bool) -> None:
    from tuwen.searching import search_captions

    store, pipeline = open_index(db)
    hits = search_captions(store, pipeline, image, k)
    warnings = [] if hits else [f"{db}: no captions in it; index a data set that has some, or add --caption en"]
    if html is not None:
        from tuwen.report import write_hits

        write_hits(html, image, hits, store.model)
    if json:
        print_json({"hits": [asdict(hit) for hit in hits], "model": store.model.name}, warnings)
        return
    for text in warnings:
        warn(text)
    say(as_table(hits) if hits else Text("no match"))


def _hand_out(hits: list[Hit], copy: Path | None, link: Path | None, table: Path | None) -> None:
    from tuwen.handout import put_files, write_table

    for folder, linked in ((copy, False), (link, True)):
        if folder is not None:
            count = put_files(hits, folder, linked)
            if count < len(hits):
                warn(f"{len(hits) - count} of {len(hits)} files are gone")
    if table is not None:
        write_table(hits, table)


def as_table(hits: list[Hit] | list[CaptionHit]) -> Table:
    """The hits for people: rank, score as a bar beside the best of them, what was found as a link to the file."""
    shown = Table(box=None, pad_edge=False, show_header=False)
    most = max([1e-6, *(hit.score for hit in hits)])  # how high scores go is another thing for each model
    for hit in hits:
        bar = "█" * round(max(hit.score, 0) / most * BAR)
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
