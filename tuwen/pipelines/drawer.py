"""A trained drawing model as a pipeline: a sentence and a seed -> a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuwen import checkpoint
from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.files import sha256_file, sha256_text
from tuwen.images import View
from tuwen.pipelines.redrawing import Attempt
from tuwen.text import load_tokenizer, split_words

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Generator, Tensor

BATCH = 16  # pictures drawn at once
MOST_STEPS = 1000
MOST_TRIES = 64
GAP = 4  # white pixels between the pictures of a sheet


@dataclass(frozen=True)
class Drawing:
    """A drawn picture, RGB, with the words and the seed that make it again.

    `wrong`: what it shows otherwise than the words ask, where it was read back; None where it was not.
    """

    image: Image
    prompt: str
    seed: int
    wrong: list[str] | None = None


class Drawer:
    """A trained drawing model."""

    task = "text-to-image"

    def __init__(self, folder: Path, config: dict[str, Any], device: str = "cpu") -> None:
        if not (folder / checkpoint.WEIGHTS).is_file():
            raise ModelError(f"{folder}: no {checkpoint.WEIGHTS}: the training saved none, go on with --resume")
        self.folder, self.config, self.device = folder, config, device
        self.name: str = config.get("name") or folder.name
        self.size: int = config["model"]["size"]
        self.view = View(config.get("view", "squash"))  # of the pictures that it learned from
        self.languages: list[str] = config["languages"]
        self.flows: bool = config["model"]["draw"]["kind"] == "flow"
        self.sampling: dict[str, Any] = config["model"]["sampling"]
        self.tries: int = config["model"].get("tries", 1)
        self.tokenizer = load_tokenizer(folder)
        self.fingerprint = sha256_text(sha256_file(folder / checkpoint.WEIGHTS))[:16]
        self._model: Any = None

    def draw(
        self,
        prompts: Sequence[str],
        n: int = 1,
        seed: int = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        tries: int | None = None,
        batch: int = BATCH,
    ) -> list[Drawing]:
        """`n` pictures of each prompt, in the prompts' order; the k-th of each comes from `seed` + k.

        `steps` (guesses from noise to picture) and `guidance` (1: none) are a flow's; by default the model's own. So is
        `tries`: above 1, a picture of flat shapes is read back, and drawn again thing by thing where it is not as asked
        (`Attempt`); the first with the fewest faults is given.

        Raises:
            DataError: a prompt without a word.
            ConfigError: a number out of range.
            ModelError: steps or guidance of a model that draws in one step.
        """
        return list(self.each(prompts, n, seed, steps=steps, guidance=guidance, tries=tries, batch=batch))

    def each(
        self,
        prompts: Sequence[str],
        n: int = 1,
        seed: int = 0,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        tries: int | None = None,
        batch: int = BATCH,
    ) -> Iterator[Drawing]:
        """As `draw`, one by one as they come; what is asked is checked at once."""
        if isinstance(prompts, str):
            raise ConfigError("prompts: give a list of sentences, not one string")
        if n < 1:
            raise ConfigError(f"n {n}: ask for at least 1 picture")
        wanted = [(prompt, seed + k) for prompt in prompts for k in range(n)]
        return self.each_of(wanted, steps=steps, guidance=guidance, tries=tries, batch=batch)

    def each_of(
        self,
        wanted: Sequence[tuple[str, int]],
        *,
        steps: int | None = None,
        guidance: float | None = None,
        tries: int | None = None,
        batch: int = BATCH,
    ) -> Iterator[Drawing]:
        """A picture of each (prompt, seed), in their order, one by one as they come. Errors as in `draw`."""
        tries = self.tries if tries is None else tries
        self._check(wanted, steps, guidance, tries, batch)
        return self._each(wanted, steps, guidance, tries, batch)

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt that no training caption held: the model cannot know what they look like."""
        seen = self.config["seen"]  # kept where the tokeniser is another's, and knows more words than were trained
        words = self.tokenizer.unknown(prompt) if seen is None else [w for w in split_words(prompt) if w not in seen]
        return list(dict.fromkeys(words))

    def about(self) -> dict[str, Any]:
        """What its scores' protocol must name."""
        config = self.config
        return {
            "model": config["model"]["draw"]["kind"],
            "pretrained": config["pretrained"],
            "seed": config["seed"],
            "tokeniser": f"{self.tokenizer.kind}, {self.tokenizer.size} ids",
            "sampling": self.sampling if self.flows else {"steps": 1},
        }

    @property
    def model(self) -> Any:
        """The module, in eval mode."""
        if self._model is None:
            from tuwen.tasks import restore_model

            model: Any = restore_model(self.config)
            path = self.folder / checkpoint.WEIGHTS
            checkpoint.load_state(model, checkpoint.read_tensors(path), str(path))
            self._model = model.eval().to(self.device)
        return self._model

    def _check(
        self, wanted: Sequence[tuple[str, int]], steps: int | None, guidance: float | None, tries: int, batch: int
    ) -> None:
        for prompt, seed in wanted:
            if not prompt.strip():
                raise DataError(f"'{prompt}': no word to draw; write a sentence, as 'a red circle'")
            if not 0 <= seed < 1 << 62:
                raise ConfigError(f"seed {seed}: give 0 or more")
        if not 1 <= tries <= MOST_TRIES:
            raise ConfigError(f"tries {tries}: ask for 1 to {MOST_TRIES}")
        if batch < 1:
            raise ConfigError(f"batch {batch}: draw at least 1 picture at once")
        if not self.flows and (steps is not None or guidance is not None):
            raise ModelError(f"{self.name}: draws in one step: leave out steps and guidance")
        if steps is not None and not 1 <= steps <= MOST_STEPS:
            raise ConfigError(f"steps {steps}: ask for 1 to {MOST_STEPS}")
        if guidance is not None and not 0 <= guidance <= 100:
            raise ConfigError(f"guidance {guidance}: ask for 0 to 100 (1 is none)")

    def _each(
        self, wanted: Sequence[tuple[str, int]], steps: int | None, guidance: float | None, tries: int, batch: int
    ) -> Iterator[Drawing]:
        import torch

        for start in range(0, len(wanted), batch):
            block = wanted[start : start + batch]
            ways = [torch.Generator().manual_seed(seed) for _, seed in block]  # nobody's noise depends on a neighbour
            images = self._draw([prompt for prompt, _ in block], ways, steps, guidance)
            if tries == 1:
                yield from (Drawing(image, *asked) for asked, image in zip(block, images, strict=True))
            else:
                yield from self._search(block, images, ways, steps, guidance, tries)

    def _search(
        self,
        block: Sequence[tuple[str, int]],
        images: Sequence[Image],
        ways: Sequence[Generator],
        steps: int | None,
        guidance: float | None,
        tries: int,
    ) -> list[Drawing]:
        """The best of up to `tries` pictures of each (prompt, seed), of which `images` are the first."""
        attempts = [Attempt(image, *asked) for asked, image in zip(block, images, strict=True)]
        for _ in range(1, tries):
            open_ = [(each, way) for each, way in zip(attempts, ways, strict=True) if each.open]
            drafts = None
            if self.flows:
                alone = [(each, way, *part) for each, way in open_ for part in each.missing()]
                drawn = self._draw([words for *_, words in alone], [way for _, way, *_ in alone], steps, guidance)
                for (each, _, number, _), image in zip(alone, drawn, strict=True):
                    each.take(number, image)
                found = [(one, draft) for one in open_ if (draft := one[0].draft()) is not None]
                open_, drafts = [one for one, _ in found], [draft for _, draft in found]
            drawn = self._draw([each.prompt for each, _ in open_], [way for _, way in open_], steps, guidance, drafts)
            for (each, _), image in zip(open_, drawn, strict=True):
                each.see(image)
        return [Drawing(each.image, each.prompt, each.seed, each.wrong) for each in attempts]

    def _draw(
        self,
        prompts: Sequence[str],
        ways: Sequence[Generator],
        steps: int | None,
        guidance: float | None,
        drafts: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> list[Image]:
        """A picture of each prompt from the noise that comes next; each of the `drafts` as a flow's `draw` takes it."""
        import torch
        from PIL import Image as Images

        from tuwen.tasks.generation_data import to_pixels

        if not prompts:
            return []
        ids, lengths = self.tokenizer.encode(prompts, self.config["max_tokens"])
        noise = torch.stack([torch.randn(self.model.noise_shape, generator=way) for way in ways])
        begin = {}
        if drafts is not None:
            begin["draft"] = tuple(torch.stack(parts).to(self.device) for parts in zip(*drafts, strict=True))
        with torch.inference_mode():
            drawn: Tensor = self.model.draw(
                torch.from_numpy(ids).to(self.device),
                torch.from_numpy(lengths).to(self.device),
                noise.to(self.device),
                steps=steps,
                guidance=guidance,
                **begin,
            )
        return [Images.fromarray(one) for one in to_pixels(drawn).cpu().numpy()]


def tell_faults(drawings: Sequence[Drawing]) -> list[str]:
    """A line for each picture that shows otherwise than asked."""
    return [f"seed {one.seed}: not all is as asked ({', '.join(one.wrong)})" for one in drawings if one.wrong]


def sheet(drawings: Sequence[Drawing], columns: int | None = None, scale: int = 1) -> Image:
    """One picture alone, or several in a grid as square as can be, each `scale` times as large (nearest pixel)."""
    from PIL import Image as Images

    pictures = [one.image.resize((one.image.width * scale,) * 2, Images.Resampling.NEAREST) for one in drawings]
    if len(pictures) == 1:
        return pictures[0]
    columns = columns or max(1, round(len(pictures) ** 0.5 + 0.49))
    side = pictures[0].width
    rows = -(-len(pictures) // columns)
    out = Images.new("RGB", (columns * (side + GAP) - GAP, rows * (side + GAP) - GAP), "white")
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        out.paste(picture, (column * (side + GAP), row * (side + GAP)))
    return out
