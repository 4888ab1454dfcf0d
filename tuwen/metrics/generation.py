"""Scores of drawn pictures over given features: KID, FID, R-precision, the nearest training picture.

KID: Binkowski et al., Demystifying MMD GANs, ICLR 2018. FID: Heusel et al., NIPS 2017. R-precision: Xu et al., AttnGAN,
CVPR 2018. torchmetrics does the arithmetic of the first two.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FEWEST = 2048  # pictures a side for an FID: below, its bias by their number drowns what it measures
HALVES = 200
CANDIDATES = 100
Rows = NDArray[Any]  # (n, d)


class Kid(NamedTuple):
    """The unbiased estimate over all pictures, which may be below 0, and its 95% interval."""

    value: float
    low: float
    high: float


class Precision(NamedTuple):
    """Whether each picture found its own caption first, (n,) bool, and among how many candidates, (n,)."""

    hits: NDArray[np.bool_]
    candidates: NDArray[np.int64]


def kid(real: Rows, drawn: Rows, seed: int = 0, halves: int = HALVES) -> Kid:
    """Kernel distance of two sets of features, (n, d) and (m, d): kernel (x.y / d + 1)^3, the squares' unbiased mean.

    The larger set gives up rows at its end. The interval holds the middle 95% of `halves` random halves of both sets,
    moved onto the value: halves drawn without replacement spread as the estimate over all rows itself does. Raises
    ValueError where there are fewer than 4 rows.
    """
    import torch
    from torchmetrics.image.kid import maximum_mean_discrepancy, poly_kernel

    n = min(len(real), len(drawn))
    if n < 4:
        raise ValueError(f"a KID needs at least 4 pictures a side, not {n}")
    a, b = (torch.from_numpy(np.asarray(rows[:n], np.float64)) for rows in (real, drawn))
    kernels = poly_kernel(a, a), poly_kernel(a, b), poly_kernel(b, b)
    value = float(maximum_mean_discrepancy(*kernels))
    generator = np.random.default_rng(seed)
    spread = []
    for _ in range(halves):
        i, j = (torch.from_numpy(generator.permutation(n)[: n // 2]) for _ in range(2))
        half = (kernels[0][i][:, i], kernels[1][i][:, j], kernels[2][j][:, j])
        spread.append(float(maximum_mean_discrepancy(*half)))
    low, high = np.percentile(np.array(spread) - np.mean(spread), [2.5, 97.5])
    return Kid(value, value + float(low), value + float(high))


def floor_kid(real: Rows, seed: int = 0, halves: int = HALVES) -> Kid:
    """What two random halves of the real pictures score against one another: no model can be asked for less."""
    order = np.random.default_rng(seed).permutation(len(real))
    half = len(real) // 2
    return kid(real[order[:half]], real[order[half:]], seed, halves)


def fid(real: Rows, drawn: Rows) -> float | None:
    """Fréchet distance of two sets of features, (n, d) and (m, d); None below 2,048 rows on either side."""
    if min(len(real), len(drawn)) < FEWEST:
        return None
    import torch
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Given(torch.nn.Module):
        """Features in, features out."""

        num_features = real.shape[1]

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps what it is given
        metric = FrechetInceptionDistance(feature=Given())
        metric.set_dtype(torch.float64)
        for rows, is_real in ((real, True), (drawn, False)):
            metric.update(torch.from_numpy(np.asarray(rows, np.float64)), real=is_real)
        return float(metric.compute())


def r_precision(
    pictures: Rows, captions: Rows, texts: Sequence[str], candidates: int = CANDIDATES, seed: int = 0
) -> Precision:
    """Whether a judge finds each picture's caption first among `candidates`: its own and others drawn at random.

    `pictures` (n, d) and `captions` (n, d), by an embedder that no training used, of unit length; `texts` (n,): the
    captions' words. Others are captions of other pictures with other words, each once; where there are too few
    different ones, all of them. A tie counts against the picture. Raises ValueError where there is no other caption.
    """
    unique, number = np.unique(np.asarray(texts, dtype=object).astype(str), return_inverse=True)
    if len(unique) < 2:
        raise ValueError(f"R-precision needs different captions; all {len(texts)} are the same")
    first = np.array([np.flatnonzero(number == k)[0] for k in range(len(unique))])
    pool = captions[first].astype(np.float64)  # (different captions, d)
    generator = np.random.default_rng(seed)
    hits = np.zeros(len(texts), bool)
    count = np.full(len(texts), min(candidates, len(unique)))
    for row, (picture, own) in enumerate(zip(pictures, number, strict=True)):
        others = generator.permutation(len(unique) - 1)[: candidates - 1]
        others += others >= own  # every number but its own
        similar = (pool @ picture.astype(np.float64)).astype(np.float32)
        hits[row] = bool((similar[others] < similar[own]).all())  # NaN is no hit
    return Precision(hits, count)


def share_interval(hits: NDArray[Any], groups: NDArray[Any], z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a share in percent, which stays honest at 0 and 100, where a bootstrap collapses.

    `hits` (n,) true or false (or 0 to 1), `groups` (n,): what of one picture goes together counts as one trial, so it
    is rather too wide. Wilson, JASA 1927. Raises ValueError where there is none.
    """
    n = len(np.unique(groups))
    if n == 0:
        raise ValueError("a share needs at least one trial")
    share = float(np.mean(hits))
    middle = share + z**2 / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = ((middle + way * reach) / (1 + z**2 / n) for way in (-1, 1))
    return 100 * max(0.0, low), 100 * min(1.0, high)


def shuffle(n: int, seed: int = 0) -> NDArray[np.int64]:
    """A random order of n in which nothing stays in its place: the control, pictures with captions of others.

    Raises ValueError below 2.
    """
    if n < 2:
        raise ValueError("one picture cannot be shuffled")
    order = np.random.default_rng(seed).permutation(n)
    out = np.empty(n, np.int64)
    out[order] = np.roll(order, 1)  # one cycle through all
    return out


def nearest(pictures: Rows, training: Rows, chunk: int = 1024) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The row of `training` (m, d) nearest to each of `pictures` (n, d), and how far: the root of the mean square."""
    own = np.asarray(pictures, np.float64)
    best, row = np.full(len(own), np.inf), np.zeros(len(own), np.int64)
    for start in range(0, len(training), chunk):
        block = np.asarray(training[start : start + chunk], np.float64)
        squares = (own**2).sum(1)[:, None] - 2 * own @ block.T + (block**2).sum(1)
        found = squares.argmin(1)
        values = squares[np.arange(len(own)), found]
        row = np.where(values < best, start + found, row)
        best = np.minimum(best, values)
    return row, np.sqrt(best.clip(0) / own.shape[1])
