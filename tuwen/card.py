"""Model cards: what a model learned from, how it scores and under which protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuwen import checkpoint
from tuwen.dataset import Dataset
from tuwen.evaluate import RAW, SHOWN


def write(folder: Path, dataset: Dataset, summary: dict[str, Any]) -> str:
    """The card of a finished run as Markdown; `summary` is what `train.run` gathered."""
    config = checkpoint.read_config(folder)
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    weights = folder / checkpoint.WEIGHTS
    captions = sum(len(picture.human()) for picture in dataset.select("train").pictures)
    splits = ", ".join(f"{name} {count}" for name, count in dataset.splits().items())
    lines = [
        f"# {config['name']}",
        "",
        f"A Tuwen {config['task']} model for captions in {', '.join(config['languages'])}.",
        "",
        "| | |",
        "|---|---|",
        f"| weights | {weights.stat().st_size / 1e6:.1f} MB |",
        *_tower(config),
        f"| data | {dataset.manifest.name or dataset.folder.name}: {splits}; {captions} human training captions |",
        f"| data sha256 | {provenance['data']} |",
        f"| versions | {', '.join(f'{k} {v}' for k, v in provenance['versions'].items())}, git {provenance['git']} |",
        f"| training | {summary['epochs']} epochs, {summary['steps']} steps, {summary['seconds']:.0f} s |",
        f"| best | step {summary['best_step']} by validation |",
    ]
    if note := config.get("notes"):
        lines += ["", note]
    for split in ("val", "test"):
        if split in summary:
            lines += [
                "",
                f"## Scores on {split} ({summary[split]['n']} pictures)",
                "",
                *score_table(summary[split]),
                "",
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
    state = "tuned, inside" if tower["inside"] else "frozen"
    return [f"| tower | {tower['name']}, {tower['size']} px, {state}, sha256 {tower['sha256']} |"]


def score_table(result: dict[str, Any]) -> list[str]:
    """Lines of a Markdown table: one row a language, then all of them together."""
    rows = {**result["per_language"], "all": result["metrics"]}
    columns = [key for key in SHOWN[result["task"]] if result["metrics"].get(key) is not None]
    lines = ["| captions | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, metrics in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(key, metrics.get(key)) for key in columns) + " |")
    return lines


def _cell(key: str, value: float | None) -> str:
    return "-" if value is None else f"{value:.{4 if key in RAW else 1}f}"
