"""What a drawn picture shows otherwise than its sentence asked, and what of it can stay."""

from __future__ import annotations

from typing import NamedTuple

from PIL.Image import Image

from tuwen.scenes.reader import read_scene
from tuwen.scenes.request import find_right, satisfies, understand
from tuwen.scenes.world import Thing


class Reading(NamedTuple):
    """Of a picture beside its sentence: the attributes that are wrong, and the things that are right as they stand."""

    wrong: list[str]
    right: list[Thing]


def read_drawing(picture: Image, sentence: str) -> Reading | None:
    """A picture read back (`satisfies`, `find_right`); None where the sentence names no flat shape."""
    request = understand(sentence)
    if request is None:
        return None
    scene = read_scene(picture)
    return Reading(satisfies(scene, request), find_right(scene, request))


def find_faults(picture: Image, sentence: str) -> list[str] | None:
    """The attributes that are wrong, as `satisfies` names them; None where the sentence names no flat shape."""
    request = understand(sentence)
    return None if request is None else satisfies(read_scene(picture), request)
