"""The one data format: what is read, what is refused, what survives a round trip, and who gets into which split."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuwen import dataset, files
from tuwen.dataset import Dataset, load, read, save
from tuwen.errors import DataError
from tuwen.importers.merging import join, merge
from tuwen.records import Caption, Manifest, Picture

Row = dict[str, object]


def write(folder: Path, *rows: Row | str | bytes, manifest: Row | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [r if isinstance(r, bytes) else (r if isinstance(r, str) else json.dumps(r)).encode() for r in rows]
    (folder / "metadata.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    if manifest is not None:
        (folder / "dataset.json").write_text(json.dumps(manifest))
    return folder


def test_the_row_of_the_design(tmp_path):
    row = {
        "id": "d1",
        "file_name": "images/dog.jpg",
        "split": "train",
        "group": "person-17",
        "captions": ["A dog swims.", {"text": "一只狗在游泳。", "lang": "zh", "source": "human"}],
        "qa": [
            {"id": "q1", "question": "what?", "answers": ["swimming", "swimming", "playing"], "question_type": "what"}
        ],
        "regions": "regions/dog.npz",
    }
    found = load(write(tmp_path, row, manifest={"format": 1, "name": "x", "roots": {}}))
    (picture,) = found.pictures
    assert [(c.text, c.lang, c.source) for c in picture.captions] == [
        ("A dog swims.", "en", "human"),
        ("一只狗在游泳。", "zh", "human"),
    ]
    assert picture.qa[0].answers == ["swimming", "swimming", "playing"]
    assert found.path(picture) == tmp_path / "images/dog.jpg"
    assert (found.manifest.name, found.splits()) == ("x", {"train": 1})
    save(found)
    assert json.loads((tmp_path / "metadata.jsonl").read_text()) == {
        **row,
        "captions": ["A dog swims.", "一只狗在游泳。"],
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{oops", "not JSON"),
        ('["a"]', "not a JSON object"),
        ('{"captions": []}', "file_name: Field required"),
        ('{"file_name": ""}', "file_name: String should have at least 1 character"),
        ('{"file_name": "b.jpg", "captions": [{"lang": "en"}]}', "captions.0.text: Field required"),
        ('{"file_name": "b.jpg", "captions": "a dog"}', "captions: Input should be a valid list"),
        ('{"file_name": "b.jpg", "root": "nowhere"}', "root 'nowhere'"),
        (b'{"file_name": "\xff\xfe.jpg"}', "not UTF-8"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path, line, why):
    folder = write(tmp_path / "d", "", {"file_name": "a.jpg"}, "   ", line)
    with pytest.raises(DataError, match=r"metadata\.jsonl:4: ") as error:
        load(folder)
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_to_read(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "bare").mkdir()
    for folder, manifest in (("empty", None), ("blank", None), ("new", {"format": 2}), ("odd", {"roots": 3})):
        write(tmp_path / folder, *([{"file_name": "a.jpg"}] if manifest else [""]), manifest=manifest)
    (write(tmp_path / "torn", {"file_name": "a.jpg"}) / "dataset.json").write_text("{")
    cases = {
        "none": "no such folder",
        "file": "not a folder",
        "bare": r"no metadata\.jsonl",
        "empty": r"metadata\.jsonl: empty",
        "blank": "empty",
        "new": "update tuwen",
        "odd": "roots",
        "torn": r"dataset\.json: not readable",
    }
    for name, why in cases.items():
        with pytest.raises(DataError, match=why) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value)
        assert name in str(error.value)


def test_foreign_ends_and_marks(tmp_path):
    row = b'{"file_name": "a.jpg", "split": "validation", "captions": null}\r'
    found = load(write(tmp_path, b"\xef\xbb\xbf" + row))
    assert (found.splits(), found.pictures[0].captions) == ({"val": 1}, [])
    assert len(load(tmp_path / "metadata.jsonl")) == 1


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def extras(*known: str) -> st.SearchStrategy[dict[str, object]]:
    return st.dictionaries(st.text(min_size=1).filter(lambda key: key not in known), PLAIN, max_size=3)


CAPTIONS = st.builds(
    lambda extra, text, source: {**extra, "text": text, "source": source},
    extras("text", "lang", "source"),
    st.text(),
    st.sampled_from(["human", "model:x"]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    extra=extras(*Picture.model_fields),
    captions=st.lists(CAPTIONS | st.text(), max_size=3),
    asked=extras("question", "answers", "id", "question_type", "source"),
    manifest=extras(*Manifest.model_fields),
)
def test_unknown_keys_survive_a_round_trip(tmp_path, extra, captions, asked, manifest):
    row = {**extra, "file_name": "a.jpg", "split": "train", "captions": captions, "qa": [{**asked, "question": "?"}]}
    folder = write(tmp_path / "d", row, manifest={**manifest, "name": "n"})
    save(load(folder))
    once = (folder / "metadata.jsonl").read_bytes()
    written, described = json.loads(once), json.loads((folder / "dataset.json").read_text("utf-8"))
    assert {key: written[key] for key in extra} == extra
    assert {key: written["qa"][0][key] for key in asked} == asked
    assert {key: described[key] for key in manifest} == manifest
    for before, after in zip(captions, written.get("captions", []), strict=True):
        if isinstance(before, dict) and not isinstance(after, str):
            assert {key: after[key] for key in before if key != "source"} == {
                k: v for k, v in before.items() if k != "source"
            }
            assert after.get("source", "human") == before["source"]
        else:
            assert after == (before if isinstance(before, str) else before["text"])
    save(load(folder))
    assert (folder / "metadata.jsonl").read_bytes() == once


def test_half_a_character_survives(tmp_path):
    folder = write(tmp_path, '{"file_name": "a.jpg", "split": "train", "captions": ["\\ud83d"]}')
    save(load(folder))
    assert load(folder).pictures[0].captions[0].text == "\ud83d"


def test_a_save_that_fails_leaves_the_old_rows(tmp_path, monkeypatch):
    folder = write(tmp_path, {"file_name": "a.jpg", "split": "train"}, manifest={"name": "n"})
    found = load(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found.pictures[0].captions.append(Caption(text="new"))
    replaced = []

    def die(self, target):
        replaced.append(target)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.Path, "replace", die)
    with pytest.raises(DataError, match="No space left"):
        save(found)
    assert replaced
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_default_splits_follow_the_content_and_never_the_row(tmp_path):
    for i in range(40):
        (tmp_path / f"{i}.jpg").write_bytes(b"picture %d" % (i // 2))  # each content under two names
    rows = [{"file_name": f"{i}.jpg"} for i in range(40)]
    first = [p.split for p in load(write(tmp_path, *rows)).pictures]
    assert first[::2] == first[1::2]
    again = {p.file_name: p.split for p in load(write(tmp_path, *rows[::-1][:30])).pictures}
    assert again == {
        row["file_name"]: split for row, split in zip(rows, first, strict=True) if row["file_name"] in again
    }
    (tmp_path / "3.jpg").rename(tmp_path / "renamed.jpg")
    assert load(write(tmp_path, {"file_name": "renamed.jpg"})).pictures[0].split == first[3]
    assert read(tmp_path).pictures[0].split is None  # nothing is written


def test_default_splits_keep_groups_whole_and_are_80_10_10(tmp_path):
    rows: list[Row] = [{"file_name": f"{i}.jpg", "group": f"person-{i // 3}"} for i in range(9000)]
    found = load(write(tmp_path, *rows))
    splits = [p.split for p in found.pictures]
    assert all(len(set(splits[i : i + 3])) == 1 for i in range(0, 9000, 3))
    shares = {name: count / 9000 for name, count in Counter(splits).items()}
    assert shares == pytest.approx({"train": 0.8, "val": 0.1, "test": 0.1}, abs=0.03)  # 5 standard deviations of 3,000
    rows[1]["split"] = "test"
    assert [p.split for p in load(write(tmp_path, *rows[:3])).pictures] == ["test"] * 3


def test_select_and_roots(tmp_path):
    rows = [{"file_name": f"{i}.jpg", "root": "pool", "split": "train" if i % 2 else "val"} for i in range(5)]
    found = load(write(tmp_path, *rows, manifest={"roots": {"pool": "sub/pool"}}))
    part = found.select("train")
    assert ([p.file_name for p in part.pictures], part.rows) == (["1.jpg", "3.jpg"], [1, 3])
    assert len(found.select("validation")) == 3
    assert found.select(None) is found
    assert found.path(found.pictures[0]) == tmp_path / "sub/pool/0.jpg"
    with pytest.raises(DataError, match="did you mean 'train'"):
        found.select("trian")


def test_captions_count_people_unless_told(tmp_path):
    machine = {"text": "A machine's", "source": "model:x"}
    row = {"file_name": "a", "split": "train", "captions": ["One", "一", machine]}
    found = load(write(tmp_path, row, row | {"file_name": "b"}))
    assert [(i, c.text) for i, c in found.captions()] == [(0, "One"), (0, "一"), (1, "One"), (1, "一")]
    assert [c.text for _, c in found.captions("en", human=False)] == ["One", "A machine's"] * 2


def test_features_by_position_and_through_a_selection(tmp_path):
    rows = [{"file_name": f"{i}", "split": "train" if i % 2 else "val"} for i in range(6)]
    folder = write(tmp_path / "d", *rows, manifest={"features": {"toy": "toy.npy"}})
    np.save(folder / "toy.npy", np.arange(6)[:, None])
    part = load(folder).select("train")
    assert part.features("toy")[1].tolist() == [1, 3, 5]
    save(part, tmp_path / "part")  # rows that stand elsewhere now keep their numbers
    moved = load(tmp_path / "part")
    matrix, numbers = moved.features("toy")
    assert matrix[numbers].ravel().tolist() == [1, 3, 5]
    with pytest.raises(DataError, match="did you mean 'toy'"):
        moved.features("toys")
    np.save(folder / "toy.npy", np.arange(4)[:, None])
    with pytest.raises(DataError, match="no row for 5 among its 4"):
        moved.features("toy")


def test_merge_joins_by_place_and_changes_neither(tmp_path):
    shared = tmp_path / "pool"
    a = load(
        write(
            tmp_path / "a",
            {"file_name": "x.jpg", "root": "one", "split": "train", "captions": ["One", "One"], "note": 1},
            {"file_name": "own.jpg", "split": "val"},
            manifest={"name": "a", "roots": {"one": str(shared)}},
        )
    )
    b = load(
        write(
            tmp_path / "b",
            {
                "file_name": "../pool/x.jpg",
                "split": "test",
                "captions": ["One", "Two"],
                "note": 2,
                "more": 3,
                "id": "i",
            },
            {"file_name": "own.jpg", "split": "val", "captions": ["b's"]},
            {"file_name": "y.jpg", "root": "uno", "split": "val", "qa": [{"question": "?", "answers": ["a"]}]},
            manifest={"name": "b", "roots": {"uno": str(shared)}},
        )
    )
    before = a.fingerprint(), b.fingerprint()
    joined, done = join(a, b)
    assert (a.fingerprint(), b.fingerprint()) == before
    assert (done.added, done.met, done.captions, done.questions, done.kept_splits) == (2, 1, 2, 1, ["x.jpg"])
    first = joined.pictures[0]
    assert ([c.text for c in first.captions], first.split, first.id) == (["One", "One", "Two"], "train", "i")
    assert first.model_extra == {"note": 1, "more": 3}
    assert joined.splits() == {"train": 1, "val": 3}  # two files called own.jpg are two pictures
    assert joined.pictures[3].root == "one"
    assert merge(joined, b).fingerprint() == joined.fingerprint()


def test_save_into_another_folder_moves_no_picture(tmp_path):
    here = write(tmp_path / "here", {"file_name": "x.jpg", "split": "train", "regions": "r.npz"})
    save(load(here), tmp_path / "there")
    found = load(tmp_path / "there")
    assert found.path(found.pictures[0]) == here / "x.jpg"
    assert found.pictures[0].regions == str(here / "r.npz")


def test_fingerprint(tmp_path):
    rows = [{"file_name": "a", "split": "train", "captions": ["One"]}, {"file_name": "b", "split": "val"}]
    found = load(write(tmp_path / "d", *rows, manifest={"name": "d"}))
    assert load(write(tmp_path / "e", *rows, manifest={"name": "d"})).fingerprint() == found.fingerprint()
    others = [
        write(tmp_path / "f", *rows, manifest={"name": "f"}),
        write(tmp_path / "g", *rows[::-1], manifest={"name": "d"}),
        write(tmp_path / "h", {**rows[0], "captions": ["Two"]}, rows[1], manifest={"name": "d"}),
    ]
    assert len({found.fingerprint(), *(load(other).fingerprint() for other in others)}) == 4
    assert isinstance(found, Dataset)
    assert dataset.ROWS == "metadata.jsonl"
