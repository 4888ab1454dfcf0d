"""Files are written whole or not at all; what is no file is written to."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tuwen.files import write_atomic


def test_a_write_that_breaks_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "scores.json"
    write_atomic(path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [found.name for found in path.parent.iterdir()] == ["scores.json"]


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomic(pipe, "图文")
    reader.join(10)
    assert read == ["图文"]
    assert pipe.is_fifo()
