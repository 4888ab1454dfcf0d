"""A small trained retrieval model, and captioned data of its kind for others to go on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_captions import make_base, make_own

from tuwen import dataset as datasets


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_own(tmp_path_factory.mktemp("own") / "own", n=40)
    rows = datasets.read(folder)
    for i, picture in enumerate(rows.pictures):
        picture.split = "val" if i % 4 == 3 else "train"
    datasets.save(rows)
    return folder
