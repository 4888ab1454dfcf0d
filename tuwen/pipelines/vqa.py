"""A trained answering model as a pipeline: pictures -> the tower (an ONNX graph on a CPU) -> the model -> answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tuwen import checkpoint, images
from tuwen.errors import ModelError, PictureError
from tuwen.files import sha256_file, sha256_text
from tuwen.images import View
from tuwen.pipelines.answerer import BEST, Answer, Answerer, Gaze, Scored, check_asked, group_pictures
from tuwen.pipelines.pictures import BATCH, Failed, Source, name_of, note_failed, numbered, open_whole, read_ahead
from tuwen.pipelines.retrieval import read_model
from tuwen.records import guess_language
from tuwen.text import load_tokenizer
from tuwen.text.answers import AnswerVocabulary, answer_language
from tuwen.viz import grid_boxes

if TYPE_CHECKING:
    from torch import Tensor

    from tuwen.dataset import Dataset
    from tuwen.detecting import Detector

QUESTIONS = 256  # answered at once
AHEAD = 4  # pictures decoded while a detector looks at one

Seen = dict[str, "Tensor"]  # `pictures` (P, N, D), and of region files `mask` (P, N) and `boxes` (P, N, 4)
Block = tuple[list[int], list[Source], Seen]  # places of pictures, the pictures, what the model is given of them


class Vqa(Answerer):
    """A trained model of visual question answering."""

    task = "vqa"

    def __init__(self, folder: Path, config: dict[str, Any], device: str = "cpu") -> None:
        if not (folder / checkpoint.WEIGHTS).is_file():
            raise ModelError(f"{folder}: no {checkpoint.WEIGHTS}: the training saved none, go on with --resume")
        self.folder, self.config, self.device = folder, config, device
        self.name: str = config.get("name") or folder.name
        tower = config["tower"]
        self.sees = tower["size"] is not None  # else it takes the data set's own features or regions
        self.detector: dict[str, Any] | None = config.get("detector")  # who finds the regions it learnt from
        self.size: int = tower["size"] or 0
        self.view = View(tower["view"])
        self.languages: list[str] = config["languages"]
        self.blind: bool = config["model"]["blind"]
        self.vocabulary = AnswerVocabulary.from_dict(config["answers"])
        self.calibrate(config.get("calibration") or {})
        self.tokenizer = load_tokenizer(folder)
        self.fingerprint = sha256_text(f"{sha256_file(folder / checkpoint.WEIGHTS)} {tower['sha256']}")[:16]
        self._model: Any = None
        self._look: Callable[[NDArray[np.uint8]], NDArray[Any]] | None = None
        self._eyes: Detector | None = None

    def calibrate(self, found: dict[str, Any]) -> None:
        """Take over a temperature and a threshold, as `config.json` has them under `calibration`."""
        self.temperature: float = found.get("temperature", 1.0)
        self.threshold: float = found.get("threshold", 0.0)

    def answer_each(
        self,
        pictures: Sequence[Source],
        questions: Sequence[str],
        k: int = BEST,
        *,
        attend: bool = True,
        batch: int = BATCH,
        failed: Failed | None = None,
    ) -> Iterator[tuple[int, Answer]]:
        """As `answer`, one by one as they come, each with its question's place; what is asked is checked at once."""
        check_asked(pictures, questions, k, batch)
        if not (self.sees or self.detector):
            raise ModelError(
                f"{self.folder}: trained on {self.config['tower']['name']}, so it can't look at pictures: "
                "`tuwen eval` scores it on data that holds these"
            )
        sources, places = group_pictures(pictures)
        blocks = self._read(sources, batch, failed) if self.sees else self._detect(sources, failed)
        return self._answer(blocks, places, questions, k, attend)

    def answer_part(
        self,
        part: Dataset,
        rows: Sequence[int],
        questions: Sequence[str],
        k: int = 1,
        attend: bool = False,
        batch: int = BATCH,
    ) -> Iterator[tuple[int, Answer]]:
        """As `answer_each` for pictures of a data set by row, from its own features or regions where the model takes
        these."""
        paths: list[Source] = [part.path(part.pictures[row]) for row in rows]
        if self.sees:
            return self.answer_each(paths, questions, k, attend=attend, batch=batch)
        check_asked(paths, questions, k, batch)
        wanted, places = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        groups = [np.flatnonzero(places == place).tolist() for place in range(len(wanted))]
        return self._answer(self._read_part(part, wanted, batch), groups, questions, k, attend)

    def logits(self, seen: Seen, questions: Sequence[str], owner: NDArray[np.int64]) -> tuple[Tensor, Seen]:
        """Raw scores of every answer (B, A), -inf where an answer is of another language than its question; and the
        model's input."""
        import torch

        rows, places = np.unique(owner, return_inverse=True)
        ids, lengths = self.tokenizer.encode(questions, self.config["max_tokens"])
        chosen = torch.from_numpy(rows)
        given = {name: value[chosen].to(self.device) for name, value in seen.items()}
        given["regions"] = given.pop("pictures")
        for name, value in (("ids", ids), ("lengths", lengths), ("owner", places)):
            given[name] = torch.from_numpy(np.ascontiguousarray(value)).to(self.device)
        with torch.inference_mode():
            logits: Tensor = self.model(**given).float().cpu()
        return logits.masked_fill(~torch.from_numpy(self._allowed(questions)), -math.inf), given

    def confidence(self, logits: Tensor) -> Tensor:
        """Calibrated confidence in every answer (B, A), from raw scores."""
        logits = logits / self.temperature
        return logits.softmax(1) if self.config["confidence"] == "softmax" else logits.sigmoid()

    def unknown_words(self, question: str) -> list[str]:
        """The words of a question that the model never saw."""
        return self.tokenizer.unknown(question)

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        config = self.config
        return {
            "tower": config["tower"]["name"],
            "pretrained": config["pretrained"],
            "seed": config["seed"],
            "tokeniser": f"{self.tokenizer.kind}, {self.tokenizer.size} ids",
            "answers": f"{len(self.vocabulary)}, by the {self.vocabulary.rule} rule",
            "confidence": f"{config['confidence']}, temperature {self.temperature:.3g}, sure from {self.threshold:.3g}",
        }

    @property
    def model(self) -> Any:
        """The module that reads features, in eval mode; its tower is apart, in `look`."""
        if self._model is None:
            self._open()
        return self._model

    def look(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """The tower: (B, S, S, 3) uint8 as `images.load` gives with this `size` and `view` -> (B, N, D)."""
        if self.blind:
            return np.zeros((len(pixels), 1, 1), np.float32)
        if self._look is None:
            self._open()
        assert self._look is not None
        features = self._look(pixels)
        return features[:, None] if features.ndim == 2 else features

    def blocks(self, part: Dataset, batch: int = BATCH) -> Iterator[Block]:
        """All pictures of a part of a data set, as the model is given them."""
        if self.sees:
            return self._read([part.path(picture) for picture in part.pictures], batch, None)
        return self._read_part(part, np.arange(len(part)), batch)

    def _open(self) -> None:
        model: Any = read_model(self.folder, self.config)
        tower, model.tower = getattr(model, "tower", None), None
        self._model = model.to(self.device)
        if tower is not None:
            from tuwen.features import runner

            self._look = runner(tower.to(self.device), "pooled" if self.config["tower"]["pooled"] else "grid")

    def _allowed(self, questions: Sequence[str]) -> NDArray[np.bool_]:
        """Which answers are of a question's language (B, A): numbers are of both, and where the model has no answer of
        that language all are."""
        spoken = np.array([answer_language(answer) for answer in self.vocabulary.answers])
        of = {
            lang: (spoken == lang) | (spoken == "") if (spoken == lang).any() else spoken == spoken
            for lang in ("en", "zh")
        }
        return np.stack([of[guess_language(question)] for question in questions])

    def _read(self, sources: Sequence[Source], batch: int, failed: Failed | None) -> Iterator[Block]:
        import torch

        for places, _, pixels in numbered(sources, self.size, self.view, batch, failed):
            features = np.ascontiguousarray(self.look(pixels), np.float32)
            yield places, [sources[place] for place in places], {"pictures": torch.from_numpy(features)}

    def _detect(self, sources: Sequence[Source], failed: Failed | None) -> Iterator[Block]:
        """Pictures one by one, by the regions that the detector of its training finds in them."""
        import torch

        detector = self._open_detector()
        most = min(detector.most, self.config["model"]["image"]["regions"])
        for (place, source), future in read_ahead(enumerate(sources), lambda item: open_whole(item[1]), AHEAD):
            try:
                found = detector.detect(future.result(), most)
            except PictureError as error:
                note_failed(failed, name_of(source), error)
                continue
            assert found.size is not None
            boxes = torch.from_numpy(found.boxes / np.array([*found.size] * 2, np.float32))[None]
            seen = {"pictures": torch.from_numpy(found.features)[None], "boxes": boxes}
            yield [place], [source], seen | {"mask": torch.ones(boxes.shape[:2], dtype=torch.bool)}

    def _open_detector(self) -> Detector:
        """ModelError where it is not here, or has other weights than it had."""
        if self._eyes is None:
            from tuwen.detecting import Detector

            known = self.detector or {}
            self._eyes = Detector(known["detector"], self.device, known["most"])
            if self._eyes.fingerprint != known["fingerprint"]:
                raise ModelError(
                    f"{self._eyes.name}: not the detector that found the regions of {self.folder}; find them anew by "
                    "`tuwen regions` and train again"
                )
        return self._eyes

    def _read_part(self, part: Dataset, rows: NDArray[np.int64], batch: int) -> Iterator[Block]:
        from tuwen.tasks.pictures import PRECOMPUTED, Cached
        from tuwen.tasks.regions import open_regions

        name: str = self.config["tower"]["name"]
        pictures = [part.pictures[row] for row in rows]  # of the others nothing need be there
        part = replace(part, pictures=pictures, rows=[part.rows[row] for row in rows])
        source: Any
        if name.startswith(PRECOMPUTED):
            matrix, numbers = part.features(name.removeprefix(PRECOMPUTED))
            source = Cached([matrix[numbers]])
        else:
            source = open_regions(part, self.config["model"]["image"]["regions"])
        for start in range(0, len(part), batch):
            own = np.arange(start, min(start + batch, len(part)))
            seen = {"pictures": source.gather(own, None)} if isinstance(source, Cached) else source.read(own)
            yield own.tolist(), [part.path(picture) for picture in pictures[start : start + batch]], seen

    def _answer(
        self, blocks: Iterable[Block], groups: list[list[int]], questions: Sequence[str], k: int, attend: bool
    ) -> Iterator[tuple[int, Answer]]:
        """`groups`: of each picture, the places of its questions."""
        for places, sources, seen in blocks:
            wanted = [(question, row) for row, place in enumerate(places) for question in groups[place]]
            for start in range(0, len(wanted), QUESTIONS):
                chosen, owner = zip(*wanted[start : start + QUESTIONS], strict=True)
                asked = [questions[question] for question in chosen]
                logits, given = self.logits(seen, asked, np.array(owner))
                known = self._knows(given)
                gazes = self._gaze(given, [sources[row] for row in owner]) if attend else [None] * len(asked)
                best = self._best(logits, k)
                for question, row, own, word, gaze in zip(chosen, owner, best, known, gazes, strict=True):
                    sure = word and own[0].score >= self.threshold
                    yield question, Answer(questions[question], sure, own, gaze, name_of(sources[row]))

    def _knows(self, given: Seen) -> list[bool]:
        """Whether the model knows a word of each question."""
        ids, tokenizer = given["ids"], self.tokenizer
        known: list[bool] = ((ids != tokenizer.unk_id) & (ids != tokenizer.pad_id)).any(1).tolist()
        return known

    def _best(self, logits: Tensor, k: int) -> list[list[Scored]]:
        scores = self.confidence(logits)
        values, places = scores.topk(min(k, scores.shape[1]), 1)
        rows = zip(values.tolist(), places.tolist(), logits.isfinite().sum(1).tolist(), strict=True)
        return [
            [Scored(self.vocabulary[place], value) for value, place in zip(own[:most], which, strict=False)]
            for own, which, most in rows
        ]

    def _gaze(self, given: Seen, sources: Sequence[Source]) -> list[Gaze | None]:
        """Where the model looked for each question; None for a blind model and for one that sees a picture as one."""
        import torch

        with torch.inference_mode():
            weights = self.model.attend(**given)
        if weights is None or weights.shape[1] == 1:
            return [None] * len(sources)
        maps: NDArray[np.float32] = weights.float().cpu().numpy()
        if "boxes" in given:
            owner = given["owner"].cpu().numpy()
            there, boxes = (given[name].cpu().numpy()[owner] for name in ("mask", "boxes"))
            return [
                Gaze(own[mask], boxes=(box[mask] * np.tile(_size(source), 2)).astype(np.float32))
                for own, mask, box, source in zip(maps, there, boxes, sources, strict=True)
            ]
        side = math.isqrt(maps.shape[1])
        if side * side != maps.shape[1]:
            return [None] * len(sources)
        if self.view.kind == "squash":
            return [Gaze(own, grid=(side, side)) for own in maps]
        return [
            Gaze(own, boxes=_cells(source, side, self.size, self.view))
            for own, source in zip(maps, sources, strict=True)
        ]


def _size(source: Source) -> tuple[int, int]:
    """Width and height of a picture, upright."""
    if isinstance(source, str | Path):
        about = images.probe(source)
        return about["width"], about["height"]
    assert isinstance(source, Image.Image)
    return ImageOps.exif_transpose(source).size


def _cells(source: Source, side: int, size: int, view: View) -> NDArray[np.float32]:
    """The cells of a grid over what a view shows of a picture, (side * side, 4) in pixels of the picture."""
    left, top, right, bottom = images.shown_part(*_size(source), size, view)
    cells = grid_boxes((side, side), (right - left, bottom - top)) + np.array([left, top, left, top])
    return np.asarray(cells, np.float32)
