"""What is held out: never a picture, an identity or a sentence that training holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuwen import dataset as datasets
from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.holdout import hold_out, same_sentence
from tuwen.records import Caption, Manifest, Picture


def make(tmp_path: Path, pictures: list[Picture]) -> Dataset:
    for picture in pictures:
        (tmp_path / picture.file_name).write_text(picture.file_name)
    return Dataset(tmp_path, Manifest(name="own"), pictures)


def row(i: int, split: str | None = None, text: str | None = None, group: str | None = None) -> Picture:
    captions = [Caption(text=text or f"thing number {i}"), Caption(text=f"第{i}个东西")]
    return Picture(file_name=f"{i}.jpg", split=split, group=group, captions=captions)


def parts(data: Dataset) -> tuple[set[str], set[str]]:
    """What is learned from (`train` and `val`), and what is scored."""
    train, val, test = ({p.file_name for p in data.select(name).pictures} for name in ("train", "val", "test"))
    assert not train & val
    return train | val, test


def test_without_splits_a_share_is_held_out_by_picture(tmp_path: Path) -> None:
    held = hold_out(make(tmp_path, [row(i) for i in range(100)]))
    train, test = parts(held.data)
    assert (len(train), len(test)) == (70, 30)
    assert not train & test
    assert parts(hold_out(make(tmp_path, [row(i) for i in range(100)])).data) == (train, test)
    assert parts(hold_out(make(tmp_path, [row(i) for i in range(100)]), seed=1).data)[1] != test
    assert held.repeated == held.left_out == 0
    assert held.data.splits() == {"train": 56, "val": 14, "test": 30}
    small = hold_out(make(tmp_path, [row(i) for i in range(50)]))
    assert small.data.splits() == {"train": 20, "val": 10, "test": 20}


def test_one_split_alone_is_no_split(tmp_path: Path) -> None:
    held = hold_out(make(tmp_path, [row(i, "val") for i in range(100)]))
    assert [len(part) for part in parts(held.data)] == [70, 30]
    assert "hash" in held.rule


def test_groups_and_equal_pictures_stay_together(tmp_path: Path) -> None:
    data = make(tmp_path, [row(i, group=f"g{i // 4}" if i < 60 else None) for i in range(100)])
    for i in range(60, 100):
        (tmp_path / f"{i}.jpg").write_text(str(i // 2))
    train, test = parts(hold_out(data).data)
    assert len(train) + len(test) == 100
    assert len(test) >= 30
    for together in [range(i, i + 4) for i in range(0, 60, 4)] + [range(i, i + 2) for i in range(60, 100, 2)]:
        assert len({f"{i}.jpg" in test for i in together}) == 1


def test_own_splits_are_used_and_others_stay_out(tmp_path: Path) -> None:
    names = ["train"] * 60 + ["test"] * 15 + ["val"] * 15 + ["unseen"] * 10
    held = hold_out(make(tmp_path, [row(i, name) for i, name in enumerate(names)]))
    train, test = parts(held.data)
    assert (len(train), len(test), held.left_out) == (60, 30, 10)
    assert test == {f"{i}.jpg" for i in range(60, 90)}
    assert "test and val" in held.rule
    large = [row(i, "train" if i < 60 else "test" if i < 160 else "val") for i in range(180)]
    assert hold_out(make(tmp_path, large)).data.splits() == {"train": 60, "test": 100, "val": 20}


def test_a_test_picture_of_a_trained_identity_is_left_out(tmp_path: Path) -> None:
    pictures = [row(i, "train" if i < 60 else "test", group=f"g{i % 60}" if i < 65 else None) for i in range(90)]
    held = hold_out(make(tmp_path, pictures))
    assert held.left_out == 5
    assert len(parts(held.data)[1]) == 25


def test_sentences_that_training_holds_are_not_scored(tmp_path: Path) -> None:
    pictures = [row(i, "train" if i < 60 else "test") for i in range(90)]
    for i in range(60, 70):
        pictures[i].captions[0].text = f"Thing  NUMBER, {i - 60}."
    held = hold_out(make(tmp_path, pictures))
    assert held.repeated == 10
    learnt = {same_sentence(c.text) for p in held.data.pictures if p.split != "test" for c in p.captions}
    scored = [same_sentence(c.text) for p in held.data.select("test").pictures for c in p.captions]
    assert len(learnt) == 120
    assert len(scored) == 50
    assert not learnt.intersection(scored)
    assert len(pictures[60].captions) == 2  # the user's rows are not touched


def test_a_language_alone(tmp_path: Path) -> None:
    held = hold_out(make(tmp_path, [row(i) for i in range(60)]), lang="zh")
    assert {c.lang for p in held.data.pictures for c in p.captions} == {"zh"}
    assert len(held.data) == 60


def test_too_little_is_refused_in_one_line(tmp_path: Path) -> None:
    machine = [row(i) for i in range(60)]
    for picture in machine[:11]:
        for caption in picture.captions:
            caption.source = "model:x"
    with pytest.raises(DataError, match=r"49 pictures with human captions: tuning needs at least 50") as error:
        hold_out(make(tmp_path, machine))
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="0 pictures with human captions in fr"):
        hold_out(make(tmp_path, [row(i) for i in range(60)]), lang="fr")
    same = [Picture(file_name=f"{i}.jpg", captions=[Caption(text="a thing")]) for i in range(60)]
    with pytest.raises(DataError, match="stands in training too"):
        hold_out(make(tmp_path, same))


def test_what_counts_as_the_same_sentence() -> None:
    assert same_sentence("A  Dog, running!") == same_sentence("a dog running")
    assert same_sentence("一只狗。") == same_sentence("一只狗")
    assert same_sentence("a dog") != same_sentence("a log")


def test_feature_rows_follow_their_pictures(make_toy: object, tmp_path: Path) -> None:
    folder = make_toy(60)  # type: ignore[operator]
    held = hold_out(datasets.read(folder))
    matrix, rows = held.data.select("test").features("toy")
    names = [int(Path(p.file_name).stem) for p in held.data.select("test").pictures]
    assert rows.tolist() == names
    assert len(matrix) == 60
