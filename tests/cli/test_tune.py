"""`tuwen tune` as a user runs it, and every other command on what it made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_clips
from own_captions import make_own

from tuwen import cli


def test_a_tuned_hub_model_goes_through_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, out, db = tmp_path / "clip", tmp_path / "tuned", tmp_path / "db"
    tiny_clips.make("clip", clip)
    data = make_own(tmp_path / "own", 60)
    command = ["tune", "--data", str(data), "--from", f"hf:{clip}", "--out", str(out), "--epochs", "2"]
    assert cli.run([*command, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"version", "warnings", "before", "after", "interval", "n_train", "n_test", "verdict"} <= result.keys()
    assert {"i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"} <= result["before"].keys() & result[
        "after"
    ].keys()
    assert Path(result["report"]).is_file()

    scores = tmp_path / "scores.json"
    assert cli.run(["eval", str(out), "--data", str(out / "data"), "--json", str(scores)]) == 0
    metrics = json.loads(scores.read_text())["metrics"]
    assert {key: round(metrics[key], 2) for key in result["after"]} == result["after"]
    assert cli.run(["index", str(data / "images"), "--db", str(db), "--model", str(out), "--json"]) == 0
    capsys.readouterr()
    assert cli.run(["search", "a red thing", "--db", str(db), "--all", "-k", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 3

    assert cli.run(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert cli.run([*command, "--resume"]) == 0  # done already: it scores and reports again
    printed = capsys.readouterr().out
    assert result["words"][0].split(":")[0] in printed
    assert "i2t_r10" in printed


def test_wrong_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = tmp_path / "clip"
    tiny_clips.make("clip", clip)
    few = make_own(tmp_path / "few", 49)
    capsys.readouterr()
    for arguments, said in (
        (["--data", str(few), "--from", f"hf:{clip}"], "at least 50"),
        (["--data", str(tmp_path / "none"), "--from", f"hf:{clip}"], "no such folder"),
        (["--data", str(few), "--from", str(tmp_path / "none")], "no model"),
    ):
        assert cli.run(["tune", *arguments, "--out", str(tmp_path / "run")]) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]
    assert not (tmp_path / "run").exists()
