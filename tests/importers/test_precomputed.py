"""Features without their pictures, and features for pictures that are there."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from tuwen import dataset
from tuwen.check import check
from tuwen.errors import DataError
from tuwen.importers import run_import


def family(folder, split: str, n: int, each: int, repeat: bool, seed: int = 0) -> np.ndarray:
    folder.mkdir(exist_ok=True)
    features = np.random.default_rng(seed).random((n, 3, 4), np.float32)
    np.save(folder / f"{split}_ims.npy", np.repeat(features, each, axis=0) if repeat else features)
    lines = [f"caption {i} of {split} {k}" for i in range(n) for k in range(each)]
    (folder / f"{split}_caps.txt").write_text("\n".join(lines) + "\n")
    return features


@pytest.mark.parametrize(("each", "repeat"), [(5, True), (5, False), (1, False), (2, False)])
def test_one_part_is_read_in_place(tmp_path, each, repeat):
    features = family(tmp_path / "f8k_precomp", "test", 4, each, repeat)
    report = run_import("precomputed", tmp_path / "f8k_precomp", tmp_path / "data")
    assert (report.added, report.captions, report.splits) == (4, 4 * each, {"test": 4})
    loaded = dataset.load(tmp_path / "data")
    matrix, numbers = loaded.features("f8k_precomp")
    np.testing.assert_array_equal(matrix[numbers], features)
    assert isinstance(matrix, np.memmap)
    assert loaded.pictures[1].captions[-1].text == f"caption 1 of test {each - 1}"
    assert not list((tmp_path / "data").rglob("*.npy"))
    found = check(tmp_path / "data")
    assert not found.errors
    assert [warning.kind for warning in found.warnings] == ["features_only"]


def test_parts_are_joined_and_a_second_import_changes_nothing(tmp_path):
    folder = tmp_path / "f"
    wanted = [family(folder, "dev", 3, 5, True, 1), family(folder, "train", 4, 5, False, 2)]
    run_import("precomputed", folder / "dev_ims.npy", tmp_path / "data")
    run_import("precomputed", folder / "train_caps.txt", tmp_path / "data")
    for _ in range(2):
        loaded = dataset.load(tmp_path / "data")
        matrix, numbers = loaded.features("f")
        assert loaded.splits() == {"val": 3, "train": 4}
        np.testing.assert_array_equal(matrix[numbers], np.concatenate(wanted))
        assert len(matrix) == 3 * 5 + 4  # as dev came; train added to it
        chosen = loaded.select("train")
        np.testing.assert_array_equal(matrix[chosen.features("f")[1]], wanted[1])
        assert run_import("precomputed", folder, tmp_path / "data").added == 0


def test_testall_takes_the_place_of_test(tmp_path):
    family(tmp_path / "c", "test", 1, 5, False)
    family(tmp_path / "c", "testall", 2, 5, False)
    report = run_import("precomputed", tmp_path / "c", tmp_path / "data")
    assert (report.pictures, report.splits) == (2, {"test": 2})
    assert report.skipped[0]["examples"] == ["test_ims.npy"]


def test_a_matrix_for_the_rows_of_a_data_set(tmp_path, paint):
    run_import("folder", paint("album", *(f"{i}.png" for i in range(4))), tmp_path / "data")
    matrix = np.random.default_rng(0).random((4, 6), np.float32)
    np.save(tmp_path / "resnet50.npy", matrix)
    torch.save(
        {"features": torch.tensor(matrix) * 2, "file_names": ["2.png", "0.png", "x.png", "1.png"]}, tmp_path / "r.pth"
    )
    assert run_import("precomputed", tmp_path / "resnet50.npy", tmp_path / "data").merged == 4
    report = run_import("precomputed", tmp_path / "r.pth", tmp_path / "data")
    assert report.skipped[0]["examples"] == ["x.png"]
    loaded = dataset.load(tmp_path / "data")
    held, numbers = loaded.features("resnet50")
    np.testing.assert_array_equal(held[numbers], matrix)
    half = dataset.Dataset(loaded.folder, loaded.manifest, loaded.pictures[:3], loaded.rows[:3])
    held, numbers = half.features("r")
    np.testing.assert_array_equal(held[numbers], 2 * matrix[[1, 3, 0]])
    with pytest.raises(DataError, match=r"no row for 3\.png"):
        loaded.features("r")
    np.save(tmp_path / "short.npy", matrix[:2])
    with pytest.raises(DataError, match="2 rows, but the data set has 4 pictures"):
        run_import("precomputed", tmp_path / "short.npy", tmp_path / "data")


def test_a_matrix_alone_and_with_captions(tmp_path, put):
    torch.save(torch.ones(4, 6), tmp_path / "results.pth")
    captions = put("words.txt", "".join(f"一句话{i}\n" for i in range(8)))
    assert run_import("precomputed", tmp_path / "results.pth", tmp_path / "bare").pictures == 4
    report = run_import("precomputed", tmp_path / "results.pth", tmp_path / "data", annotations=captions)
    assert (report.pictures, report.languages) == (4, {"zh": 8})
    assert dataset.load(tmp_path / "data").features("results")[0].shape == (4, 6)


def test_what_is_refused(tmp_path, put):
    family(tmp_path / "f", "train", 4, 5, False)
    (tmp_path / "f" / "train_caps.txt").write_text("one\ntwo\n")
    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print))
    np.save(tmp_path / "flat.npy", np.ones(4))
    torch.save({"a": torch.ones(2, 2), "b": torch.ones(2, 2)}, tmp_path / "two.pth")
    put("text.npy", "not a matrix")
    put("x.jpg", b"\xff\xd8\xff\xe0 JFIF")
    put("x.pth", b"\xff\xd8\xff\xe0 JFIF")
    refused = {
        "f": "4 rows, but 2 captions",
        "objects.npy": "pickled",
        "evil.pth": "pickled",
        "flat.npy": "shape",
        "two.pth": "2 tensors",
        "text.npy": "no .npy or .pth matrix",
        "x.jpg": "no .npy or .pth matrix; name one as SRC",
        "x.pth": "no .npy or .pth matrix",
    }
    for name, why in refused.items():
        with pytest.raises(DataError, match=why) as error:
            run_import("precomputed", tmp_path / name, tmp_path / "data")
        assert "\n" not in str(error.value)
    assert not (tmp_path / "data").exists()


def test_captions_with_odd_spaces_stay_whole(tmp_path):
    family(tmp_path / "f", "test", 1, 5, True)
    (tmp_path / "f" / "test_caps.txt").write_text("a\u2028b\nc\x0cd\ne\x85f\ng\nh\n", encoding="utf-8")
    run_import("precomputed", tmp_path / "f", tmp_path / "data")
    assert [c.text for _, c in dataset.load(tmp_path / "data").captions()] == ["a b", "c d", "e f", "g", "h"]


def test_captions_without_their_matrix(tmp_path, put):
    with pytest.raises(DataError, match=r"dev_caps\.txt: no dev_ims\.npy beside it"):
        run_import("precomputed", put("f/dev_caps.txt", "one\n"), tmp_path / "data")
