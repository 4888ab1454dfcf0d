"""Decoders against brute force, a slow beam search and rescoring, on toy models whose every logit is known."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from tuwen import decode
from tuwen.decode import Decoded, State

END = 0
LIMIT = 12


class Rnn:
    """Logits depend on the whole prefix, which the state carries too, so that a wrong reordering shows at once."""

    def __init__(self, pictures: int = 5, vocabulary: int = 7, seed: int = 0, end_bias: float = 0.0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.first = torch.randn(pictures, 1, 6, generator=draw, dtype=torch.float64)
        self.words = torch.randn(vocabulary, 6, generator=draw, dtype=torch.float64) * 1.5
        self.turn = torch.randn(6, 6, generator=draw, dtype=torch.float64) * 0.5
        self.out = torch.randn(6, vocabulary, generator=draw, dtype=torch.float64)
        self.bias = torch.zeros(vocabulary, dtype=torch.float64)
        self.bias[END] = end_bias
        self.steps = 0

    def alone(self, picture: int) -> Rnn:
        one = object.__new__(Rnn)
        one.__dict__ = {**self.__dict__, "first": self.first[picture : picture + 1], "steps": 0}
        return one

    def start(self) -> tuple[Tensor, State]:
        self.steps = 0
        prefix = torch.zeros(len(self.first), 1, 0, dtype=torch.int64)
        return self.first @ self.out + self.bias, {"hidden": self.first, "prefix": prefix}

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        self.steps += 1
        prefix = torch.cat([state["prefix"], ids[..., None]], -1)
        hidden = torch.tanh(state["hidden"] @ self.turn + self.words[ids])
        again = self.first.expand(-1, ids.shape[1], -1)
        for word in prefix.unbind(-1):
            again = torch.tanh(again @ self.turn + self.words[word])
        assert torch.allclose(hidden, again), "the state doesn't belong to these words"
        return hidden @ self.out + self.bias, {"hidden": hidden, "prefix": prefix}


class Table:
    """A Markov chain: row w of `logits` (V, V) follows word w, `first` (V,) begins."""

    def __init__(self, first: Tensor, logits: Tensor, pictures: int = 1) -> None:
        self.first, self.logits, self.pictures = first, logits, pictures

    def start(self) -> tuple[Tensor, State]:
        return self.first.expand(self.pictures, 1, -1), {"seen": torch.zeros(self.pictures, 1)}

    def step(self, ids: Tensor, state: State) -> tuple[Tensor, State]:
        assert ids.shape == state["seen"].shape
        return self.logits[ids], {"seen": state["seen"] + 1}


def captions(decoded: Decoded, picture: int = 0) -> list[tuple[int, ...]]:
    """The words of each hypothesis that exists."""
    rows = (decoded.ids[picture].tolist(), decoded.lengths[picture].tolist(), decoded.scores[picture].tolist())
    return [tuple(ids[:length]) for ids, length, score in zip(*rows, strict=True) if score > -math.inf]


def rescore(model: Rnn | Table, words: tuple[int, ...], limit: int, picture: int = 0) -> list[float]:
    """Log probability of each word, and of the end word where the caption was not cut: one hypothesis, word by word."""
    logits, state = model.start()
    count, found = len(logits), []
    for word in words if len(words) == limit else (*words, END):
        found.append(float(logits[picture, 0].log_softmax(-1)[word]))
        logits, state = model.step(torch.full((count, 1), word), state)
    return found


def may_follow(words: tuple[int, ...], word: int, minimum: int, no_repeat: int) -> bool:
    if word == END:
        return len(words) >= minimum
    grams = [(*words, word)[i : i + no_repeat] for i in range(len(words) + 2 - no_repeat)] if no_repeat else []
    return len(set(grams)) == len(grams)


def every_caption(vocabulary: int, limit: int, minimum: int, no_repeat: int) -> list[tuple[int, ...]]:
    """All captions of a space: fewer words than `limit` and an end, or exactly `limit` and none."""
    space = [
        words for size in range(limit + 1) for words in itertools.product(range(1, vocabulary), repeat=size)
        if size == limit or size >= minimum
    ]  # fmt: skip
    return [w for w in space if all(may_follow(w[:i], w[i], minimum, no_repeat) for i in range(len(w)))]


def slow_beam(model: Rnn, vocabulary: int, limit: int, width: int, alpha: float) -> list[tuple[tuple[int, ...], float]]:
    """One picture, Python lists, and no early stop."""
    live: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    done: list[tuple[tuple[int, ...], float]] = []
    for size in range(1, limit + 1):
        grown = []
        for words, total in live:
            logits, state = model.start()
            for word in words:
                logits, state = model.step(torch.tensor([[word]]), state)
            chances = logits[0, 0].log_softmax(-1)
            grown += [((*words, word), total + float(chances[word])) for word in range(vocabulary)]
        best = sorted(grown, key=lambda pair: -pair[1])[:width]
        done += [(words[:-1], total / size**alpha) for words, total in best if words[-1] == END]
        live = [(words, total) for words, total in best if words[-1] != END]
    done += [(words, total / limit**alpha) for words, total in live]
    return sorted(done, key=lambda pair: -pair[1])[:width]


@pytest.mark.parametrize(
    ("alpha", "minimum", "no_repeat"), [(0.0, 0, 0), (0.7, 0, 0), (1.5, 0, 0), (1.0, 2, 0), (0.7, 0, 1), (0.7, 1, 2)]
)
def test_a_beam_as_wide_as_the_space_is_brute_force(alpha: float, minimum: int, no_repeat: int) -> None:
    model = Rnn(pictures=2, vocabulary=4, seed=3)
    space = every_caption(4, 4, minimum, no_repeat)
    assert len(space) == {(0, 0): 121, (2, 0): 117, (0, 1): 16, (1, 2): 96}[minimum, no_repeat]
    found = decode.beam(
        model, END, 4, width=125, length_penalty=alpha, minimum=minimum, no_repeat=no_repeat
    )  # wider than the space: what doesn't exist must not appear
    for picture in range(2):
        scored = {}
        for words in space:
            chances = rescore(model, words, 4, picture)
            scored[words] = sum(chances) / len(chances) ** alpha
        expected = sorted(space, key=lambda words: -scored[words])
        assert captions(found, picture) == expected
        ranked = found.scores[picture, : len(space)].tolist()
        assert ranked == pytest.approx([scored[words] for words in expected], abs=1e-9)
        assert found.scores[picture, len(space) :].isneginf().all()
        assert (found.lengths[picture, len(space) :] == 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_beam_equals_a_slow_one_that_never_stops_early(alpha: float) -> None:
    lengths, steps = set(), []
    for end_bias in (0.0, 3.0):
        model = Rnn(pictures=4, vocabulary=6, seed=5, end_bias=end_bias)
        together = decode.beam(model, END, LIMIT, width=3, length_penalty=alpha)
        for picture in range(4):
            one = model.alone(picture)
            found = decode.beam(one, END, LIMIT, width=3, length_penalty=alpha)
            steps.append(one.steps)
            expected = slow_beam(one, 6, LIMIT, 3, alpha)
            assert captions(found) == [words for words, _ in expected] == captions(together, picture)
            assert found.scores[0].tolist() == pytest.approx([score for _, score in expected], abs=1e-9)
            lengths |= {len(words) for words, _ in expected}
    assert len(lengths) > 3
    assert min(steps) < LIMIT - 2  # some did stop early


@pytest.mark.parametrize(("minimum", "no_repeat"), [(0, 0), (4, 0), (0, 2), (3, 1)])
def test_beam_of_one_is_greedy(minimum: int, no_repeat: int) -> None:
    lengths = set()
    for seed in range(4):
        model = Rnn(pictures=6, vocabulary=9, seed=seed)
        one = decode.greedy(model, END, LIMIT, minimum=minimum, no_repeat=no_repeat, pad=8)
        other = decode.beam(model, END, LIMIT, width=1, minimum=minimum, no_repeat=no_repeat, pad=8)
        for name in ("ids", "lengths", "scores", "words", "ends"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        lengths |= set(one.lengths.flatten().tolist())
    assert len(lengths) > 3
    assert min(lengths) >= minimum


def test_a_batch_decodes_as_each_picture_alone() -> None:
    model = Rnn(pictures=8, vocabulary=9, seed=1, end_bias=0.5)
    lengths = set()
    for how in (decode.greedy, decode.beam):
        whole = how(model, END, LIMIT, no_repeat=3)
        for picture in range(8):
            alone = how(model.alone(picture), END, LIMIT, no_repeat=3)
            size = alone.ids.shape[-1]
            assert torch.equal(alone.ids[0], whole.ids[picture, :, :size])
            assert (whole.ids[picture, :, size:] == 0).all()
            assert torch.equal(alone.lengths[0], whole.lengths[picture])
            torch.testing.assert_close(alone.scores[0], whole.scores[picture])
            torch.testing.assert_close(alone.words[0], whole.words[picture, :, :size])
            lengths.add(size)
    assert len(lengths) > 2


def test_word_scores_are_the_models_and_sum_to_the_score() -> None:
    model = Rnn(pictures=5, vocabulary=7, seed=2)
    drawn = decode.sample(model, END, 5, 40, seed=0, temperature=2.0, top_p=0.9, length_penalty=0.7, minimum=1)
    beams = decode.beam(model, END, 5, width=8, length_penalty=0.7, minimum=1)
    cut = ended = 0
    for made in (drawn, beams):
        assert (made.scores.diff(dim=1) <= 0).all()
        totals = made.words.sum(-1) + made.ends
        steps = made.lengths + (made.lengths < 5)
        torch.testing.assert_close(made.scores, totals / steps**0.7)
        for picture in range(5):
            for k, words in enumerate(captions(made, picture)):
                chances = rescore(model, words, 5, picture)
                said = made.words[picture, k, : len(words)].tolist()
                assert [*said, float(made.ends[picture, k])][: len(chances)] == pytest.approx(chances, abs=1e-9)
                assert not made.words[picture, k, len(words) :].any()
                cut, ended = cut + (len(words) == 5), ended + (len(words) < 5)
    assert cut > 10
    assert ended > 10


def cycle() -> Table:
    """1 2 1 2 ... without end; every other word is likelier than the end."""
    logits = torch.zeros(6, 6)
    logits[:, END] = -5.0
    logits[1, 2] = logits[2, 1] = 6.0
    return Table(torch.tensor([-5.0, 3, 0, 0, 0, 0]), logits, pictures=2)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_comes_twice(size: int) -> None:
    def repeats(words: tuple[int, ...]) -> bool:
        grams = [words[i : i + size] for i in range(len(words) + 1 - size)]
        return len(set(grams)) < len(grams)

    free = decode.greedy(cycle(), END, LIMIT)
    assert captions(free) == [(1, 2) * (LIMIT // 2)]
    assert repeats(captions(free)[0])
    held = [decode.greedy(cycle(), END, LIMIT, no_repeat=size), decode.beam(cycle(), END, LIMIT, no_repeat=size)]
    found = [words for made in held for picture in range(2) for words in captions(made, picture)]
    assert len(found) == 2 + 6
    assert not any(repeats(words) for words in found)
    assert max(len(words) for words in found) == (5 if size == 1 else LIMIT)  # there are only five words


def test_minimum_length_holds_and_gives_way_only_where_nothing_is_left() -> None:
    def hurried() -> Table:
        return Table(torch.tensor([9.0, 1, 0, 0]), torch.tensor([[9.0, 1, 0.5, 0]]).expand(4, 4), pictures=3)

    assert (decode.greedy(hurried(), END, 6).lengths == 0).all()
    assert decode.greedy(hurried(), END, 6).ids.shape == (3, 1, 0)
    for made in (
        decode.greedy(hurried(), END, 6, minimum=3),
        decode.beam(hurried(), END, 6, minimum=3),
        decode.sample(hurried(), END, 6, 20, seed=0, minimum=3),
    ):
        assert (made.lengths >= 3).all()
        assert (made.lengths == 3).sum() >= 3
    for made in (decode.greedy(hurried(), END, 6, minimum=5, no_repeat=1),
                 decode.beam(hurried(), END, 6, minimum=5, no_repeat=1)):  # fmt: skip
        assert (made.lengths == 3).all()
        assert (made.ends < 0).all()


def test_a_larger_length_penalty_prefers_longer_captions() -> None:
    model = Rnn(pictures=30, vocabulary=7, seed=4, end_bias=1.0)
    sizes = [
        float(decode.beam(model, END, LIMIT, width=4, length_penalty=alpha).lengths[:, 0].double().mean())
        for alpha in (0.0, 0.7, 1.5)
    ]
    assert sizes[0] < sizes[1] < sizes[2]


# Sampling

FIRST = torch.tensor([0.5, 2.0, 1.0, 0.0, -1.0])
NEXT = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))


def chi_square(made: Decoded, chances: dict[tuple[int, ...], float]) -> float:
    """Of the captions drawn for one picture against their probabilities; nothing else may have been drawn."""
    drawn = Counter(captions(made))
    expected = {words: p * drawn.total() for words, p in chances.items() if p > 0}
    assert set(drawn) == set(expected)
    return sum((drawn[words] - n) ** 2 / n for words, n in expected.items())


def pairs(first: Tensor, following: Tensor) -> dict[tuple[int, ...], float]:
    """Probability of every caption of at most two words of the chain."""
    found = {(): float(first[END])}
    for a in range(1, 5):
        found |= {((a,) if b == END else (a, b)): float(first[a] * following[a, b]) for b in range(5)}
    return found


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_come_as_often_as_their_probability(temperature: float) -> None:
    made = decode.sample(Table(FIRST, NEXT), END, 2, 20_000, seed=0, temperature=temperature)
    chances = pairs((FIRST / temperature).softmax(-1), (NEXT / temperature).softmax(-1))
    assert len(chances) == 21
    assert sum(chances.values()) == pytest.approx(1)
    assert chi_square(made, chances) < 52  # 20 degrees of freedom: once in 10,000
    other = pairs((FIRST / 1.3).softmax(-1), (NEXT / 1.3).softmax(-1))
    assert chi_square(made, other) > 100  # the test can tell


def test_top_p_cuts_the_tail_and_keeps_the_rest() -> None:
    chances = FIRST.softmax(-1).tolist()  # 0.126 0.563 0.207 0.076 0.028
    for top_p, kept in ((0.5, [1]), (0.75, [1, 2]), (0.85, [0, 1, 2]), (1.0, [0, 1, 2, 3, 4])):
        made = decode.sample(Table(FIRST, NEXT), END, 1, 5_000, seed=1, top_p=top_p)
        whole = sum(chances[word] for word in kept)
        left = {(() if w == END else (w,)): chances[w] / whole if w in kept else 0.0 for w in range(5)}
        assert chi_square(made, left) < 24  # at most 4 degrees of freedom
        assert float(made.words.flatten().min()) == pytest.approx(
            min(math.log(chances[w]) for w in kept if w), abs=1e-5
        )


def test_a_seed_gives_the_same_samples_and_another_gives_others() -> None:
    model = Rnn(pictures=4, vocabulary=9, seed=0)
    one, same, other = (decode.sample(model, END, LIMIT, 5, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one.ids, same.ids)
    assert torch.equal(one.scores, same.scores)
    assert one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)
    assert len({words for picture in range(4) for words in captions(one, picture)}) > 10


def test_sampling_near_temperature_zero_is_greedy() -> None:
    model = Rnn(pictures=6, vocabulary=9, seed=0)
    best = decode.greedy(model, END, LIMIT)
    cold = decode.sample(model, END, LIMIT, 3, seed=0, temperature=1e-4)
    assert torch.equal(cold.ids, best.ids.expand(-1, 3, -1))
    torch.testing.assert_close(cold.scores, best.scores.expand(-1, 3))


def test_words_a_model_never_says_are_never_drawn_and_nothing_is_nan() -> None:
    silent = NEXT.clone()
    silent[:, 4] = -torch.inf
    first = silent[0]
    for made in (
        decode.sample(Table(first, silent), END, 6, 2_000, seed=0),
        decode.beam(Table(first, silent), END, 6, width=5, no_repeat=2, minimum=2),
    ):
        assert made.lengths.max() > 2
        assert not (made.ids == 4).any()
        assert made.scores.isfinite().all()
        assert made.words.isfinite().all()


def test_half_precision_logits_are_scored_in_float32_and_nothing_holds_a_graph() -> None:
    logits = NEXT.bfloat16().requires_grad_()
    for made in (
        decode.greedy(Table(logits[0], logits), END, 6),
        decode.beam(Table(logits[0], logits), END, 6),
        decode.sample(Table(logits[0], logits), END, 6, 2, seed=0),
    ):
        assert made.scores.dtype == made.words.dtype == torch.float32
        assert made.ids.dtype == made.lengths.dtype == torch.int64
        assert not made.scores.requires_grad
        assert not made.words.is_inference()  # self-critical training goes on with them
        assert logits.requires_grad


def test_settings_that_mean_nothing_are_refused() -> None:
    model = Table(FIRST, NEXT)
    for call in (
        lambda: decode.beam(model, END, 5, width=0),
        lambda: decode.beam(model, END, 5, length_penalty=-1),
        lambda: decode.greedy(model, END, 0),
        lambda: decode.sample(model, END, 5, 0, seed=0),
        lambda: decode.sample(model, END, 5, 1, seed=0, temperature=0.0),
        lambda: decode.sample(model, END, 5, 1, seed=0, top_p=0.0),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
