"""Drawing thing by thing what did not come out as asked: each from words of its own, then the whole around them."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, NamedTuple

from tuwen.records import guess_language
from tuwen.scenes.captions import name_alone
from tuwen.scenes.reader import read_scene
from tuwen.scenes.request import arrange, fits, satisfies, understand
from tuwen.scenes.world import GAP, GROUNDS, MOST

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from tuwen.scenes.words import Key
    from tuwen.scenes.world import Thing


class Part(NamedTuple):
    """One thing drawn alone, and where it stands in its picture."""

    image: Image
    thing: Thing


class Attempt:
    """One picture on its way to what its words ask for.

    A model that knows each thing may still not bring two of them together (unseen pairs of shape and colour least of
    all). So each is drawn by words of its own until it is right; then they are laid out as the words say, and the model
    draws the whole from that draft, made noisy (SDEdit, Meng et al., ICLR 2022).

    Args:
        image: the whole, drawn at once.
        prompt: what it is read by; words that name no flat shape leave it as it is.
        seed: of the layout.
    """

    def __init__(self, image: Image, prompt: str, seed: int) -> None:
        self.image, self.prompt, self.seed = image, prompt, seed  # the best image so far
        self.wrong: list[str] | None = None  # what is wrong in it; None: nothing to read it by
        self._rng = Random(seed)
        request = understand(prompt)
        if request is not None:
            scene = read_scene(image)
            self.wrong = satisfies(scene, request)
            self._request, self._ground = request, request.ground or scene.ground
            self._keys = _settle([key for _, key in request.wanted], self._rng)
            self._parts: list[Part | None] = [None] * len(self._keys)

    @property
    def open(self) -> bool:
        """Whether another try may help: something is wrong, and it is not that more is asked for than has room."""
        return bool(self.wrong) and len(self._keys) <= MOST

    def missing(self) -> list[tuple[int, str]]:
        """The things that are still to be drawn alone: their numbers, and words for each."""
        lang = guess_language(self.prompt)
        names = [name_alone(lang, key, self._ground) for key in self._keys]
        return [(n, words) for n, (words, part) in enumerate(zip(names, self._parts, strict=True)) if part is None]

    def take(self, number: int, image: Image) -> None:
        """Keep a picture of one thing, where it shows that thing alone."""
        scene = read_scene(image)
        if len(scene.things) == 1 and scene.ground == self._ground and fits(scene.things[0], self._keys[number]):
            self._parts[number] = Part(image, scene.things[0])

    def draft(self) -> tuple[Tensor, Tensor] | None:
        """All things laid out: pixels (3, S, S) in [-1, 1], and where (1, S, S) they are to stay.

        None where a thing is missing, or where they found no room: then the largest is to be drawn again.
        """
        parts = [part for part in self._parts if part is not None]
        if len(parts) < len(self._parts):
            return None
        moved = arrange([part.thing for part in parts], self._request, self._rng, self.image.width)
        if moved is None:
            self._parts[max(range(len(parts)), key=lambda n: parts[n].thing.r)] = None
            return None
        return _compose(parts, moved, self._ground)

    def see(self, image: Image) -> None:
        """Take in a new picture of the whole; the one with the fewest faults stays."""
        wrong = satisfies(read_scene(image), self._request)
        if self.wrong is None or len(wrong) < len(self.wrong):
            self.image, self.wrong = image, wrong
        self._parts[self._rng.randrange(len(self._parts))] = None  # what did not work is not tried again as it was


def _settle(keys: list[Key], rng: Random) -> list[Key]:
    """Sizes for the things whose size is not said, so that all have room: one large thing at most."""
    room = all(size != "large" for size, _, _ in keys)
    settled: list[Key] = []
    for size, colour, shape in keys:
        if size is None:
            size = rng.choice(["large", "small"]) if room else "small"
            room = room and size == "small"
        settled.append((size, colour, shape))
    return settled


def _compose(parts: list[Part], moved: list[Thing], ground: str) -> tuple[Tensor, Tensor]:
    """Discs cut from the parts and put on the ground where their things were moved to."""
    import numpy as np
    import torch

    from tuwen.tasks.generation_data import to_signed

    side = parts[0].image.width
    pixels = np.full((side, side, 3), GROUNDS[ground], np.uint8)
    stays = np.zeros((side, side), bool)
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    for (image, before), thing in zip(parts, moved, strict=True):
        disc = np.hypot(x - thing.x, y - thing.y) < thing.r + GAP
        shift = round((thing.y - before.y) * side), round((thing.x - before.x) * side)
        pixels = np.where(disc[..., None], np.roll(np.asarray(image), shift, (0, 1)), pixels)
        stays |= disc
    return to_signed(torch.from_numpy(pixels)[None])[0], torch.from_numpy(stays)[None]
