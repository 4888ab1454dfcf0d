"""`tuwen index`."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from tuwen.cli.common import print_json, say, warn
from tuwen.errors import DataError, StoreError, TuwenError

if TYPE_CHECKING:
    from tuwen.intake import IndexReport
    from tuwen.listing import Patterns
    from tuwen.pipelines import Embedder

DB = Path("tuwen.db")
EMBEDDED = "retrieval"
DESCRIBER = "captioning"
SHOWN = 10  # unreadable files that are listed for people; --json lists all

WHICH, MORE, CARE = "Which pictures", "More than vectors", "Care of the index"
Db = Annotated[Path, typer.Option("--db", help="The index's folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Language(str, Enum):
    """What captions are made in."""

    en = "en"
    zh = "zh"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("index")(index)


def index(
    pictures: Annotated[
        Path | None, typer.Argument(help="A folder of pictures, or a data set.", show_default=False)
    ] = None,
    db: Db = DB,
    model: Annotated[
        str | None,
        typer.Option(
            help="A shipped model, a run's folder, hf:REPO or best; default: the index's own, else retrieval. Another "
            "than the index's embeds all pictures anew; the old one serves until that is done."
        ),
    ] = None,
    json: Json = False,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Only what fits, as '*.jpg' or 'holiday/*'; may be repeated.", rich_help_panel=WHICH),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Not what fits; both are remembered.", rich_help_panel=WHICH)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Forget the patterns.", rich_help_panel=WHICH)] = False,
    caption: Annotated[
        list[Language] | None,
        typer.Option(help="Describe pictures that have no caption in it, too; may be repeated.", rich_help_panel=MORE),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and index what changes; Ctrl-C ends it.", rich_help_panel=MORE)
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Say what is wrong with the index; write nothing.", rich_help_panel=CARE)
    ] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is wrong.", rich_help_panel=CARE)] = False,
) -> None:
    """Index a folder of pictures. Again: only what changed. Ctrl-C keeps what is done.

    The index goes to tuwen.db in the current folder, where `tuwen search` looks for it.
    """
    if verify and repair:
        raise typer.BadParameter("--verify or --repair: one of them")
    if watch and (verify or repair or json):
        raise typer.BadParameter("--watch goes without --verify, --repair and --json")
    if caption and (watch or verify or repair):
        raise typer.BadParameter("--caption goes without --watch, --verify and --repair: call it once they are done")
    if (include or exclude) and (verify or repair):
        raise typer.BadParameter("--verify and --repair keep to the patterns of each folder: leave them out")
    if verify:
        _verify(db, json)
        return
    if pictures is None and not repair:
        raise typer.BadParameter("name a folder of pictures")
    if pictures is not None and not pictures.is_dir():
        raise DataError(f"{pictures}: there is no such folder")
    patterns = _patterns(include, exclude, every)
    pipeline, name = _load(db, model)
    if repair:
        _repair(db, pipeline, name, pictures, json)
        return
    new, folder = not (db / "index.json").exists(), pictures or Path()
    change = _tell_change(db, pipeline, name, asked=model is not None)
    if watch:
        _watch(folder, db, pipeline, name, patterns, change)
        return
    report = _run(folder, db, pipeline, name, patterns, change)
    _caption(db, caption, pipeline, report)
    _tell(report, db, name, json)
    if new and name == EMBEDDED and not json:
        say(
            Text(
                "This embedded model knows what 6,000 everyday photographs teach; --model takes one of your own, or "
                "hf:REPO. Where there is a network, `tuwen models get best` fetches a web-trained one.",
                "dim",
            )
        )


def _load(db: Path, model: str | None) -> tuple[Embedder, str]:
    """The pipeline, and the name that loads it again from anywhere."""
    from tuwen import pipelines
    from tuwen.store import read_model

    if model is None:
        try:
            model = read_model(db).name if (db / "index.json").exists() else EMBEDDED
        except StoreError:
            raise StoreError(
                f"{db}/index.json: cannot be read; say its --model with --repair, or delete {db}"
            ) from None
    elif (Path(model) / "config.json").is_file():
        model = str(Path(model).resolve())  # `search` loads it again, from wherever it is called
    pipeline = pipelines.as_embedder(pipelines.load(model))
    return pipeline, pipeline.name if model.startswith("hf:") else model  # a folder's name is absolute there


def _patterns(include: list[str] | None, exclude: list[str] | None, every: bool) -> Patterns | None:
    from tuwen.listing import Patterns

    if every and (include or exclude):
        raise typer.BadParameter("--all forgets the patterns: it goes without --include and --exclude")
    return Patterns(tuple(include or ()), tuple(exclude or ())) if every or include or exclude else None


def _run(
    pictures: Path, db: Path, pipeline: Embedder, name: str, patterns: Patterns | None, change: bool, wait: float = 0
) -> IndexReport:
    from tuwen.indexing import index_folder

    try:
        return index_folder(pictures, db, pipeline, name, patterns=patterns, change=change, wait=wait)
    except KeyboardInterrupt:
        left = "; the old model stays in use until all is done" if change else ""
        warn(f"stopped: what was embedded is in {db}; the same command goes on from there{left}")
        raise


def _tell_change(db: Path, pipeline: Embedder, name: str, asked: bool) -> bool:
    """Whether the index changes its model now; what that costs is said first. StoreError where it was not asked for."""
    from tuwen.indexing import describe, estimate
    from tuwen.store import open_store, read_state, same

    if not (db / "index.json").exists():
        return False
    state, model = read_state(db), describe(pipeline, name)
    if same(state.model, model):
        if state.coming and asked:
            warn(f"{db}: the change to {state.coming} was not finished; go on with --model {state.coming.name}")
        return False
    count, seconds = estimate(open_store(db), pipeline)
    cost = f"{count:,} pictures are embedded anew, about {_span(seconds)} here"
    if not asked:
        raise StoreError(
            f"{db}: an index of the model {state.model}, and '{name}' is another one now ({model}). "
            f"tuwen index PICTURES --model {name} --db {db} changes it: {cost}"
        )
    warn(f"{db}: from model {state.model} to {model}: {cost}; the old one stays in use until all is done")
    return True


def _span(seconds: float) -> str:
    for size, unit in ((3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 1):.0f} seconds"


def _caption(db: Path, langs: list[Language] | None, pipeline: Embedder, report: IndexReport) -> None:
    """Describe what has no caption."""
    if not langs:
        return
    from tuwen import pipelines
    from tuwen.indexing import caption_index

    describer = pipelines.as_describer(pipelines.load(DESCRIBER))
    report.captioned, failed = caption_index(db, describer, [lang.value for lang in langs], pipeline)
    report.warnings += [f"{failure['file']}: {failure['why']}" for failure in failed]


def _tell(report: IndexReport, db: Path, name: str, json: bool) -> None:
    result: dict[str, Any] = asdict(report)
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
    names = ("added", "updated", "moved", "removed", "unchanged", "captioned")
    counts = [f"{result[name]:,} {name}" for name in names if result[name]]
    counts += [f"{len(report.failed):,} unreadable"] if report.failed else []
    rate = f", {report.pictures_per_second:,.0f} pictures/s" if report.decoded else ""
    before = f" instead of {report.changed}" if report.changed else ""
    say(Text(f"{db}, model {name}{before}: {', '.join(counts)} ({report.seconds:.1f} s{rate})"))


def _watch(pictures: Path, db: Path, pipeline: Embedder, name: str, patterns: Patterns | None, change: bool) -> None:
    from tuwen.upkeep import WAIT, watch

    turn = 0

    def act() -> None:
        nonlocal turn
        turn += 1
        try:
            report = _run(pictures, db, pipeline, name, patterns, change, wait=WAIT)
        except TuwenError as error:
            if turn == 1:
                raise
            warn(str(error))
            return
        if turn == 1 or report.added + report.updated + report.moved + report.removed:
            _tell(report, db, name, False)
        if turn == 1:
            say(Text(f"watching {pictures}; Ctrl-C ends it", "dim"))

    watch(pictures, db, act)


def _verify(db: Path, json: bool) -> None:
    from tuwen.upkeep import verify

    health = verify(db)
    if json:
        print_json({"db": str(db), "pictures": health.pictures, "problems": health.problems, "notes": health.notes})
    else:
        for problem in health.problems:
            warn(f"{problem['table']}: {problem['detail']}")
        for note in health.notes:
            say(Text(note, "dim"))
        sound = "sound" if not health.problems else f"{len(health.problems)} problems; --repair mends them"
        say(Text(f"{db}: {health.pictures:,} pictures, {sound}"))
    if health.problems:
        raise typer.Exit(1)


def _repair(db: Path, pipeline: Embedder, name: str, folder: Path | None, json: bool) -> None:
    from tuwen.upkeep import repair

    before, reports = repair(db, pipeline, name, folder)
    embedded = sum(report.decoded for report in reports)
    warnings = [warning for report in reports for warning in report.warnings]
    if json:
        found = {"db": str(db), "problems": before.problems, "folders": len(reports), "decoded": embedded}
        print_json(found, warnings)
        return
    for warning in warnings:
        warn(warning)
    for problem in before.problems:
        say(Text(f"mended: {problem['table']}: {problem['detail']}"))
    say(Text(f"{db}: {len(before.problems)} problems mended, {embedded:,} pictures embedded anew"))
