"""What every command shares: output for people, output for programs, and one line for an error."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console

from tuwen import __version__

SHOWN = 10  # unreadable pictures that are listed for people; --json lists all


class Pipe(Console):
    """A console whose reader may go away (`| head`): that is no error."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


out = Pipe(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: object) -> None:
    """Print for people, on standard output."""
    out.print(text)


def warn(text: str) -> None:
    """Print a warning, on standard error, whatever is printed elsewhere."""
    err.print(f"warning: {text}", style="yellow", markup=False)


def tell_failed(failed: list[dict[str, str]]) -> None:
    """A warning for each picture that cannot be read, the first ones alone where they are many."""
    for failure in failed[:SHOWN]:
        warn(f"{failure['file']}: {failure['why']}")
    if len(failed) > SHOWN:
        warn(f"and {len(failed) - SHOWN} more pictures that cannot be read (--json lists them)")


def envelope(result: dict[str, Any], warnings: list[str] | None = None) -> str:
    """One JSON object with `version` and `warnings`, as every `--json` prints it (DESIGN, JSON contracts)."""
    return json.dumps({"version": __version__, "warnings": warnings or [], **result}, ensure_ascii=False, indent=2)


def print_json(result: dict[str, Any], warnings: list[str] | None = None) -> None:
    """Print one JSON object on standard output alone."""
    print(envelope(result, warnings))
