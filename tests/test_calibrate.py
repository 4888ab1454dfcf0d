"""The floor under which nothing matches: what it goes by, how it is chosen, where it lies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fake_embedder import COLOURS, FakeEmbedder, draw

from tuwen import calibrate
from tuwen.calibrate import Calibration, Line
from tuwen.dataset import Dataset
from tuwen.errors import DataError, ModelError
from tuwen.records import Caption, Manifest, Picture, Question

LINE = Line(base=0.2, slope=0.1, share=0.5, typical=0.4, ranked=0.9, found=0.8, rejected=0.7, queries=10)
BANK = np.round(np.eye(9) * 127).astype(np.int8)


def test_the_floor_rises_for_rare_words_and_near_queries() -> None:
    made = Calibration("f", {"en": LINE}, BANK, {"en": {"dog": 1000, "zebra": 9}})
    axis = np.eye(9, dtype=np.float32)[0]
    near = 0.5 * (
        1 / calibrate.NEAREST
    )  # of the best four of the bank one is as the query, three are not at all like it
    assert made.floor("Dog!", axis, "en") == pytest.approx(0.2 + near)
    assert made.floor("a dog and a zebra", axis, "en") == pytest.approx(0.2 + 0.1 * 3 + near)  # `a` was never seen
    assert made.floor("zebra dog", axis, "en") == pytest.approx(0.2 + 0.1 * 2 + near)
    assert made.floor("dog", -axis, "en") == pytest.approx(0.2)
    assert made.floor("狗", axis, "zh") == calibrate.ALL


def test_a_chinese_word_made_of_words_counts_as_these() -> None:
    counts = {"红色": 50, "的": 900, "消防车": 3}
    assert calibrate.rarest("红色的消防车", counts) == 3
    assert calibrate._count("红色消防车", counts) == 3
    assert calibrate._count("红绿", counts) == 0
    assert calibrate.rarest("!?", counts) == 0


def test_the_line_parts_what_can_be_parted() -> None:
    draw_ = np.random.default_rng(0)
    right, wrong = draw_.normal(0.6, 0.05, 400), draw_.normal(0.3, 0.05, 600)
    share = [np.full(400, 1 / 400), np.full(600, 1 / 600)]
    value, base = calibrate._part(right, wrong, share)
    assert value == pytest.approx(2, abs=0.02)
    assert 0.38 < base < 0.52
    best = max((share[0][right >= at].sum() + share[1][wrong < at].sum(), at) for at in np.linspace(0, 1, 2001))
    assert value >= best[0] - 1e-9  # no floor of a fine grid does better
    assert calibrate._part(np.array([1.0]), np.array([2.0]), [np.ones(1), np.ones(1)])[0] == 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """120 pictures of two colours with captions in two languages."""
    folder = tmp_path_factory.mktemp("calibrate")
    names, pictures = list(COLOURS), []
    chinese = dict(zip(COLOURS, ("红色", "绿色", "蓝色", "黄色", "紫色", "橙色", "黑色", "白色"), strict=True))
    for n in range(120):
        one, other = names[n // 2 % 8], names[(n // 2 * 3 + 1) % 8]
        draw(folder / f"{n}.png", one, other, seed=n)
        texts = [f"{one} and {other}", f"{other} with {one}", f"{chinese[one]}和{chinese[other]}", chinese[one]]
        captions = [Caption(text=text) for text in texts]
        split = "val" if n % 2 else "train"
        pictures.append(Picture(file_name=f"{n}.png", split=split, captions=captions))
    return Dataset(folder, Manifest(name="toy"), pictures)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Pictures of another kind, red or blue, with questions that say so."""
    folder, pictures = tmp_path_factory.mktemp("rooms"), []
    for n in range(30):
        colour = "red" if n % 2 else "blue"
        draw(folder / f"{n}.png", colour, seed=n)
        asked = [Question(question=f"where is the {colour} chair?", answers=["here"])]
        pictures.append(Picture(file_name=f"{n}.png", split="train", qa=asked))
    return Dataset(folder, Manifest(name="rooms"), pictures)


def test_calibrated_on_a_split_and_on_probes(
    data: Dataset, rooms: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrate, "DRAWS", 60)
    monkeypatch.setattr(calibrate, "SIZES", (3, 5))  # so small that most colours are absent
    embedder = FakeEmbedder()
    probes = calibrate.Probes(rooms, [("red", "红色"), ("blue", "蓝色")], [("a zebra", "斑马"), ("xyzzy", "乱码")])
    for some in (None, probes):
        made = calibrate.calibrate(embedder, data, probes=some)
        assert set(made.lines) == {"en", "zh"}
        for line in made.lines.values():
            assert line.found > 0.8
            assert line.rejected > 0.8
    made.save(tmp_path)
    calibrate.read.cache_clear()
    again = calibrate.read(tmp_path, embedder.fingerprint)
    assert again is not None
    assert (again.lines, again.words) == (made.lines, made.words)
    np.testing.assert_array_equal(again.bank, made.bank)
    assert calibrate.read(tmp_path, "other weights") is None
    embedder.folder = tmp_path  # type: ignore[attr-defined]
    vector = embedder.embed_texts(["red"])[0]
    assert calibrate.floor(embedder, "red", vector) == made.floor("red", vector, "en")  # type: ignore[arg-type]
    assert set(calibrate.lines(embedder)) == {"en", "zh"}  # type: ignore[arg-type]
    (tmp_path / calibrate.FILE).write_text("{")
    calibrate.read.cache_clear()
    with pytest.raises(ModelError, match="calibrate again"):
        calibrate.floor(embedder, "red", vector)  # type: ignore[arg-type]


def test_too_little_to_go_by(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0 captioned pictures in 'dev'"):
        calibrate.calibrate(FakeEmbedder(), data, "dev")
    (tmp_path / "topics.json").write_text('{"present": [["red"]]}')
    with pytest.raises(DataError, match="topics"):
        calibrate.read_topics(tmp_path / "topics.json")


def test_the_queries_of_the_promise_are_none_of_those_it_was_set_by() -> None:
    root = Path(__file__).parents[1]
    asked = json.loads((root / "tests/data/no_match.json").read_text())
    present, absent = calibrate.read_topics(root / "scripts/calibration_topics.json")
    held = {row[lang] for kind in ("present", "absent", "nonsense") for row in asked[kind] for lang in ("en", "zh")}
    assert [len(asked[kind]) for kind in ("present", "absent", "nonsense")] == [20, 20, 10]
    assert len(held) == 100
    assert held.isdisjoint(text for topic in (*present, *absent) for text in topic)
