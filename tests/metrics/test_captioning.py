"""Caption scores against pycocoevalcap's on the same words, in English and in Chinese."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tuwen.metrics import captioning
from tuwen.metrics.captioning import Cider, Words, bleu, diversity, meteor, rouge_l
from tuwen.text import split_words

FLICKR = Path("/work/shared/data/flickr8k")
ENGLISH = [
    *("a", "the", "dog", "man", "woman", "girl", "red", "blue", "ball", "dog's", "runs", "jumps", "in", "on", "grass"),
    *("snow", "and", "t-shirt", "over", "through"),
]
CHINESE = [
    *("一只", "一个", "的", "狗", "男人", "女人", "小孩", "红色", "蓝色", "球", "跑", "跳", "在", "草地", "雪地", "上"),
    *("里", "穿着", "和", "T恤"),
]
Corpus = tuple[list[list[str]], list[list[list[str]]]]


def make(words: list[str], n: int = 200, seed: int = 0) -> Corpus:
    """n pictures with one to six references each; a candidate is a reference with some words changed, lost, doubled."""
    draw = np.random.default_rng(seed)
    odds = 1 / np.arange(1, len(words) + 1)

    def sentence(length: int) -> list[str]:
        return [str(word) for word in draw.choice(words, length, p=odds / odds.sum())]

    candidates, references = [], []
    for i in range(n):
        human = [sentence(int(draw.integers(1, 15))) for _ in range(1 + i % 6)]
        said = list(human[int(draw.integers(len(human)))])
        for _ in range(int(draw.integers(0, 4))):
            said[int(draw.integers(len(said)))] = str(draw.choice(words))
        candidates.append(said[int(draw.integers(0, 3)) :] + sentence(int(draw.integers(0, 3))))
        references.append(human)
    return candidates, references


def flickr(lang: str) -> Corpus:
    """Human captions of the first 200 validation pictures: the first against the other four."""
    images = json.loads((FLICKR / "dataset_flickr8k.json").read_text(encoding="utf-8"))["images"]
    names = [image["filename"] for image in images if image["split"] == "val"][:200]
    said: dict[str, list[str]] = {image["filename"]: [s["raw"] for s in image["sentences"]] for image in images}
    if lang == "zh":
        said = {}
        for line in (FLICKR / "flickr8kzhc.caption.txt").read_text(encoding="utf-8").splitlines():
            key, _, text = line.partition(" ")
            said.setdefault(key.partition("#")[0], []).append(text)
    kept = [[split_words(text, lang) for text in said[name]] for name in names]
    return [human[0] for human in kept], [human[1:5] for human in kept]


def reference_scores(candidates: list[list[str]], references: list[list[list[str]]]) -> dict[str, object]:
    """What pycocoevalcap says: [bleu1..4], rouge, per-picture CIDEr. It prints, and warns while it is imported."""
    result = {i: [" ".join(words)] for i, words in enumerate(candidates)}
    truth = {i: [" ".join(words) for words in human] for i, human in enumerate(references)}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        scorers = {
            name: getattr(importlib.import_module(f"pycocoevalcap.{name}.{name}"), name.title())()
            for name in ("bleu", "rouge", "cider")
        }
        return {
            "bleu": scorers["bleu"].compute_score(truth, result)[0],
            "rouge": scorers["rouge"].compute_score(truth, result)[0],
            "cider": scorers["cider"].compute_score(truth, result)[1],
        }


@pytest.mark.parametrize("corpus", ["en", "zh", "with_empty", "flickr_en", "flickr_zh"])
def test_scores_equal_the_reference_scorers(corpus: str) -> None:
    pytest.importorskip("pycocoevalcap.cider")
    lang = "zh" if corpus.endswith("zh") else "en"
    if corpus.startswith("flickr"):
        if not (FLICKR / "dataset_flickr8k.json").is_file():
            pytest.skip("no Flickr8k on this machine")
        candidates, references = flickr(lang)
    else:
        candidates, references = make(CHINESE if lang == "zh" else ENGLISH)
    if corpus == "with_empty":
        candidates[3], candidates[50], candidates[51] = [], ["dog"], ["never-seen"] * 9
    assert len(candidates) == 200
    wanted = reference_scores(candidates, references)
    assert bleu(candidates, references) == pytest.approx(wanted["bleu"], abs=1e-6)
    assert rouge_l(candidates, references) == pytest.approx(wanted["rouge"], abs=1e-6)
    ours = Cider(references).score(range(len(candidates)), candidates)
    assert ours == pytest.approx(wanted["cider"], abs=1e-6)
    assert 0.1 < ours.mean() < 9.9  # there was something to disagree about
    assert len(set(ours.round(6))) > 100


def test_a_wordless_corpus_scores_nothing() -> None:
    _, references = make(ENGLISH, 5)
    empty: list[list[str]] = [[]] * 5
    assert bleu(empty, references) == pytest.approx([0, 0, 0, 0], abs=1e-12)
    assert rouge_l(empty, references) == 0
    assert Cider(references).score(range(5), empty).tolist() == [0] * 5
    assert rouge_l([["a"]], [[[]]]) == 0
    assert diversity(empty) == {"distinct": 1, "vocabulary": 0, "mean_length": 0}


def test_a_reward_is_the_score_whatever_words_are_and_however_they_come() -> None:
    """Ids, one picture many times, in any order, from one object: each candidate alone scores the same."""
    candidates, references = make(ENGLISH, 40)
    number = {word: i for i, word in enumerate([*ENGLISH, "<end>"])}

    def code(words: list[str]) -> list[int]:
        return [number[word] for word in words]

    reward = Cider([[code(words) for words in human] for human in references])
    pictures = np.repeat(np.random.default_rng(1).permutation(40)[:8], 6)
    said = [candidates[(picture + i % 6) % 40] for i, picture in enumerate(pictures)]
    got = reward.score(pictures, [code(words) for words in said])
    alone = [
        Cider([references[p]], documents=references).score([0], [words])[0]
        for p, words in zip(pictures, said, strict=True)
    ]
    assert got.shape == (48,)
    assert got == pytest.approx(np.array(alone), abs=1e-12)
    assert got.max() > got.min()
    assert reward.score(pictures, [code(words) for words in said]).tolist() == got.tolist()  # from what it kept


def test_document_frequency_may_come_from_elsewhere() -> None:
    candidates, references = make(ENGLISH, 60)
    whole = Cider(references).score(range(10), candidates[:10])
    part = Cider(references[:10], documents=references).score(range(10), candidates[:10])
    own = Cider(references[:10]).score(range(10), candidates[:10])
    assert part == pytest.approx(whole, abs=1e-12)
    assert not np.allclose(own, whole, atol=1e-2)
    spread = Cider([*references[:10], [], []]).score(range(10), candidates[:10])
    assert spread.tolist() == own.tolist()  # a picture without a sentence is no document
    assert Cider(references[:1]).score([0], references[0][:1]).tolist() == [0]  # one document: nothing is rare


def test_known_values() -> None:
    human = [["a", "b", "c", "d", "e"]]
    assert bleu([["a", "b", "c", "d", "e"]], [human]) == pytest.approx([1] * 4)
    assert bleu([["a", "a", "a", "x", "y"]], [human])[0] == pytest.approx(1 / 5)  # clipped
    assert bleu([["a", "b"]], [human])[1] == pytest.approx(np.exp(1 - 5 / 2))  # brevity
    assert rouge_l([["a", "x", "c"]], [human]) == pytest.approx(2.44 * (2 / 3) * 0.4 / (0.4 + 1.44 * 2 / 3))
    others = [[["p", "q", "r", "s", "t"]], human]
    assert Cider(others).score([1], human)[0] == pytest.approx(10)
    assert diversity([["a", "b"], ["a", "b"], ["c"]]) == {"distinct": 2, "vocabulary": 3, "mean_length": 5 / 3}


@pytest.mark.parametrize("score", [bleu, rouge_l, meteor])
def test_what_does_not_match_is_refused(score: Callable[[list[Words], list[list[Words]]], object]) -> None:
    cases: list[tuple[list[Words], list[list[Words]], str]] = [
        ([["a"]], [], "1 for 0 pictures"),
        ([], [], "0 for 0 pictures"),
        ([["a"]], [[]], "without a reference"),
    ]
    for candidates, references, why in cases:
        with pytest.raises(ValueError, match=why):
            score(candidates, references)
    with pytest.raises(ValueError, match="without a reference"):
        Cider([[["a"]], []]).score([1], [["a"]])
    with pytest.raises(ValueError, match="zip"):
        Cider([[["a"]]]).score([0, 0], [["a"]])
    with pytest.raises(ValueError, match="no caption"):
        diversity([])


JAVA = """#!{python}
import sys
told = 0
for line in sys.stdin:
    kind, *parts = line.strip().split(" ||| ")
    if kind == "SCORE":
        told += 1
        print(told, len(parts), len(parts[-1].split()), flush=True)
    elif parts == ["1 3 2", "2 2 1"]:  # what was said before: references and candidate, words of the candidate
        print("0.1", "0.2", "0.625", sep="\\n", flush=True)
    else:
        sys.exit("bad")
"""


def test_meteor_speaks_with_its_jar_and_never_waits_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pycocoevalcap.meteor")
    two: Corpus = [["a", "dog"], ["狗"]], [[["a", "dog"], ["dogs"]], [["一只", "狗"]]]
    program = tmp_path / "java"

    def put(text: str) -> None:
        program.write_text(text)
        program.chmod(0o755)

    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    put(JAVA.format(python=sys.executable))
    assert meteor(*two) == 0.625
    assert meteor(two[0][:1], two[1][:1]) is None  # it ends before its answer
    put("#!/bin/sh\nexit 1\n")
    assert meteor(*two) is None
    monkeypatch.setattr(captioning, "METEOR_SECONDS", 0.3)
    put("#!/bin/sh\nexec sleep 600\n")
    assert meteor(*two) is None
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert meteor(*two) is None
    monkeypatch.setattr(shutil, "which", lambda name: str(tmp_path / "gone"))
    monkeypatch.setattr(captioning, "find_spec", lambda name: None)
    assert meteor(*two) is None
