"""BLIP, GIT and their kin, of the hub or of a local folder: transformers' own `generate` makes the captions.

Loading never opens a connection (`tuwen models get` does), reads safetensors alone, and runs no code that comes with
a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import ModelError
from tuwen.files import sha256_text
from tuwen.pipelines.describer import TOP_P, Attention, Described, Sentence, check_request, distinct, sentence
from tuwen.pipelines.fetch import architectures, find_folder, weight_files
from tuwen.pipelines.hub import CHINESE, CLIP_NORM, VOCABULARIES, weights_sha256
from tuwen.pipelines.pictures import Failed, Source, batches
from tuwen.records import HAN

if TYPE_CHECKING:
    from torch import Tensor

BETWEEN = re.compile(rf"(?<={HAN.pattern}) (?={HAN.pattern})")
BATCH, BEAMS, LIMIT = 16, 3, 30  # pictures at once; width of the search; words, in pieces


def is_captioner(source: str) -> bool:
    """Whether a model's configuration names an architecture that writes text from a picture.

    Raises:
        ModelError: its files are not here.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    known: set[str] = set()
    for value in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.values():
        known.update([value] if isinstance(value, str) else value)
    return bool(known & architectures(source))


class HubCaptioner:
    """A model that writes a caption from a picture alone, built by transformers, in float32."""

    task = "captioning"

    def __init__(self, source: str, device: str | None = None) -> None:
        """`source`: a hub name whose files are here, or a local folder. `device`: None takes a GPU where torch has one.

        Raises ModelError.
        """
        self.folder = find_folder(source)
        self.name = f"hf:{self.folder if Path(source).expanduser().is_dir() else source}"
        weights = weight_files(self.folder, self.name)

        import torch
        from transformers import AutoConfig, AutoModelForImageTextToText

        from tuwen.text import HubTokenizer
        from tuwen.towers.hub import asked, from_hub, preprocessing, quiet

        self.device = device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        config = asked(AutoConfig, str(self.folder))
        self.kind: str = config.model_type
        net, _ = from_hub(AutoModelForImageTextToText, str(self.folder))
        self._net = net.float().eval().to(device)
        eyes = getattr(config, "vision_config", None) or getattr(config, "encoder", config)
        self.size, norm, self.view = preprocessing(str(self.folder), eyes)
        if not any((self.folder / f"{part}processor_config.json").is_file() for part in ("pre", "")):
            norm = CLIP_NORM  # as BLIP and GIT have it
        self._mean, self._std = (255 * torch.tensor(values, device=device).view(3, 1, 1) for values in norm)
        if not any(path.name in VOCABULARIES or path.suffix == ".model" for path in self.folder.iterdir()):
            raise ModelError(f"{self.name}: no tokeniser ({', '.join(VOCABULARIES)}) in {self.folder}; copy it there")
        with quiet():
            self.tokenizer = HubTokenizer(self.folder)
        # A model does not say what it speaks; one whose vocabulary holds these Chinese signs whole speaks Chinese.
        pieces = self.tokenizer.pieces(CHINESE)
        chinese = not self.tokenizer.unknown(CHINESE) and len(pieces) <= len(CHINESE) + 1
        self.languages = ["zh"] if chinese else ["en"]
        self.sha256 = [weights_sha256(path) for path in weights]
        self.fingerprint = sha256_text(f"{self.sha256} {self.size} {norm} {self.kind}")[:16]
        self._try()

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
        """As `caption`, one by one as they come."""
        check_request(self.name, self.languages, lang, beams, samples, batch)
        return self._describe(batches(pictures, self.size, self.view, batch, failed), lang, beams, samples, seed)

    def attention(self, picture: Source, text: str, lang: str = "en") -> Attention:
        """Raises ModelError: each of these models looks in another way."""
        raise ModelError(f"{self.name}: attention is drawn of tuwen's own models alone: take --model captioning")

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        return {
            "tower": f"{self.kind} of {self.name}",
            "pretrained": "the whole model, on what its card says (web-scale pictures and texts)",
            "weights_sha256": " ".join(self.sha256),
            "seed": None,
            "decoding": {"beams": BEAMS, "limit": LIMIT, "by": "transformers' generate"},
        }

    def _describe(
        self,
        blocks: Iterable[tuple[list[str], NDArray[np.uint8]]],
        lang: str,
        beams: int | None,
        samples: int,
        seed: int,
    ) -> Iterator[Described]:
        import torch

        for number, (names, pixels) in enumerate(blocks):
            x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
            x = (x - self._mean) / self._std
            if samples:
                with torch.random.fork_rng():
                    torch.manual_seed(seed + number)
                    said = self._generate(x, samples, do_sample=True, top_p=TOP_P, top_k=0, num_beams=1)
            else:
                said = self._generate(x, beams or BEAMS, do_sample=False, num_beams=beams or BEAMS)
            for name, texts in zip(names, said, strict=True):
                yield Described(name, lang, distinct(texts))

    def _generate(self, x: Tensor, count: int, **how: Any) -> list[list[Sentence]]:
        """(B, 3, S, S) -> `count` captions each, best first."""
        out = self._run(
            x, max_new_tokens=LIMIT, num_return_sequences=count, return_dict_in_generate=True, output_logits=True,
            output_scores=True, **how,
        )  # fmt: skip
        beams = getattr(out, "beam_indices", None)
        # the log probability of each id, before any rule of the search
        steps = self._net.compute_transition_scores(out.sequences, out.logits, beams, normalize_logits=True)
        ids = out.sequences[:, -steps.shape[1] :].cpu().numpy()  # without the start
        logs = steps.float().cpu().numpy()
        ranked = getattr(out, "sequences_scores", None)
        said = [self._sentence(*pair) for pair in zip(ids, logs, strict=True)]
        if ranked is not None:
            said = [one._replace(score=float(score)) for one, score in zip(said, ranked.tolist(), strict=True)]
        return [said[n : n + count] for n in range(0, len(said), count)]

    def _sentence(self, ids: NDArray[np.int64], logs: NDArray[np.float32]) -> Sentence:
        """Of ids (T,) and their log probabilities, up to the end word; the score is their mean, the end included."""
        ends = np.flatnonzero(ids == self.tokenizer.eos_id)
        length = int(ends[0]) + 1 if len(ends) else len(ids)
        special = (self.tokenizer.pad_id, self.tokenizer.bos_id, self.tokenizer.eos_id)
        kept = [place for place in range(length) if ids[place] not in special]
        score = float(logs[:length].mean()) if length else 0.0
        return sentence(self._spell, ids[kept].tolist(), score, logs[kept].tolist())

    def _spell(self, ids: Sequence[int]) -> str:
        """BERT's tokenisers set a space after each Chinese sign."""
        return BETWEEN.sub("", self.tokenizer.decode(ids))

    def _run(self, x: Tensor, **how: Any) -> Any:
        import torch

        from tuwen.towers.hub import quiet

        with torch.inference_mode(), quiet():
            return self._net.generate(pixel_values=x, **how)

    def _try(self) -> None:
        """One word about nothing: a model that wants a question with its picture is no captioner."""
        import torch

        blank = torch.zeros(1, 3, self.size, self.size, device=self.device)
        try:
            self._run(blank, max_new_tokens=1)
        except Exception as error:  # whatever a foreign model's parts raise
            raise ModelError(
                f"{self.name}: a {self.kind} that writes nothing from a picture alone, as BLIP and GIT do "
                f"({type(error).__name__}); name another with --model"
            ) from None
