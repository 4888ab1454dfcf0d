"""The one tuning job: `tuwen tune` in a process of its own, on what people corrected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuwen.server.limits import Refused

COMMAND = (sys.executable, "-m", "tuwen")
RESULT = "tune.json"
KEPT = ("before", "after", "interval", "verdict", "words", "n_train", "n_test")


class Tuner:
    """Starts a tuning, follows it, and stops it with the server.

    A process of its own, because training would hold up the answers of this one, and because it can be stopped.
    Runs lie beside the index, as `DB.tuned-1` and on.
    """

    def __init__(self, db: Path, command: Sequence[str] = COMMAND) -> None:
        self.db, self.command = db, command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._began = 0.0
        self._state: dict[str, Any] | None = None

    def start(self, data: Path, model: str, pictures: int, lang: str | None, epochs: float | None, seed: int) -> None:
        """Begin. Refused (409) where one runs already."""
        with self._lock:
            if self._process is not None:
                raise Refused("a tuning is running already; wait for it, or stop it with DELETE", 409)
            run = self._next()
            options = [*(("--lang", lang) if lang else ()), *(("--epochs", str(epochs)) if epochs else ())]
            asked = ["--data", str(data), "--from", model, "--out", str(run), "--seed", str(seed), "--json"]
            self._process = subprocess.Popen(
                [*self.command, "tune", *asked, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C of the server reaches it through `stop` alone
            )
            self._began = time.monotonic()
            self._state = {"state": "running", "run": str(run), "pictures": pictures}
            threading.Thread(target=self._follow, args=(self._process, run), name="tune", daemon=True).start()

    def state(self) -> dict[str, Any]:
        """As `schemas.Tune` has it, without `use`. After a restart: the last run that came to an end."""
        with self._lock:
            state = dict(self._state) if self._state is not None else self._last()
            if state["state"] == "running":
                state["seconds"] = round(time.monotonic() - self._began, 1)
                state["step"] = _step(Path(state["run"]))
            return state

    def stop(self) -> bool:
        """End the job, if one runs; whether one did."""
        with self._lock:
            process = self._process
        if process is None:
            return False
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return True

    def _follow(self, process: subprocess.Popen[str], run: Path) -> None:
        said = process.communicate()[1]
        seconds = round(time.monotonic() - self._began, 1)
        with self._lock:
            assert self._state is not None
            self._state["seconds"] = seconds
            if process.returncode == 0 and (run / RESULT).is_file():
                self._state |= _result(run)
            else:
                lines = [line for line in said.splitlines() if line.startswith("error: ")]
                why = lines[-1].removeprefix("error: ") if lines else "it was stopped"
                self._state |= {"state": "failed", "error": why}
            self._process = None

    def _runs(self) -> list[tuple[int, Path]]:
        """Runs that are there, by number."""
        head = f"{self.db.name}.tuned-"
        found = self.db.parent.glob(f"{_escape(head)}*")
        return sorted((int(end), path) for path in found if (end := path.name.removeprefix(head)).isdecimal())

    def _next(self) -> Path:
        runs = self._runs()
        return self.db.with_name(f"{self.db.name}.tuned-{runs[-1][0] + 1 if runs else 1}")

    def _last(self) -> dict[str, Any]:
        done = [path for _, path in self._runs() if (path / RESULT).is_file()]
        return {"run": str(done[-1]), **_result(done[-1])} if done else {"state": "idle"}


def _result(run: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
        out = {"state": "done", **{key: result[key] for key in KEPT}}
    except (OSError, ValueError, KeyError) as error:
        return {"state": "failed", "error": f"{run / RESULT}: cannot be read ({error}); tune again"}
    page = run / "report.html"
    return {**out, "report": str(page) if page.is_file() else None}


def _step(run: Path) -> int | None:
    """The last step that the training logged, from the end of its log."""
    try:
        with (run / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue
    return None


def _escape(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in name)
