"""Greedy search, beam search and sampling over one step function, whole batches at once, on any device.

A model gives a `Stepper`; every decoder here works with every stepper. The words of a hypothesis are counted as steps:
at most `limit` of them, the end word among them, so that a caption of `limit` words was cut and has no end word.

Every log probability is the model's own: at temperature 1, over its whole vocabulary, whatever was forbidden. A score
is the sum of them, end word included, over `steps ** length_penalty` (0 is no normalisation, 1 the mean of a step).

What may be forbidden: the end word before `minimum` words, and a word that would complete an n-gram of `no_repeat`
words which the caption holds already. Where that leaves nothing at all, the end word is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tuwen.layers import widen

LENGTH_PENALTY = 0.7

State = dict[str, Tensor]
"""Every tensor is (B, K, ...): B pictures, K hypotheses of each. What all hypotheses share is the stepper's own."""


class Stepper(Protocol):
    """A model that has looked at B pictures and writes word by word."""

    def start(self) -> tuple[Tensor, State]:
        """Logits (B, 1, V) of the first word, and the state (B, 1, ...)."""
        ...

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits (B, K, V) of the word after the words `ids` (B, K) just chosen, and the new state."""
        ...


@dataclass(frozen=True)
class Decoded:
    """K captions of each of B pictures, best first.

    `ids` (B, K, T) int64, without the end word and padded; `lengths` (B, K), where `limit` means that no end word came;
    `scores` (B, K) as ranked; `words` (B, K, T) log probability of each word, 0 at the padding; `ends` (B, K) that of
    the end word, 0 where none came. `words.sum(-1) + ends` is the score before normalisation. Where a beam is wider
    than the number of captions that exist, the rest have length 0 and score minus infinity.
    """

    ids: Tensor
    lengths: Tensor
    scores: Tensor
    words: Tensor
    ends: Tensor


def greedy(
    stepper: Stepper,
    end: int,
    limit: int,
    *,
    length_penalty: float = LENGTH_PENALTY,
    minimum: int = 0,
    no_repeat: int = 0,
    pad: int = 0,
) -> Decoded:
    """The likeliest word at every step, K = 1; what `beam` finds at width 1. `length_penalty` only scales the score."""

    def choose(logits: Tensor, ids: Tensor) -> Tensor:
        return _allow(logits, ids, end, minimum, no_repeat).argmax(-1)

    return _write(stepper, choose, end, limit, 1, length_penalty, pad)


def sample(
    stepper: Stepper,
    end: int,
    limit: int,
    count: int,
    *,
    seed: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    length_penalty: float = LENGTH_PENALTY,
    minimum: int = 0,
    pad: int = 0,
) -> Decoded:
    """`count` captions of each picture drawn from the model, K = `count`: best first, not in the order drawn.

    `temperature` divides the logits; `top_p` then keeps the fewest likeliest words that hold that much probability
    (Holtzman et al., The Curious Case of Neural Text Degeneration, section 3.1). Both change what is drawn, not what
    its log probability is said to be. The same seed and batch draw the same words, on any device but for rounding.

    Raises:
        ValueError: `count` under 1, `temperature` not above 0, or `top_p` outside (0, 1].
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, not {count}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be above 0 and at most 1, not {top_p}")
    generator = torch.Generator().manual_seed(seed)

    def choose(logits: Tensor, ids: Tensor) -> Tensor:
        chances = (_allow(logits, ids, end, minimum, 0) / temperature).softmax(-1)
        return _draw(_nucleus(chances, top_p), generator)

    return _write(stepper, choose, end, limit, count, length_penalty, pad)


@torch.no_grad()
def beam(
    stepper: Stepper,
    end: int,
    limit: int,
    *,
    width: int = 3,
    length_penalty: float = LENGTH_PENALTY,
    minimum: int = 0,
    no_repeat: int = 0,
    pad: int = 0,
) -> Decoded:
    """Beam search: the `width` best captions found of each picture, best first, K = `width`.

    At every step the `width` best continuations of the live hypotheses are taken by their sum of log probabilities.
    Those that end are set aside under their normalised score, of which the best `width` are kept; the others live on.
    A sum can only fall, so a live hypothesis can reach `sum / limit ** length_penalty` at best: a picture stops as soon
    as that is no better than the worst of `width` captions set aside, which never changes what is found. Hypotheses cut
    at the limit compete too. Width 1 is `greedy`.

    Raises:
        ValueError: `width` or `limit` under 1, or a negative `length_penalty`.
    """
    if width < 1:
        raise ValueError(f"width must be at least 1, not {width}")
    _check(limit, length_penalty)
    logits, state = stepper.start()
    logits = widen(logits)
    live = _blank(logits, width, limit, pad)
    done = _blank(logits, width, limit, pad)
    divisors = _divisors(logits, limit, length_penalty)
    live["scores"][:, 0] = 0  # of the live: the sum so far; one hypothesis at first, the others of no probability
    state = pick(state, torch.zeros_like(live["lengths"]))
    for written in range(limit):
        logits = logits.expand(-1, width, -1)
        rows, ids, chances = _extend(logits, live, _allow(logits, live["ids"][..., :written], end, minimum, no_repeat))
        live = pick(live, rows)
        sums = live["scores"] + chances
        over = ids == end
        ended = sums.masked_fill(~over, -math.inf) / divisors[written + 1]
        done = _best(done, {**live, "scores": ended, "ends": chances}, width)
        live["ids"][..., written], live["words"][..., written] = ids, chances
        live["lengths"] += 1
        live["scores"] = sums.masked_fill(over, -math.inf)
        hopeless = live["scores"].amax(1) / divisors[limit] <= done["scores"].amin(1)  # (B,)
        live["scores"] = live["scores"].masked_fill(hopeless[:, None], -math.inf)
        if written + 1 == limit or bool(hopeless.all()):
            break
        logits, state = stepper.step(ids, pick(state, rows))
        logits = widen(logits)
    cut = {**live, "scores": live["scores"] / divisors[limit]}
    return _finish(_best(done, cut, width), pad)


def pick(state: State, rows: Tensor) -> State:
    """The hypotheses `rows` (B, K') of each picture, from tensors (B, K, ...) to copies (B, K', ...)."""

    def gather(x: Tensor) -> Tensor:
        first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
        return x.flatten(0, 1).index_select(0, (first + rows).flatten()).reshape(rows.shape + x.shape[2:])

    return {name: gather(x) for name, x in state.items()}


@torch.no_grad()
def _write(
    stepper: Stepper,
    choose: Callable[[Tensor, Tensor], Tensor],
    end: int,
    limit: int,
    count: int,
    length_penalty: float,
    pad: int,
) -> Decoded:
    """Let `choose` take a word (B, K) from logits (B, K, V) and the words so far (B, K, t), until all have ended."""
    _check(limit, length_penalty)
    logits, state = stepper.start()
    logits = widen(logits)
    made = _blank(logits, count, limit, pad)
    sums = torch.zeros_like(made["ends"])
    if count > 1:
        state = pick(state, torch.zeros_like(made["lengths"]))
    going = torch.ones_like(made["lengths"], dtype=torch.bool)
    for written in range(limit):
        logits = logits.expand(-1, count, -1)
        ids = choose(logits, made["ids"][..., :written])
        chances = _log_probability(logits, ids[..., None]).squeeze(-1).masked_fill(~going, 0)
        sums += chances
        over = going & (ids == end)
        going = going & ~over
        made["ends"] += chances.masked_fill(~over, 0)
        made["ids"][..., written] = ids.masked_fill(~going, pad)
        made["words"][..., written] = chances.masked_fill(~going, 0)
        made["lengths"] += going
        if written + 1 == limit or not bool(going.any()):
            break
        logits, state = stepper.step(ids.masked_fill(~going, end), state)
        logits = widen(logits)
    made["scores"] = sums / _divisors(logits, limit, length_penalty)[made["lengths"] + ~going]
    return _finish(pick(made, made["scores"].argsort(dim=1, descending=True, stable=True)), pad)


def _check(limit: int, length_penalty: float) -> None:
    if limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty must be 0 or more, not {length_penalty}")


def _blank(logits: Tensor, count: int, limit: int, pad: int) -> State:
    """`count` empty captions of no probability for each picture of `logits` (B, 1, V)."""
    shape = (logits.shape[0], count)
    lengths = torch.zeros(shape, dtype=torch.int64, device=logits.device)
    return {
        "ids": lengths.new_full((*shape, limit), pad),
        "lengths": lengths,
        "scores": logits.new_full(shape, -math.inf),
        "words": logits.new_zeros((*shape, limit)),
        "ends": logits.new_zeros(shape),
    }


def _divisors(logits: Tensor, limit: int, length_penalty: float) -> Tensor:
    """What the sum of each number of steps is divided by, (limit + 1,); one table, so that all decoders agree."""
    return torch.arange(limit + 1, device=logits.device).to(logits.dtype) ** length_penalty


def _log_probability(logits: Tensor, ids: Tensor) -> Tensor:
    """Log probability of `ids` (B, K, n) under `logits` (B, K, V); cheaper than a whole log softmax."""
    return logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)


def _allow(logits: Tensor, ids: Tensor, end: int, minimum: int, no_repeat: int) -> Tensor:
    """`logits` (B, K, V) with minus infinity at what may not follow the words `ids` (B, K, t)."""
    written = ids.shape[-1]
    allowed = logits
    if 0 < no_repeat <= written:
        grams = ids.unfold(-1, no_repeat, 1)  # (B, K, t - n + 1, n)
        seen = (grams[..., :-1] == ids[..., None, written - no_repeat + 1 :]).all(-1)
        ban = logits.new_zeros(seen.shape).masked_fill(seen, -math.inf)
        allowed = allowed.scatter_add(-1, grams[..., -1], ban)
    if written < minimum:
        allowed = allowed.clone()
        allowed[..., end] = -math.inf
    if allowed is not logits:
        stuck = allowed.amax(-1).isneginf()
        allowed[..., end] = logits[..., end].where(stuck, allowed[..., end])
    return allowed


def _extend(logits: Tensor, live: State, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The K best continuations of K live hypotheses: whose (B, K), by which word (B, K), its log probability (B, K)."""
    width, size = allowed.shape[1:]
    best, ids = allowed.topk(min(width, size))  # (B, K, n): no row can give more than K of the best K
    chances = _log_probability(logits, ids).masked_fill(best.isneginf(), -math.inf)
    chosen = (live["scores"][..., None] + chances).flatten(1).topk(width).indices  # (B, K)
    rows = chosen // ids.shape[-1]
    return rows, ids.flatten(1).gather(1, chosen), chances.flatten(1).gather(1, chosen)


def _best(one: State, other: State, width: int) -> State:
    """The `width` best of two sets of hypotheses by their scores, best first."""
    both = {name: torch.cat([one[name], other[name]], 1) for name in one}
    return pick(both, both["scores"].topk(width).indices)


def _finish(made: State, pad: int) -> Decoded:
    """Cut to the longest caption; blank what was never found."""
    none = made["scores"].isneginf()
    lengths = made["lengths"].masked_fill(none, 0)
    longest = int(lengths.max()) if lengths.numel() else 0
    ids, words = made["ids"][..., :longest], made["words"][..., :longest]
    beyond = torch.arange(longest, device=ids.device) >= lengths[..., None]
    return Decoded(
        ids=ids.masked_fill(beyond, pad),
        lengths=lengths,
        scores=made["scores"],
        words=words.masked_fill(beyond, 0),
        ends=made["ends"].masked_fill(none, 0),
    )


def _nucleus(chances: Tensor, top_p: float) -> Tensor:
    """`chances` (B, K, V) with 0 outside the fewest likeliest words that hold `top_p` of them."""
    if top_p == 1:
        return chances
    ordered, ids = chances.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    return torch.zeros_like(chances).scatter(-1, ids, ordered.masked_fill(before >= top_p, 0))


def _draw(chances: Tensor, generator: torch.Generator) -> Tensor:
    """One word (B, K) of each row of `chances` (B, K, V), which need not add to 1.

    By the inverse of the cumulative sum, which takes one random number a row where `torch.multinomial` takes V.
    """
    sums = chances.cumsum(-1)
    # In (0, 1], so that the first sum not below it exists and is of a word whose chance isn't 0.
    point = 1 - torch.rand((*chances.shape[:-1], 1), generator=generator, dtype=chances.dtype).to(chances.device)
    return torch.searchsorted(sums, point * sums[..., -1:]).squeeze(-1)
