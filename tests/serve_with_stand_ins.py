"""`tuwen serve` in a process of its own, with stand-ins for those models that are not shipped (yet)."""

from __future__ import annotations

import sys
from typing import Any

from stand_ins import StandInAnswerer, StandInDrawer

from tuwen import checkpoint, pipelines

STAND_INS: dict[str, Any] = {"vqa": StandInAnswerer, "text-to-image": StandInDrawer}
MISSING = sorted(name for name in STAND_INS if not (checkpoint.SHIPPED / name / "config.json").is_file())


def main() -> int:
    """Run the command with this process's arguments."""
    shipped = pipelines.load

    def load(name: str, *args: Any, **options: Any) -> Any:
        return STAND_INS[name]() if name in MISSING else shipped(name, *args, **options)

    pipelines.load = load
    from tuwen.cli import main as command

    return command() or 0


if __name__ == "__main__":
    sys.exit(main())
