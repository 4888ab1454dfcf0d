"""ViLT and BLIP for questions, of the hub or of a local folder, as an `Answerer`.

ViLT (Kim et al., ICML 2021) chooses of the answers it learnt; BLIP (Li et al., ICML 2022) writes one. Loading never
opens a connection (`tuwen models get` does), reads safetensors alone, and runs no code that comes with a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tuwen.errors import ModelError, PictureError
from tuwen.files import sha256_text
from tuwen.images import View
from tuwen.pipelines.answerer import BEST, Answer, Answerer, Gaze, Scored, check_asked, group_pictures
from tuwen.pipelines.fetch import architectures, find_folder, weight_files
from tuwen.pipelines.hub import CHINESE, PREPARATION, VOCABULARIES, makers_sight, weights_sha256
from tuwen.pipelines.pictures import BATCH, Failed, Source, name_of, note_failed, open_whole, read_ahead
from tuwen.records import HAN
from tuwen.text.words import split_words

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

AHEAD = 4  # pictures decoded while one is asked about
TOGETHER = 32  # questions asked at once
LIMIT = 10  # pieces of an answer that is written
SURE = 0.5  # confidence from which an answer counts as sure: nobody calibrated these models
VILT, BLIP = "ViltForQuestionAnswering", "BlipForQuestionAnswering"

Said = tuple[list[Scored], Gaze | None]


class Mind(Protocol):
    """One picture at a time: what the model makes of it, and what it says to questions of one length about it."""

    def see(self, pixels: Tensor) -> Any:
        """Of (1, 3, H, W), what all questions share."""

    def say(self, seen: Any, ids: Tensor, k: int, attend: bool) -> list[Said]:
        """To questions (B, T), the best `k` answers each."""


def is_answerer(source: str) -> bool:
    """Whether a model's configuration names one that answers questions about pictures. ModelError: it is not here."""
    return bool(architectures(source) & {VILT, BLIP})


class HubAnswerer(Answerer):
    """A model that answers questions, built by transformers, in float32; it sees pictures as its makers prepare them.

    Pictures are looked at one by one and questions of one length asked together, so that nothing is padded: an answer
    does not depend on what else is asked.
    """

    task = "vqa"

    def __init__(self, source: str, device: str | None = None) -> None:
        """`source`: a hub name whose files are here, or a local folder. `device`: None takes a GPU where torch has one.

        Raises ModelError.
        """
        self.folder = find_folder(source)
        self.name = f"hf:{self.folder if Path(source).expanduser().is_dir() else source}"
        weights = weight_files(self.folder, self.name)

        import torch
        import transformers

        from tuwen.text import HubTokenizer
        from tuwen.towers.hub import from_hub, preprocessing, quiet

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = VILT if VILT in architectures(source) else BLIP
        net, whole = from_hub(getattr(transformers, kind), str(self.folder))
        if not whole:
            raise ModelError(f"{self.name}: its weights lack a pooler, which would stay random")
        net = net.float().eval().to(self.device)
        self.kind: str = net.config.model_type
        self._prepare = makers_sight(self.folder, self.name)
        self.size, _, _ = preprocessing(str(self.folder), net.config)
        self.view = View()
        if not any(path.name in VOCABULARIES for path in self.folder.iterdir()):
            raise ModelError(f"{self.name}: no tokeniser ({', '.join(VOCABULARIES)}) in {self.folder}; copy it there")
        with quiet():
            self.tokenizer = HubTokenizer(self.folder)
        words = net.config if kind == VILT else net.config.text_config
        self._longest = min(int(words.max_position_embeddings), 64)
        self._mind: Mind = _Vilt(net) if kind == VILT else _Blip(net, self.tokenizer)
        chinese = not self.tokenizer.unknown(CHINESE) and len(self.tokenizer.pieces(CHINESE)) <= len(CHINESE) + 1
        self.languages = ["en", "zh"] if chinese else ["en"]
        self.sha256 = [weights_sha256(path) for path in weights]
        sight = (self.folder / PREPARATION).read_text(encoding="utf-8")
        self.fingerprint = sha256_text(f"{self.sha256} {sight} {self.kind}")[:16]

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
        """As `answer`, as they come, each with its question's place; what is asked is checked at once."""
        check_asked(pictures, questions, k, batch)
        return self._answer(pictures, questions, k, attend, min(batch, AHEAD), failed)

    def unknown_words(self, question: str) -> list[str]:
        """Words that hold its unknown token; of a model that never learnt Chinese, the Chinese words too."""
        strange = set(self.tokenizer.unknown(question))
        foreign = HAN if "zh" not in self.languages else None
        return [word for word in split_words(question) if word in strange or (foreign and foreign.search(word))]

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        return {
            "tower": f"{self.kind} of {self.name}",
            "pretrained": "the whole model, on what its card says (web-scale pictures and texts)",
            "weights_sha256": " ".join(self.sha256),
            "seed": None,
            "confidence": f"the model's own, not calibrated, sure from {SURE}",
        }

    def _answer(
        self,
        pictures: Sequence[Source],
        questions: Sequence[str],
        k: int,
        attend: bool,
        most: int,
        failed: Failed | None,
    ) -> Iterator[tuple[int, Answer]]:
        items = zip(*group_pictures(pictures), strict=True)
        for (source, places), future in read_ahead(items, lambda item: open_whole(item[0]), most):
            try:
                picture = future.result()
            except PictureError as error:
                note_failed(failed, name_of(source), error)
                continue
            asked = [questions[place] for place in places]
            for place, text, (best, gaze) in zip(places, asked, self._say(picture, asked, k, attend), strict=True):
                sure = best[0].score >= SURE and self._knows(text)
                yield place, Answer(text, sure, best, gaze, name_of(source))

    def _say(self, picture: Image, asked: list[str], k: int, attend: bool) -> list[Said]:
        """To all questions about one picture."""
        import torch

        ids, lengths = self.tokenizer.encode(asked, self._longest)
        said: dict[int, Said] = {}
        with torch.inference_mode():
            seen = self._mind.see(self._pixels(picture))
            for length in np.unique(lengths):
                alike = np.flatnonzero(lengths == length)
                for start in range(0, len(alike), TOGETHER):
                    own = alike[start : start + TOGETHER]
                    given = torch.from_numpy(ids[own, :length]).to(self.device)
                    said.update(zip(own.tolist(), self._mind.say(seen, given, k, attend), strict=True))
        return [said[row] for row in range(len(asked))]

    def _knows(self, question: str) -> bool:
        """Whether the model knows a word of the question."""
        return len(self.unknown_words(question)) < len(split_words(question))

    def _pixels(self, picture: Image) -> Tensor:
        from tuwen.towers.hub import quiet

        with quiet():
            pixels: Tensor = self._prepare(images=[picture], return_tensors="pt")["pixel_values"]
        return pixels.to(self.device)


class _Vilt:
    """A transformer over words and patches; confidence is the sigmoid of an answer, as it was trained."""

    def __init__(self, net: Any) -> None:
        self.net = net
        labels = net.config.id2label
        self.answers = [str(labels[number]) for number in range(len(labels))]

    def see(self, pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """The picture's tokens (1, 1 + N, D) and its grid: the model shuffles the patches, here they are in order."""
        import torch

        mask = torch.ones_like(pixels[:, 0], dtype=torch.long)
        with torch.random.fork_rng(devices=[]):  # the shuffle draws from torch's global state
            tokens, _, (at, (rows, columns)) = self.net.vilt.embeddings.visual_embed(pixels, mask, max_image_length=-1)
        order = (at[0, :, 0] * columns + at[0, :, 1]).argsort()
        return torch.cat([tokens[:, :1], tokens[:, 1:][:, order]], 1), (int(rows), int(columns))

    def say(self, seen: tuple[Tensor, tuple[int, int]], ids: Tensor, k: int, attend: bool) -> list[Said]:
        import torch

        tokens, grid = seen
        tokens = tokens.expand(len(ids), -1, -1)
        out = self.net(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            image_embeds=tokens,
            pixel_mask=torch.ones_like(tokens[..., 0], dtype=torch.long),
            output_attentions=attend,
        )
        scores, places = out.logits.sigmoid().topk(min(k, len(self.answers)), 1)
        rows = zip(scores.tolist(), places.tolist(), strict=True)
        best = [[Scored(self.answers[p], s) for s, p in zip(*row, strict=True)] for row in rows]
        if not attend:
            return [(own, None) for own in best]
        # of the first word's token, which the answer is read from, over the patches: (B, heads, T, T) -> (B, N)
        maps = out.attentions[-1][:, :, 0, ids.shape[1] + 1 :].mean(1)
        maps = (maps / maps.sum(1, keepdim=True)).float().cpu().numpy()
        return [(own, Gaze(weights, grid=grid)) for own, weights in zip(best, maps, strict=True)]


class _Blip:
    """A question read over the picture, and an answer written over the question; confidence is its probability."""

    def __init__(self, net: Any, tokenizer: Any) -> None:
        self.net, self.tokenizer = net, tokenizer

    def see(self, pixels: Tensor) -> Tensor:
        """The picture's tokens (1, N, D)."""
        tokens: Tensor = self.net.vision_model(pixel_values=pixels)[0]
        return tokens

    def say(self, seen: Tensor, ids: Tensor, k: int, attend: bool) -> list[Said]:
        """By a search `k` wide. It tells no attention: a written answer has one a word and layer."""
        import torch

        from tuwen.towers.hub import quiet

        words, tokens = self.net.config.text_config, seen.expand(len(ids), -1, -1)
        question = self.net.text_encoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=tokens,
            encoder_attention_mask=torch.ones_like(tokens[..., 0], dtype=torch.long),
        )[0]
        start = torch.full_like(ids[:, :1], self.net.decoder_start_token_id)
        with quiet():
            out = self.net.text_decoder.generate(
                input_ids=start, eos_token_id=words.sep_token_id, pad_token_id=words.pad_token_id,
                encoder_hidden_states=question, encoder_attention_mask=torch.ones_like(ids), do_sample=False,
                num_beams=k, num_return_sequences=k, length_penalty=0.0, max_new_tokens=LIMIT, output_logits=True,
                output_scores=True, return_dict_in_generate=True,
            )  # fmt: skip
        beams = getattr(out, "beam_indices", None)
        steps = self.net.text_decoder.compute_transition_scores(out.sequences, out.logits, beams, normalize_logits=True)
        written = out.sequences[:, -steps.shape[1] :].cpu().numpy()
        logs = steps.float().cpu().numpy()
        said = [self._read(*pair, words.sep_token_id) for pair in zip(written, logs, strict=True)]
        return [(_distinct(said[n : n + k]), None) for n in range(0, len(said), k)]

    def _read(self, ids: Any, logs: Any, end: int) -> Scored:
        """Of ids (T,) and their log probabilities, up to the end word: the answer and its probability."""
        ends = np.flatnonzero(ids == end)
        length = int(ends[0]) + 1 if len(ends) else len(ids)
        return Scored(self.tokenizer.decode(ids[:length].tolist()), float(np.exp(logs[:length].sum())))


def _distinct(said: list[Scored]) -> list[Scored]:
    """Best first, the same text once, and without empty ones where there are others."""
    best: dict[str, Scored] = {}
    for one in sorted(said, key=lambda one: -one.score):
        best.setdefault(one.text, one)
    return [one for one in best.values() if one.text] or list(best.values())
