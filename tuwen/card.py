"""Model cards: what a model learned from, how it scores and under which protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuwen import checkpoint
from tuwen.dataset import Dataset
from tuwen.evaluate import COUNTED, HELD_OUT, RAW, SHOWN

WORDS = {"vqa": "questions"}  # what a task is scored on; others: captions


def write(folder: Path, dataset: Dataset, summary: dict[str, Any]) -> str:
    """The card of a finished run as Markdown; `summary` is what `train.run` gathered."""
    config = checkpoint.read_config(folder)
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    weights = folder / checkpoint.WEIGHTS
    about = WORDS.get(config["task"], "captions")
    splits = ", ".join(f"{name} {count}" for name, count in dataset.splits().items())
    lines = [
        f"# {config['name']}",
        "",
        f"A Tuwen {config['task']} model for {about} in {', '.join(config['languages'])}.",
        "",
        "| | |",
        "|---|---|",
        f"| weights | {weights.stat().st_size / 1e6:.1f} MB |",
        *_tower(config),
        f"| data | {dataset.manifest.name or dataset.folder.name}: {splits}; {_learnt(dataset, config['task'])} |",
        f"| data sha256 | {provenance['data']} |",
        f"| versions | {', '.join(f'{k} {v}' for k, v in provenance['versions'].items())}, git {provenance['git']} |",
        f"| training | {summary['epochs']} epochs, {summary['steps']} steps, {summary['seconds']:.0f} s |",
        *([f"| began with | {config['start']} |"] if config.get("start") else []),
        f"| best | step {summary['best_step']} by validation |",
        *_answering(config),
    ]
    if note := config.get("notes"):
        lines += ["", note]
    for split in (HELD_OUT, "val", "test", "unseen"):
        if split in summary:
            lines += [
                "",
                f"## Scores on {split} ({summary[split]['n']} {COUNTED.get(config['task'], 'pictures')})",
                "",
                *score_table(summary[split]),
                "",
                *_types(summary[split]),
            ]
            shown = {k: v for k, v in summary[split]["protocol"].items() if v not in (None, {}, "")}
            lines.append("Protocol: " + "; ".join(f"{key} {value}" for key, value in shown.items()) + ".")
    lines += [
        "",
        "The pictures and captions it learned from stay under their makers' terms; look there before a commercial use.",
    ]
    return "\n".join(lines) + "\n"


def _tower(config: dict[str, Any]) -> list[str]:
    """The row of the picture tower, where the model has one; a drawing model has none."""
    tower = config.get("tower")
    if tower is None:
        return []
    tail = config["model"]["image"].get("tail", 0)
    below = f"its last {tail} blocks trained, frozen below" if tail else "frozen"
    state = "tuned, inside" if tower["inside"] else below
    return [f"| tower | {tower['name']}, {tower['size']} px, {state}, sha256 {tower['sha256']} |"]


def score_table(result: dict[str, Any]) -> list[str]:
    """Lines of a Markdown table: one row a language, then all of them together."""
    rows = {**result["per_language"], "all": result["metrics"]}
    columns = [key for key in SHOWN[result["task"]] if result["metrics"].get(key) is not None]
    lines = [
        f"| {WORDS.get(result['task'], 'captions')} | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, metrics in rows.items():
        cells = (_cell(key, metrics.get(key)) for key in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _learnt(dataset: Dataset, task: str) -> str:
    """What there was to learn from, in numbers."""
    train = dataset.select("train").pictures
    if task != "vqa":
        return f"{sum(len(picture.human()) for picture in train)} human training captions"
    asked = [question.source == "human" for picture in train for question in picture.qa if question.answers]
    return f"training questions: {sum(asked)} of people, {len(asked) - sum(asked)} made from captions by rule"


def _answering(config: dict[str, Any]) -> list[str]:
    """Rows about an answering model: what it can say, how it was validated and when it is sure."""
    if config["task"] != "vqa":
        return []
    answers, rows = config["answers"], []
    rows.append(f"| answers | {len(answers['answers'])}, by the {answers['rule']} rule; it can say no other |")
    rows.append(f"| validation | {config['validation_split']} |")
    if found := config.get("calibration"):
        told = f"{found['sure']:.0f}% of its answers, {found['sure_accuracy'] or 0:.0f}% of them right"
        rows += [
            f"| sure | from a confidence of {found['threshold']:.2f}: {told} |",
            f"| calibration | temperature {found['temperature']:.2f} on {found['fitted_on']} validation questions; on "
            f"{found['checked_on']} others its error (ECE) is {found['ece']:.1f}, {found['ece_before']:.1f} before |",
        ]
    return rows


def _types(result: dict[str, Any]) -> list[str]:
    """Accuracy by type, a line a group; and the blind model beside, where one was scored."""
    lines = []
    for group, kinds in (result["metrics"].get("by_type") or {}).items():
        if kinds:
            told = ", ".join(f"{kind} {value:.1f}" for kind, value in kinds.items())
            lines += [f"Accuracy by {group.replace('_', ' ')}: {told}.", ""]
    if beside := result.get("baseline"):
        low, high = beside["interval"]
        lines.append(
            f"Over a blind model (language only, {beside['accuracy']:.1f}) it gains {beside['difference']:.1f} points, "
            f"95% interval {low:.1f} to {high:.1f}."
        )
        lines.append("")
    return lines


def _cell(key: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{4 if key in RAW else 1}f}"
