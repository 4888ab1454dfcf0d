"""Captioners against the plain way through each part: loader, tower, model, decoding, and transformers' generate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_captioners import SIZE, TEXTS, draw_pictures, lite, make_blip, make_run
from tiny_clips import BERT_WORDS, MEAN, SIDE, STD
from tiny_clips import make as make_clip

import tuwen
from tuwen import cli, decode, images, pipelines
from tuwen.errors import ModelError, PictureError
from tuwen.pipelines import hub_captioner
from tuwen.pipelines.describer import distinct, group_words, sentence
from tuwen.pipelines.hub_captioner import HubCaptioner, is_captioner
from tuwen.text import SubwordTokenizer, WordTokenizer
from tuwen.towers import build_tower


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For models this small, threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Captions of the hub's models stop early, and METEOR starts no Java."""
    monkeypatch.setattr(hub_captioner, "LIMIT", 6)
    monkeypatch.setattr("tuwen.metrics.captioning.meteor", lambda candidates, references: None)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, list[Path]]:
    """A run's folder, its module, and five pictures."""
    folder = tmp_path_factory.mktemp("world")
    return folder / "run", make_run(folder / "run"), draw_pictures(folder / "pictures", 5)


@pytest.fixture
def captioner(world: tuple[Path, Any, list[Path]]) -> pipelines.Captioner:
    pipeline = tuwen.load(str(world[0]), device="cpu")
    assert isinstance(pipeline, pipelines.Captioner)
    return pipeline


def test_captions_are_those_of_the_plain_way(
    world: tuple[Path, Any, list[Path]], captioner: pipelines.Captioner
) -> None:
    _, model, paths = world
    assert (captioner.task, captioner.name, captioner.languages) == ("captioning", "run", ["en", "zh"])
    tokenizer = WordTokenizer.train(TEXTS)
    pixels = torch.from_numpy(np.stack([images.load(path, SIZE) for path in paths]))
    looked, best = 0, set()
    with torch.no_grad():
        regions = build_tower("lite0", size=SIZE)(pixels)
        assert regions.shape == (5, 9, lite()[1])
        for lang in ("en", "zh"):
            stepper = model.stepper(regions, captioner.languages.index(lang))
            plain = decode.beam(stepper, tokenizer.eos_id, 8, width=3, length_penalty=1.0)
            told = captioner.caption(paths, lang)
            assert [one.file for one in told] == [str(path) for path in paths]
            assert {one.lang for one in told} == {lang}
            for row, one in enumerate(told):
                assert len(one.texts) == 3
                for place, text in enumerate(one.texts):
                    size = int(plain.lengths[row, place])
                    assert text.text == tokenizer.decode(plain.ids[row, place, :size].tolist())
                    assert text.score == pytest.approx(float(plain.scores[row, place]), abs=1e-3)
                    whole = sum(score for _, score in text.words)
                    assert whole == pytest.approx(float(plain.words[row, place].sum()), abs=5e-3)
                    looked += 1
                best.add(one.texts[0].text)
    assert looked == 30
    assert len(best) > 4  # random as it is, the model tells pictures and languages apart


def test_a_batch_equals_each_alone(world: tuple[Path, Any, list[Path]], captioner: pipelines.Captioner) -> None:
    paths = world[2]
    together = captioner.caption(paths, beams=2, batch=2)
    assert len(together) == 5
    for path, one in zip(paths, together, strict=True):
        for alone in (captioner.caption([path], beams=2), captioner.caption([Image.open(path)], beams=2)):
            assert [text.text for text in alone[0].texts] == [text.text for text in one.texts]
            assert alone[0].file == one.file
    assert captioner.caption([Image.new("RGB", (9, 9))])[0].file == ""
    assert captioner.caption([]) == []


def test_samples_come_from_the_seed(world: tuple[Path, Any, list[Path]], captioner: pipelines.Captioner) -> None:
    first, again, other = (captioner.caption(world[2], samples=6, seed=seed, batch=2) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    for one in first:
        assert 1 < len(one.texts) <= 6
        assert len({text.text for text in one.texts}) == len(one.texts)
        scores = [text.score for text in one.texts]
        assert scores == sorted(scores, reverse=True)


def test_pictures_come_as_they_are_done_and_broken_ones_are_noted(
    world: tuple[Path, Any, list[Path]], captioner: pipelines.Captioner, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no")
    paths = [*world[2][:3], broken, world[2][3], tmp_path / "none.png"]
    stream = captioner.describe(paths, batch=2)
    assert [next(stream).file for _ in range(2)] == [str(path) for path in paths[:2]]
    with pytest.raises(PictureError, match=r"broken\.png: not a picture"):
        list(stream)
    failed: list[dict[str, str]] = []
    told = captioner.caption(paths, failed=failed, batch=2)
    assert [one.file for one in told] == [str(path) for path in [*world[2][:3], world[2][3]]]
    assert [failure["file"] for failure in failed] == [str(broken), str(tmp_path / "none.png")]
    assert failed[1]["why"] == "there is no such file"


def test_attention_is_the_model_s_word_by_word(
    world: tuple[Path, Any, list[Path]], captioner: pipelines.Captioner
) -> None:
    words, maps = captioner.attention(world[2][0], "a man's dog runs")
    assert words == ["a", "man's", "dog", "runs"]
    assert maps.shape == (4, 3, 3)
    np.testing.assert_allclose(maps.sum((1, 2)), 1, atol=1e-5)
    ids, _ = WordTokenizer.train(TEXTS).encode(["a man's dog runs"])
    with torch.no_grad():
        regions = build_tower("lite0", size=SIZE)(torch.from_numpy(images.load(world[2][0], SIZE))[None])
        plain = world[1].attend(regions, torch.from_numpy(ids), 0)[0].numpy()
    assert len(plain) == 5  # "man" and "'s" are two ids, and one word
    np.testing.assert_allclose(maps[[0, 2, 3]].reshape(3, 9), plain[[0, 3, 4]], atol=1e-3)
    np.testing.assert_allclose(maps[1].ravel(), plain[1:3].mean(0), atol=1e-3)
    chinese, other = captioner.attention(world[2][0], "一只黑狗奔跑", "zh")
    assert "".join(chinese) == "一只黑狗奔跑"
    assert np.abs(other[0] - maps[0]).max() > 1e-4


def test_words_hold_all_their_pieces() -> None:
    texts = ["a man's dog runs", "red-blue cats, 3 of them", "一只狗在跑", "a 狗 is cute", "鿁 rare"]
    looked = 0
    for tokenizer in (WordTokenizer.train(texts), SubwordTokenizer.train(texts * 2, size=600)):
        for text in texts:
            ids = tokenizer.encode([text])[0][0].tolist()
            words = group_words(tokenizer.decode, ids)
            spelt = tokenizer.decode(ids)
            assert "".join(word for word, _ in words) == spelt.replace(" ", "")
            assert [place for _, places in words for place in places] == list(range(len(ids)))
            told = sentence(tokenizer.decode, ids, -1, [-0.5] * len(ids))
            assert (told.text, told.score) == (spelt, -1)
            assert sum(score for _, score in told.words) == pytest.approx(-0.5 * len(ids))
            looked += 1
        assert [word for word, _ in group_words(tokenizer.decode, tokenizer.encode([texts[0]])[0][0].tolist())] == [
            *("a", "man's", "dog", "runs")
        ]
    assert looked == 10
    assert group_words(tokenizer.decode, []) == []
    assert [one.text for one in distinct([sentence(str, [], s, []) for s in (-2.0, -1.0)])] == ["[]"]


def test_what_cannot_be_asked(world: tuple[Path, Any, list[Path]], captioner: pipelines.Captioner) -> None:
    for told, ask in {
        "run describes pictures in en and zh, not in 'fr': ask for en or zh": {"lang": "fr"},
        "beams is 0: give at least 1": {"beams": 0},
        "samples is -1: give at least 0": {"samples": -1},
        "batch is 0": {"batch": 0},
    }.items():
        options: Any = ask
        with pytest.raises(ModelError, match=told):
            captioner.describe(world[2], **options)  # at once, not when the first picture is asked for
    with pytest.raises(ModelError, match=r"write \[path\]"):
        captioner.caption(str(world[2][0]))


def test_show_and_tell_and_feature_matrices(tmp_path: Path, world: tuple[Path, Any, list[Path]]) -> None:
    model = make_run(tmp_path / "st", "show-tell")
    pipeline = tuwen.load(str(tmp_path / "st"), device="cpu")
    assert isinstance(pipeline, pipelines.Captioner)
    told = pipeline.caption(world[2], beams=1)
    pixels = torch.from_numpy(np.stack([images.load(path, SIZE) for path in world[2]]))
    with torch.no_grad():
        features = build_tower("lite0", size=SIZE).pooled(pixels)
        plain = decode.greedy(model.stepper(features[:, None]), 3, 8)
    texts = [pipeline.tokenizer.decode(ids[:n]) for [ids], [n] in zip(plain.ids, plain.lengths, strict=True)]
    assert [one.texts[0].text for one in told] == texts
    with pytest.raises(ModelError, match="it has no attention to show"):
        pipeline.attention(world[2][0], "a dog")

    make_run(tmp_path / "matrix", "show-tell", precomputed=True)
    matrix = tuwen.load(str(tmp_path / "matrix"), device="cpu")
    assert isinstance(matrix, pipelines.Captioner)
    from_rows = list(matrix.describe_features(features.numpy(), beams=1, batch=2))
    assert [(one.file, one.texts[0].text) for one in from_rows] == [(str(n), text) for n, text in enumerate(texts)]
    with pytest.raises(ModelError, match="use describe_features"):
        matrix.caption(world[2])
    with pytest.raises(ModelError, match="can't look at pictures"):
        matrix.attention(world[2][0], "a dog")


def test_each_name_gives_its_own_kind_of_pipeline(tmp_path: Path, world: tuple[Path, Any, list[Path]]) -> None:
    captioner, finder = tuwen.load(str(world[0])), tuwen.load("retrieval")
    assert pipelines.as_describer(captioner) is captioner
    assert pipelines.as_embedder(finder) is finder
    with pytest.raises(ModelError, match="retrieval: a retrieval model, but captioning is needed here"):
        pipelines.as_describer(finder)
    with pytest.raises(ModelError, match="run: a captioning model, but retrieval is needed here"):
        pipelines.as_embedder(captioner)
    make_run(tmp_path / "new")
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    (tmp_path / "new" / "config.json").write_text(json.dumps({**config, "task": "drawing"}))
    with pytest.raises(ModelError, match="a drawing model: this version knows retrieval, captioning"):
        tuwen.load(str(tmp_path / "new"))
    (tmp_path / "new" / "model.safetensors").unlink()
    (tmp_path / "new" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        tuwen.load(str(tmp_path / "new"))
    make_run(tmp_path / "other", seed=5)
    prints = {tuwen.load(str(folder)).fingerprint for folder in (world[0], world[0], tmp_path / "other")}
    assert len(prints) == 2


# captioners of the hub


def test_a_hub_captioner_says_what_generate_says(tmp_path: Path) -> None:
    model, paths = make_blip(tmp_path / "blip"), draw_pictures(tmp_path / "pictures", 5)
    name = f"hf:{tmp_path / 'blip'}"
    pipeline = tuwen.load(name, device="cpu")
    assert isinstance(pipeline, HubCaptioner)
    assert (pipeline.name, pipeline.size, pipeline.languages) == (name, SIDE, ["zh"])
    told, best = pipeline.caption(paths, "zh", batch=2), set()
    assert [one.file for one in told] == [str(path) for path in paths]
    for path, one in zip(paths, told, strict=True):
        small = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        x = (np.asarray(small, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        pixels = torch.from_numpy(x.transpose(2, 0, 1).copy())[None]
        out = model.generate(
            pixels, num_beams=3, num_return_sequences=3, max_new_tokens=6, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        for row, text in enumerate(one.texts):
            words = [BERT_WORDS[i] for i in out.sequences[row].tolist() if i > 3 or i == 1]
            assert text.text.replace(" ", "") == "".join(words)
            assert "狗 狗" not in text.text
            assert text.score == pytest.approx(float(out.sequences_scores[row]), abs=1e-4)
            assert len(text.words) <= len(words)
        best.add(one.texts[0].text)
    assert len(best) > 1
    assert len(told[0].texts) == 3


def test_a_hub_captioner_s_words_samples_and_limits(tmp_path: Path) -> None:
    make_blip(tmp_path / "blip")
    paths = draw_pictures(tmp_path / "pictures", 3)
    pipeline = pipelines.as_describer(tuwen.load(f"hf:{tmp_path / 'blip'}", device="cpu"))
    for one in pipeline.caption(paths, "zh", beams=1):
        [text] = one.texts
        scores = [score for _, score in text.words]
        assert max(scores) < 0
        assert text.score * (len(scores) + 1) <= sum(scores) + 1e-3  # the end word counts too
    first, again, other = (pipeline.caption(paths, "zh", samples=4, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert all(1 < len(one.texts) <= 4 for one in first)
    with pytest.raises(ModelError, match="describes pictures in zh, not in 'en'"):
        pipeline.caption(paths, "en")
    with pytest.raises(ModelError, match="attention is drawn of tuwen's own models"):
        pipeline.attention(paths[0], "狗", "zh")
    assert len(pipeline.about()["weights_sha256"]) == 64


def test_commands_take_a_hub_captioner(
    tmp_path: Path, make_toy: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    make_blip(tmp_path / "blip")
    name, toy = f"hf:{tmp_path / 'blip'}", make_toy(6, ("test",))
    capsys.readouterr()
    assert cli.run(["caption", str(toy / "images"), "--model", name, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [row["lang"] for row in answer["captions"]] == ["zh"] * 6  # the only one it speaks
    assert answer["model"] == name
    assert cli.run(["eval", name, "--data", str(toy), "--json", str(tmp_path / "eval.json")]) == 0
    score = json.loads((tmp_path / "eval.json").read_text())
    assert (score["task"], score["n"], list(score["per_language"])) == ("captioning", 6, ["zh"])
    assert 0 <= score["metrics"]["cider"] <= 1000
    capsys.readouterr()
    assert cli.run(["index", str(toy), "--model", name, "--db", str(tmp_path / "db")]) == 1
    err = capsys.readouterr().err.splitlines()
    assert err == [
        f"error: {name}: a captioning model, but retrieval is needed here: name another with --model, "
        "as retrieval, a run's folder or hf:REPO"
    ]


def test_which_hub_models_describe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_blip(tmp_path / "blip")
    make_clip("clip", tmp_path / "clip")
    assert is_captioner(str(tmp_path / "blip"))
    assert not is_captioner(str(tmp_path / "clip"))
    assert isinstance(pipelines.load(f"hf:{tmp_path / 'clip'}"), pipelines.HubEmbedder)

    def ask(*_: Any, **__: Any) -> None:
        raise ValueError("You must specify input_ids")

    with monkeypatch.context() as patch:
        patch.setattr(HubCaptioner, "_run", ask)
        with pytest.raises(ModelError, match=r"a blip that writes nothing from a picture alone, as BLIP and GIT do"):
            pipelines.load(f"hf:{tmp_path / 'blip'}")
    (tmp_path / "blip" / "vocab.txt").unlink()
    (tmp_path / "blip" / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"no tokeniser"):
        pipelines.load(f"hf:{tmp_path / 'blip'}")
    weights = tmp_path / "blip" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: a pickle could run code"):
        pipelines.load(f"hf:{tmp_path / 'blip'}")
