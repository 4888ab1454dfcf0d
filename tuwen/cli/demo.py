"""`tuwen demo` and `tuwen report`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from tuwen.cli.common import print_json, say, warn
from tuwen.errors import DataError

TOLD = 3  # hits a line
DESCRIBER, ANSWERER, DRAWER, GEOMETER = "captioning", "vqa", "text-to-image", "vqa-scenes"
PORT = 7861


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("demo")(demo)
    app.command("report")(report)


def demo(
    pictures: Annotated[Path | None, typer.Argument(help="Your own folder; default: sample photographs.")] = None,
    out: Annotated[Path, typer.Option(help="Where the index and the report go.")] = Path("demo"),
    model: Annotated[str, typer.Option(help="A shipped model or a run's folder.")] = "retrieval",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Index sample photographs (or yours), search them in two languages and by a picture, describe them, answer
    questions about them, draw from sentences, write a report."""
    from tuwen import checkpoint, pipelines
    from tuwen.demo import run_demo

    if pictures is not None and not pictures.is_dir():
        raise DataError(f"{pictures}: there is no such folder")
    embedder = pipelines.as_embedder(pipelines.load(model))
    shipped = checkpoint.shipped_models()
    describer = pipelines.as_describer(pipelines.load(DESCRIBER)) if DESCRIBER in shipped else None
    answerer = pipelines.as_answerer(pipelines.load(ANSWERER)) if ANSWERER in shipped else None
    drawer = pipelines.as_drawer(pipelines.load(DRAWER)) if DRAWER in shipped else None
    geometer = pipelines.as_answerer(pipelines.load(GEOMETER)) if GEOMETER in shipped else None
    seen = run_demo(embedder, out, pictures, describer, answerer, drawer, geometer)
    if json:
        print_json(seen, seen["index"]["warnings"])
    else:
        tell(seen)


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    out: Annotated[Path | None, typer.Option(help="The page; default: report.html in the run.")] = None,
    rate: Annotated[bool, typer.Option(help="Serve a page where people rate a drawing model's samples.")] = False,
    data: Annotated[Path | None, typer.Option(help="With --rate, once: the data set whose captions are drawn.")] = None,
    split: Annotated[str, typer.Option(help="With --data: its split.")] = "test",
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="With --data: samples a language.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="With --data: of the first sample.")] = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --rate; 0: any that is free.")] = PORT,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a run's page: scores, curves, examples, votes and model card in one HTML file. With --rate: collect votes.

    Votes go to votes.jsonl in the run. The rating page is for this machine alone; Ctrl-C ends it.
    """
    if rate:
        _rate(run, data, split, n, seed, port)
        return
    from tuwen.report import write_run
    from tuwen.tune_page import write_tuned

    tuned = out is None and (run / "tune.json").is_file()
    path = write_tuned(run) if tuned else write_run(run, out)
    if json:
        print_json({"report": str(path)})
    else:
        say(Text(str(path)))


def _rate(run: Path, data: Path | None, split: str, n: int, seed: int, port: int) -> None:
    """Make what is rated where the run has nothing for this model yet, then serve it until Ctrl-C."""
    from tuwen import dataset as datasets
    from tuwen import pipelines, votes
    from tuwen.rating import Server

    drawer = pipelines.as_drawer(pipelines.load(str(run)))
    items = votes.read_items(run, drawer.fingerprint)
    if data is not None and items:
        folder = votes.items_folder(run, drawer.fingerprint)
        raise DataError(f"{folder}: samples are made already: leave out --data, or delete the folder for new ones")
    if data is not None:
        items = votes.make_items(run, drawer, datasets.load(data), split, n, seed)
    if not items:
        raise DataError(f"{run}: nothing drawn to rate yet: add --data DATA, whose captions are drawn")
    with Server(run, items, drawer.fingerprint, drawer.name, port) as server:
        say(f"rate {len(items)} pictures at {server.url} ; Ctrl-C ends, votes are kept in {run / votes.VOTES}")
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    found = votes.summarise(votes.read_votes(run, drawer.fingerprint))
    say(f"{found['votes']} votes of {found['people']} people")
    for kind, name in (("drawn", "drawn"), ("real", "real pictures"), ("other", "drawn, words of another")):
        if one := found[kind]:
            say(f"  {name}: {one['good']:.1f}% good ({one['interval'][0]}–{one['interval'][1]}), n = {one['n']}")


def tell(seen: dict[str, Any]) -> None:
    """What the demo saw, for people."""
    from tuwen.demo import tally

    counts = seen["index"]
    for failure in counts["failed"]:
        warn(f"{failure['file']}: {failure['why']}")
    rate = f", {counts['pictures_per_second']:.0f} pictures/s" if counts["decoded"] else ""
    say(Text(f"{seen['pictures']} photographs in {counts['db']} ({counts['added']} added{rate})"))
    say(Text(f"model {seen['model']}\n"))
    for query in seen["queries"]:
        found = ", ".join(f"{Path(hit['file']).name} {hit['score']:.3f}" for hit in query["hits"][:TOLD])
        say(Text.assemble((query["query"], "bold"), f"\n  {found or 'no match'}", (_rank(query), "dim")))
    like = seen["like"]
    found = ", ".join(f"{Path(hit['file']).name} {hit['score']:.3f}" for hit in like["hits"][:TOLD])
    say(Text.assemble((f"like the picture {Path(like['file']).name}", "bold"), f"\n  {found or 'no match'}\n"))
    _tell_captions(seen["captions"])
    _tell_answers(seen["answers"])
    _tell_drawn(seen["drawn"])
    _tell_answers(seen["about_drawn"])
    for lang, name in (("en", "English"), ("zh", "Chinese")):
        first, three, asked = tally(seen["queries"], lang)
        if asked:
            say(Text(f"{name}: the picture meant came first {first} times of {asked}, among the first 3 {three} times"))
    empty = sum(not query["hits"] for query in seen["queries"])
    say(Text(f"{empty} of {len(seen['queries'])} queries found nothing above the threshold"))
    say(Text("a web-trained model, where there is a network: tuwen models get best", "dim"))
    say(Text(f"report: {seen['report']}"))


def _tell_captions(captions: list[dict[str, Any]]) -> None:
    """A line a picture: its name, then what is said of it in each language."""
    lines: dict[str, list[str]] = {}
    for one in captions:
        lines.setdefault(Path(one["file"]).name, []).append(one["texts"][0]["text"] if one["texts"] else "")
    for name, texts in lines.items():
        say(Text.assemble((name, "bold"), "  ", "  ·  ".join(texts)))
    if lines:
        say("")


def _tell_answers(answers: list[dict[str, Any]]) -> None:
    """A line a question: its picture, the question and the best answer."""
    for one in answers:
        best, doubt = one["best"][0], "" if one["sure"] else "  not sure"
        told = f"  {best['text']} {best['score']:.0%}{doubt}"
        say(Text.assemble((Path(one["file"]).name, "bold"), f"  {one['question']}", (told, "cyan")))
    if known := [one["right"] for one in answers if one["right"] is not None]:
        say(Text(f"{sum(known)} of {len(known)} answers are right"))
    if answers:
        say("")


def _tell_drawn(drawn: list[dict[str, Any]]) -> None:
    """A line a sentence: what was drawn from it, and whether the checker finds it there."""
    for one in drawn:
        mark = {True: "  right", False: "  not all of it", None: ""}[one["right"]]
        say(Text.assemble((one["prompt"], "bold"), f"  {one['file']}", (mark, "cyan")))
    if drawn:
        say(Text(f"{sum(bool(one['right']) for one in drawn)} of {len(drawn)} drawings show all that was asked\n"))


def _rank(query: dict[str, Any]) -> str:
    if query["meant"]:
        where = "not found" if query["rank"] is None else f"rank {query['rank']}"
        return f"   (meant: {' or '.join(query['meant'])}: {where})"
    return "   (no picture is meant)" if query["meant"] is not None and query["hits"] else ""
