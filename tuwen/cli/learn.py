"""`tuwen train` and `tuwen eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tuwen.cli.common import envelope, print_json, say, warn
from tuwen.errors import DataError

if TYPE_CHECKING:
    from tuwen.dataset import Dataset
    from tuwen.pipelines import Pipeline

COUNTS = ("distinct", "vocabulary")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("train")(train)
    app.command("eval")(evaluate)


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's file, or the name of one in recipes/.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="key=value, e.g. train.epochs=3", metavar="KEY=VALUE")
    ] = None,
    data: Annotated[Path, typer.Option(help="The data set's folder.")] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="The run's folder, made new.")] = ...,  # type: ignore[assignment]
    resume: Annotated[bool, typer.Option(help="Go on with the run in --out.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a model by a recipe on your data; Ctrl-C saves, --resume goes on."""
    from tuwen.config import load_recipe

    wanted = load_recipe(recipe, overrides)
    from tuwen.train import run

    result = run(wanted, data, out, resume=resume)
    if result is None:
        return
    if json:
        print_json(result)
        return
    say(f"{out}: {result['steps']} steps in {result['seconds']:.0f} s, best at step {result['best_step']}")
    for split in ("held-out", "val", "test"):
        if split in result:
            say(_table(f"{split}, {_count(result[split])}", result[split]))


def evaluate(
    model: Annotated[str, typer.Argument(help="A shipped model, a run's folder, or hf:REPO.")],
    data: Annotated[Path, typer.Option(help="The data set's folder.")] = ...,  # type: ignore[assignment]
    split: Annotated[
        str, typer.Option(help="Which rows to score; held-out: what an answering run validated on.")
    ] = "test",
    lang: Annotated[str | None, typer.Option(help="Captions of this language alone: en or zh.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="The mean over so many parts: 5 for COCO's 1K.")] = None,
    rerank: Annotated[
        str | None, typer.Option(help="A re-ranker's run: score what it makes of the first hits.", metavar="RUN")
    ] = None,
    beams: Annotated[
        int | None, typer.Option(min=1, max=50, help="Width of a captioner's search; default: the model's own.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="A blind answering run (model.blind=true) to score beside.", metavar="RUN")
    ] = None,
    made: Annotated[bool, typer.Option("--made", help="Score the questions that a tool made, not people's.")] = False,
    judge: Annotated[str | None, typer.Option(help="For R-precision of drawn pictures: a retrieval model.")] = None,
    features: Annotated[str | None, typer.Option(help="For KID: a tower or inception; default: lite0.")] = None,
    limit: Annotated[int | None, typer.Option(min=8, help="So many pictures are drawn; default: 250.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Of drawing; default: the model's own.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, max=100, help="Of drawing, likewise.")] = None,
    tries: Annotated[
        int | None, typer.Option(min=1, max=64, help="Of drawing: until all is right; 1: the model alone.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of drawing; default: 0.")] = None,
    visualise: Annotated[
        int | None,
        typer.Option(
            min=1, help="Write the first N pictures or questions, with what the model makes, into --out.", metavar="N"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the page.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the scores to this file.")] = None,
) -> None:
    """Score a model by the field's metrics, with intervals and protocol."""
    from tuwen import dataset as datasets
    from tuwen import pipelines
    from tuwen.evaluate import score
    from tuwen.files import write_atomic

    if (visualise is None) != (out is None):
        raise typer.BadParameter("--visualise N and --out DIR go together")
    if json is not None and not json.parent.is_dir():
        raise DataError(f"{json}: there is no folder {json.parent}")
    pipeline, dataset = pipelines.load(model), datasets.load(data)
    if rerank is not None:
        pipeline = pipelines.load_reranker(rerank, pipelines.as_embedder(pipeline))
    if out is not None and pipeline.task == "retrieval":
        raise DataError(f"{pipeline.name}: --visualise is for models that describe, answer or draw: leave it out")
    drawing: dict[str, Any] = {"steps": steps, "guidance": guidance, "tries": tries, "seed": seed}
    blind = None if baseline is None else pipelines.load(baseline)
    others = {"baseline": blind, "made": made or None, "judge": judge, "features": features, "limit": limit, **drawing}
    result = score(pipeline, dataset, split, lang, folds, beams, **others)
    warnings = _warnings(result)
    if json is not None:
        write_atomic(json, envelope(result, warnings) + "\n")
    for warning in warnings:
        warn(warning)
    say(_table(f"{result['model']} on {result['data']}, split {split}, {_count(result)}", result))
    if beside := result.get("baseline"):
        low, high = beside["interval"]
        told = f"{beside['difference']:+.1f} points ({low:+.1f} to {high:+.1f}) over {beside['model']}, which is blind"
        say(Text(told))
    shown = {key: value for key, value in result["protocol"].items() if value not in (None, {}, "")}
    say("[dim]" + "; ".join(f"{key} {value}" for key, value in shown.items()) + "[/dim]")
    for name, told in result.get("rerank", {}).items():
        value, low, high = told["mean_recall"]
        say(f"re-ranked, {name}: mean recall {value:+.1f} ({low:+.1f} to {high:+.1f}), {told['verdict']}")
    if visualise is not None and out is not None:
        say(Text(str(_visualise(pipeline, dataset, split, visualise, out, lang, beams, made, drawing))))


def _visualise(
    pipeline: Pipeline,
    dataset: Dataset,
    split: str,
    count: int,
    out: Path,
    lang: str | None,
    beams: int | None,
    made: bool,
    drawing: dict[str, Any],
) -> Path:
    """Write the page of a split's first pictures or questions; its path."""
    from tuwen import pipelines

    if pipeline.task == "vqa":
        from tuwen.gallery import write_answers

        return write_answers(out, pipelines.as_answerer(pipeline), dataset, split, count, lang, made or None)
    if pipeline.task == "text-to-image":
        from tuwen.drawn_page import write_drawn

        return write_drawn(out, pipelines.as_drawer(pipeline), dataset, split, count, lang, **drawing)
    from tuwen.gallery import write_captions

    return write_captions(out, pipelines.as_describer(pipeline), dataset, split, count, lang, beams)


def _warnings(result: dict[str, Any]) -> list[str]:
    """What was left out of a score, or is not what it seems."""
    what = "questions" if result["task"] == "vqa" else "captions"
    found = []
    if left_out := result["machine_text"]:
        found.append(f"{left_out} {what} written by a tool are left out: scores count human text")
    if result["task"] == "vqa" and "human" not in result["protocol"]["sources"]:
        found.append("a tool wrote these questions, nobody asked them: scores are of made questions alone")
    return found


def _count(result: dict[str, Any]) -> str:
    from tuwen.evaluate import COUNTED

    return f"{result['n']} {COUNTED.get(result['task'], 'pictures')}"


def _table(title: str, result: dict[str, Any]) -> Table:
    """One row a score, one column a language, with its 95% interval."""
    from tuwen.evaluate import SHOWN

    table = Table(title=title, title_justify="left")
    table.add_column("score", no_wrap=True)
    columns = dict(result["per_language"])
    if len(columns) > 1:
        columns["all"] = result["metrics"]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=result["task"] != "text-to-image")  # a KID is long
    for key in SHOWN[result["task"]]:
        intervals = [result.get("intervals", {}).get(name, {}).get(key) for name in columns]
        values = [metrics.get(key) for metrics in columns.values()]
        if result["task"] == "text-to-image" and values == [None] * len(values):
            continue
        table.add_row(key, *(_cell(key, *pair) for pair in zip(values, intervals, strict=True)))
    types: dict[str, dict[str, float]] = result["metrics"].get("by_type") or {}
    for group, kinds in types.items():
        if group == "question_type" and kinds == types.get("answer_type"):
            continue  # the data tells them by their answers alone
        for kind in kinds:
            values = [metrics["by_type"][group].get(kind) for metrics in columns.values()]
            name = f"{group.removesuffix('_type')}: {kind}"
            table.add_row(Text(name, "dim"), *(_cell(kind, value, None) for value in values))
    return table


def _cell(key: str, value: float | None, interval: list[float] | None) -> str:
    from tuwen.evaluate import RAW

    if value is None:
        return "-"
    digits = 0 if key in COUNTS else 4 if key in RAW else 1
    spread = f" [dim]{interval[0]:.{digits}f}–{interval[1]:.{digits}f}[/dim]" if interval else ""
    return f"{value:.{digits}f}{spread}"
