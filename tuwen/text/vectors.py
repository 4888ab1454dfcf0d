"""Word vectors that others trained, in the text format of GloVe and word2vec: a word and its numbers a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuwen.errors import DataError


def read_vectors(path: Path, words: Sequence[str], width: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors of `words` (V, width), 0 where the file lacks one, and whether it has each (V,).

    Raises:
        DataError: not readable, of another width, or without any of the words.
    """
    places: dict[str, list[int]] = {}
    for place, word in enumerate(words):
        places.setdefault(word, []).append(place)
    rows = np.zeros((len(words), width), np.float32)
    found = np.zeros(len(words), np.bool_)
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                word, *values = line.rstrip().split(" ")
                if number == 1 and len(values) == 1:
                    continue  # word2vec's head: how many, how wide
                if word not in places:
                    continue
                if len(values) != width:
                    raise DataError(f"{path}:{number}: {len(values)} numbers, the recipe asks for {width}")
                rows[places[word]], found[places[word]] = np.array(values, np.float32), True
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read as word vectors ({error})") from None
    if not found.any():
        raise DataError(f"{path}: none of the {len(words)} words of the data is in it: is it of another language?")
    return rows, found
