"""`tuwen draw`: files, grids, JSON, warnings, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tuwen import checkpoint
from tuwen.cli import run
from tuwen.config import TextToImageConfig
from tuwen.tasks.generation import build_model
from tuwen.text import SubwordTokenizer

TEXTS = ["A red circle on a sand background.", "两个红色的大圆形。"] * 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random flow as a run leaves it, its weights spread enough that words and noise show."""
    folder = tmp_path_factory.mktemp("runs") / "toy-flow"
    tokenizer = SubwordTokenizer.train(TEXTS, 600)
    draw = {"kind": "flow", "widths": [8, 8], "blocks": [1, 1], "heads": 2}
    model = TextToImageConfig.model_validate({"size": 16, "text": {"width": 8, "heads": 2}, "draw": draw})
    config = {
        "task": "text-to-image", "name": "toy-flow", "model": model.model_dump(), "vocabulary": tokenizer.size,
        "pad": 0, "max_tokens": 20, "judges": False, "matches": False, "penalised": False, "bert": None, "seen": None,
        "languages": ["en", "zh"], "seed": 0, "notes": "", "pretrained": {},
    }  # fmt: skip
    torch.manual_seed(0)
    module = build_model(config)
    with torch.no_grad():
        for value in module.parameters():
            value += 0.1 * torch.randn_like(value)
    folder.mkdir()
    checkpoint.write_tensors(folder / checkpoint.WEIGHTS, module.state_dict())
    checkpoint.write_config(folder, config)
    tokenizer.save(folder)
    return folder


def test_a_grid_and_the_same_bytes_again(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["draw", "a red circle", "-n", "4", "--seed", "7", "--model", str(made), "--steps", "3"]
    assert run([*asked, "-o", str(tmp_path / "a.png")]) == 0
    assert "4 pictures of 16 pixels, seed 7 to 10" in capsys.readouterr().out
    with Image.open(tmp_path / "a.png") as grid:
        assert grid.size == (36, 36)
    assert run([*asked, "-o", str(tmp_path / "b.png")]) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert run([*asked, "-o", str(tmp_path / "c.png"), "--guidance", "6"]) == 0
    assert (tmp_path / "c.png").read_bytes() != (tmp_path / "a.png").read_bytes()
    assert run([*asked, "-o", str(tmp_path / "large.jpg"), "--scale", "3"]) == 0
    with Image.open(tmp_path / "large.jpg") as grid:
        assert grid.size == (100, 100)


def test_a_folder_holds_one_file_a_picture(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["draw", "两个红色的圆形", "-n", "2", "--seed", "3", "--model", str(made), "--json"]
    assert run([*asked, "-o", str(tmp_path / "drawn")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"version", "warnings", "pictures", "model"}
    assert [one["seed"] for one in told["pictures"]] == [3, 4]
    pixels = [np.asarray(Image.open(one["file"])) for one in told["pictures"]]
    assert not np.array_equal(*pixels)
    assert told["pictures"][0]["prompt"] == "两个红色的圆形"
    assert told["warnings"] == []


def test_what_is_still_wrong_after_the_last_try_is_told(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["draw", "a red circle", "--model", str(made), "--json", "-o", str(tmp_path / "a.png")]
    assert run([*asked, "--tries", "2"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"][0]["wrong"]  # the weights are random
    assert told["warnings"] == [f"seed 0: not all is as asked ({', '.join(told['pictures'][0]['wrong'])})"]
    assert run(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures"][0]["wrong"] is None  # one try, as this model's own: nobody looks
    assert told["warnings"] == []


def test_unknown_words_are_named(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["draw", "a red dragon and a 蓝色 unicorn", "-o", str(tmp_path / "a.png"), "--model", str(made)]
    assert run(asked) == 0
    warned = capsys.readouterr().err
    assert all(f"'{word}'" in warned for word in ("dragon", "蓝色", "unicorn"))
    assert "'red'" not in warned
    assert run([*asked, "--json"]) == 0
    assert "'dragon'" in json.loads(capsys.readouterr().out)["warnings"][0]


@pytest.mark.parametrize(
    ("words", "out", "why"),
    [
        ("a circle", "a.bmp", "written as .png"),
        ("a circle", "away/a.png", "no folder"),
        ("  ", "a.png", "no word"),
    ],
)
def test_refusals(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, out: str, why: str
) -> None:
    assert run(["draw", words, "-o", str(tmp_path / out), "--model", str(made)]) == (1 if why != "usage" else 2)
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())
