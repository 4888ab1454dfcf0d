"""Every finding of `tuwen check`, each made on purpose in an otherwise clean world."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tuwen.check import CheckReport, check
from tuwen.check.near import contrasts, find_near
from tuwen.errors import DataError

Row = dict[str, Any]


def noise(seed: int, side: int = 8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def blobs(seed: int, side: int = 96) -> Image.Image:
    """A smooth picture, as photographs are."""
    return noise(seed, 6).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., Path]:
    """A clean data set of six pictures in three splits, with changes to its rows and rows more."""

    def make(*more: Row | str, **changes: Row) -> Path:
        rows: list[Row | str] = []
        for i, split in enumerate(("train", "train", "train", "train", "val", "test")):
            noise(i).save(tmp_path / f"{i}.png")
            rows.append(
                {"file_name": f"{i}.png", "split": split, "captions": ["A dog.", "一只狗"], **changes.get(f"r{i}", {})}
            )
        rows += more
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (tmp_path / "metadata.jsonl").write_text("\n".join(lines) + "\n")
        return tmp_path

    return make


def errors(report: CheckReport) -> list[tuple[str, str]]:
    return [(found.kind, found.file) for found in report.errors]


def warnings(report: CheckReport) -> list[tuple[str, str]]:
    return [(found.kind, found.file) for found in report.warnings]


def test_a_clean_world_and_its_counts(world):
    machine = {"captions": ["A dog.", "一只狗", {"text": "x", "source": "model:m"}]}
    asked = {"qa": [{"question": "?", "answers": ["a"]}, {"question": "?", "answers": ["zz"], "source": "questions"}]}
    report = check(world(r0=machine, r1=asked, r4=asked))
    assert (report.errors, report.warnings) == ([], [])
    assert (report.pictures, report.captions, report.questions) == (6, 12, 2)
    assert (report.machine_captions, report.machine_questions) == (1, 2)
    assert report.splits == {"train": 4, "val": 1, "test": 1}
    assert report.languages == {"en": 6, "zh": 6}
    assert set(report.as_dict()) >= {"pictures", "captions", "questions", "splits", "languages", "errors", "warnings"}


def bomb(width: int, height: int) -> bytes:
    """The header of a PNG of that size, with next to no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def test_pictures_that_cannot_be_read(world):
    folder = world()
    out = io.BytesIO()
    blobs(9).save(out, "JPEG", quality=90)
    whole = (folder / "4.png").read_bytes()
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(b"GIF89a nothing")
    (folder / "2.png").write_bytes(out.getvalue()[: len(out.getvalue()) // 2])
    (folder / "3.png").write_bytes(bomb(50_000, 50_000))
    (folder / "4.png").write_bytes(whole[: len(whole) // 2])
    (folder / "5.png").write_bytes(b"")
    report = check(folder)
    assert errors(report) == [
        ("missing", "0.png"),
        ("broken", "1.png"),
        ("truncated", "2.png"),
        ("exploding", "3.png"),
        ("truncated", "4.png"),
        ("truncated", "5.png"),
    ]
    assert report.pictures == 6


def test_a_bad_line_does_not_stop_the_rest(world):
    report = check(world("{oops", {"file_name": "x.png", "root": "nowhere"}, {"file_name": "gone.png", "split": "val"}))
    assert errors(report) == [
        ("bad_line", "metadata.jsonl:7"),
        ("bad_line", "metadata.jsonl:8"),
        ("missing", "gone.png"),
    ]
    assert report.pictures == 7


def test_nothing_to_check(tmp_path):
    (tmp_path / "metadata.jsonl").write_text("\n")
    for folder, why in ((tmp_path, "empty"), (tmp_path / "none", "no such folder")):
        with pytest.raises(DataError, match=why):
            check(folder)
    (tmp_path / "metadata.jsonl").write_text("{oops\n")
    report = check(tmp_path)
    assert (report.pictures, errors(report)) == (0, [("bad_line", "metadata.jsonl:1")])


def test_one_picture_in_two_splits(world):
    folder = world(
        {"file_name": "./0.png", "split": "val", "captions": ["A", "一"]},
        {"file_name": "copy.png", "split": "test", "captions": ["A", "一"]},
    )
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    report = check(folder)
    assert errors(report) == [("one_picture_in_two_splits", "./0.png"), ("one_picture_in_two_splits", "copy.png")]
    assert "1.png of split train" in report.errors[1].detail
    assert not report.warnings


def test_duplicates_within_a_split_are_warnings(world):
    more = [{"file_name": name, "split": "train", "captions": ["A", "一"]} for name in ("0.png", "copy.png")]
    folder = world(*more)
    (folder / "copy.png").write_bytes((folder / "1.png").read_bytes())
    report = check(folder)
    assert not report.errors
    assert warnings(report) == [("duplicate_in_split", "0.png"), ("duplicate_in_split", "copy.png")]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half the size": lambda p: p.resize((48, 48), Image.Resampling.BICUBIC),
    "larger": lambda p: p.resize((150, 120), Image.Resampling.LANCZOS),
    "brighter": lambda p: ImageEnhance.Brightness(p).enhance(1.05),
    "as it is": lambda p: p,
}


@pytest.mark.parametrize("change", CHANGES)
def test_near_duplicates(world, change):
    rows = [{"file_name": f"{name}.jpg", "split": "train", "captions": ["A", "一"]} for name in ("whole", "again")]
    rows.append({"file_name": "leak.jpg", "split": "test", "captions": ["A", "一"]})
    folder = world(*rows)
    blobs(1).save(folder / "whole.jpg", quality=95)
    for name, quality in (("again", 50), ("leak", 60)):
        CHANGES[change](blobs(1)).save(folder / f"{name}.jpg", quality=quality)
    report = check(folder)
    assert errors(report) == [("near_duplicate_in_two_splits", "leak.jpg")]
    assert warnings(report) == [("near_duplicate_in_split", "again.jpg")]


def test_different_pictures_that_resemble(world):
    """Another picture, a moved thing on one ground, a shape of another colour, flat grounds: all are different."""
    folder = world(
        *({"file_name": f"{i}.bmp", "split": ("train", "test")[i % 2], "captions": ["A", "一"]} for i in range(8))
    )
    for i in range(8):
        canvas = Image.new("RGB", (64, 64), (200 + i % 2 * (i > 5), 200, 200))
        if i < 6:
            colour = [(220, 50, 47), (50, 90, 210)][i // 2 % 2]
            canvas.paste(colour, (10 + 8 * (i % 2) + 20 * (i > 3), 20, 26 + 8 * (i % 2) + 20 * (i > 3), 36))
        canvas.save(folder / f"{i}.bmp")
    report = check(folder)
    assert (report.errors, report.warnings) == ([], [])
    assert report.pictures == 14


def slow_near(thumbs: np.ndarray, labels: np.ndarray) -> set[tuple[int, bool]]:
    """Who has an earlier near-duplicate, of its own label and of another: each compared with all before it."""
    found = set()
    spread = contrasts(thumbs)
    for j in range(1, len(thumbs)):
        gaps = np.abs(thumbs[:j].astype(float) - thumbs[j]).reshape(j, -1)
        limits = np.minimum(12, np.minimum(spread[:j], spread[j]) / 4)
        near = (np.sqrt((gaps**2).mean(1)) <= limits) & (gaps.max(1) <= 32)
        equal = gaps.max(1) == 0
        if (equal & (labels[:j] == labels[j])).any():  # the first of its kind stands for it
            near = equal
        found |= {(j, bool(labels[i] == labels[j])) for i in np.flatnonzero(near | equal)}
    return found


@pytest.mark.parametrize("copies", [3, 40])  # 40: more near ones than are kept a row
def test_the_fast_search_finds_what_the_slow_one_finds(copies):
    draw = np.random.default_rng(0)
    kinds = np.stack([np.asarray(blobs(i, 16)) for i in range(12)])
    thumbs = np.clip(
        kinds[draw.integers(12, size=12 * copies)] + draw.integers(-9, 10, (12 * copies, 16, 16, 3)), 0, 255
    )
    thumbs = np.concatenate([thumbs.astype(np.uint8), kinds[:3], kinds[:3]])
    labels = draw.integers(3, size=len(thumbs))
    pairs = find_near(thumbs, labels)
    assert all(i < j for i, j in pairs)
    assert {(j, bool(labels[i] == labels[j])) for i, j in pairs} == slow_near(thumbs, labels)
    assert len(pairs) > len(thumbs)
    assert find_near(thumbs[:1], labels[:1]) == find_near(thumbs[:0], labels[:0]) == []


def test_rows_without_splits_are_checked_as_they_will_be_split(world):
    more: list[Row] = [{"file_name": f"n{i}.jpg", "captions": ["A", "一"]} for i in range(30)]
    grouped = [{**row, "group": "burst"} for row in more]
    folder = world(*more)
    for i in range(30):
        blobs(1).save(folder / f"n{i}.jpg", quality=60 + i)
    leaks = [e for e in check(folder).errors if e.kind == "near_duplicate_in_two_splits"]
    assert leaks
    assert all("drawn by hash" in leak.detail for leak in leaks)
    report = check(world(*grouped))  # one group: one split, and no surprise that they resemble
    assert (report.errors, report.warnings) == ([], [])


def test_a_group_in_two_splits(world):
    report = check(world(r0={"group": "g"}, r1={"group": "g"}, r4={"group": "g"}))
    assert (report.errors, warnings(report)) == ([], [("group_in_two_splits", "4.png")])


def test_captions(world):
    words = {"captions": ["A dog.", "一只狗", " ".join(["word"] * 51)]}
    chinese = {"captions": ["A dog.", "一只狗", "在河边的草地上有一只狗" * 10]}
    fitting = {"captions": [" ".join(["word"] * 50), "一只狗", "一个人在跑步" * 7]}
    report = check(world(r0={"captions": ["A dog.", " ", "一"]}, r1=words, r2=chinese, r3=fitting))
    assert errors(report) == [("empty_caption", "0.png")]
    assert "caption 2 of 3" in report.errors[0].detail
    assert warnings(report) == [("over_50_words", "1.png"), ("over_50_words", "2.png")]
    assert "51 words" in report.warnings[0].detail


def test_languages(world):
    wrong = [
        {"text": "一只狗", "lang": "en"},
        {"text": "A dog", "lang": "zh"},
        "A sign that says 出口 above the door",
        "A",
        "一",
    ]
    report = check(world(r0={"captions": wrong}, r4={"captions": ["A dog"]}, r5={"captions": []}))
    assert [(w.kind, w.file) for w in report.warnings] == [("language_mix", "0.png")] * 3 + [("language_mix", "4.png")]
    assert report.warnings[3].detail == "1 of 1 captioned pictures of val have no zh caption"
    assert not report.errors


def test_answers_that_train_never_gives(world):
    def asked(*answers: str) -> Row:
        return {"qa": [{"question": "?", "answers": [answer, "never"]} for answer in answers]}

    report = check(
        world(r0={"qa": [{"question": "?", "answers": ["Desk"]}]}, r4=asked("desk", "lamp"), r5=asked("desk"))
    )
    (warning,) = report.warnings
    assert (warning.kind, warning.file) == ("answer_out_of_vocabulary", "4.png")
    assert "1 of 2 questions of val" in warning.detail
    assert "lamp" in warning.detail


def test_regions_and_features(world):
    folder = world(r0={"regions": "regions/0.npz"})
    (folder / "dataset.json").write_text(json.dumps({"features": {"toy": "toy.npy", "short": "short.npy"}}))
    np.save(folder / "short.npy", np.ones((3, 2)))
    report = check(folder)
    assert errors(report) == [("features", "toy.npy"), ("features", "short.npy"), ("missing", "regions/0.npz")]
