"""Captioning: a decoder over a picture's features, trained word by word and then on the score of what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuwen import checkpoint, decode, losses
from tuwen.config import CaptioningConfig, CaptioningRecipe
from tuwen.dataset import Dataset
from tuwen.images import load as load_picture
from tuwen.layers import length_mask
from tuwen.metrics.captioning import Cider
from tuwen.models.captioning import Captions, ShowTell, TransformerCaptioner
from tuwen.tasks.pairs import PairBatches, Pairs, group_labels, read_captions
from tuwen.tasks.pictures import (
    build_tail,
    cut_top,
    describe_tower,
    feature_width,
    open_pictures,
    open_tower,
    pretrained_part,
)
from tuwen.tasks.words import caption_texts, train_tokenizer
from tuwen.text import load_tokenizer, split_words
from tuwen.towers import build_tower, thaw

Captioner = ShowTell | TransformerCaptioner

CHUNK = 128  # pictures decoded at once while validating
SHOWN = 4  # pictures that TensorBoard shows


class CaptioningTask:
    """Show and Tell (Vinyals et al., CVPR 2015) and a transformer over regions; cross entropy, then SCST, by recipe."""

    name = "captioning"

    def __init__(
        self, recipe: CaptioningRecipe, dataset: Dataset, cache: Path | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe, self.dataset, self.cache = recipe, dataset, cache
        self.image = recipe.model.image
        self.score = "cider" if recipe.loss.best == "cider" else "likelihood"
        torch.manual_seed(recipe.seed)
        self.tower = open_tower(self.image)
        top = cut_top(self.tower, self.image)
        start = checkpoint.find_run(recipe.start) if recipe.start else None
        self.tokenizer = (
            load_tokenizer(start) if start else train_tokenizer(recipe.tokenizer, caption_texts(recipe, dataset))
        )
        train, self.val = (self._pairs(split) for split in ("train", "val"))
        pad, data = self.tokenizer.pad_id, recipe.data
        self.train = PairBatches(train, data.captions, recipe.train.batch_size, recipe.seed, pad, rank, world)
        self.languages = sorted({str(lang) for lang in train.langs})
        first = train.pictures.gather(np.array([0]), None)
        self.built: dict[str, Any] = {
            "model": recipe.model.model_dump(),
            "in_width": feature_width(self.tower, self.image, train.pictures),
            "regions": 1 if self.image.features == "pooled" else self._regions(first),
            "features": top.out_features if top is not None else None,
            "tower": describe_tower(self.tower, self.image, recipe.data),
            "vocabulary": self.tokenizer.size,
            "pad": pad,
            "end": self.tokenizer.eos_id,
            "silent": sorted({pad, self.tokenizer.unk_id, self.tokenizer.bos_id}),
            "max_tokens": max(data.max_tokens, recipe.model.decoding.limit + 1),
            "languages": self.languages,
        }
        torch.manual_seed(recipe.seed)
        self.model = build_model(self.built)
        if top is not None and isinstance(self.model, TransformerCaptioner) and self.model.head is not None:
            self.model.head.load_state_dict(top.state_dict())
        if self.image.finetune and self.tower is not None:
            self.model.tower = thaw(self.tower, fixed_batchnorm=self.image.pretrained or self.image.weights is not None)
        if start:
            checkpoint.load_state(self.model, checkpoint.read_tensors(start / checkpoint.WEIGHTS), str(start))
        self.reward: float | None = None  # the mean CIDEr-D of the last batch's samples
        words = [split_words(text) for text in self.val.captions]
        human = {lang: self._by_picture(self.val, words, lang) for lang in self.languages}
        self.ciders = {lang: Cider(own) for lang, own in human.items() if any(own)}  # of what the split holds

    def config(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "name": self.recipe.name,
            **self.built,
            "seed": self.recipe.seed,
            "notes": self.recipe.notes,
            "pretrained": {"picture": pretrained_part(self.image)} if self.image.pretrained and self.tower else {},
        }

    @classmethod
    def rebuild(cls, config: dict[str, Any]) -> Captioner:
        model = build_model(config)
        tower = config["tower"]
        if tower["inside"]:
            model.tower = build_tower(tower["name"], size=tower["size"], pretrained=False)
        return model

    def groups(self) -> Iterator[tuple[float, list[nn.Parameter]]]:
        tower = list(self.model.tower.parameters()) if self.model.tower is not None else []
        tail: list[nn.Parameter] = []
        if isinstance(self.model, TransformerCaptioner) and self.model.head is not None:
            last, tail = self.model.head.split()
            tower += last
        special = {id(p) for p in tower + tail}
        yield 1.0, [p for p in self.model.parameters() if id(p) not in special]
        yield self.recipe.train.tower_lr, tower
        yield self.recipe.train.tail_lr, tail

    # Training ------------------------------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: dict[str, Tensor], epochs: float) -> dict[str, Tensor]:
        config = self.recipe.loss
        parts: dict[str, Tensor] = {}
        if config.cross_entropy:
            captions = self._by_language(batch)
            logits = model(batch["pictures"], captions)
            each = [self._cross_entropy(logits[lang], *captions[lang], config.smoothing) for lang in captions]
            parts["cross_entropy"] = config.cross_entropy * torch.stack(each).mean()
        if config.reinforce:
            parts |= self._reinforce(model, batch)
        return parts

    def _cross_entropy(self, logits: Tensor, ids: Tensor, lengths: Tensor, smoothing: float = 0.0) -> Tensor:
        """A mean over the words that the vocabulary holds; nobody should learn to say "unknown"."""
        words = ids.flatten(0, 1)[length_mask(lengths.flatten(), ids.shape[2])]  # (M,)
        known = words.masked_fill(words == self.tokenizer.unk_id, -100)
        return F.cross_entropy(logits.float(), known, ignore_index=-100, label_smoothing=smoothing)

    def _by_language(self, batch: dict[str, Tensor]) -> Captions:
        """The captions of a batch, language by language: ids (P, K, T) and lengths (P, K)."""
        count, captions = len(batch["labels"]), {}
        for index, lang in enumerate(self.languages):
            chosen = batch["caption_zh"] == (lang == "zh")
            if not chosen.any():
                continue
            owner, ids, sizes = (batch[name][chosen] for name in ("owner", "ids", "lengths"))
            ids = ids[:, : int(sizes.max())]
            of_each = torch.bincount(owner, minlength=count)  # (P,)
            place = torch.arange(len(owner), device=owner.device) - (of_each.cumsum(0) - of_each)[owner]
            most = int(of_each.max())
            rows = ids.new_full((count, most, ids.shape[1]), self.tokenizer.pad_id)
            lengths = sizes.new_zeros(count, most)
            rows[owner, place], lengths[owner, place] = ids, sizes
            captions[index] = (rows, lengths)
        return captions

    def _reinforce(self, model: nn.Module, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Self-critical training: `samples` captions of each picture and language, each against the mean of the others.

        The policy is the model at `temperature`, in sampling and in the gradient alike. CIDEr-D is computed over words
        with the end word among them, or captions would learn to stop in mid-sentence.
        """
        config, inner, device = self.recipe.loss, self.model, batch["pictures"].device
        inner.eval()
        captions: Captions = {}
        gains, scores = {}, []
        count = len(batch["rows"])
        with torch.no_grad(), self._autocast(device):
            for index, lang in enumerate(self.languages):
                seed = int(torch.randint(1 << 31, ()))
                stepper = inner.stepper(batch["pictures"], index)
                said = decode.sample(
                    stepper,
                    self.built["end"],
                    self.recipe.model.decoding.limit,
                    config.samples,
                    seed=seed,
                    temperature=config.temperature,
                )
                ids, lengths = self._with_end(said.ids, said.lengths)
                flat = zip(ids.flatten(0, 1).tolist(), lengths.flatten().tolist(), strict=True)
                texts = [row[:size] for row, size in flat]
                rows = batch["rows"].repeat_interleave(config.samples).tolist()
                reward = torch.from_numpy(self._rewards[lang].score(rows, texts)).float().to(device)
                captions[index] = (ids, lengths)
                gains[index] = losses.advantages(reward.view(count, -1)).flatten()
                scores.append(reward.mean())
        inner.train()
        logits = model(batch["pictures"], captions)
        each = []
        for index, (ids, lengths) in captions.items():
            words = ids.flatten(0, 1)[length_mask(lengths.flatten(), ids.shape[2])]
            policy = (logits[index].float() / config.temperature).log_softmax(-1)
            chosen = policy.gather(1, words[:, None])[:, 0]
            each.append(losses.reinforce(chosen, lengths.flatten(), gains[index]))
        self.reward = float(torch.stack(scores).mean())
        return {"reinforce": config.reinforce * torch.stack(each).mean()}

    def _with_end(self, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Captions without their end word (P, K, T) -> with it, where there was room for one."""
        limit = self.recipe.model.decoding.limit
        ids = torch.cat([ids, torch.full_like(ids[..., :1], self.tokenizer.pad_id)], -1)
        ended = lengths < limit
        ids = ids.scatter(
            2, lengths[..., None], torch.where(ended, self.built["end"], self.tokenizer.pad_id)[..., None]
        )
        return ids, lengths + ended

    @property
    def _rewards(self) -> dict[str, Cider]:
        """CIDEr-D over ids, the end word in: built when self-critical training first asks."""
        if not hasattr(self, "_made"):
            pairs = self.train.pairs
            self._made = {
                lang: Cider([[row.tolist() for row in own] for own in self._by_picture(pairs, pairs.ids, lang)])
                for lang in self.languages
            }
        return self._made

    def _autocast(self, device: torch.device) -> torch.autocast:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.recipe.train.precision)
        return torch.autocast(device.type, dtype=kind, enabled=kind is not None)

    # Validation ----------------------------------------------------------------------------------------------------

    def validate(self, model: nn.Module) -> dict[str, float]:
        """`likelihood` (minus the mean loss a word, without smoothing), and CIDEr x 100 of greedy captions."""
        inner: Captioner = model  # type: ignore[assignment]
        out: dict[str, float] = {}
        likelihood, ciders = [], []
        with torch.no_grad():
            for lang, scorer in self.ciders.items():
                index = self.languages.index(lang)
                loss = self._validation_loss(inner, index, lang)
                texts = self.describe(inner, self.val, index)
                own = [row for row, human in enumerate(scorer.references) if human]
                words = [split_words(texts[row]) for row in own]
                cider = 100 * float(scorer.score(own, words).mean())
                out |= {f"{lang}/loss": loss, f"{lang}/cider": cider, f"{lang}/distinct": float(len(set(texts)))}
                likelihood.append(-loss)
                ciders.append(cider)
        reward = {} if self.reward is None else {"reward": self.reward}
        return {"likelihood": float(np.mean(likelihood)), "cider": float(np.mean(ciders)), **out, **reward}

    def _validation_loss(self, model: Captioner, index: int, lang: str) -> float:
        """The mean of minus log p over the words of every human caption of a language."""
        total, words, pairs = 0.0, 0, self.val
        device = next(model.parameters()).device
        by_picture = self._by_picture(pairs, pairs.ids, lang)
        for start in range(0, len(pairs), CHUNK):
            rows = [row for row in range(start, min(start + CHUNK, len(pairs))) if by_picture[row]]
            if not rows:
                continue
            ids, lengths = pad_captions([by_picture[row] for row in rows], self.tokenizer.pad_id)
            ids, lengths = ids.to(device), lengths.to(device)
            pictures = pairs.pictures.gather(np.array(rows), None).to(device)
            with self._autocast(device):
                logits = model(pictures, {index: (ids, lengths)})[index]
            count = int(lengths.sum())
            total += count * float(self._cross_entropy(logits, ids, lengths))
            words += count
        return total / max(words, 1)

    def describe(self, model: Captioner, pairs: Pairs, lang: int, rows: list[int] | None = None) -> list[str]:
        """One greedy caption of each picture of a split, or of `rows` of it."""
        texts, rows = [], list(range(len(pairs))) if rows is None else rows
        device = next(model.parameters()).device
        for start in range(0, len(rows), CHUNK):
            pictures = pairs.pictures.gather(np.array(rows[start : start + CHUNK]), None).to(device)
            with torch.no_grad(), self._autocast(device):
                said = decode.greedy(model.stepper(pictures, lang), self.built["end"], self.recipe.model.decoding.limit)
            for row, size in zip(said.ids[:, 0].tolist(), said.lengths[:, 0].tolist(), strict=True):
                texts.append(self.tokenizer.decode(row[:size]))
        return texts

    def show(self, model: nn.Module) -> dict[str, Tensor | str]:
        """The first pictures of the validation split, what people said of them, and what the model says now."""
        inner: Captioner = model  # type: ignore[assignment]
        part = self.dataset.select("val")
        rows = list(range(min(SHOWN, len(self.val))))
        told = {lang: self.describe(inner, self.val, i, rows) for i, lang in enumerate(self.languages)}
        out: dict[str, Tensor | str] = {}
        for row in rows:
            lines = [f"**{lang} now:** {told[lang][row]}" for lang in self.languages]
            lines += [f"{caption.lang}: {caption.text}" for caption in part.pictures[row].human()]
            out[f"captions/{row}"] = "\n\n".join(lines)
            out[f"pictures/{row}"] = torch.from_numpy(load_picture(part.path(part.pictures[row]), 224).copy())
        return out

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return

    # Data ----------------------------------------------------------------------------------------------------------

    def _pairs(self, split: str) -> Pairs:
        data, part = self.recipe.data, self.dataset.select(split)
        limit = data.max_words if split == "train" else None
        texts, owner, langs = read_captions(part, data.langs, limit)
        words, lengths = self.tokenizer.encode(texts, data.max_tokens, eos=True)
        ids = [row[:n] for row, n in zip(words, lengths, strict=True)]
        pictures = open_pictures(self.tower, self.image, data, part, split, self.cache)
        return Pairs(pictures, ids, owner, langs, group_labels(part), texts)

    def _by_picture(self, pairs: Pairs, items: list[Any], lang: str) -> list[list[Any]]:
        """`items`, one a caption, of a language, by picture."""
        out: list[list[Any]] = [[] for _ in range(len(pairs))]
        for item, owner, spoken in zip(items, pairs.owner, pairs.langs, strict=True):
            if spoken == lang:
                out[owner].append(item)
        return out

    def _regions(self, pictures: Tensor) -> int:
        if pictures.dtype != torch.uint8:
            return pictures.shape[1]
        assert self.tower is not None
        with torch.no_grad():
            return int(self.tower(pictures).shape[1])


def pad_captions(rows: list[list[Any]], pad: int) -> tuple[Tensor, Tensor]:
    """Captions of each picture, arrays of ids -> ids (P, K, T), lengths (P, K)."""
    most, longest = max(map(len, rows)), max(len(row) for own in rows for row in own)
    ids = torch.full((len(rows), most, longest), pad, dtype=torch.long)
    lengths = torch.zeros(len(rows), most, dtype=torch.long)
    for p, own in enumerate(rows):
        for k, row in enumerate(own):
            ids[p, k, : len(row)] = torch.as_tensor(row)
            lengths[p, k] = len(row)
    return ids, lengths


def build_model(config: dict[str, Any]) -> Captioner:
    """A captioner with random weights, from what `CaptioningTask.config` wrote."""
    model = CaptioningConfig.model_validate(config["model"])
    image, parts = model.image, model.decoder
    if parts.kind == "show-tell":
        return ShowTell(
            config["in_width"],
            config["vocabulary"],
            parts.width,
            parts.embedding or parts.width,
            layers=parts.layers,
            dropout=parts.dropout,
            tied=parts.tied,
            pad=config["pad"],
            silent=config["silent"],
        )
    width, tail = build_tail(config)
    return TransformerCaptioner(
        width,
        config["vocabulary"],
        config["regions"],
        features=config["features"],
        tail=tail,
        width=parts.width,
        layers=parts.layers,
        heads=parts.heads,
        feedforward=parts.feedforward,
        langs=len(config["languages"]),
        limit=config["max_tokens"],
        dropout=parts.dropout,
        region_dropout=image.region_dropout,
        picture_dropout=image.dropout,
        word_dropout=parts.word_dropout,
        tied=parts.tied,
        pad=config["pad"],
        silent=config["silent"],
    )
