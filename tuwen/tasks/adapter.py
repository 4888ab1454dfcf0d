"""The adapter of `tuwen tune`: residual maps on the vectors that a frozen model gave, kept as features of the data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuwen import losses
from tuwen.config import AdapterRecipe
from tuwen.dataset import Dataset
from tuwen.distributed import gather
from tuwen.metrics.retrieval import retrieval_metrics
from tuwen.models.retrieval import Adapter
from tuwen.tasks.pairs import PairBatches, Pairs, group_labels, read_captions
from tuwen.tasks.pictures import Cached

PICTURES, SENTENCES = "tune-pictures", "tune-sentences"  # feature matrices of the data set


class Borrowed:
    """The frozen model's own tokeniser, which stays with it: sentences come as vectors here."""

    pad_id = 0

    def save(self, folder: Path) -> None:
        """Nothing to write."""


class AdapterTask:
    """`Adapter` over the data set's `tune-pictures` (n, W) and `tune-sentences` (n, K, W), K its most human captions.

    A sentence's id is its place among the sentences of all splits: its vector is looked up instead of computed.
    """

    name = "adapter"
    score = "rsum"

    def __init__(
        self, recipe: AdapterRecipe, dataset: Dataset, cache: Path | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe, self.dataset = recipe, dataset
        self.tokenizer = Borrowed()
        self.sentences: list[Tensor] = []  # (m, W) of each split
        train, self.val = self._pairs("train"), self._pairs("val")
        self.table = torch.cat(self.sentences)  # (M, W)
        self.train = PairBatches(
            train, recipe.data.captions, recipe.train.batch_size, recipe.seed, self.tokenizer.pad_id, rank, world
        )
        self.languages = sorted({str(lang) for lang in train.langs})
        model = recipe.model
        torch.manual_seed(recipe.seed)
        self.model = Adapter(self.table.shape[1], model.dropout, model.scale, model.max_scale)

    def config(self) -> dict[str, Any]:
        model = self.recipe.model
        return {
            "task": self.name,
            "name": self.recipe.name,
            "width": self.table.shape[1],
            "base": model.base,
            "fingerprint": model.fingerprint,
            "seed": self.recipe.seed,
            "notes": self.recipe.notes,
            "languages": self.languages,
        }

    @classmethod
    def rebuild(cls, config: dict[str, Any]) -> Adapter:
        return Adapter(config["width"])

    def groups(self) -> Iterator[tuple[float, list[nn.Parameter]]]:
        yield 1.0, list(self.model.parameters())

    def losses(self, model: nn.Module, batch: dict[str, Tensor], epochs: float) -> dict[str, Tensor]:
        table = self.table.to(batch["ids"].device)
        image, text = model(batch["pictures"].squeeze(1), table[batch["ids"][:, 0]])  # (P, W), (C, W)
        sim = gather(image) @ gather(text).T
        positive = losses.same_label(gather(batch["labels"]), gather(batch["caption_labels"]))
        zh = gather(batch["caption_zh"])
        config, scale = self.recipe.loss, self.model.scale
        return {"info_nce": config.info_nce * losses.info_nce_by_language(sim, positive, zh, scale, config.smoothing)}

    def validate(self, model: nn.Module) -> dict[str, float]:
        inner: Adapter = model  # type: ignore[assignment]
        device = inner.log_scale.device
        rows = np.array([int(ids[0]) for ids in self.val.ids])
        with torch.inference_mode():
            pictures = self.val.pictures.gather(np.arange(len(self.val)), None).squeeze(1)
            image = inner.embed_pictures(pictures.to(device)).cpu().numpy()
            text = inner.embed_sentences(self.table[rows].to(device)).cpu().numpy()
        return dict(retrieval_metrics(image, text, self.val.owner, self.val.groups.tolist()).metrics)

    def show(self, model: nn.Module) -> dict[str, Tensor | str]:
        return {}

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing is kept between epochs."""

    def _pairs(self, split: str) -> Pairs:
        part = self.dataset.select(split)
        texts, owner, langs = read_captions(part, self.recipe.data.langs)
        pictures, rows = part.features(PICTURES)
        sentences, places = part.features(SENTENCES)
        wanted = [
            (place, i)
            for place, picture in zip(places, part.pictures, strict=True)
            for i, caption in enumerate(picture.human())
            if self.recipe.data.langs is None or caption.lang in self.recipe.data.langs
        ]
        first = sum(map(len, self.sentences))
        vectors = np.stack([sentences[place, i] for place, i in wanted]).astype(np.float32)
        self.sentences.append(torch.from_numpy(vectors))
        ids = [np.array([first + i], np.int64) for i in range(len(texts))]
        return Pairs(Cached([pictures[rows]]), ids, owner, langs, group_labels(part), texts)
