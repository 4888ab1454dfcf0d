"""Visual question answering: a question about a picture, and one of the answers that the training data gave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuwen import checkpoint
from tuwen.config.vqa import VqaConfig, VqaRecipe
from tuwen.dataset import Dataset
from tuwen.errors import DataError, ModelError
from tuwen.images import load as load_picture
from tuwen.losses.answers import answer_bce, answer_cross_entropy
from tuwen.metrics import vqa as metrics
from tuwen.models.vqa import Ensemble, FusionTransformer, JointEmbedding, members_of
from tuwen.records import Question, guess_language
from tuwen.tasks.asking import (
    Asked,
    QuestionBatches,
    encode_questions,
    read_questions,
    tell_apart,
)
from tuwen.tasks.members import check_starts, find_starts
from tuwen.tasks.pictures import (
    PictureSource,
    build_tail,
    cut_top,
    describe_tower,
    feature_width,
    open_pictures,
    open_tower,
    pretrained_part,
)
from tuwen.tasks.regions import REGIONS, RegionFiles, open_regions
from tuwen.tasks.words import train_tokenizer
from tuwen.text import load_tokenizer
from tuwen.text.answers import AnswerVocabulary, commonest
from tuwen.text.vectors import read_vectors
from tuwen.towers import build_tower, thaw

Answerer = JointEmbedding | FusionTransformer | Ensemble

CHUNK = 256  # questions answered at once while validating
SHOWN = 4  # pictures that TensorBoard shows
TRAIN_SAMPLE = 2000  # training questions that the train score is taken on, at most


class VqaTask:
    """Bottom-up top-down attention (Anderson et al., CVPR 2018) and a transformer that fuses, by recipe."""

    name = "vqa"
    score = "accuracy"

    def __init__(
        self, recipe: VqaRecipe, dataset: Dataset, cache: Path | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.recipe, self.cache = recipe, cache
        self.image = recipe.model.image
        torch.manual_seed(recipe.seed)
        self.tower = None if self.image.tower == REGIONS else open_tower(self.image)
        top = cut_top(self.tower, self.image)
        parts, self.split = tell_apart(dataset, recipe.data.held_out, recipe.data.held_out_by)
        self.val_part = parts["val"]
        starts = find_starts(recipe.start)
        began = [checkpoint.read_config(start, self.name) for start in starts]
        if starts:
            self.tokenizer = load_tokenizer(starts[0])
            self.vocabulary = AnswerVocabulary.from_dict(began[0]["answers"])
            if any(own["answers"] != began[0]["answers"] for own in began):
                raise ModelError(f"{starts[-1]}: knows other answers than {starts[0]}: train them on the same data")
        else:
            asked = self._learn_from(dataset, parts, recipe.tokenizer.splits)
            self.tokenizer = train_tokenizer(recipe.tokenizer, (question.question for question in asked))
            self.vocabulary = self._train_vocabulary(dataset, parts)
        train, self.val = self._asked(parts["train"], "train"), self._asked(parts["val"], "val")
        self.train = QuestionBatches(
            train,
            len(self.vocabulary),
            recipe.data.questions,
            recipe.train.batch_size,
            recipe.seed,
            self.tokenizer.pad_id,
            rank,
            world,
        )
        draw = np.random.default_rng(recipe.seed)
        self.sample = draw.permutation(len(train))[: min(TRAIN_SAMPLE, len(self.val))].tolist()
        self.most_said = metrics.majority(train.answers, recipe.answers.rule)
        self.languages = sorted({guess_language(question.question) for question in train.questions})
        first = train.pictures.gather(np.array([0]), None)
        self.built = {
            "model": recipe.model.model_dump(),
            "in_width": feature_width(self.tower, self.image, train.pictures),
            "regions": 0 if self.image.tower == REGIONS else self._regions(first),
            "features": top.out_features if top is not None else None,
            "tower": describe_tower(self.tower, self.image, recipe.data),
            "vocabulary": self.tokenizer.size,
            "pad": self.tokenizer.pad_id,
            "max_tokens": recipe.data.max_tokens,
            "answers": self.vocabulary.to_dict(),
            "confidence": "softmax" if recipe.loss.cross_entropy else "sigmoid",
        }
        torch.manual_seed(recipe.seed)
        self.model = build_model(self.built)
        members = members_of(self.model)
        for member in members:
            if top is not None and member.head is not None:
                member.head.load_state_dict(top.state_dict())
        if self.image.finetune and self.tower is not None:
            self.model.tower = thaw(self.tower, fixed_batchnorm=self.image.pretrained or self.image.weights is not None)
        if starts:
            check_starts(starts, began, len(members))
            targets: list[nn.Module] = [self.model] if len(starts) == 1 else list(members)
            for target, start in zip(targets, starts, strict=True):
                checkpoint.load_state(target, checkpoint.read_tensors(start / checkpoint.WEIGHTS), str(start))
        elif recipe.model.question.vectors:
            self._start_words(Path(recipe.model.question.vectors))

    def config(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "name": self.recipe.name,
            **self.built,
            "detector": self._detector(),
            "seed": self.recipe.seed,
            "notes": self.recipe.notes,
            "pretrained": self._pretrained(),
            "languages": self.languages,
            "validation_split": self.split,
        }

    def _detector(self) -> dict[str, Any] | None:
        """Who found the regions that it learns from: who must look at a picture before it is asked about."""
        source = self.train.asked.pictures
        return source.detector if isinstance(source, RegionFiles) else None

    def _pretrained(self) -> dict[str, str]:
        """The parts that others trained, for the protocol."""
        parts = {"picture": pretrained_part(self.image)} if self.image.pretrained and self.tower else {}
        vectors = self.recipe.model.question.vectors
        return parts | ({"words": Path(vectors).name} if vectors else {})

    @classmethod
    def rebuild(cls, config: dict[str, Any]) -> Answerer:
        model = build_model(config)
        tower = config["tower"]
        if tower["inside"]:
            model.tower = build_tower(tower["name"], size=tower["size"], pretrained=False)
        return model

    def groups(self) -> Iterator[tuple[float, list[nn.Parameter]]]:
        train, model = self.recipe.train, self.model
        tower = list(model.tower.parameters()) if model.tower is not None else []
        tails: list[nn.Parameter] = []
        words: list[nn.Parameter] = []
        for member in members_of(model):
            if member.head is not None:
                last, tail = member.head.split()
                tower, tails = tower + last, tails + tail
            words += member.embedding.parameters()
        special = {id(p) for p in tower + tails + words}
        yield 1.0, [p for p in model.parameters() if id(p) not in special]
        yield train.tower_lr, tower
        yield train.tail_lr, tails
        yield train.words_lr, words

    # Training ------------------------------------------------------------------------------------------------------

    def losses(self, model: nn.Module, batch: dict[str, Tensor], epochs: float) -> dict[str, Tensor]:
        config, logits = self.recipe.loss, _run(model, batch)
        scores, parts = batch["scores"], {}
        every = logits.unbind() if logits.ndim == 3 else (logits,)  # each member learns by itself
        if config.bce:
            each = [answer_bce(own, scores, config.times_answers) for own in every]
            parts["bce"] = config.bce * torch.stack(each).sum()
        if config.cross_entropy:
            each = [answer_cross_entropy(own, scores, config.smoothing, config.times_answers) for own in every]
            parts["cross_entropy"] = config.cross_entropy * torch.stack(each).sum()
        return parts

    def _autocast(self, device: torch.device) -> torch.autocast:
        kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.recipe.train.precision)
        return torch.autocast(device.type, dtype=kind, enabled=kind is not None)

    # Validation ----------------------------------------------------------------------------------------------------

    def validate(self, model: nn.Module) -> dict[str, float]:
        """In percent: `accuracy` (official) with its `upper_bound`, `exact`, `ece`, the accuracy of the `majority`
        answer, of a fixed sample of training questions, and by language and type; `loss` as it is trained."""
        asked = self.val
        said, confidence, loss = self.answer(model, asked)
        scores = metrics.accuracy(said, asked.answers)
        exact = metrics.exact_match(said, asked.answers, self.vocabulary.rule)
        sample = [self.train.asked.answers[q] for q in self.sample]
        learnt = metrics.accuracy(self.answer(model, self.train.asked, self.sample)[0], sample)
        out = {
            "accuracy": scores.mean(),
            "upper_bound": metrics.upper_bound(asked.answers, self.vocabulary).mean(),
            "exact": exact.mean(),
            "ece": metrics.calibration_error(confidence, scores),
            "majority": metrics.accuracy([self.most_said] * len(asked), asked.answers).mean(),
            "train/accuracy": learnt.mean(),
        }
        kinds = [question.question_type for question in asked.questions]
        answers = [(q.model_extra or {}).get("answer_type") or metrics.answer_type(q.answers) for q in asked.questions]
        tongues = [guess_language(question.question) for question in asked.questions]
        groups: list[tuple[str, Sequence[str | None]]] = [("answer_type", answers), ("question_type", kinds)]
        groups += [("lang", tongues)] if len(set(tongues)) > 1 else []
        for group, types in groups:
            out |= {f"{group}/{kind}": mean for kind, (mean, _) in metrics.by_type(scores, types).items()}
        return {name: 100 * float(value) for name, value in out.items()} | {"loss": loss}

    def answer(
        self, model: nn.Module, asked: Asked, only: Sequence[int] | None = None
    ) -> tuple[list[str], NDArray[np.float64], float]:
        """The best answer to each question of a split, or of `only`, its confidence, and the mean loss."""
        chosen = list(range(len(asked))) if only is None else list(only)
        best, confidence = np.zeros(len(asked), np.int64), np.zeros(len(asked))
        device = next(model.parameters()).device
        total = 0.0
        for questions in asked.walk(CHUNK, chosen):
            batch = asked.batch(questions, len(self.vocabulary), self.tokenizer.pad_id, None)
            batch = {name: value.to(device) for name, value in batch.items()}
            with torch.no_grad(), self._autocast(device):
                logits = _run(model, batch).float()
            sure = logits.softmax(1) if self.built["confidence"] == "softmax" else logits.sigmoid()
            values, places = sure.max(1)
            best[questions], confidence[questions] = places.cpu().numpy(), values.cpu().numpy()
            total += len(questions) * sum(float(part) for part in self._loss_of(logits, batch["scores"]))
        return [self.vocabulary[best[q]] for q in chosen], confidence[chosen], total / max(1, len(chosen))

    def _loss_of(self, logits: Tensor, scores: Tensor) -> list[Tensor]:
        """Each part as it is trained, without smoothing."""
        config = self.recipe.loss
        parts = [config.bce * answer_bce(logits, scores, config.times_answers)] if config.bce else []
        if config.cross_entropy:
            parts.append(config.cross_entropy * answer_cross_entropy(logits, scores, 0.0, config.times_answers))
        return parts

    def show(self, model: nn.Module) -> dict[str, Tensor | str]:
        """The first pictures of the validation split, what was asked, what people said and what the model says now."""
        part, asked = self.val_part, self.val
        out: dict[str, Tensor | str] = {}
        for row in range(min(SHOWN, len(part))):
            own = [q for q in range(len(asked)) if asked.owner[q] == row][:SHOWN]
            if not own:
                continue
            said, confidence, _ = self.answer(model, asked, own)
            lines = []
            for q, best, sure in zip(own, said, confidence, strict=True):
                truth = commonest(asked.answers[q], self.vocabulary.rule)
                lines.append(f"**{asked.questions[q].question}** gt: {truth}; now: {best} ({sure:.0%})")
            out[f"answers/{row}"] = "\n\n".join(lines)
            out[f"pictures/{row}"] = torch.from_numpy(load_picture(part.path(part.pictures[row]), 224).copy())
        return out

    def end_epoch(self, model: nn.Module, epoch: int) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        return

    # Data ----------------------------------------------------------------------------------------------------------

    def _learn_from(self, dataset: Dataset, parts: dict[str, Dataset], splits: list[str]) -> list[Question]:
        """The questions that a vocabulary is made of."""
        data = self.recipe.data
        chosen = [parts[split] if split in parts else dataset.select(split) for split in splits]
        return [question for part in chosen for question in read_questions(part, data.langs, data.sources)[0]]

    def _train_vocabulary(self, dataset: Dataset, parts: dict[str, Dataset]) -> AnswerVocabulary:
        config = self.recipe.answers
        said = [question.answers for question in self._learn_from(dataset, parts, config.splits)]
        vocabulary = AnswerVocabulary.train(said, config.min_count, config.size, config.rule)
        if not len(vocabulary):
            raise DataError(
                f"{dataset.folder}: no answer is the commonest of {config.min_count} questions: lower answers.min_count"
            )
        return vocabulary

    def _asked(self, part: Dataset, split: str) -> Asked:
        data, image = self.recipe.data, self.image
        if split == "train":
            questions, owner = read_questions(part, data.langs, data.sources, data.max_words)
        else:
            questions, owner = read_questions(part, data.langs, ["human"])
            if not questions:  # all of them were made
                questions, owner = read_questions(part, data.langs)
        if not questions:
            raise DataError(f"{part.folder}: no answered question in split '{split}': import some")
        pictures: PictureSource
        if image.tower == REGIONS:
            pictures = open_regions(part, image.regions)
        else:
            pictures = open_pictures(self.tower, image, data, part, split, self.cache)
        worth = self.recipe.answers.worth
        return encode_questions(pictures, questions, owner, self.tokenizer, self.vocabulary, data.max_tokens, worth)

    def _regions(self, pictures: Tensor) -> int:
        if pictures.dtype != torch.uint8:
            return pictures.shape[1]
        assert self.tower is not None
        with torch.no_grad():
            return int(self.tower(pictures).shape[1])

    def _start_words(self, path: Path) -> None:
        """Word vectors that others trained; words they lack keep their own."""
        words = [self.tokenizer.decode([i]).strip() for i in range(self.tokenizer.size)]
        rows, found = read_vectors(path, words, self.recipe.model.question.embedding)
        known = torch.from_numpy(found)
        with torch.no_grad():
            for member in members_of(self.model):
                member.embedding.weight[known] = torch.from_numpy(rows).to(member.embedding.weight)[known]


def _run(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits: Tensor = model(
        batch["pictures"], batch["ids"], batch["lengths"], batch.get("mask"), batch.get("boxes"), batch["owner"]
    )
    return logits


def build_model(config: dict[str, Any]) -> Answerer:
    """A model with random weights, from what `VqaTask.config` wrote."""
    model = VqaConfig.model_validate(config["model"])
    if model.members == 1:
        return _build_member(model, config)
    kinds = model.kinds or [model.kind] * model.members
    members = [_build_member(model.model_copy(update={"kind": kind}), config) for kind in kinds]
    return Ensemble(members, softmax=config["confidence"] == "softmax")


def _build_member(model: VqaConfig, config: dict[str, Any]) -> JointEmbedding | FusionTransformer:
    image, words, answers = model.image, model.question, len(config["answers"]["answers"])
    width, tail = build_tail(config)
    if model.kind == "joint":
        return JointEmbedding(
            width,
            config["vocabulary"],
            answers,
            model.width,
            features=config["features"],
            tail=tail,
            embedding=words.embedding,
            rnn=words.kind,
            layers=words.layers,
            bidirectional=words.bidirectional,
            attention=model.attention.kind,
            attention_dropout=model.attention.dropout,
            word_dropout=words.word_dropout,
            question_dropout=words.question_dropout,
            region_dropout=image.dropout,
            classifier_dropout=model.classifier.dropout,
            hidden=model.classifier.hidden,
            pad=config["pad"],
            blind=model.blind,
        )
    return FusionTransformer(
        width,
        config["vocabulary"],
        answers,
        config["regions"],
        features=config["features"],
        tail=tail,
        width=model.width,
        embedding=words.embedding,
        layers=model.fusion.layers,
        heads=model.fusion.heads,
        feedforward=model.fusion.feedforward,
        gates=model.fusion.gates,
        pointers=model.fusion.pointers,
        hidden=model.classifier.hidden,
        limit=config["max_tokens"] + 1,  # and the start token
        dropout=model.fusion.dropout,
        word_dropout=words.word_dropout,
        picture_dropout=image.dropout,
        region_dropout=image.region_dropout,
        classifier_dropout=model.classifier.dropout,
        pad=config["pad"],
        blind=model.blind,
    )
