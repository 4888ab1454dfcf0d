"""Recipes: overrides, unknown keys, values out of range, and the round trip through YAML."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tuwen.config import RECIPES, dump_recipe, load_recipe, parse_recipe
from tuwen.errors import ConfigError

MINIMAL = "loss: {hinge: 1.0}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(MINIMAL)
    return path


def test_overrides_reach_their_key(file: Path) -> None:
    made = load_recipe(str(file), ["train.epochs=3", "lr=1e-3", "data.langs=[en, zh]", "model.text.kind=lstm"])
    assert (made.train.epochs, made.train.lr) == (3, 0.001)
    assert made.data.langs == ["en", "zh"]
    assert made.model.text.kind == "lstm"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "did you mean 'train.epochs'"),
        ("epohcs=3", "did you mean 'train.epochs'"),
        ("width=3", "write it in full"),
        ("train.epochs=-1", "train.epochs"),
        ("train.epochs", "not key=value"),
        ("model.text.kind=rnn", "model.text.kind"),
        ("loss.hinge=0", "no loss has a weight"),
    ],
)
def test_a_wrong_override_is_one_line(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(file), [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("loss: {hinge: 1.0}\ntrain: {epoch: 3}", "did you mean 'train.epochs'"),
        ("- a\n- b", "a recipe is a mapping"),
        ("a: [", "not YAML"),
        ("loss: {hinge: 1.0}\nmodle: {}", "unknown recipe key 'modle'"),
    ],
)
def test_a_wrong_file_is_one_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(file))
    assert message in str(caught.value)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_is_found_by_name_or_the_nearest_is_told() -> None:
    assert load_recipe("retrieval-vsepp-vgg19").model.image.tower == "vgg19"
    with pytest.raises(ConfigError, match="did you mean 'retrieval-vsepp-vgg19'"):
        load_recipe("retrieval-vsepp-vgg")


def test_every_recipe_loads_and_survives_the_round_trip() -> None:
    files = sorted(RECIPES.glob("*.yaml"))
    assert len(files) >= 3
    for path in files:
        made = load_recipe(str(path))
        assert parse_recipe(yaml.safe_load(dump_recipe(made)), "dump") == made
        assert f"tuwen train {path.stem} " in path.read_text(encoding="utf-8"), (
            f"{path}: its command is not in its head"
        )
