"""The re-ranker: cross-attention trained on what a frozen retrieval model confuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuwen import checkpoint, losses
from tuwen.config import RerankerRecipe, RetrievalConfig
from tuwen.dataset import Dataset
from tuwen.errors import ModelError
from tuwen.metrics.reranking import Shortlists, rerank_metrics, shortlist
from tuwen.models.retrieval import Cross, DualEncoder, Ensemble, grid_features, word_states
from tuwen.models.retrieval.sentence import drop_words
from tuwen.tasks.pairs import Ints, PairBatches, Pairs, encode_captions, group_labels, pad, read_captions
from tuwen.tasks.pictures import cut_top, describe_tower, open_pictures, open_tower
from tuwen.tasks.retrieval import RetrievalTask
from tuwen.text import load_tokenizer

TOP = 20  # hits that are ordered anew
WEIGHTS = (0.0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05)  # tried on the pictures held out


class RerankerTask:
    """`Cross` above a retrieval model, trained by a softmax over its hard negatives both ways."""

    name = "reranker"
    score = "rsum"

    def __init__(
        self, recipe: RerankerRecipe, dataset: Dataset, cache: Path | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe, self.dataset = recipe, dataset
        folder = checkpoint.find_run(recipe.model.base)
        self.began = checkpoint.read_config(folder, "retrieval")
        self.fingerprint = checkpoint.fingerprint(folder, self.began)
        self.base = read_base(folder, self.began)
        self.tokenizer = load_tokenizer(folder)
        pairs, self.val = (self._pairs(split, folder, cache) for split in ("train", "val"))
        features = self._features(pairs, np.arange(1))
        if features.shape[1] < 2:
            raise ModelError(f"{folder}: sees a picture as one region: a re-ranker needs a grid, as of `retrieval`")
        draw = np.random.default_rng(recipe.seed)
        self.held = np.sort(draw.permutation(len(pairs))[: max(1, min(recipe.loss.held, len(pairs) // 5))])
        self.pairs = pairs
        self.train = PairBatches(
            without(pairs, self.held), recipe.data.captions, recipe.train.batch_size, recipe.seed,
            self.tokenizer.pad_id, rank, world,
        )  # fmt: skip
        self.vectors = self._embed_pictures(pairs, np.arange(len(pairs)), plain=True)  # (n, W)
        if recipe.loss.near:
            self.train.neighbours = self._mine(self.train.pairs)
            self.train.set_epoch(0)
        self.galleries = {"held": Gallery(self, pairs, self.held), "val": Gallery(self, self.val, self._judged())}
        model = recipe.model
        self.widths = features.shape[2], self.galleries["val"].states.shape[2]
        torch.manual_seed(recipe.seed)
        self.model = build(self.widths, model.model_dump())

    def config(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "name": self.recipe.name,
            "model": self.recipe.model.model_dump(),
            "widths": list(self.widths),
            "top": TOP,
            "base": self.recipe.model.base,
            "fingerprint": self.fingerprint,
            **{key: self.began[key] for key in ("tower", "pretrained", "languages")},
            "seed": self.recipe.seed,
            "notes": self.recipe.notes,
        }

    @classmethod
    def rebuild(cls, config: dict[str, Any]) -> Cross:
        return build(config["widths"], config["model"])

    def groups(self) -> Iterator[tuple[float, list[nn.Parameter]]]:
        yield 1.0, list(self.model.parameters())

    def losses(self, model: nn.Module, batch: dict[str, Tensor], epochs: float) -> dict[str, Tensor]:
        config, zh = self.recipe.loss, batch["caption_zh"]
        device, half = batch["ids"].device, self.recipe.train.precision == "bf16"
        ids, lengths = drop_words(batch["ids"], batch["lengths"], self.recipe.model.word_dropout, self.tokenizer.pad_id)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            base = self.base.to(device)
            features = grid_features(base, batch["pictures"])
            states, vectors = word_states(base, ids, lengths)
            similar = self.vectors[batch["rows"].cpu()].to(device) @ vectors.T  # (P, C)
        positive = losses.same_label(batch["labels"], batch["caption_labels"])
        spoken = [own.nonzero()[:, 0] for own in (~zh, zh) if own.any()]
        lists = [own[hardest(similar[:, own], positive[:, own], config.candidates)] for own in spoken]
        parts = []
        for own, rows, scores in zip(spoken, lists, model(features, states, lengths, lists), strict=True):
            every = torch.zeros(similar.shape, device=device).scatter(1, rows, scores.float())
            scored = torch.zeros_like(positive).scatter(1, rows, True)
            parts.append(losses.info_nce(every[:, own], positive[:, own], 1.0, config.smoothing, ~scored[:, own]))
        return {"ranking": torch.stack(parts).mean()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Recalls of validation pictures after re-ranking, with the weight that is best on the pictures held out."""
        cross: Cross = model  # type: ignore[assignment]
        held, val = (self.galleries[name] for name in ("held", "val"))
        scores = held.score(cross)
        tried = {weight: held.metrics(scores, weight)["rsum"] for weight in WEIGHTS}
        best = max(tried, key=lambda weight: (tried[weight], -weight))
        cross.weight.fill_(best)
        after, before = val.metrics(val.score(cross), best), val.metrics(None, 0.0)
        gain = {f"gain/{key}": after[key] - before[key] for key in after if "_r" in key or key == "rsum"}
        return {**after, **gain, "weight": best, **{f"held/{weight}": value for weight, value in tried.items()}}

    def show(self, model: nn.Module) -> dict[str, Tensor | str]:
        return {}

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing is kept between epochs."""

    def _pairs(self, split: str, folder: Path, cache: Path | None) -> Pairs:
        part, image = self.dataset.select(split), RetrievalConfig.model_validate(self.began["model"]).image
        tower = open_tower(image)
        cut_top(tower, image)
        data = self.recipe.data.model_copy(update={"view": self.began["tower"]["view"]})
        here = describe_tower(tower, image, data)["sha256"]
        if here != self.began["tower"]["sha256"]:
            raise ModelError(
                f"{folder}: trained on tower {image.tower} {str(self.began['tower']['sha256'])[:12]}, here is "
                f"{str(here)[:12]}: install the version that the model card names"
            )
        texts, owner, langs = read_captions(part, data.langs, data.max_words if split == "train" else None)
        ids = encode_captions(texts, self.tokenizer, self.began["max_tokens"], self.began["framed"])
        return Pairs(
            open_pictures(tower, image, data, part, split, cache), ids, owner, langs, group_labels(part), texts
        )

    def _features(self, pairs: Pairs, rows: Ints) -> Tensor:
        with torch.no_grad():
            return grid_features(self.base, self.base.regions(pairs.pictures.gather(rows, None)))

    def _embed_pictures(self, pairs: Pairs, rows: Ints, plain: bool = False) -> Tensor:
        with torch.no_grad():
            blocks = [pairs.pictures.gather(rows[i : i + 128], None) for i in range(0, len(rows), 128)]
            return torch.cat([self.base.embed_pictures(block, plain=plain) for block in blocks])

    def _mine(self, pairs: Pairs) -> Ints:
        """(n, near x languages) pictures that the first captions of a picture find wrongly; itself where none do."""
        near, k = [], self.recipe.loss.near
        labels = torch.from_numpy(pairs.groups)
        for lang in sorted(set(pairs.langs.tolist())):
            own = np.flatnonzero(pairs.langs == lang)
            owner, first = np.unique(pairs.owner[own], return_index=True)
            found = torch.arange(len(pairs))[:, None].repeat(1, k)
            for start in range(0, len(owner), 256):
                rows = owner[start : start + 256]
                ids, lengths = pad([pairs.ids[own[c]] for c in first[start : start + 256]], self.tokenizer.pad_id)
                with torch.no_grad():
                    similar = self.base.embed_sentences(ids, lengths, plain=True) @ self.vectors.T  # (q, n)
                similar[losses.same_label(labels[rows], labels)] = -torch.inf
                found[rows] = similar.topk(min(k, len(pairs))).indices[:, :k]
            near.append(found)
        return torch.cat(near, 1).numpy()

    def _judged(self) -> Ints:
        return np.arange(min(len(self.val), self.recipe.loss.judged))


class Gallery:
    """Pictures with all their captions, shortlisted by the base once, for a re-ranker to be scored on many times."""

    def __init__(self, task: RerankerTask, pairs: Pairs, rows: Ints) -> None:
        inside = np.flatnonzero(np.isin(pairs.owner, rows))
        self.task, self.pairs, self.rows = task, pairs, rows
        self.owner = np.searchsorted(rows, pairs.owner[inside])
        self.groups, self.langs = pairs.groups[rows].tolist(), pairs.langs[inside]
        ids, self.lengths = pad([pairs.ids[c] for c in inside], task.tokenizer.pad_id)
        states, text = [], []
        with torch.no_grad():
            for some, length in zip(torch.split(ids, 256), torch.split(self.lengths, 256), strict=True):
                found, vectors = word_states(task.base, some, length)
                states.append(found.half())
                text.append(vectors if task.base.hubs is None else task.base.hubs.mark_sentences(vectors))
        self.states = torch.cat(states)  # (m, T, D)
        self.image, self.text = task._embed_pictures(pairs, rows).numpy(), torch.cat(text).numpy()
        self.lists: dict[str, tuple[Ints, Shortlists]] = {}
        for lang in sorted(set(self.langs.tolist())):
            own = np.flatnonzero(self.langs == lang)
            self.lists[lang] = own, shortlist(self.image, self.text[own], TOP)

    def score(self, cross: Cross) -> dict[str, np.ndarray]:
        """(N,) scores of each language's shortlisted pairs."""
        device = cross.weight.device
        with torch.no_grad():
            blocks = [self.rows[i : i + 64] for i in range(0, len(self.rows), 64)]
            features = (self.task._features(self.pairs, block).to(device) for block in blocks)
            regions = torch.cat([cross.read_regions(block) for block in features])
            words = torch.cat([cross.read_words(some.float().to(device)) for some in torch.split(self.states, 512)])
            out = {}
            for lang, (own, lists) in self.lists.items():
                pictures, captions = lists.pairs()
                pairs = torch.from_numpy(pictures).to(device), torch.from_numpy(own[captions]).to(device)
                out[lang] = cross.score_pairs(regions, words, self.lengths.to(device), pairs).numpy()
        return out

    def metrics(self, scores: dict[str, np.ndarray] | None, weight: float) -> dict[str, float]:
        """Recalls by `en/i2t_r1` ..., and their means over the languages; without scores those of the base."""
        every = []
        out: dict[str, float] = {}
        for lang, (own, lists) in self.lists.items():
            extra = np.zeros(lists.i2t.size + lists.t2i.size) if scores is None else scores[lang]
            got = rerank_metrics(self.image, self.text[own], self.owner[own], self.groups, lists, extra, weight).metrics
            every.append(got)
            out |= {f"{lang}/{key}": value for key, value in got.items()}
        return {key: float(np.mean([got[key] for got in every])) for key in every[0]} | out


def read_base(folder: Path, config: dict[str, Any]) -> DualEncoder | Ensemble:
    """The frozen retrieval model of a run; its tower, where that is not inside, is left to the cache of features."""
    base = RetrievalTask.rebuild(config)
    path = folder / checkpoint.WEIGHTS
    checkpoint.load_state(base, checkpoint.read_tensors(path), str(path))
    return base.eval().requires_grad_(False)


def build(widths: tuple[int, int] | list[int], model: dict[str, Any]) -> Cross:
    """A `Cross` with random weights."""
    names = ("width", "heads", "hidden", "dropout", "region_dropout", "temperature")
    return Cross(*widths, **{name: model[name] for name in names})


def without(pairs: Pairs, rows: Ints) -> Pairs:
    """The same pictures, those of `rows` without their captions, so that no batch holds them."""
    kept = np.flatnonzero(~np.isin(pairs.owner, rows))
    return Pairs(
        pairs.pictures, [pairs.ids[c] for c in kept], pairs.owner[kept], pairs.langs[kept], pairs.groups,
        [pairs.captions[c] for c in kept],
    )  # fmt: skip


def hardest(similar: Tensor, positive: Tensor, k: int) -> Tensor:
    """(P, k) captions for each picture: its own, then the most similar."""
    return similar.float().masked_fill(positive, torch.inf).topk(min(k, similar.shape[1]), 1).indices
