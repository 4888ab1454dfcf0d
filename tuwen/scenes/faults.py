"""What a drawn picture shows otherwise than its sentence asked."""

from __future__ import annotations

from PIL.Image import Image

from tuwen.scenes.reader import read_scene
from tuwen.scenes.request import satisfies, understand


def find_faults(picture: Image, sentence: str) -> list[str] | None:
    """The attributes that are wrong, as `satisfies` names them; None where the sentence names no flat shape."""
    request = understand(sentence)
    return None if request is None else satisfies(read_scene(picture), request)
