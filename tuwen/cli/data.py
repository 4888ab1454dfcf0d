"""`tuwen import` and `tuwen check`: bring a data set, and see what is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from tuwen.check import CheckReport, Finding, check
from tuwen.cli.common import print_json, say
from tuwen.importers import IMPORTERS, ImportReport, run_import

SHOWN = 5  # examples of one kind of finding; --json prints all
FORMATS = " ".join(IMPORTERS)


def import_(
    format: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of: {FORMATS}.")],
    src: Annotated[Path, typer.Argument(help="The file of captions or questions, or the folder that holds it.")],
    dest: Annotated[Path, typer.Argument(help="The data set: made, or joined picture by picture.")],
    images: Annotated[Path | None, typer.Option(help="Folder of the pictures, if not beside SRC.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Import only this split; pictures whose layout names none are put into it.")
    ] = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy the pictures into DEST instead of pointing at them.")
    ] = False,
    annotations: Annotated[
        list[Path] | None,
        typer.Option(help="Answers (vqa2), captions (precomputed) or rows (regions) in their own file; repeatable."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a public layout into a data set, or join it to one. No picture is copied unless asked."""
    report = run_import(format, src, dest, images, split, copy, annotations)
    if json:
        skipped = [f"skipped {item['count']}: {item['why']} (such as {item['examples'][0]})" for item in report.skipped]
        print_json(asdict(report), skipped)
    else:
        _show_import(report)


def _show_import(report: ImportReport) -> None:
    say(
        f"{escape(report.dest)}: {report.added:,} new pictures, {report.merged:,} met again; "
        f"{report.captions_added:,} captions and {report.questions_added:,} questions added"
    )
    _show_counts(report.pictures, report.captions, report.questions, report.splits, report.languages)
    if report.regions:
        say(f"{report.regions:,} of {report.pictures:,} pictures have regions")
    for item in report.skipped:
        shown = ", ".join(item["examples"]) + (" ..." if item["count"] > len(item["examples"]) else "")
        say(f"[yellow]skipped[/] {item['count']:,}: {escape(item['why'])} ({escape(shown)})")


def _show_counts(
    pictures: int, captions: int, questions: int, splits: dict[str, int], languages: dict[str, int]
) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("pictures", f"{pictures:,}", _parts(splits))
    table.add_row("captions", f"{captions:,}", _parts(languages))
    table.add_row("questions", f"{questions:,}", "")
    table.columns[1].justify = "right"
    say(table)


def _parts(counts: dict[str, int]) -> str:
    return escape(", ".join(f"{name} {count:,}" for name, count in counts.items()))


def check_(
    data: Annotated[Path, typer.Argument(help="The data set's folder.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with every finding.")] = False,
) -> None:
    """Read every row and decode every picture. Exit 1 with errors; warnings alone are exit 0."""
    report = check(data)
    if json:
        print_json(report.as_dict())
    else:
        _show_check(data, report)
    if report.errors:
        raise typer.Exit(1)


def _show_check(data: Path, report: CheckReport) -> None:
    _show_counts(report.pictures, report.captions, report.questions, report.splits, report.languages)
    if report.machine_captions or report.machine_questions:
        apart = f"{report.machine_captions:,} captions, {report.machine_questions:,} questions"
        say(f"written by tools and not counted: {apart}")
    for level, found, style in (("error", report.errors, "red"), ("warning", report.warnings, "yellow")):
        kinds: dict[str, list[Finding]] = defaultdict(list)
        for finding in found:
            kinds[finding.kind].append(finding)
        for kind, findings in kinds.items():
            say(f"[{style}]{level}[/]: {kind.replace('_', ' ')} ({len(findings):,})")
            for finding in findings[:SHOWN]:  # lines and no table: a path must stay whole in a log
                say(f"  {escape(finding.file)}: {escape(finding.detail)}")
            if len(findings) > SHOWN:
                say(f"  ... and {len(findings) - SHOWN:,} more; --json prints all")
    say(f"{escape(str(data))}: {_plural(len(report.errors), 'error')}, {_plural(len(report.warnings), 'warning')}")


def _plural(count: int, thing: str) -> str:
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("import")(import_)
    app.command("check")(check_)
