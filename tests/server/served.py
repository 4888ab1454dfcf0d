"""`tuwen serve` itself, with the quick models of the tests: run as a program by the tests of a real process."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from fake_server import World

from tuwen import pipelines
from tuwen.cli import run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
world = World(Path(sys.argv[1]))
describer = world.models["captioning"]
caption = describer.caption


def slow(*args: Any, **options: Any) -> Any:
    """A second's work, and a file that says it began."""
    (world.folder / "began").touch()
    time.sleep(1)
    return caption(*args, **options)


describer.caption = slow
pipelines.load = world.load  # type: ignore[assignment]
sys.exit(run(["serve", "--db", str(world.db), "--port", "0", *sys.argv[2:]]))
