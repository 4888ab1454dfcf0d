"""The feature cache: equal to the tower, computed once, whole after any accident."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tuwen import features, images
from tuwen.errors import DataError, GraphError, PictureError
from tuwen.features import extract, from_matrix
from tuwen.images import View
from tuwen.towers import Body, Tower, build_tower

SIDE = 16


class TinyBody(Body):
    grid_width = pooled_width = 6

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 6, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.net(x))


def tiny(seed: int = 0, size: int = SIDE) -> Tower:
    torch.manual_seed(seed)
    return Tower("tiny", TinyBody(), size, [127.0] * 3, [64.0] * 3).eval()


def make_pictures(folder: Path, n: int = 20) -> list[Path]:
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{index:02}.png" for index in range(n)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return make_pictures(tmp_path / "pictures")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that the tower was run on."""
    sizes: list[int] = []
    plain = features.runner

    def spy(tower: Tower, kind: features.Kind) -> features.Runner:
        run = plain(tower, kind)

        def counted(pixels: images.Pixels) -> NDArray[Any]:
            sizes.append(len(pixels))
            return run(pixels)

        return counted

    monkeypatch.setattr(features, "runner", spy)
    return sizes


def direct(tower: Tower, paths: list[Path], kind: str = "grid", view: View | None = None) -> NDArray[np.float32]:
    pixels = torch.from_numpy(np.stack([images.load(path, tower.size, view) for path in paths]))
    with torch.inference_mode():
        return (tower(pixels) if kind == "grid" else tower.pooled(pixels)).numpy()


def alike(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (found, expected))
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return bool(cosine.min() >= 0.9999 and np.abs(a - b).max() <= 1e-3 * np.abs(b).max())


@pytest.mark.parametrize("kind", ["grid", "pooled"])
@pytest.mark.parametrize("make", [tiny, lambda: build_tower("lite0", size=64)], ids=["tiny", "lite0"])
def test_onnx_cached_and_torch_agree(tmp_path: Path, paths: list[Path], kind: Any, make: Any) -> None:
    tower = make()
    fresh = extract(tower, paths, kind, cache=tmp_path / "cache", batch=8)
    cached = extract(tower, paths, kind, cache=tmp_path / "cache", batch=8)
    expected = direct(tower, paths, kind)
    assert fresh.shape == cached.shape == expected.shape
    assert fresh[:].dtype == np.float16
    assert np.array_equal(fresh[:], cached[:])
    assert alike(fresh[:], expected)


def test_through_torch_where_no_graph_can_be_made(
    tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise GraphError("no graph")

    monkeypatch.setattr("tuwen.graphs.session", refuse)
    for kind in ("grid", "pooled"):
        found = extract(tiny(), paths, kind, cache=tmp_path / "cache")
        assert alike(found[:], direct(tiny(), paths, kind))


def test_each_content_is_computed_once(tmp_path: Path, paths: list[Path], computed: list[int]) -> None:
    twin = tmp_path / "twin.png"
    twin.write_bytes(paths[3].read_bytes())
    found = extract(tiny(), [*paths[:8], twin, paths[3]], cache=tmp_path / "cache", batch=3)
    assert computed == [3, 3, 2]
    assert np.array_equal(found[8], found[3])
    assert np.array_equal(found[9], found[3])
    extract(tiny(), paths[::-1], cache=tmp_path / "cache")
    assert sum(computed) == 20
    reverse = extract(tiny(), paths[::-1], cache=tmp_path / "cache")
    assert sum(computed) == 20
    assert np.array_equal(reverse[12:], found[:8][::-1])
    assert len(extract(tiny(), [], cache=tmp_path / "cache")) == 0


def test_the_key_holds_all_that_changes_a_feature(tmp_path: Path, paths: list[Path], computed: list[int]) -> None:
    some, cache = paths[:4], tmp_path / "cache"
    variants: list[tuple[Tower, Any, View]] = [
        (tiny(), "grid", View()),
        (tiny(), "pooled", View()),
        (tiny(), "grid", View(flip=True)),
        (tiny(), "grid", View("center")),
        (tiny(), "grid", View("crop", seed=1)),
        (tiny(), "grid", View("crop", seed=2)),
        (tiny(seed=1), "grid", View()),
        (tiny(size=20), "grid", View()),
        (Tower("tiny", tiny().body, SIDE, [100.0] * 3, [64.0] * 3).eval(), "grid", View()),
    ]
    tables = [extract(tower, some, kind, view, cache)[:].tobytes() for tower, kind, view in variants]
    assert len(set(tables)) == len(variants) == 9
    assert sum(computed) == 4 * 9
    assert len(list(cache.iterdir())) == 9
    flipped = extract(tiny(), some, view=View(flip=True), cache=cache)
    assert alike(flipped[:], direct(tiny(), some, view=View(flip=True)))


def test_the_decoder_is_in_the_key(
    tmp_path: Path, paths: list[Path], computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    extract(tiny(), paths[:4], cache=tmp_path / "cache")
    monkeypatch.setattr(images, "DECODER", "another")
    extract(tiny(), paths[:4], cache=tmp_path / "cache")
    assert sum(computed) == 8


def test_any_rows_in_any_order(tmp_path: Path, paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "BLOCK", 6)
    table = extract(tiny(), paths, cache=tmp_path / "cache", batch=3)
    assert len(list((tmp_path / "cache").glob("*/*.npy"))) == 4
    whole = table[:]
    chosen = (np.array([7, 7, 0, 19, -1]), slice(3, 9, 2), [4, 2], np.arange(20) % 3 == 0, np.array([], int), 5)
    for rows in chosen:
        assert np.array_equal(table[rows], whole[rows])
    assert len(table) == 20
    with pytest.raises(IndexError):
        table[[20]]
    small = pickle.dumps(table)
    assert len(small) < 5000
    assert np.array_equal(pickle.loads(small)[:], whole)


def test_a_broken_picture_is_named_and_costs_no_work(tmp_path: Path, paths: list[Path], computed: list[int]) -> None:
    paths[13].write_bytes(b"broken")
    with pytest.raises(PictureError, match=r"13\.png"):
        extract(tiny(), paths, cache=tmp_path / "cache", batch=4)
    assert sum(computed) == 12
    extract(tiny(), [*paths[:13], *paths[14:]], cache=tmp_path / "cache", batch=4)
    assert sum(computed) == 19


def test_the_tower_is_run_in_evaluation_and_left_as_it_was(tmp_path: Path, paths: list[Path]) -> None:
    tower = tiny().train()
    extract(tower, paths[:2], cache=tmp_path / "cache")
    assert tower.training


def test_broken_blocks_are_computed_again(
    tmp_path: Path, paths: list[Path], computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "BLOCK", 5)
    whole = extract(tiny(), paths, cache=tmp_path / "cache", batch=5)[:]
    blocks = sorted((tmp_path / "cache").glob("*/*.npy"))
    assert len(blocks) == 4
    blocks[0].write_bytes(blocks[0].read_bytes()[:-10])
    blocks[1].unlink()
    blocks[2].with_suffix(".rows.json").write_text('{"bytes": 1, ')
    computed.clear()
    assert np.array_equal(extract(tiny(), paths, cache=tmp_path / "cache", batch=5)[:], whole)
    assert sum(computed) == 15


def test_litter_is_swept_when_nobody_can_own_it(tmp_path: Path, paths: list[Path]) -> None:
    extract(tiny(), paths[:2], cache=tmp_path / "cache")
    [folder] = (tmp_path / "cache").iterdir()
    kept = sorted(path.name for path in folder.iterdir())
    litter = [folder / name for name in ("orphan.npy", ".orphan.npy.1.tmp", "young.npy", ".young.npy.1.tmp")]
    for path in litter:
        path.write_bytes(b"")
        if "orphan" in path.name:
            os.utime(path, (time.time() - 2 * features.LITTER_AGE,) * 2)
    extract(tiny(), paths[:4], cache=tmp_path / "cache")
    left = {path.name for path in folder.iterdir()}
    assert {"young.npy", ".young.npy.1.tmp", *kept} <= left
    assert not any("orphan" in name for name in left)
    assert len(left) == len(kept) + 2 + 2


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tuwen import features
from test_features import tiny
features.BLOCK = 4
stop, folder, cache = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
plain, seen = features.write_atomic, []
def write(path, data):
    seen.append(path)
    if len(seen) == stop:  # killed in the middle of this file
        path.with_name(f".{{path.name}}.{{os.getpid()}}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    plain(path, data)
features.write_atomic = write
features.extract(tiny(), sorted(folder.iterdir()), cache=cache, batch=2)
"""


def child(stop: int, paths: list[Path], cache: Path) -> subprocess.Popen[bytes]:
    code = CHILD.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", code, str(stop), str(paths[0].parent), str(cache)])


def test_a_killed_run_goes_on(tmp_path: Path, paths: list[Path], computed: list[int]) -> None:
    # files: about.json, then block and index in turn; the 7th is the third index, whose block then doesn't count
    assert child(7, paths, tmp_path / "cache").wait() == -9
    found = extract(tiny(), paths, cache=tmp_path / "cache", batch=2)
    assert sum(computed) == 20 - 8
    assert np.array_equal(found[:], extract(tiny(), paths, cache=tmp_path / "uncut", batch=2)[:])


def test_two_writers_at_once(tmp_path: Path, paths: list[Path], computed: list[int]) -> None:
    writers = [child(0, paths, tmp_path / "cache") for _ in range(2)]
    assert [writer.wait() for writer in writers] == [0, 0]
    found = extract(tiny(), paths, cache=tmp_path / "cache")
    assert computed == []
    assert alike(found[:], direct(tiny(), paths))
    [folder] = (tmp_path / "cache").iterdir()
    rows = [json.loads(path.read_text())["rows"] for path in folder.glob("*.rows.json")]
    assert {content for block in rows for content in block} == {images.content_id(path) for path in paths}


def test_no_room_is_said(tmp_path: Path, paths: list[Path]) -> None:
    (tmp_path / "cache").write_text("a file where a folder is due")
    with pytest.raises(DataError, match="cannot be written"):
        extract(tiny(), paths[:2], cache=tmp_path / "cache")


# precomputed matrices


def test_from_matrix(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    np.save(tmp_path / "grid.npy", matrix)
    np.save(tmp_path / "pooled.npy", matrix[:, 0])
    torch.save(torch.from_numpy(matrix), tmp_path / "grid.pth")
    torch.save({"features": torch.from_numpy(matrix[:, 0]), "epoch": torch.tensor(3)}, tmp_path / "pooled.pth")
    torch.save(torch.from_numpy(matrix), tmp_path / "grid.pt", _use_new_zipfile_serialization=False)
    torch.save({"x": torch.from_numpy(matrix[:, 0]), "of": "words"}, tmp_path / "pooled.pt")
    for name, expected in (("grid", matrix), ("pooled", matrix[:, 0])):
        for suffix in (".npy", ".pth", ".pt"):
            table = from_matrix(tmp_path / f"{name}{suffix}")
            assert table.shape == expected.shape
            assert np.array_equal(table[:], expected.astype(np.float16))
            chosen = from_matrix(tmp_path / f"{name}{suffix}", [5, 0, 0])
            assert np.array_equal(chosen[:], expected[[5, 0, 0]].astype(np.float16))


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def test_wrong_matrices_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.zeros(4))
    np.save("short.npy", np.zeros((4, 2)))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    torch.save({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, "two.pth")
    torch.save(Evil(), "evil.pth")
    Path("text.npy").write_text("no matrix")
    Path("text.pth").write_text("no matrix")
    names = ("flat.npy", "short.npy", "objects.npy", "two.pth", "evil.pth", "text.npy", "text.pth", "missing.npy")
    for name in names:
        with pytest.raises(DataError) as caught:
            from_matrix(Path(name), [0, 9])
        assert str(caught.value).startswith(f"{name}: "), caught.value
        assert "\n" not in str(caught.value)
    assert not Path("evil").exists()
