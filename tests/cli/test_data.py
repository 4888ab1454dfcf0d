"""`tuwen import` and `tuwen check`: what they print, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tuwen.cli import run
from tuwen.cli.data import SHOWN


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twelve pictures and a table of pairs beside them, with one line too many."""
    lines = []
    for i in range(12):
        noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"[{i}].png")  # brackets: what rich would take for markup
        lines.append(f"[{i}].png\tA [red] dog\t一只狗")
    (tmp_path / "pairs.tsv").write_text("\n".join([*lines, "gone.png\tWhere?"]), encoding="utf-8")
    return tmp_path / "pairs.tsv"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = run([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_import_then_check(tmp_path, pairs, capsys):
    code, out, err = call(capsys, "import", "text-pairs", pairs, tmp_path / "data", "--split", "train")
    assert (code, err) == (0, "")
    assert "12 new pictures, 0 met again; 24 captions" in out
    assert "skipped 1: no such picture on disk (gone.png)" in out
    code, out, err = call(capsys, "check", tmp_path / "data")
    assert (code, err) == (0, "")
    assert "12" in out
    assert "en 12, zh 12" in out
    assert "data: 0 errors, 0 warnings" in out


def test_json(tmp_path, pairs, capsys):
    code, out, err = call(capsys, "import", "text-pairs", pairs, tmp_path / "data", "--json")
    found = json.loads(out)
    assert (code, err, found["pictures"], found["captions"]) == (0, "", 12, 24)
    assert found["skipped"] == [{"why": "no such picture on disk", "count": 1, "examples": ["gone.png"]}]
    assert found["warnings"] == ["skipped 1: no such picture on disk (such as gone.png)"]
    (tmp_path / "[0].png").write_bytes(b"")
    code, out, err = call(capsys, "check", tmp_path / "data", "--json")
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert {"version", "pictures", "captions", "questions", "splits", "languages", "errors", "warnings"} <= set(found)
    assert [set(error) for error in found["errors"]] == [{"kind", "file", "detail"}]
    assert (found["errors"][0]["kind"], found["errors"][0]["file"]) == ("truncated", str(tmp_path / "[0].png"))
    assert (found["pictures"], found["captions"]) == (12, 24)


def test_check_prints_counts_beside_errors_and_cuts_long_lists(tmp_path, pairs, capsys):
    call(capsys, "import", "text-pairs", pairs, tmp_path / "data")
    for i in range(SHOWN + 2):
        (tmp_path / f"[{i}].png").unlink()
    code, out, _ = call(capsys, "check", tmp_path / "data")
    assert code == 1
    assert "captions" in out
    assert f"error: missing ({SHOWN + 2})" in out
    assert out.count("no such file") == SHOWN
    assert str(tmp_path / "[0].png") in out  # whole, however long
    assert "... and 2 more; --json prints all" in out


def test_one_line_for_an_error(tmp_path, pairs, capsys):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metadata.jsonl").write_text("{oops\n")
    cases = [
        (["import", "text-pair", pairs, tmp_path / "x"], "did you mean 'text-pairs'"),
        (["import", "text-pairs", pairs, tmp_path / "x", "--images", tmp_path / "bad"], "--images"),
        (["import", "text-pairs", pairs, tmp_path / "bad"], "metadata.jsonl:1"),
        (["check", tmp_path / "none"], "no such folder"),
    ]
    for arguments, why in cases:
        code, out, err = call(capsys, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("error: ")
        assert why in err
    assert not (tmp_path / "x").exists()
    assert call(capsys, "check")[0] == 2
