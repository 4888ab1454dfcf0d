"""Scores of captioning models: of what they say, against what people said, with all that a number needs beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tuwen import cli, evaluate, gallery, pipelines
from tuwen import dataset as datasets
from tuwen.dataset import Dataset
from tuwen.errors import DataError, ModelError
from tuwen.images import View
from tuwen.metrics.captioning import Cider, bleu, rouge_l
from tuwen.pipelines import Attention, Described, Sentence
from tuwen.pipelines.describer import check_request
from tuwen.pipelines.pictures import Failed, Source
from tuwen.records import Caption
from tuwen.text import split_words

Make = Callable[..., Path]


class FakeDescriber:
    """Says what `captions` holds for a file's name and a language; notes the files and the beams of each call."""

    task, name, fingerprint, size, view = "captioning", "fake", "f00d", 8, View()

    def __init__(self, captions: dict[tuple[str, str], list[str]], languages: Sequence[str] = ("en", "zh")) -> None:
        self.captions, self.languages = captions, list(languages)
        self.calls: list[tuple[str, int | None, int]] = []

    def describe(
        self,
        pictures: Iterable[Source],
        lang: str = "en",
        *,
        beams: int | None = None,
        samples: int = 0,
        seed: int = 0,
        batch: int = 64,
        failed: Failed | None = None,
    ) -> Iterator[Described]:
        check_request(self.name, self.languages, lang, beams, samples, batch)
        paths = [Path(str(picture)) for picture in pictures]
        self.calls.append((lang, beams, len(paths)))
        for path in paths:
            assert path.is_file()
            said = self.captions.get((path.name, lang), [])
            yield Described(str(path), lang, [Sentence(text, -float(n), []) for n, text in enumerate(said)])

    def caption(self, pictures: Iterable[Source], lang: str = "en", **others: Any) -> list[Described]:
        return list(self.describe(pictures, lang, **others))

    def attention(self, picture: Source, text: str, lang: str = "en") -> Attention:
        raise ModelError(f"{self.name} has none")

    def about(self) -> dict[str, Any]:
        return {"tower": "none", "seed": 7, "decoding": {"beams": 3, "length_penalty": 0.7}}


@pytest.fixture(autouse=True)
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuwen.metrics.captioning.meteor", lambda candidates, references: None)


@pytest.fixture
def world(make_toy: Make) -> Dataset:
    """Twelve pictures to test with two captions a language; one has no Chinese, one a machine's caption besides."""
    folder = make_toy(24, splits=("train", "test"))
    dataset = datasets.load(folder)
    test = [picture for picture in dataset.pictures if picture.split == "test"]
    test[0].captions = test[0].human("en")
    test[1].captions.append(Caption(text="a machine said this", source="model:other"))
    test[2].captions.append(Caption(text=" . ", lang="en"))
    datasets.save(replace(dataset), folder)
    return datasets.load(folder)


def shift(dataset: Dataset) -> dict[tuple[str, str], list[str]]:
    """For each test picture the first caption of its neighbour, then a worse one that must not be scored."""
    part = dataset.select("test").pictures
    return {
        (Path(picture.file_name).name, lang): [human[0].text, "worse"]
        for picture, other in zip(part, [*part[1:], part[0]], strict=True)
        for lang in ("en", "zh")
        if (human := other.human(lang) or picture.human(lang))
    }


def test_scores_are_those_of_what_it_says(world: Dataset) -> None:
    captions = shift(world)
    fake = FakeDescriber(captions)
    result = evaluate.score(fake, world, "test")
    assert {"task", "model", "data", "split", "n", "metrics", "per_language", "protocol"} <= result.keys()
    assert (result["task"], result["model"], result["split"], result["n"]) == ("captioning", "fake", "test", 12)
    assert result["machine_text"] == 1
    assert fake.calls == [("en", None, 12), ("zh", None, 11)]  # every picture that people described, once a language
    part = world.select("test").pictures
    for lang, count in (("en", 12), ("zh", 11)):
        own = [picture for picture in part if picture.human(lang)]
        said = [split_words(captions[Path(picture.file_name).name, lang][0]) for picture in own]
        human = [[words for c in picture.human(lang) if (words := split_words(c.text))] for picture in own]
        got = result["per_language"][lang]
        assert len(said) == count
        assert [got[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx([100 * b for b in bleu(said, human)])
        assert got["rouge_l"] == pytest.approx(100 * rouge_l(said, human))
        assert got["cider"] == pytest.approx(100 * Cider(human).score(range(count), said).mean())
        assert got["distinct"] == len({tuple(words) for words in said}) > 3
        assert got["meteor"] is None
        low, high = result["intervals"][lang]["cider"]
        assert low < got["cider"] < high
    both = result["per_language"].values()
    for key in ("bleu4", "cider", "distinct", "mean_length"):
        assert result["metrics"][key] == pytest.approx(sum(one[key] for one in both) / 2)
    low, high = result["intervals"]["all"]["cider"]
    assert low < result["metrics"]["cider"] < high
    assert result["metrics"]["meteor"] is None


def test_the_protocol_says_how(world: Dataset) -> None:
    fake = FakeDescriber(shift(world))
    protocol = evaluate.score(fake, world, "test", beams=5)["protocol"]
    assert {beams for _, beams, _ in fake.calls} == {5}
    assert protocol["beams"] == 5
    assert protocol["length_penalty"] == 0.7
    assert protocol["pictures"] == {"en": 12, "zh": 11}
    assert protocol["references"] == {"en": 2.0, "zh": 2.0}
    assert protocol["captions"] == 46  # neither the machine's nor the one without a word
    assert "jieba 0." in protocol["text"]["jieba"]
    assert protocol["meteor"].startswith("not run")
    assert protocol["seed"] == 7
    assert evaluate.score(fake, world, "test", "zh")["protocol"]["beams"] == 3
    json.dumps(protocol)


def test_a_perfect_and_a_silent_model(world: Dataset) -> None:
    part = world.select("test").pictures
    own = {
        (Path(p.file_name).name, lang): [p.human(lang)[0].text] for p in part for lang in ("en", "zh") if p.human(lang)
    }
    perfect = evaluate.score(FakeDescriber(own), world, "test", "en")["metrics"]
    assert [perfect[f"bleu{n}"] for n in (1, 2, 3, 4)] == pytest.approx([100] * 4, abs=1e-4)
    assert perfect["rouge_l"] == pytest.approx(100)
    silent = evaluate.score(FakeDescriber({}), world, "test")["metrics"]
    assert silent["cider"] == silent["rouge_l"] == silent["vocabulary"] == 0
    assert silent["distinct"] == 1


def test_languages_it_does_not_speak_are_left_out(world: Dataset) -> None:
    fake = FakeDescriber(shift(world), ["zh"])
    assert set(evaluate.score(fake, world, "test")["per_language"]) == {"zh"}
    with pytest.raises(ModelError, match="not in 'en'"):
        evaluate.score(fake, world, "test", "en")
    english = replace(world, pictures=[world.select("test").pictures[0]], rows=[0])
    with pytest.raises(DataError, match="no human caption in zh, which fake speaks"):
        evaluate.score(fake, english, "test")
    with pytest.raises(DataError, match="no human caption in zh"):
        evaluate.score(fake, english, "test", "zh")


def test_options_of_another_task_are_refused(world: Dataset) -> None:
    with pytest.raises(DataError, match="--folds is for retrieval, and this is a captioning model"):
        evaluate.score(FakeDescriber({}), world, "test", folds=5)
    assert set(evaluate.SCORERS) == set(evaluate.SHOWN)


def test_eval_prints_a_table_and_a_page(
    world: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeDescriber(shift(world) | {("1.png", "en"): ["<b>bold & wrong</b>"]})
    monkeypatch.setattr(pipelines, "load", lambda name, device=None: fake)
    scores, out = tmp_path / "s.json", tmp_path / "page"
    command = ["eval", "fake", "--data", str(world.folder), "--json", str(scores)]
    assert cli.run([*command, "--visualise", "3", "--out", str(out), "--beams", "2"]) == 0
    printed = capsys.readouterr()
    assert "1 captions written by a tool" in printed.err
    lines = {
        words[0]: words[1:] for line in printed.out.splitlines() if len(words := line.replace("│", " ").split()) > 1
    }
    result = json.loads(scores.read_text(encoding="utf-8"))
    for key in evaluate.SHOWN["captioning"]:
        assert len(lines[key]) >= 3, key  # en, zh, all
    assert lines["meteor"] == ["-", "-", "-"]
    assert lines["cider"][0] == f"{result['per_language']['en']['cider']:.1f}"
    assert lines["distinct"][0] == f"{result['per_language']['en']['distinct']:.0f}"
    assert fake.calls == [("en", 2, 12), ("zh", 2, 11), ("en", 2, 3), ("zh", 2, 3)]
    html = (out / gallery.NAME).read_text(encoding="utf-8")
    assert html.count('<article class="card like">') == 3
    assert html.count("data:image/jpeg") == 3
    assert "&lt;b&gt;bold &amp; wrong&lt;/b&gt;" in html
    assert "worse" not in html
    first = world.select("test").pictures[1]
    assert all(caption.text in html for caption in first.human())
    assert "machine said" not in html


def test_eval_refuses_half_a_request(
    world: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeDescriber({})
    monkeypatch.setattr(pipelines, "load", lambda name, device=None: fake)
    command = ["eval", "fake", "--data", str(world.folder)]
    assert cli.run([*command, "--visualise", "3"]) == 2
    assert cli.run([*command, "--out", str(tmp_path / "page")]) == 2
    capsys.readouterr()
    fake.task = "retrieval"
    assert cli.run([*command, "--visualise", "3", "--out", str(tmp_path / "page")]) == 1
    assert "--visualise is for models that describe, answer or draw" in capsys.readouterr().err
    assert fake.calls == []
    assert not (tmp_path / "page").exists()
