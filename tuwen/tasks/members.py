"""Where a training begins: the run that it goes on from, or one for each member of an ensemble."""

from __future__ import annotations

from pathlib import Path

from tuwen import checkpoint
from tuwen.errors import ConfigError, ModelError


def find_starts(start: str | None) -> list[Path]:
    """The runs that `start` names, parted by commas.

    Raises:
        ModelError: one is no run, or they cut sentences into other tokens.
    """
    runs = [checkpoint.find_run(name.strip()) for name in start.split(",")] if start else []
    if len({tuple(path.read_bytes() for path in sorted(run.glob("tokenizer*"))) for run in runs}) > 1:
        raise ModelError(f"{runs[-1]}: its tokeniser is not that of {runs[0]}: train them on the same data")
    return runs


def check_starts(runs: list[Path], members: int, joined: bool) -> None:
    """ConfigError unless there are as many runs as members, or one that is `joined` of as many itself."""
    if len(runs) != members and not (len(runs) == 1 and joined):
        raise ConfigError(f"start names {len(runs)} runs for {members} members: one each, parted by commas")
