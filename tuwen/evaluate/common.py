"""What the scores of every task share: which captions count, and what must stand beside a number."""

from __future__ import annotations

from typing import Any

from tuwen import __version__, images, text
from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.pipelines import Answerer, Describer, Embedder
from tuwen.records import Caption

INTERVAL_SEED = 0


def human_captions(dataset: Dataset, part: Dataset, split: str, lang: str | None) -> list[tuple[int, Caption]]:
    """The captions of a split that people wrote, each with its picture's row in `part`. DataError: there is none."""
    captions = list(part.captions(lang))
    if not captions:
        spoken = f" in {lang}" if lang else ""
        raise DataError(
            f"{dataset.folder}: split '{split}' holds no human caption{spoken} to score: name another --split or --lang"
        )
    return captions


def machine_captions(part: Dataset) -> int:
    """Captions that a tool wrote: counted, never scored among the human ones."""
    return sum(caption.source != "human" for picture in part.pictures for caption in picture.captions)


def protocol(
    pipeline: Embedder | Describer | Answerer, dataset: Dataset, captions: int | None = None
) -> dict[str, Any]:
    """What any number needs beside it to be one."""
    return {
        "version": __version__,
        "fingerprint": pipeline.fingerprint,
        **pipeline.about(),
        "input": f"{pipeline.size}x{pipeline.size}, {pipeline.view}",
        "text": text.protocol(),
        **({} if captions is None else {"captions": captions}),
        "decoder": images.DECODER,
        "data_sha256": dataset.fingerprint(),
        "intervals": f"95%, bootstrap over pictures, 1,000 draws, seed {INTERVAL_SEED}",
    }
