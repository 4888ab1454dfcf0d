"""Retrieval: dual encoders trained to put a picture and its captions close together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tuwen import checkpoint, losses
from tuwen.config import RetrievalConfig, RetrievalRecipe, TextConfig
from tuwen.dataset import Dataset
from tuwen.distributed import gather
from tuwen.errors import ModelError
from tuwen.layers import l2_normalise
from tuwen.metrics.retrieval import retrieval_metrics
from tuwen.models.retrieval import (
    EXTRA,
    AttentivePicture,
    BertEncoder,
    DualEncoder,
    Ensemble,
    Hubs,
    PictureEncoder,
    RecurrentEncoder,
    join,
    members_of,
)
from tuwen.tasks.members import check_starts, find_runs, find_starts
from tuwen.tasks.pairs import (
    Ints,
    PairBatches,
    Pairs,
    bilingual,
    encode_captions,
    group_labels,
    pad,
    read_captions,
)
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
from tuwen.text import load_tokenizer
from tuwen.towers import build_tower, thaw
from tuwen.towers.start import start_bert

REMADE = ("classifier", "decoder", "discriminator", "hubs")  # parts of the model that each run makes of its own data
SCALE_LR = 5.0  # one number in the exponent: at the weights' own rate it lags behind them


class RetrievalTask:
    """VSE++ (Faghri et al., BMVC 2018), CMPM/CMPC (Zhang and Lu, ECCV 2018) and what is stronger, by recipe."""

    name = "retrieval"
    score = "rsum"

    def __init__(
        self, recipe: RetrievalRecipe, dataset: Dataset, cache: Path | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe, self.cache = recipe, cache
        self.image = recipe.model.image
        torch.manual_seed(recipe.seed)  # a tower without weights starts from the seed too
        self.tower = open_tower(self.image)
        top = cut_top(self.tower, self.image)
        starts = find_starts(recipe.start)
        began = [checkpoint.read_config(start, self.name) for start in starts]  # configs of the runs it goes on from
        self.began = began[0] if began else None
        names = [f"{own['name']} {checkpoint.fingerprint(run, own)}" for run, own in zip(starts, began, strict=True)]
        self.start = ", ".join(names) or None
        self.tokenizer = (
            load_tokenizer(starts[0]) if starts else train_tokenizer(recipe.tokenizer, caption_texts(recipe, dataset))
        )
        self.dataset = dataset
        self.framed = recipe.model.text.kind == "bert"  # sentences stand between a start and an end word
        train, val = (self._pairs(split) for split in ("train", "val"))
        self.val = val
        self.train = PairBatches(
            train,
            recipe.data.captions,
            recipe.train.batch_size,
            recipe.seed,
            self.tokenizer.pad_id,
            rank,
            world,
        )
        known = self.began["languages"] if self.began else []
        self.languages = sorted({str(lang) for lang in train.langs}.union(known))
        self.bank = self._choose_bank(train)
        in_width = feature_width(self.tower, self.image, train.pictures)
        self.built = {
            "model": recipe.model.model_dump(),
            "in_width": in_width,
            "vocabulary": self.tokenizer.size,
            "pad": self.tokenizer.pad_id,
            "max_tokens": recipe.data.max_tokens,
            "framed": self.framed,
            "features": top.out_features if top is not None else None,
            "classes": int(train.groups.max()) + 1 if recipe.loss.cmpc else 0,
            "hubs": [len(part) for part in self.bank] if recipe.model.hubs.weight else None,
            "tower": describe_tower(self.tower, self.image, recipe.data),
            "side": [name for name in ("reconstruction", "adversarial") if getattr(recipe.loss, name)],
        }
        torch.manual_seed(recipe.seed)
        self.model = build_model(self.built)
        members = members_of(self.model)
        for member in members:
            if top is not None and isinstance(member.picture, AttentivePicture):
                member.picture.head.load_state_dict(top.state_dict())
        if self.image.finetune and self.tower is not None:
            # BatchNorm keeps the statistics that it came with; where it came with none, it has to learn them.
            started = self.image.pretrained or self.image.weights is not None or bool(starts)
            self.model.tower = thaw(self.tower, fixed_batchnorm=started)
        if starts:
            check_starts(starts, began, len(members))
            targets: list[nn.Module] = [self.model] if len(starts) == 1 else list(members)
            for target, run, own in zip(targets, starts, began, strict=True):
                self._load(target, run, own)
        elif recipe.model.text.pretrained:
            frame = (self.tokenizer.bos_id, self.tokenizer.eos_id)
            pairs = bilingual(train, frame)
            for member in members:
                if isinstance(member.sentence, BertEncoder):
                    start_bert(member.sentence.bert, recipe.model.text.pretrained, self.tokenizer, pairs)
        self.taught = self._hear(recipe.loss.teachers)
        for factor, params in self.groups():
            for param in params if not factor else ():
                param.requires_grad_(False)  # what does not move costs no backward pass

    def _hear(self, teachers: str | None) -> tuple[Tensor, Tensor] | None:
        """The teachers' vectors of all training pictures (n, W) and captions (m, W), side by side: their dot products
        are the mean of the teachers' similarities."""
        image: list[Tensor] = []
        text: list[Tensor] = []
        for run in find_runs(teachers):
            config = checkpoint.read_config(run, self.name)
            model = build_model(config).eval()
            self._load(model, run, config)
            pairs = self.train.pairs
            ids = encode_captions(pairs.captions, load_tokenizer(run), config["max_tokens"], config["framed"])
            vectors = self._embed(model, replace(pairs, ids=ids), plain=True)
            for side, own in zip((image, text), vectors, strict=True):
                side.append(torch.from_numpy(own))
        return (join(image), join(text)) if teachers else None

    def _load(self, model: nn.Module, start: Path, began: dict[str, Any]) -> None:
        """The weights of a run that this one goes on or learns from; what only its losses needed is left there."""
        tower = describe_tower(self.tower, self.image, self.recipe.data)
        if not tower["inside"] and tower["sha256"] != began["tower"]["sha256"]:
            raise ModelError(
                f"{start}: trained on tower {began['tower']['name']} {str(began['tower']['sha256'])[:12]}, here is "
                f"{str(tower['sha256'])[:12]}: install the version that the model card names"
            )
        tensors = checkpoint.read_tensors(start / checkpoint.WEIGHTS)
        kept = {name: value for name, value in tensors.items() if name.split(".")[0] not in REMADE}
        fresh = {name: value for name, value in model.state_dict().items() if name.split(".")[0] in REMADE}
        checkpoint.load_state(model, kept | fresh, str(start))

    def config(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "name": self.recipe.name,
            **self.built,
            "dim": self.recipe.model.members * self.recipe.model.width + (EXTRA if self.built["hubs"] else 0),
            "start": self.start,
            "seed": self.recipe.seed,
            "notes": self.recipe.notes,
            "pretrained": self._pretrained(),
            "languages": self.languages,
        }

    def _pretrained(self) -> dict[str, str]:
        """The parts that others trained, for the protocol."""
        parts = dict(self.began["pretrained"]) if self.began else {}
        if self.image.pretrained and self.tower is not None:
            parts["picture"] = pretrained_part(self.image)
        if self.recipe.model.text.pretrained:
            parts["text"] = self.recipe.model.text.pretrained
        return parts

    @classmethod
    def rebuild(cls, config: dict[str, Any]) -> DualEncoder | Ensemble:
        model = build_model(config)
        tower = config["tower"]
        if tower["inside"]:
            model.tower = build_tower(tower["name"], size=tower["size"], pretrained=False)
        return model

    def groups(self) -> Iterator[tuple[float, list[nn.Parameter]]]:
        train = self.recipe.train
        tower = list(self.model.tower.parameters()) if self.model.tower is not None else []
        tails: list[nn.Parameter] = []
        loaded: list[nn.Parameter] = []
        words: list[nn.Parameter] = []
        for member in members_of(self.model):
            picture, sentence = member.picture, member.sentence
            if isinstance(picture, AttentivePicture):
                last, tail = picture.head.split()
                tower, tails = tower + last, tails + tail
            if self.recipe.model.text.pretrained and isinstance(sentence, BertEncoder):
                loaded += sentence.bert.encoder.parameters()
                words += sentence.bert.embeddings.parameters()
        scale = [member.log_scale for member in members_of(self.model)]
        special = {id(p) for p in (*tower, *tails, *loaded, *words, *scale)}
        yield 1.0, [p for p in self.model.parameters() if id(p) not in special]
        yield SCALE_LR, scale
        yield train.tower_lr, tower
        yield train.tail_lr, tails
        yield train.pretrained_lr, loaded
        yield train.words_lr, words

    def losses(self, model: nn.Module, batch: dict[str, Tensor], epochs: float) -> dict[str, Tensor]:
        out = model(batch["pictures"], batch["ids"], batch["lengths"])
        if not isinstance(self.model, Ensemble):
            return self._losses(self.model, out, batch, epochs)
        each = [self._losses(*pair, batch, epochs) for pair in zip(members_of(self.model), out, strict=True)]
        return {name: torch.stack([parts[name] for parts in each]).sum() for name in each[0]}

    def _losses(
        self, inner: DualEncoder, out: tuple[Tensor, Tensor, Tensor], batch: dict[str, Tensor], epochs: float
    ) -> dict[str, Tensor]:
        """The parts of one dual encoder, weighted, from its `forward`."""
        config = self.recipe.loss
        own_image, own_text, feature = out
        image, text = gather(own_image), gather(own_text)  # (P, W), (C, W)
        labels, owners = gather(batch["labels"]), gather(batch["caption_labels"])  # (P,), (C,)
        unit = l2_normalise(text)
        sim = l2_normalise(image) @ unit.T  # (P, C)
        positive = losses.same_label(labels, owners)
        zh = gather(batch["caption_zh"])  # (C,)
        parts: dict[str, Tensor] = {}
        if config.hinge:
            fade = min(1.0, epochs / config.hardest_warmup) if config.hardest_warmup else 1.0
            parts["hinge"] = losses.hinge(sim, positive, config.margin, config.hardest * fade, config.hinge_reduction)
        if config.info_nce:
            parts["info_nce"] = losses.info_nce_by_language(sim, positive, zh, inner.scale, config.smoothing)
        if config.n_pair:
            # As in the paper: over plain dot products, whose length is held by a penalty.
            penalty = 0.002 * losses.norm_penalty(image, text)
            parts["n_pair"] = losses.n_pair(image @ text.T, positive) + penalty
        if config.captions:
            between = unit[~zh] @ unit[zh].T  # (English, Chinese)
            same = losses.same_label(owners[~zh], owners[zh])
            parts["captions"] = losses.info_nce(between, same, inner.scale, config.smoothing)
        if self.taught:
            pictures, captions = gather(batch["rows"]).cpu(), gather(batch["captions"]).cpu()
            told = (self.taught[0][pictures] @ self.taught[1][captions].T).to(sim.device)
            parts["distil"] = losses.soft_nce_by_language(sim, told, zh, config.distil_scale)
        if config.cmpm:
            parts["cmpm"] = losses.cmpm(image, text, labels, owners)
        if config.cmpc:
            paired = gather(own_image[batch["owner"]])  # (C, W): each caption's picture
            assert inner.classifier is not None
            parts["cmpc"] = losses.cmpc(paired, text, owners, inner.classifier)
        if config.sdm:
            parts["sdm"] = losses.sdm(image, text, labels, owners, 1 / inner.scale)
        if config.reconstruction:
            assert inner.decoder is not None
            decoded = inner.decoder(torch.cat([own_image, own_text]))
            parts["reconstruction"] = losses.reconstruction(decoded, torch.cat([feature, feature[batch["owner"]]]))
        if config.adversarial:
            assert inner.discriminator is not None
            parts["adversarial"] = losses.adversarial(
                inner.discriminator, l2_normalise(own_image), l2_normalise(own_text)
            )
        return {name: getattr(config, name) * part for name, part in parts.items()}

    def validate(self, model: nn.Module) -> dict[str, float]:
        self._fill_hubs(model)
        image, text = self._embed(model, self.val)
        groups = self.val.groups.tolist()
        out = dict(retrieval_metrics(image, text, self.val.owner, groups).metrics)
        for lang in self.languages if len(self.languages) > 1 else []:
            chosen = self.val.langs == lang
            if chosen.any():
                own = retrieval_metrics(image, text[chosen], self.val.owner[chosen], groups)
                out |= {f"{lang}/{key}": value for key, value in own.metrics.items()}
        return out

    def show(self, model: nn.Module) -> dict[str, Tensor | str]:
        return {}

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Tensor]:
        k = self.recipe.loss.mine_offline
        if not k:
            return {}
        pairs = self.train.pairs
        image, text = self._embed(model, pairs, plain=True)
        owner = torch.from_numpy(pairs.owner)
        labels = torch.from_numpy(pairs.groups)
        captions, _ = losses.mine_hardest(torch.from_numpy(image), torch.from_numpy(text), labels, labels[owner], k)
        near = owner[captions.clamp(min=0)].numpy()  # (n, k): the pictures that the hardest captions belong to
        self.train.neighbours = near
        return {"neighbours": torch.from_numpy(near)}

    def restore(self, state: dict[str, Tensor]) -> None:
        if "neighbours" in state:
            self.train.neighbours = state["neighbours"].numpy()

    def _choose_bank(self, train: Pairs) -> tuple[Ints, Ints]:
        """Rows of the training pictures and captions, as many of each language, that the hubs are measured by."""
        hubs, draw = self.recipe.model.hubs, np.random.default_rng(self.recipe.seed)
        pictures = np.sort(draw.permutation(len(train))[: hubs.pictures])
        spoken = [np.flatnonzero(train.langs == lang) for lang in sorted(set(train.langs.tolist()))]
        captions = [draw.permutation(own)[: max(1, hubs.sentences // len(spoken))] for own in spoken]
        return pictures, np.sort(np.concatenate(captions))

    def _fill_hubs(self, model: nn.Module) -> None:
        """Fill the banks of `model` as it is now, from training pictures and captions."""
        inner: DualEncoder | Ensemble = model  # type: ignore[assignment]
        if inner.hubs is not None:
            image, text = self._embed(model, self.train.pairs, *self.bank, plain=True)
            inner.hubs.fill(torch.from_numpy(image), torch.from_numpy(text))

    def _embed(
        self,
        model: nn.Module,
        pairs: Pairs,
        pictures: Ints | None = None,
        captions: Ints | None = None,
        plain: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n, W) pictures and (m, W) captions of a split, all or those rows, as `model` (in eval mode) sees them."""
        device = next(model.parameters()).device
        inner: DualEncoder | Ensemble = model  # type: ignore[assignment]
        pictures = np.arange(len(pairs)) if pictures is None else pictures
        captions = np.arange(len(pairs.ids)) if captions is None else captions
        image, text = [], []
        with torch.inference_mode():
            for start in range(0, len(pictures), 128):
                batch = pairs.pictures.gather(pictures[start : start + 128], None).to(device)
                image.append(inner.embed_pictures(batch, plain=plain).float().cpu())
            order = np.argsort([len(pairs.ids[c]) for c in captions], kind="stable")  # alike lengths waste no padding
            for start in range(0, len(order), 512):
                rows = captions[order[start : start + 512]]
                ids, lengths = pad([pairs.ids[c] for c in rows], self.tokenizer.pad_id)
                text.append(inner.embed_sentences(ids.to(device), lengths.to(device), plain=plain).float().cpu())
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return torch.cat(image).numpy(), torch.cat(text).numpy()[back]

    def _pairs(self, split: str) -> Pairs:
        data, part = self.recipe.data, self.dataset.select(split)
        limit = data.max_words if split == "train" else None
        texts, owner, langs = read_captions(part, data.langs, limit)
        ids = encode_captions(texts, self.tokenizer, data.max_tokens, self.framed)
        pictures = open_pictures(self.tower, self.image, data, part, split, self.cache)
        return Pairs(pictures, ids, owner, langs, group_labels(part), texts)


def build_model(config: dict[str, Any]) -> DualEncoder | Ensemble:
    """A model with random weights, from what `RetrievalTask.config` wrote."""
    model = RetrievalConfig.model_validate(config["model"])
    hubs = _build_hubs(model, *config["hubs"]) if config.get("hubs") else None
    if model.members == 1:
        return _build_member(model, config, hubs)
    return Ensemble([_build_member(model, config) for _ in range(model.members)], hubs, model.image.looks)


def _build_member(model: RetrievalConfig, config: dict[str, Any], hubs: Hubs | None = None) -> DualEncoder:
    image, text = model.image, model.text
    picture: PictureEncoder | AttentivePicture
    if image.features == "map":
        width, tail = build_tail(config)
        picture = AttentivePicture(
            width, config["features"], model.width, image.heads, image.dropout, image.region_dropout, tail
        )
    else:
        picture = PictureEncoder(
            config["in_width"],
            model.width,
            pooling=image.pooling,
            topk=image.topk,
            hidden=image.hidden,
            dropout=image.dropout,
            region_dropout=image.region_dropout,
            init=image.init,
        )
    classifier = None
    if config["classes"]:
        classifier = nn.init.xavier_uniform_(torch.empty(config["classes"], model.width))
    side = config["side"]
    discriminator = nn.Sequential(nn.Linear(model.width, model.width), nn.ReLU(), nn.Linear(model.width, 1))
    return DualEncoder(
        picture,
        _build_sentence(text, model.width, config),
        pooled=image.features == "pooled",
        scale=model.scale,
        max_scale=model.max_scale,
        classifier=classifier,
        decoder=nn.Linear(model.width, config["in_width"]) if "reconstruction" in side else None,
        discriminator=discriminator if "adversarial" in side else None,
        hubs=hubs,
        looks=image.looks,
    )


def _build_hubs(model: RetrievalConfig, pictures: int, sentences: int) -> Hubs:
    hubs = model.hubs
    return Hubs(
        model.members * model.width, pictures, sentences, hubs.picture_axes, hubs.sentence_axes, hubs.beta, hubs.weight
    )


def _build_sentence(text: TextConfig, width: int, config: dict[str, Any]) -> BertEncoder | RecurrentEncoder:
    if text.kind == "bert":
        from transformers import BertConfig, BertModel

        bert = BertModel(
            BertConfig(
                vocab_size=config["vocabulary"],
                hidden_size=text.width,
                num_hidden_layers=text.layers,
                num_attention_heads=text.heads,
                intermediate_size=4 * text.width,
                max_position_embeddings=config["max_tokens"],
                hidden_dropout_prob=text.dropout,
                attention_probs_dropout_prob=text.dropout,
                pad_token_id=config["pad"],
                type_vocab_size=1,
                attn_implementation="eager",  # in bf16 on a CPU several times faster than the fused one (torch 2.13)
            ),
            add_pooling_layer=False,
        )
        return BertEncoder(
            bert,
            text.width,
            width,
            pooling=text.pooling,
            dropout=text.dropout,
            word_dropout=text.word_dropout,
            pad=config["pad"],
        )
    out = text.width * (2 if text.bidirectional else 1)
    return RecurrentEncoder(
        config["vocabulary"],
        text.embedding,
        text.width,
        kind=text.kind,
        layers=text.layers,
        bidirectional=text.bidirectional,
        bias=text.bias,
        pooling=text.pooling,
        project=width if out != width or text.init == "xavier" else None,
        dropout=text.dropout,
        word_dropout=text.word_dropout,
        init=text.init,
        pad=config["pad"],
    )
