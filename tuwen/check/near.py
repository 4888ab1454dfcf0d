"""Near-duplicates among many pictures, by thumbnails of 16x16 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuwen.progress import track

SIDE = 16  # of the thumbnails by which pictures are compared
# Near-duplicates are two thumbnails that differ little on the whole and nowhere much (in levels of 255). Measured on
# 7,000 photographs of Flickr8k: the nearest of different ones differ by 12 in the mean and by over 70 somewhere; a copy
# at a third of the size and JPEG quality 20 by 2.5 in the mean (worst 5.3), 18 somewhere (19 of 20 copies: under 33).
RMS, MOST = 12.0, 32.0
CONTRAST = 4.0  # ... and by less than a quarter of their contrast: one flat ground resembles every other
BLOCK, NEAREST = 256, 16
Thumbs = NDArray[np.uint8]


def contrasts(thumbs: Thumbs) -> NDArray[np.float32]:
    """(n,) standard deviation of each thumbnail around its mean colour."""
    found = [piece.std(axis=(1, 2)) for piece in _pieces(thumbs)]  # (m, 3) each
    spread = np.concatenate(found) if found else np.zeros((0, 3))
    return np.asarray(np.sqrt((spread**2).mean(axis=1)), dtype=np.float32)


def _pieces(thumbs: Thumbs) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(thumbs), 4096):
        yield thumbs[start : start + 4096].astype(np.float32)


def find_near(thumbs: Thumbs, labels: NDArray[Any]) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of near-duplicates among thumbnails (n, 16, 16, 3); `labels` (n,) are their splits.

    For each picture the nearest earlier one of its own label and that of any other; of equal thumbnails of one label
    the first stands for all. Thumbnails are projected on 48 axes, which lengthens no distance: a blocked product over
    them finds every pair that passes. Memory is a few blocks of 256 x n numbers.
    """
    pairs, kept = _collapse(thumbs, labels)
    limits = np.minimum(RMS, contrasts(thumbs) / 4)
    kept = kept[limits[kept] >= CONTRAST / 4]
    if len(kept) > 1:
        low = _project(thumbs[kept])
        for start in track(range(0, len(kept), BLOCK), -(-len(kept) // BLOCK), "comparing pictures"):
            rows, columns = _near_block(low, labels[kept], start)
            pairs += _verify(thumbs, labels, limits, kept[columns], kept[rows])
    return sorted(set(pairs))


def _collapse(thumbs: Thumbs, labels: NDArray[Any]) -> tuple[list[tuple[int, int]], NDArray[np.int64]]:
    """Pairs of equal thumbnails, and the indices of the first of each thumbnail and label, in order."""
    seen: dict[bytes, dict[Any, int]] = {}
    pairs, kept = [], []
    for index, (thumb, label) in enumerate(zip(thumbs, labels, strict=True)):
        firsts = seen.setdefault(thumb.tobytes(), {})
        pairs += [(firsts[label], index)] if label in firsts else []
        other = next((first for known, first in firsts.items() if known != label), None)
        pairs += [(other, index)] if other is not None else []
        if label not in firsts:
            firsts[label] = index
            kept.append(index)
    return pairs, np.array(kept, dtype=np.int64)


def _project(thumbs: Thumbs) -> NDArray[np.float32]:
    """(n, 48): the lowest frequencies of a cosine transform, 24 of brightness and 12 of each of two colours.

    The axes are orthonormal, so that no distance grows; photographs hold most of theirs here.
    """
    place = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    waves = np.cos(np.arange(8)[:, None] * place) * np.where(np.arange(8) == 0, 1, np.sqrt(2))[:, None] / np.sqrt(SIDE)
    order = sorted(np.ndindex(8, 8), key=lambda uv: (sum(uv), uv))
    planes = np.stack([np.outer(waves[u], waves[v]) for u, v in order[:24]])  # (24, 16, 16)
    colours = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
    axes = np.concatenate(
        [np.einsum("khw,c->hwck", planes[:count], colour) for count, colour in zip((24, 12, 12), colours, strict=True)],
        axis=3,
    )
    flat = axes.reshape(-1, axes.shape[3]).astype(np.float32)  # (768, 48)
    return np.concatenate([(piece.reshape(len(piece), -1) - 128) @ flat for piece in _pieces(thumbs)])


def _near_block(
    low: NDArray[np.float32], labels: NDArray[Any], start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Candidates (row, column), column < row, of one block of rows; of too many a row keeps the 16 nearest a kind."""
    stop = min(start + BLOCK, len(low))
    block, rest = low[start:stop], low[:stop]
    ones = np.ones((stop, 1), dtype=np.float32)
    long = (rest**2).sum(axis=1, keepdims=True)
    # |x|^2 + |y|^2 - 2xy in one product, (b, stop): passing over b x n numbers is what costs.
    square = np.hstack([-2 * block, long[start:], ones[start:]]) @ np.hstack([rest, ones, long]).T
    near = square <= SIDE * SIDE * 3 * RMS**2 + 1
    near[:, start:] &= np.tri(stop - start, k=-1, dtype=bool)
    for row in np.flatnonzero(near.sum(axis=1) > NEAREST):
        hits = np.flatnonzero(near[row])
        near[row] = False
        own = labels[hits] == labels[start + row]
        for some in (hits[own], hits[~own]):
            order = np.argpartition(square[row, some], NEAREST) if len(some) > NEAREST else slice(None)
            near[row, some[order][:NEAREST]] = True
    rows, columns = np.nonzero(near)
    return rows + start, columns


def _verify(
    thumbs: Thumbs, labels: NDArray[Any], limits: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64]
) -> list[tuple[int, int]]:
    """The candidates whose thumbnails differ little everywhere; the nearest `a` of each `b`, a kind of label each."""
    best: dict[tuple[int, bool], tuple[float, int]] = {}
    for start in range(0, len(a), 4096):
        i, j = a[start : start + 4096], b[start : start + 4096]
        gap = np.abs(thumbs[i].astype(np.float32) - thumbs[j]).reshape(len(i), -1)
        rms = np.sqrt((gap**2).mean(axis=1))
        for k in np.flatnonzero((rms <= np.minimum(limits[i], limits[j])) & (gap.max(axis=1) <= MOST)):
            key, found = (int(j[k]), bool(labels[i[k]] == labels[j[k]])), (float(rms[k]), int(i[k]))
            best[key] = min(best.get(key, found), found)
    return [(first, second) for (second, _), (_, first) in best.items()]
