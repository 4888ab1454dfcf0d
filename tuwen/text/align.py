"""Which words of one language go with which of another, from sentences about the same picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


def align(
    source: Sequence[Ids], target: Sequence[Ids], size: int, rounds: int = 6
) -> tuple[Ids, Ids, NDArray[np.float64]]:
    """IBM Model 1 by expectation maximisation (Brown et al., Computational Linguistics 1993, section 4.1).

    `source[i]` and `target[i]` are the ids (below `size`) of two texts that say the same. Each source word is thought
    to come from one target word, or from none. Returns (s, t, count): the expected number of times that source word
    s comes from target word t, sorted by s and then by falling count; words that come from none are left out.
    """
    nothing = size  # an id of its own for "from no word"
    left, right, sentence, words = [], [], [], 0
    for ours, theirs in zip(source, target, strict=True):
        theirs = np.append(theirs, nothing)
        left.append(np.repeat(ours, len(theirs)))
        right.append(np.tile(theirs, len(ours)))
        sentence.append(np.repeat(np.arange(words, words + len(ours)), len(theirs)))
        words += len(ours)
    s, t, word = (np.concatenate(parts) for parts in (left, right, sentence))  # one row a candidate pair
    pairs, which = np.unique(s * (size + 1) + t, return_inverse=True)
    s, t = pairs // (size + 1), pairs % (size + 1)
    chance = np.ones(len(pairs))  # p(s | t), up to a factor
    for _ in range(rounds):
        share = chance[which]
        share = share / np.bincount(word, share, minlength=words)[word]
        count = np.bincount(which, share, minlength=len(pairs))
        chance = count / np.bincount(t, count, minlength=size + 1)[t]
    kept = t != nothing
    s, t, count = s[kept], t[kept], count[kept]
    order = np.lexsort((-count, s))
    return s[order], t[order], count[order]
