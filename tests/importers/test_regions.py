"""Regions in the public layouts, for the pictures of a data set that is there."""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tuwen import dataset as datasets
from tuwen.errors import DataError
from tuwen.importers import regions as importer
from tuwen.importers import run_import
from tuwen.importers.regions import read_pickled_ints
from tuwen.regions import Regions, read_regions, write_regions
from tuwen.tasks.regions import open_regions

WIDTH, HEIGHT, CHANNELS = 16, 8, 6
NAMES = {9: "COCO_train2014_000000000009.jpg", 25: "COCO_train2014_000000000025.jpg", 30: "000000000030.jpg"}


def made(seed: int, count: int = 4) -> Regions:
    """Boxes inside the picture; the last reaches its far corner, as the widest of a real one about does."""
    draw = np.random.default_rng(seed)
    near = draw.uniform(0, 4, (count, 2))
    boxes = np.concatenate([near, near + draw.uniform(1, 4, (count, 2))], 1).astype(np.float32)
    boxes[-1, 2:] = WIDTH - 1, HEIGHT - 1
    return Regions(boxes, draw.normal(size=(count, CHANNELS)).astype(np.float32), (WIDTH, HEIGHT))


def same(path: Path, regions: Regions) -> bool:
    held = read_regions(path)
    equal = np.array_equal(held.boxes, regions.boxes) and np.array_equal(held.features, regions.features)
    return equal and held.size == regions.size and held.features.dtype == np.float32


def base(array: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(array, np.float32).tobytes()).decode()


def tsv(rows: dict[Any, Regions]) -> str:
    lines = [f"{i}\t{WIDTH}\t{HEIGHT}\t{len(r.boxes)}\t{base(r.boxes)}\t{base(r.features)}" for i, r in rows.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture
def data(tmp_path, paint, put) -> Path:
    """Three pictures of COCO, as VQA v2's questions bring them; the third has 2017's name and no id."""
    paint("p", *NAMES.values())
    asked = [{"image_id": i, "question": "What is it?", "question_id": i} for i in (9, 25)]
    put("q/v2_train2014_questions.json", {"questions": asked, "data_subtype": "train2014"})
    run_import("vqa2", tmp_path / "q", tmp_path / "data", tmp_path / "p")
    put("c/c.json", [{"file_name": NAMES[30], "captions": ["a thing"], "split": "val"}])
    run_import("text-pairs", tmp_path / "c", tmp_path / "data", tmp_path / "p")
    return tmp_path / "data"


def test_tsv_of_bottom_up_attention(data, put, rows):
    regions = {9: made(1), 25: made(2, 1), 30: made(3, 7), 99: made(4)}
    src = put("trainval_36.tsv", tsv(regions))
    report = run_import("regions", src, data)
    assert (report.added, report.merged, report.pictures, report.regions) == (0, 3, 3, 3)
    assert report.skipped == [{"why": "regions of a picture that the data set lacks", "count": 1, "examples": ["99"]}]
    found = rows()
    for number, name in NAMES.items():
        assert found[name]["regions"] == f"regions/trainval_36/{number}.npz"
        assert same(data / found[name]["regions"], regions[number])
    assert not (data / "regions" / "trainval_36" / "99.npz").exists()
    assert len(found[NAMES[9]]["qa"]) == 1
    batch = open_regions(datasets.load(data).select("train"), 36).read(np.array([0, 1]))  # as training reads them
    assert batch["mask"].sum(1).tolist() == [4, 1]
    assert batch["boxes"][0, 3].tolist() == pytest.approx([*made(1).boxes[3, :2] / [16, 8], 15 / 16, 7 / 8])


def test_tsv_of_lxmert_names_the_height_first(data, put, rows):
    regions = {"COCO_train2014_000000000009": made(1), "000000000030": made(3)}
    lines = [
        f"{name}\t{HEIGHT}\t{WIDTH}\t{base([1])}\t{base([1])}\t{base([1])}\t{base([1])}\t{len(r.boxes)}\t{base(r.boxes)}"
        f"\t{base(r.features)}\n"
        for name, r in regions.items()
    ]
    report = run_import("regions", put("obj36.tsv", "".join(lines)), data)
    assert (report.merged, report.regions) == (2, 2)
    assert same(data / rows()[NAMES[9]]["regions"], regions["COCO_train2014_000000000009"])


def test_a_stopped_import_goes_on(data, put, rows, monkeypatch):
    regions = {9: made(1), 25: made(2), 30: made(3)}
    src, before = put("all.tsv", tsv(regions)), (data / "metadata.jsonl").read_bytes()
    decode, decoded = importer._decode, []

    def stop(path: Path, number: int, cells: list[bytes]) -> Any:
        if number == 3 and len(decoded) == 2:
            raise KeyboardInterrupt
        decoded.append(number)
        return decode(path, number, cells)

    monkeypatch.setattr(importer, "_decode", stop)
    with pytest.raises(KeyboardInterrupt):
        run_import("regions", src, data)
    assert (data / "metadata.jsonl").read_bytes() == before  # no row names what is not all there
    folder = data / "regions" / "all"
    assert sorted(path.name for path in folder.iterdir()) == ["25.npz", "9.npz", "source.json"]
    decoded.append(0)
    assert run_import("regions", src, data).regions == 3
    assert decoded == [1, 2, 0, 3]  # what was written is not decoded again
    assert all(same(folder / f"{number}.npz", own) for number, own in regions.items())
    put("all.tsv", tsv({9: made(7)}))
    with pytest.raises(DataError, match=r"all: holds the regions of another file of that name; remove it"):
        run_import("regions", src, data)
    other = put("newer.tsv", tsv({9: made(7)}))
    assert run_import("regions", other, data).regions == 3
    assert rows()[NAMES[9]]["regions"] == "regions/newer/9.npz"  # those that come last are meant


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: text[:-30], r"all.tsv:2: not regions in base64 .*whole\?"),
        (lambda text: text.replace("\t4\t", "\t5\t"), r"all.tsv:1: not regions"),
        (lambda text: text.replace(f"\t{WIDTH}\t", "\t"), r"all.tsv:1: 5 columns, where image_id image_w"),
        (lambda text: text.replace(f"\t{WIDTH}\t", "\twide\t"), r"all.tsv:1: not regions .*wide"),
        (lambda text: text.replace(f"\t{WIDTH}\t", "\t0\t"), r"all.tsv:1: not regions .*0 x 8"),
        (lambda text: text.replace("9\t", "99\t").replace("25\t", "98\t"), r"no picture to import: .*lacks \(99\)"),
        (lambda text: "", "no picture to import"),
    ],
)
def test_a_broken_tsv_is_told_by_its_line(data, put, spoil, why):
    src = put("all.tsv", spoil(tsv({9: made(1), 25: made(2)})))
    before = (data / "metadata.jsonl").read_bytes()
    with pytest.raises(DataError, match=why):
        run_import("regions", src, data)
    assert (data / "metadata.jsonl").read_bytes() == before


def test_a_file_of_which_nothing_was_read_is_forgotten(data, put):
    """A page of the web saved under the name of the file does not keep the file itself out."""
    with pytest.raises(DataError, match="1 columns"):
        run_import("regions", put("all.tsv", "<html>\n"), data)
    assert run_import("regions", put("all.tsv", tsv({9: made(1)})), data).regions == 1


def test_a_line_without_end_is_not_read_whole(data, put, monkeypatch):
    monkeypatch.setattr(importer, "LONGEST", 1000)
    with pytest.raises(DataError, match=r"all.tsv:1: 1 columns"):
        run_import("regions", put("all.tsv", "9" * 5000), data)


def test_pictures_without_regions_and_twice(data, put):
    none = Regions(np.zeros((0, 4)), np.zeros((0, CHANNELS)), (WIDTH, HEIGHT))
    report = run_import("regions", put("all.tsv", tsv({9: none, 25: made(2)}) + tsv({25: made(3)})), data)
    assert {item["why"]: item["examples"] for item in report.skipped} == {
        "no region in it": ["9"],
        "a picture whose regions came before": ["25"],
    }
    assert same(data / "regions/all/25.npz", made(2))
    with pytest.raises(DataError, match="no pictures in it yet"):
        run_import("regions", data.parent / "all.tsv", data.parent / "new")
    assert not (data.parent / "new").exists()


def hdf5(path: Path, regions: list[Regions], spatial: bool = True, ragged: bool = False) -> Path:
    """As the public converters lay it: (N, 36, d), or all boxes in one with `pos_boxes`; boxes as shares beside."""
    with h5py.File(path, "w") as file:
        join = np.concatenate if ragged else np.stack
        file["image_bb"] = join([own.boxes for own in regions])
        file["image_features"] = join([own.features for own in regions])
        if spatial:
            shares = [own.boxes / np.array([WIDTH, HEIGHT] * 2, np.float32) for own in regions]
            file["spatial_features"] = join([np.concatenate([s, s[:, 2:] - s[:, :2]], 1) for s in shares])
        if ragged:
            ends = np.cumsum([len(own.boxes) for own in regions])
            file["pos_boxes"] = np.stack([ends - [len(own.boxes) for own in regions], ends], 1)
    return path


@pytest.mark.parametrize("kind", ["json", "list", "txt", "pickle 0", "pickle 2", "pickle 5"])
def test_hdf5_and_its_index(tmp_path, data, put, rows, kind):
    regions, ragged = [made(1), made(2), made(3)], kind != "list"
    if ragged:
        regions[1] = made(2, 6)
    src = hdf5(tmp_path / "train36.hdf5", regions, ragged=ragged)
    index = {30: 0, 25: 1, 9: 2}
    if kind.startswith("pickle"):
        put("train36_imgid2idx.pkl", pickle.dumps(index, int(kind[-1])))
    elif kind == "txt":
        put("train36_ids.txt", "30\n25\n9\n")
    else:
        put("train36_imgid2idx.json", {str(k): v for k, v in index.items()} if kind == "json" else list(index))
    assert run_import("regions", src, data).regions == 3
    for number, row in index.items():
        assert same(data / rows()[NAMES[number]]["regions"], regions[row])


def test_hdf5_without_sizes_or_an_index(tmp_path, data, put, rows):
    src = hdf5(tmp_path / "train36.hdf5", [made(1)], spatial=False)
    with pytest.raises(DataError, match=r"put train36_imgid2idx.json or train36_ids.txt .*--annotations"):
        run_import("regions", src, data)
    index = put("elsewhere.json", {"9": 0})
    assert run_import("regions", src, data, annotations=index).regions == 1
    own = datasets.read(data)
    assert read_regions(data / rows()[NAMES[9]]["regions"]).size is None
    one = datasets.Dataset(data, own.manifest, own.pictures[:1])
    boxes = open_regions(one, 36).read(np.array([0]))["boxes"]  # then the picture's own size, 8 x 8
    assert boxes[0, 3, 2:].tolist() == pytest.approx([15 / 8, 7 / 8])
    put("elsewhere.json", {"9": 1})
    with pytest.raises(DataError, match="has 1 pictures, its index names row 1 for 9"):
        run_import("regions", src, data, annotations=index)
    put("b.hdf5", b"no")
    h5py.File(tmp_path / "c.hdf5", "w").close()
    with h5py.File(hdf5(tmp_path / "d.hdf5", [made(1)], ragged=True), "a") as file:
        del file["pos_boxes"]
    for name, why in (("b", "not readable as HDF5"), ("c", "image_features and image_bb"), ("d", "or pos_boxes in")):
        put(f"{name}_ids.txt", "9\n")
        with pytest.raises(DataError, match=rf"{name}.hdf5: .*{why}"):
            run_import("regions", tmp_path / f"{name}.hdf5", data)


def test_without_h5py_the_mend_is_named(tmp_path, data, put, monkeypatch):
    src = hdf5(tmp_path / "train36.hdf5", [made(1)])
    put("train36_ids.txt", "9\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match="HDF5 needs one more package: pip install h5py"):
        run_import("regions", src, data)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_read_and_never_run(tmp_path, put):
    index = {9: 0, 2**40: 1, 70000: 2, 262148: 300, 5: -1}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert read_pickled_ints(put("i.pkl", pickle.dumps(index, protocol))) == index
    large = {number * 7: number for number in range(3000)}  # set in several portions
    assert read_pickled_ints(put("i.pkl", pickle.dumps(large, 2))) == large
    python2 = b"(dp1\nI9\nI0\nsI25\nI1\nsL30L\nI2\ns."
    assert read_pickled_ints(put("i.pkl", python2)) == {9: 0, 25: 1, 30: 2}
    refused = 0
    for odd in (Evil(tmp_path / "ran"), {9: Evil(tmp_path / "ran")}, {"9": 0}, [9, 0], {9: True}, {9: {1: 2}}, {}, 9):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(DataError, match=r"a pickle could run code.* write the same as i.json"):
                read_pickled_ints(put("i.pkl", pickle.dumps(odd, protocol)))
            refused += 1
    assert refused == 8 * (pickle.HIGHEST_PROTOCOL + 1)
    assert not (tmp_path / "ran").exists()
    for broken in (b"", b"\x80", pickle.dumps(index)[:-3], b"\x8a\xff.", b"not a pickle"):
        with pytest.raises(DataError, match="a pickle could run code"):
            read_pickled_ints(put("i.pkl", broken))


def test_npz_files_stay_where_they_are(tmp_path, data, rows):
    folder = tmp_path / "found"
    for name, seed in ((NAMES[9], 1), ("25", 2), ("other", 3)):
        write_regions(folder / f"{name}.npz", made(seed))
    report = run_import("regions", folder, data)
    assert (report.regions, report.skipped[0]["examples"]) == (2, ["other"])
    assert rows()[NAMES[9]]["regions"] == str(folder / f"{NAMES[9]}.npz")
    assert run_import("regions", folder, data, copy=True).regions == 2
    assert rows()[NAMES[25]]["regions"] == "regions/found/25.npz"
    assert same(data / "regions/found/25.npz", made(2))
    np.savez(folder / "25.npz", x=np.zeros(3))  # the first by name tells the layout
    with pytest.raises(DataError, match=r"not readable as regions \(boxes and features in .npz\)"):
        run_import("regions", folder, data)


def test_a_name_that_two_pictures_have_proves_nothing(tmp_path, paint, put):
    paint("p", "train/0.png", "test/0.png", "test/1.png")
    listed = [{"file_name": name, "captions": ["a"]} for name in ("train/0.png", "test/0.png", "test/1.png")]
    run_import("text-pairs", put("c.json", listed), tmp_path / "data", tmp_path / "p")
    src = put("all.tsv", tsv({"0": made(1), "train/0.png": made(2), "1": made(3)}))
    report = run_import("regions", src, tmp_path / "data")
    assert [item["why"] for item in report.skipped] == ["several pictures of that name"]
    lines = [json.loads(line) for line in (tmp_path / "data/metadata.jsonl").read_text().splitlines()]
    assert [line.get("regions") for line in lines] == [
        "regions/all/train%2F0.png.npz",
        None,
        "regions/all/1.npz",
    ]


def test_a_split_alone(data, put, rows):
    src = put("all.tsv", tsv({9: made(1), 30: made(3)}))
    assert run_import("regions", src, data, split="val").regions == 1
    assert [name for name, row in rows().items() if "regions" in row] == [NAMES[30]]
    assert not (data / "regions/all/9.npz").exists()
