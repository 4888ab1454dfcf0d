"""Where a training begins: the run that it goes on from, or one for each member of an ensemble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuwen import checkpoint
from tuwen.errors import ConfigError, ModelError


def find_runs(names: str | None) -> list[Path]:
    """The runs of these names, parted by commas. ModelError: one is no run."""
    return [checkpoint.find_run(name.strip()) for name in names.split(",")] if names else []


def find_starts(start: str | None) -> list[Path]:
    """The runs that `start` names, parted by commas.

    Raises:
        ModelError: one is no run, or they cut sentences into other tokens.
    """
    runs = find_runs(start)
    if len({tuple(path.read_bytes() for path in sorted(run.glob("tokenizer*"))) for run in runs}) > 1:
        raise ModelError(f"{runs[-1]}: its tokeniser is not that of {runs[0]}: train them on the same data")
    return runs


def check_starts(runs: list[Path], configs: list[dict[str, Any]], members: int) -> None:
    """ConfigError unless there is a run for each member, or one that is made of as many itself."""
    made_of = [config["model"].get("members", 1) for config in configs]
    if len(runs) == 1 and made_of != [members]:
        raise ConfigError(f"{runs[0]}: made of {made_of[0]}, the recipe asks for model.members={members}")
    if len(runs) > 1 and made_of != [1] * members:
        raise ConfigError(f"start names {len(runs)} runs for {members} members: one single model each")
