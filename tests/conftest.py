"""Every test makes its own world, without a network and with its own cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"red": "红", "green": "绿", "blue": "蓝", "yellow": "黄", "purple": "紫", "black": "黑"}
PLACES = {"left": "左边", "right": "右边", "top": "上面", "bottom": "下面"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache, and none finds a model hub."""
    monkeypatch.setenv("TUWEN_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    # METEOR starts a Java machine of a gigabyte; its own tests import it before this and are not touched.
    monkeypatch.setattr("tuwen.metrics.captioning.meteor", lambda candidates, references: None)


@pytest.fixture
def make_toy(tmp_path: Path) -> Callable[..., Path]:
    """A data set of n 8x8 pictures, six colours in four places, with captions in two languages and features `toy`."""
    from tuwen import dataset as datasets
    from tuwen.records import Caption, Manifest, Picture

    def make(n: int = 24, splits: tuple[str, ...] = ("train", "train", "val"), name: str = "toy") -> Path:
        folder = tmp_path / name
        (folder / "images").mkdir(parents=True)
        draw = np.random.default_rng(0)
        pictures, features = [], []
        for i in range(n):
            colour, place = i % len(COLOURS), (i // len(COLOURS)) % len(PLACES)
            pixels = np.full((8, 8, 3), 40 * colour, np.uint8)
            pixels[place * 2 : place * 2 + 2] = 255
            pixels[0, 0] = i
            Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
            english, chinese = list(COLOURS.items())[colour]
            where, zh_where = list(PLACES.items())[place]
            pictures.append(
                Picture(
                    file_name=f"images/{i}.png",
                    split=splits[i % len(splits)],
                    captions=[
                        Caption(text=f"a {english} thing at the {where}"),
                        Caption(text=f"the {where} is {english}"),
                        Caption(text=f"{zh_where}有一个{chinese}色的东西"),
                        Caption(text=f"{chinese}色在{zh_where}"),
                    ],
                )
            )
            feature = np.zeros(12)
            feature[colour] = feature[6 + place] = 1
            features.append(feature + draw.normal(0, 0.02, 12))
        np.save(folder / "toy.npy", np.array(features, np.float32))
        datasets.save(datasets.Dataset(folder, Manifest(name=name, features={"toy": "toy.npy"}), pictures), folder)
        return folder

    return make
