"""The page of `tuwen eval --visualise` for a drawing model: each sample beside the nearest picture of its training."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from tuwen.dataset import Dataset
from tuwen.evaluate.generation import Sample, draw, kept_pixels, plan
from tuwen.files import write_atomic
from tuwen.metrics.generation import nearest
from tuwen.pipelines import Drawer
from tuwen.report import Page, write_page
from tuwen.scenes.faults import find_faults

if TYPE_CHECKING:
    from PIL.Image import Image

NAME = "drawn.html"
SHOWN = 256  # pixels a side, at least
COARSE = 16  # and of the pictures whose distance is taken: what lies where, not how sharp


def write_drawn(
    folder: Path,
    pipeline: Drawer,
    dataset: Dataset,
    split: str,
    count: int,
    lang: str | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    tries: int | None = None,
    seed: int | None = None,
) -> Path:
    """Draw the first `count` pictures of a split as `tuwen eval` does, and write `drawn.html` and a PNG of each.

    Beside each sample stand the picture that people captioned so and the training picture nearest to the sample, in
    mean squares of pixels at 16 by 16. On scenes it says what the checker finds wrong. Returns the page's path.

    Raises:
        DataError: no such split, or none of `train` to compare with.
    """
    part = dataset.select(split)
    samples = plan(dataset, part, split, pipeline.languages, lang, count, seed or 0, least=1)
    drawn = list(draw(pipeline, samples, steps, guidance, tries))
    training = dataset.select("train")
    kept = kept_pixels(pipeline, training, range(len(training)))
    rows, far = nearest(_coarse(np.stack([np.asarray(one) for one in drawn])), _coarse(kept))
    page = Page(
        title=(f"{pipeline.name}: drawn", f"{pipeline.name}：生成图片"),
        lead=(
            f"From captions of the first {count} pictures of {split}, in order. Beside each: the picture that the "
            "caption was written for, and the nearest picture the model was trained with.",
            f"按 {split} 的前 {count} 张图片的描述依次生成。右侧为描述对应的原图和最接近的训练图片。",
        ),
        footer=[f"model {pipeline.name} {pipeline.fingerprint}", f"data {dataset.manifest.name or dataset.folder}"],
    )
    is_scenes = all("scene" in (picture.model_extra or {}) for picture in part.pictures)
    cards = []
    for place, (sample, picture) in enumerate(zip(samples, drawn, strict=True)):
        file = folder / "drawn" / f"{sample.row:04}-{sample.lang}.png"
        write_atomic(file, png(picture))
        near = training.path(training.pictures[rows[place]])
        real = part.path(part.pictures[sample.row])
        hits = [
            _beside(page, PIL.Image.open(real), "the captioned picture / 原图", real.name),
            _beside(
                page, PIL.Image.fromarray(kept[rows[place]]), "nearest in training / 最近的训练图片",
                f"{near.name}, {far[place]:.1f} of 255 away",
            ),
        ]  # fmt: skip
        lines = [sample.prompt, *([_verdict(sample, picture)] if is_scenes else [])]
        title = f"seed {sample.seed}"
        cards.append({"picture": show(page, picture), "title": title, "lines": lines, "hits": hits})
    page.sections = [{"kind": "like", "title": ("Drawn", "生成"), "note": None, "cards": cards}]
    write_page(folder / NAME, page)
    return folder / NAME


def show(page: Page, picture: Image) -> str:
    """The class that draws a picture: small ones enlarged with their pixels kept as they are."""
    if picture.width < SHOWN:
        factor = -(-SHOWN // picture.width)
        picture = picture.resize((picture.width * factor, picture.height * factor), PIL.Image.Resampling.NEAREST)
    else:
        picture = picture.copy()
        picture.thumbnail((SHOWN, SHOWN))
    name = f"d{len(page.pictures)}"
    page.pictures[name] = f"data:image/png;base64,{base64.b64encode(png(picture)).decode()}"
    return f"{name} square"


def png(picture: Image) -> bytes:
    """As a PNG file holds it."""
    data = io.BytesIO()
    picture.convert("RGB").save(data, "PNG", optimize=True)
    return data.getvalue()


def _beside(page: Page, picture: Image, title: str, said: str) -> dict[str, object]:
    return {
        "picture": show(page, picture),
        "title": title,
        "rank": None,
        "score": None,
        "bar": 0,
        "said": said,
        "meant": False,
    }


def _verdict(sample: Sample, picture: Image) -> str:
    wrong = find_faults(picture, sample.prompt)
    if wrong is None:
        return "not checked: no thing of the scenes is named"
    return f"✗ wrong: {', '.join(wrong)}" if wrong else "✓ all right"


def _coarse(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, S, S, 3) -> (n, 16 * 16 * 3), means of blocks."""
    n, side = pixels.shape[:2]
    step = max(1, side // COARSE)
    cells = side // step
    blocks = pixels[:, : cells * step, : cells * step].reshape(n, cells, step, cells, step, 3)
    out: NDArray[np.float32] = blocks.mean((2, 4), dtype=np.float32).reshape(n, -1)
    return out
