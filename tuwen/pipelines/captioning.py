"""A trained captioner as a pipeline: pictures -> the tower (an ONNX graph on a CPU) -> the model -> decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen import checkpoint
from tuwen.errors import ModelError
from tuwen.files import sha256_file, sha256_text
from tuwen.images import View
from tuwen.pipelines.describer import BATCH, TOP_P, Attention, Described, Sentence, check_request, distinct, group_words
from tuwen.pipelines.describer import sentence as spell
from tuwen.pipelines.pictures import Failed, Source, batches
from tuwen.pipelines.retrieval import read_model
from tuwen.text import load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

    from tuwen.decode import Decoded, Stepper

Features = NDArray[Any]


class Captioner:
    """A trained captioner."""

    task = "captioning"

    def __init__(self, folder: Path, config: dict[str, Any], device: str = "cpu") -> None:
        if not (folder / checkpoint.WEIGHTS).is_file():
            raise ModelError(f"{folder}: no {checkpoint.WEIGHTS}: the training saved none, go on with --resume")
        self.folder, self.config, self.device = folder, config, device
        self.name: str = config.get("name") or folder.name
        tower = config["tower"]
        self.precomputed = tower["size"] is None
        self.size: int = tower["size"] or 0
        self.view = View(tower["view"])
        self.languages: list[str] = config["languages"]
        self.decoding: dict[str, Any] = config["model"]["decoding"]
        self.tokenizer = load_tokenizer(folder)
        self.fingerprint = sha256_text(f"{sha256_file(folder / checkpoint.WEIGHTS)} {tower['sha256']}")[:16]
        self._model: Any = None
        self._look: Callable[[NDArray[np.uint8]], Features] | None = None

    def caption(
        self,
        pictures: Iterable[Source],
        lang: str = "en",
        *,
        beams: int | None = None,
        samples: int = 0,
        seed: int = 0,
        batch: int = BATCH,
        failed: Failed | None = None,
    ) -> list[Described]:
        """Captions of paths or PIL pictures, in their order: `beams` each, best first, or `samples` drawn ones.

        Raises:
            PictureError: one can't be read; with `failed` it is noted there instead, and left out.
            ModelError: a language that the model does not speak.
        """
        return list(self.describe(pictures, lang, beams=beams, samples=samples, seed=seed, batch=batch, failed=failed))

    def describe(
        self,
        pictures: Iterable[Source],
        lang: str = "en",
        *,
        beams: int | None = None,
        samples: int = 0,
        seed: int = 0,
        batch: int = BATCH,
        failed: Failed | None = None,
    ) -> Iterator[Described]:
        """As `caption`, one by one as they come: what is asked is checked at once, a picture when its turn comes."""
        check_request(self.name, self.languages, lang, beams, samples, batch)
        self._check_sees()
        blocks = (
            (names, self.look(pixels)) for names, pixels in batches(pictures, self.size, self.view, batch, failed)
        )
        return self._describe(blocks, lang, beams, samples, seed)

    def describe_features(
        self,
        features: Features,
        lang: str = "en",
        *,
        beams: int | None = None,
        samples: int = 0,
        seed: int = 0,
        batch: int = BATCH,
    ) -> Iterator[Described]:
        """Captions of the tower's features, (n, D) or (n, N, D); their `file` is the number of the row."""
        check_request(self.name, self.languages, lang, beams, samples, batch)
        rows = features[:, None] if features.ndim == 2 else features
        parts = ((start, rows[start : start + batch]) for start in range(0, len(rows), batch))
        blocks = (([str(start + n) for n in range(len(part))], np.asarray(part)) for start, part in parts)
        return self._describe(blocks, lang, beams, samples, seed)

    def attention(self, picture: Source, text: str, lang: str = "en") -> Attention:
        """Where the model looks while it says each word of `text`: maps over the picture in its `view`.

        Raises:
            ModelError: the model has no attention (Show and Tell), or sees no square grid.
        """
        import torch

        check_request(self.name, self.languages, lang, None, 0, 1)
        self._check_sees()
        _, pixels = next(batches([picture], self.size, self.view, 1))
        ids, _ = self.tokenizer.encode([text], self.config["max_tokens"])
        with torch.inference_mode():
            seen = self._tensor(self.look(pixels))
            weights = self.model.attend(seen, torch.from_numpy(ids).to(self.device), self.languages.index(lang))
        if weights is None:
            raise ModelError(f"{self.name} sees a picture once, as a whole: it has no attention to show; take another")
        maps = weights[0].float().cpu().numpy()  # (T, N)
        side = math.isqrt(maps.shape[1])
        if side * side != maps.shape[1] or side == 1:
            raise ModelError(f"{self.name} sees {maps.shape[1]} regions that are no grid: they cannot be drawn")
        words = group_words(self._decode, ids[0].tolist())
        together = np.stack([maps[places].mean(0).reshape(side, side) for _, places in words])
        return Attention([word for word, _ in words], together)

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        config = self.config
        return {
            "tower": config["tower"]["name"],
            "pretrained": config["pretrained"],
            "seed": config["seed"],
            "tokeniser": f"{self.tokenizer.kind}, {self.tokenizer.size} ids",
            "decoding": self.decoding,
        }

    @property
    def model(self) -> Any:
        """The module that reads features, in eval mode; its tower is apart, in `look`."""
        if self._model is None:
            self._open()
        return self._model

    def look(self, pixels: NDArray[np.uint8]) -> Features:
        """The tower: (B, S, S, 3) uint8 as `images.load` gives with this `size` and `view` -> (B, N, D)."""
        if self._look is None:
            self._open()
        assert self._look is not None
        features = self._look(pixels)
        return features[:, None] if features.ndim == 2 else features

    def _open(self) -> None:
        model: Any = read_model(self.folder, self.config)
        tower, model.tower = getattr(model, "tower", None), None
        self._model = model.to(self.device)
        if tower is not None:
            from tuwen.features import runner

            self._look = runner(tower.to(self.device), "pooled" if self.config["tower"]["pooled"] else "grid")

    def _check_sees(self) -> None:
        if self.precomputed:
            raise ModelError(
                f"{self.folder}: trained on a feature matrix, so it can't look at pictures: use describe_features"
            )

    def _describe(
        self,
        blocks: Iterable[tuple[list[str], Features]],
        lang: str,
        beams: int | None,
        samples: int,
        seed: int,
    ) -> Iterator[Described]:
        for number, (names, features) in enumerate(blocks):
            decoded = self._speak(features, lang, beams, samples, seed + number)
            for name, texts in zip(names, self._sentences(decoded), strict=True):
                yield Described(name, lang, distinct(texts))

    def _speak(self, features: Features, lang: str, beams: int | None, samples: int, seed: int) -> Decoded:
        import torch

        from tuwen import decode

        how = self.decoding
        end, pad, penalty = self.config["end"], self.config["pad"], how["length_penalty"]
        with torch.inference_mode():
            stepper: Stepper = self.model.stepper(self._tensor(features), self.languages.index(lang))
            if samples:
                return decode.sample(
                    stepper, end, how["limit"], samples, seed=seed, top_p=TOP_P, length_penalty=penalty,
                    minimum=how["minimum"], pad=pad,
                )  # fmt: skip
            return decode.beam(
                stepper, end, how["limit"], width=beams or how["beams"], length_penalty=penalty,
                minimum=how["minimum"], no_repeat=how["no_repeat"], pad=pad,
            )  # fmt: skip

    def _sentences(self, decoded: Decoded) -> Iterator[list[Sentence]]:
        """Each picture's captions, from ids (B, K, T)."""
        ids, lengths = decoded.ids.tolist(), decoded.lengths.tolist()
        scores, words = decoded.scores.tolist(), decoded.words.tolist()
        for row in range(len(ids)):
            yield [
                spell(self._decode, ids[row][k][: lengths[row][k]], scores[row][k], words[row][k])
                for k in range(len(ids[row]))
                if math.isfinite(scores[row][k])  # a beam may be wider than there are captions
            ]

    def _decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def _tensor(self, features: Features) -> Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(features, np.float32)).to(self.device)
