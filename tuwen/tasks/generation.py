"""Text to image: a picture from a sentence, by regression, with a critic, or along a flow."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuwen import checkpoint, losses
from tuwen.config import TextToImageConfig, TextToImageRecipe
from tuwen.dataset import Dataset
from tuwen.images import View
from tuwen.metrics.retrieval import retrieval_metrics
from tuwen.models.text_to_image import (
    BertEncoder,
    Conditioning,
    Critic,
    Decoder,
    FlowUNet,
    Generator,
    Painter,
    Sampling,
    SmallEncoder,
)
from tuwen.tasks.generation_data import MOST, KeptPixels, grid, keep_pixels, to_pixels, to_signed
from tuwen.tasks.pairs import PairBatches, Pairs, encode_captions, group_labels, pad, read_captions
from tuwen.tasks.pictures import PictureSource, Pixels
from tuwen.tasks.words import caption_texts, train_tokenizer
from tuwen.text import Tokenizer, load_tokenizer, split_words
from tuwen.towers.words import TextTower, build_text_tower, text_config, text_tower_of

Drawer = Painter | FlowUNet

SEED = 0  # of all that validation and TensorBoard draw
VALIDATED = 512  # pictures
CHUNK = 64  # pictures at once while validating
SHOWN = 8  # sentences that TensorBoard shows, two pictures each


class GenerationTask:
    """The published decoder, DF-GAN (Tao et al., CVPR 2022) and flow matching (Lipman et al., ICLR 2023), by recipe."""

    name = "text-to-image"

    def __init__(
        self, recipe: TextToImageRecipe, dataset: Dataset, cache: Path | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe, self.dataset, self.cache = recipe, dataset, cache
        self.score = "closeness" if recipe.loss.best == "loss" else "epoch"
        self.epoch = 0.0
        config, data = recipe.model, recipe.data
        torch.manual_seed(recipe.seed)
        start = checkpoint.find_run(recipe.start) if recipe.start else None
        tower: TextTower | None = None
        self.tokenizer: Tokenizer
        if config.text.kind == "bert":
            assert config.text.source is not None
            tower, _, self.tokenizer = build_text_tower(config.text.source, config.text.pretrained)
        else:
            self.tokenizer = (
                load_tokenizer(start) if start else train_tokenizer(recipe.tokenizer, caption_texts(recipe, dataset))
            )
        train, self.val = self._pairs("train"), self._pairs("val")
        pad_id = self.tokenizer.pad_id
        self.train = PairBatches(train, data.captions, recipe.train.batch_size, recipe.seed, pad_id, rank, world)
        self.languages = sorted({str(lang) for lang in train.langs})
        loss = recipe.loss
        self.built: dict[str, Any] = {
            "model": config.model_dump(),
            "vocabulary": self.tokenizer.size,
            "pad": pad_id,
            "max_tokens": data.max_tokens,
            "view": self._view().kind,
            "judges": bool(loss.adversarial),
            "matches": bool(loss.matching),
            "penalised": bool(loss.penalty),
            "bert": text_config(tower) if tower is not None else None,
            "seen": sorted({word for text in train.captions for word in split_words(text)}) if tower else None,
        }
        torch.manual_seed(recipe.seed)
        self.model = build_model(self.built, tower)
        if start:
            checkpoint.load_state(self.model, checkpoint.read_tensors(start / checkpoint.WEIGHTS), str(start))

    def config(self) -> dict[str, Any]:
        text = self.recipe.model.text
        return {
            "task": self.name,
            "name": self.recipe.name,
            **self.built,
            "languages": self.languages,
            "seed": self.recipe.seed,
            "notes": self.recipe.notes,
            "pretrained": {"text": text.source} if text.kind == "bert" and text.pretrained else {},
        }

    @classmethod
    def rebuild(cls, config: dict[str, Any]) -> Drawer:
        return build_model(config)

    def groups(self) -> Iterator[tuple[float, list[nn.Parameter]]]:
        text = list(self.model.text.parameters()) if isinstance(self.model.text, BertEncoder) else []
        critic = self.model.critic if isinstance(self.model, Painter) else None
        judges = list(critic.parameters()) if critic is not None else []
        special = {id(p) for p in (*text, *judges)}
        yield 1.0, [p for p in self.model.parameters() if id(p) not in special]
        yield self.recipe.train.pretrained_lr, text
        yield self.recipe.loss.critic_lr, judges

    # Training ------------------------------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: dict[str, Tensor], epochs: float) -> dict[str, Tensor]:
        """A GAN's two players step together: no part moves both, and Adam keeps each parameter's own moments."""
        self.epoch = epochs
        config, pictures = self.recipe.loss, to_signed(batch["pictures"])
        chosen = one_caption_each(batch["owner"], len(pictures))
        lengths = batch["lengths"][chosen]
        out = model(pictures, batch["ids"][chosen][:, : int(lengths.max())], lengths)
        labels = batch["labels"]
        parts: dict[str, Tensor] = {}
        if config.flow:
            parts["flow"] = config.flow * losses.flow_matching(out["guess"], pictures, out["time"])
        if config.mse:
            parts["mse"] = config.mse * F.mse_loss(out["drawn"].float(), pictures.detach())
        if config.adversarial:
            apart = labels != labels.roll(1)
            real, wrong, fake = (out[name] for name in ("real", "wrong", "fake"))
            parts["critic"] = losses.judge_true_and_false(real, wrong, fake, config.kind, apart)
            parts["generator"] = config.adversarial * losses.fool(out["fooled"], config.kind)
        if config.penalty:
            parts["penalty"] = config.penalty * losses.slope_penalty(out["slope"])
        if config.kl:
            parts["kl"] = config.kl * losses.gaussian_kl(out["mean"], out["log_variance"])
        same = losses.same_label(labels)
        if config.matching:
            parts["matching"] = config.matching * losses.info_nce(out["true_match"], same, 1.0)
        if config.contrastive:
            parts["contrastive"] = config.contrastive * losses.info_nce(out["drawn_match"], same, 1.0)
        return parts

    # Validation ----------------------------------------------------------------------------------------------------

    def validate(self, model: nn.Module) -> dict[str, float]:
        """`closeness` is minus the loss (flow matching, or MSE), at the same noise each time.

        `shuffled` is the loss with another picture's sentence: what is between the two is what the words brought.
        """
        inner: Any = model
        rows = np.arange(min(VALIDATED, len(self.val)))
        own: list[float] = []
        other: list[float] = []
        seen, told = [], []
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(SEED)
            for part in np.array_split(rows, -(-len(rows) // CHUNK)):
                pictures, ids, lengths = self._validation(part, inner)
                state = torch.get_rng_state()
                own += [self._loss(inner, pictures, ids, lengths)] * len(part)
                torch.set_rng_state(state)
                other += [self._loss(inner, pictures, ids.roll(1, 0), lengths.roll(1))] * len(part)
                if self.built["matches"]:
                    critic: Any = inner.eye if isinstance(inner, FlowUNet) else inner.critic
                    seen.append(F.normalize(critic.match_picture(critic.eye(pictures).flatten(1)), dim=-1))
                    told.append(F.normalize(critic.match_sentence(inner.text(ids, lengths).mean), dim=-1))
        out = {"closeness": -float(np.mean(own)), "shuffled": float(np.mean(other)), "epoch": self.epoch}
        if seen:
            metrics = retrieval_metrics(torch.cat(seen).cpu().numpy(), torch.cat(told).cpu().numpy(), rows).metrics
            out |= {name: metrics[name] for name in ("i2t_r1", "t2i_r1", "rsum")}
        return out

    def _loss(self, model: Drawer, pictures: Tensor, ids: Tensor, lengths: Tensor) -> float:
        if isinstance(model, FlowUNet):
            out = model(pictures, ids, lengths)
            return float(losses.flow_matching(out["guess"], pictures, out["time"]))
        noise = torch.randn(len(ids), *model.noise_shape, device=ids.device)
        return float(F.mse_loss(model.draw(ids, lengths, noise), pictures))

    def _validation(self, rows: np.ndarray[Any, Any], model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures in [-1, 1] of rows of the validation split, and one caption each, of the languages in turn."""
        device = next(model.parameters()).device
        captions = [self.val_captions[row][row % len(self.val_captions[row])] for row in rows.tolist()]
        ids, lengths = pad([self.val.ids[caption] for caption in captions], self.tokenizer.pad_id)
        pictures = to_signed(self.val.pictures.gather(rows, None))
        return pictures.to(device), ids.to(device), lengths.to(device)

    def show(self, model: nn.Module) -> dict[str, Tensor | str]:
        """The first validation sentences drawn twice each, always from the same noise, and the true pictures above."""
        inner: Any = model
        rows = np.arange(min(SHOWN, len(self.val)))
        pictures, ids, lengths = self._validation(rows, inner)
        draw = torch.Generator().manual_seed(SEED)
        sheets = [pictures]
        with torch.no_grad():
            for _ in range(2):
                noise = torch.randn(len(rows), *inner.noise_shape, generator=draw)
                sheets.append(inner.draw(ids, lengths, noise.to(pictures.device)))
        captions = [self.val.captions[own[row % len(own)]] for row, own in enumerate(self.val_captions[: len(rows)])]
        told = "\n".join(f"{n}. {text}" for n, text in enumerate(captions, 1))
        return {"drawn": grid(to_pixels(torch.cat(sheets)).cpu(), len(rows)), "sentences": told}

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return

    # Data ----------------------------------------------------------------------------------------------------------

    def _pairs(self, split: str) -> Pairs:
        data, part = self.recipe.data, self.dataset.select(split)
        texts, owner, langs = read_captions(part, data.langs, data.max_words if split == "train" else None)
        if split == "val":  # only what has a sentence to draw
            own = set(owner.tolist())
            part = replace(part, pictures=[p for row, p in enumerate(part.pictures) if row in own], rows=[])
            texts, owner, langs = read_captions(part, data.langs)
            self.val_captions = [np.flatnonzero(owner == row).tolist() for row in range(len(part))]
        ids = encode_captions(texts, self.tokenizer, data.max_tokens)
        return Pairs(self._pictures(part, split), ids, owner, langs, group_labels(part), texts)

    def _view(self) -> View:
        """How a picture is seen whole: what a drawn one is compared with."""
        return View("center" if self.recipe.data.view == "crop" else self.recipe.data.view)

    def _pictures(self, part: Dataset, split: str) -> PictureSource:
        data, size = self.recipe.data, self.recipe.model.size
        paths = [part.path(picture) for picture in part.pictures]
        plain = self._view()
        drawn = data.zooms or data.view == "crop"
        if split == "train" and (drawn or len(paths) * size * size * 3 > MOST):
            return Pixels(paths, size, plain, "zoom" if data.zooms else data.view, data.flip)
        return KeptPixels(keep_pixels(paths, size, plain, self.cache), data.flip)


def one_caption_each(owner: Tensor, count: int) -> Tensor:
    """(C,) the picture of each caption, in order -> (P,) the place of one of each picture's captions, at random."""
    of_each = torch.bincount(owner, minlength=count)  # (P,)
    first = of_each.cumsum(0) - of_each
    return first + (torch.rand(count, device=owner.device) * of_each).long()


def build_model(config: dict[str, Any], tower: TextTower | None = None) -> Drawer:
    """A drawing model with random weights, from what `GenerationTask.config` wrote; `tower` is a BERT that is open."""
    model = TextToImageConfig.model_validate(config["model"])
    size, draw, matches = model.size, model.draw, model.critic.space if config["matches"] else 0
    text = _text(model, config, tower)
    if draw.kind == "flow":
        eye = Critic(text.width, size, model.critic.width, judges=False, matches=matches) if matches else None
        return FlowUNet(
            text,
            size,
            patch=draw.patch or size // 16,
            widths=draw.widths,
            blocks=draw.blocks,
            heads=draw.heads,
            hidden=draw.hidden,
            centre=draw.centre,
            spread=draw.spread,
            sampling=Sampling(**model.sampling.model_dump()),
            eye=eye,
        )
    told = draw.conditioning or text.width
    generator = (
        Decoder(told, size, draw.noise) if draw.kind == "published" else Generator(told, size, draw.noise, draw.width)
    )
    critic = None
    if config["judges"] or matches:
        critic = Critic(text.width, size, model.critic.width, judges=config["judges"], matches=matches)
    return Painter(
        text,
        generator,
        size=size,
        conditioning=Conditioning(text.width, told) if draw.conditioning else None,
        critic=critic,
        judges=config["judges"],
        matches=bool(matches),
        penalised=config["penalised"],
    )


def _text(model: TextToImageConfig, config: dict[str, Any], tower: TextTower | None) -> SmallEncoder | BertEncoder:
    words, pad_id = model.text, config["pad"]
    if words.kind == "small":
        return SmallEncoder(
            config["vocabulary"],
            words.width,
            layers=words.layers,
            heads=words.heads,
            limit=config["max_tokens"],
            dropout=words.dropout,
            word_dropout=words.word_dropout,
            pad=pad_id,
        )
    if tower is None:
        tower = text_tower_of(config["bert"])
    return BertEncoder(tower, tower.width, frozen=words.frozen, word_dropout=words.word_dropout, pad=pad_id)
