"""`tuwen train` and `tuwen eval` as a user runs them, right and wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tuwen import checkpoint, cli

Make = Callable[..., Path]
RECIPE = """
task: retrieval
name: toy
data: {captions: 2}
model: {width: 16, image: {tower: 'features:toy'}, text: {embedding: 8, width: 16}}
loss: {info_nce: 1.0}
train: {epochs: 4, batch_size: 8, lr: 0.02}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "toy.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def error(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Run a command that must fail in one line with exit code 1; the line."""

    def run(arguments: list[str]) -> str:
        capsys.readouterr()
        assert cli.run(arguments) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def test_train_then_eval(make_toy: Make, recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = make_toy(36, splits=("train", "val", "test")), tmp_path / "run"
    assert cli.run(["train", recipe, "--data", str(data), "--out", str(out), "--json", "epochs=6"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["steps"] == 6
    assert printed["version"]
    assert printed["warnings"] == []
    assert {"val", "test"} <= printed.keys()
    names = {path.name for path in out.iterdir()}
    wanted = {"model.safetensors", "config.json", "recipe.yaml", "metrics.jsonl", "README.md", "last", "tensorboard"}
    assert wanted <= names
    assert "## Scores on test" in (out / "README.md").read_text()

    scores = tmp_path / "scores.json"
    assert cli.run(["eval", str(out), "--data", str(data), "--split", "test", "--json", str(scores)]) == 0
    assert "rsum" in capsys.readouterr().out
    result = json.loads(scores.read_text())
    assert {"task", "model", "data", "split", "n", "metrics", "per_language", "protocol", "version"} <= result.keys()
    assert result["n"] == 12
    assert set(result["per_language"]) == {"en", "zh"}
    assert result["metrics"] == printed["test"]["metrics"]
    wanted = {f"{way}_{key}" for way in ("i2t", "t2i") for key in ("r1", "r5", "r10", "map_r", "medr", "meanr")}
    assert wanted | {"rsum"} == result["metrics"].keys()
    assert cli.run(["eval", str(out), "--data", str(data), "--lang", "zh", "--json", str(scores)]) == 0
    assert set(json.loads(scores.read_text())["per_language"]) == {"zh"}
    folded = ["eval", str(out), "--data", str(data), "--folds", "3", "--json", str(scores)]
    assert cli.run(folded) == 0
    parts = json.loads(scores.read_text())
    assert parts["protocol"]["folds"] == 3
    assert parts["metrics"]["t2i_meanr"] < result["metrics"]["t2i_meanr"]  # a third of the candidates


def test_wrong_input_is_one_line_and_writes_nothing(
    make_toy: Make, recipe: str, tmp_path: Path, error: Callable[[list[str]], str]
) -> None:
    data, out = make_toy(), tmp_path / "run"
    train = ["train", recipe, "--out", str(out), "--data"]
    assert "nowhere" in error([*train, str(tmp_path / "nowhere")])
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "metadata.jsonl").write_text("")
    assert str(empty) in error([*train, str(empty)])
    assert "did you mean 'train.epochs'" in error([*train, str(data), "train.epoch=2"])
    assert "no recipe" in error(["train", "retrieval-vsep", "--data", str(data), "--out", str(out)])
    (data / "metadata.jsonl").write_text((data / "metadata.jsonl").read_text() + '{"file_name": 3}\n')
    assert "metadata.jsonl:25" in error([*train, str(data)])
    assert not out.exists()


def test_a_broken_picture_is_named(make_toy: Make, tmp_path: Path, error: Callable[[list[str]], str]) -> None:
    data, out = make_toy(), tmp_path / "run"
    (data / "images" / "5.png").write_bytes(b"not a picture")
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.replace("'features:toy'", "lite0, size: 32"))
    assert "5.png" in error(["train", str(path), "--data", str(data), "--out", str(out)])
    assert not out.exists()


def test_unsafe_and_foreign_models_are_refused(
    make_toy: Make, recipe: str, tmp_path: Path, error: Callable[[list[str]], str]
) -> None:
    data, out = make_toy(), tmp_path / "run"
    assert cli.run(["train", recipe, "epochs=1", "--data", str(data), "--out", str(out)]) == 0
    evaluate = ["eval", str(out), "--data", str(data), "--split", "val"]
    assert "no split 'test'" in error(evaluate[:-2])
    config = checkpoint.read_config(out)
    checkpoint.write_config(out, {**config, "task": "dreaming"})
    assert "a dreaming model: this version knows retrieval, captioning" in error(evaluate)
    checkpoint.write_config(out, config)
    (out / "model.safetensors").write_bytes(pickle.dumps({"a": 1}))
    assert "pickle" in error(evaluate)
    assert "no model" in error(["eval", str(tmp_path / "none"), "--data", str(data)])


def test_usage_is_told_apart_from_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["train"]) == 2
    assert cli.run(["no-such-command"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert cli.run(["--version"]) == 0
