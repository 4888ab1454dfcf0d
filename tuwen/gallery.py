"""The page of `tuwen eval --visualise`: pictures, what people said of them and what the model says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tuwen.dataset import Dataset
from tuwen.evaluate.captioning import describe
from tuwen.pipelines import Describer
from tuwen.report import Page, write_page

NAME = "captions.html"


def write_captions(
    folder: Path,
    pipeline: Describer,
    dataset: Dataset,
    split: str,
    count: int,
    lang: str | None = None,
    beams: int | None = None,
) -> Path:
    """Write `captions.html` with the first `count` pictures of a split, in its order; its path.

    The model speaks `lang`, or every language of its own in which people described these pictures (where they
    described none, every language of its own).

    Raises:
        DataError: no such split.
    """
    part = dataset.select(split)
    part = replace(part, pictures=part.pictures[:count], rows=part.rows[:count])
    used = {caption.lang for _, caption in part.captions()}
    languages = [lang] if lang else [own for own in pipeline.languages if own in used] or pipeline.languages
    rows = range(len(part))
    said = {own: describe(pipeline, part, rows, own, beams) for own in languages}
    page = Page(
        title=(f"{pipeline.name}: captions", f"{pipeline.name}：图片描述"),
        lead=(
            f"The first {len(part)} pictures of {split}, in order: people on the left, the model on the right.",
            f"{split} 的前 {len(part)} 张图片，按顺序：左为人工描述，右为模型描述。",
        ),
        footer=[f"model {pipeline.name} {pipeline.fingerprint}", f"data {dataset.manifest.name or dataset.folder}"],
    )
    cards = []
    for row, picture in enumerate(part.pictures):
        path = part.path(picture)
        hits = [
            {
                "picture": None,
                "title": own,
                "rank": None,
                "score": None,
                "bar": 0,
                "said": said[own][row] or "-",
                "meant": False,
            }
            for own in languages
        ]
        lines = [caption.text for caption in picture.human() if caption.lang in languages]
        cards.append({"picture": page.picture(path), "title": path.name, "lines": lines, "hits": hits})
    page.sections = [{"kind": "like", "title": ("Captions", "描述"), "note": None, "cards": cards}]
    write_page(folder / NAME, page)
    return folder / NAME
