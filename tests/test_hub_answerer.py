"""ViLT and BLIP against the plain forward pass of transformers, and through `tuwen ask` and `tuwen eval`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clips import BERT_WORDS, MEAN, SIDE, STD
from tiny_hub_answerers import ANSWERS, KINDS, PATCH, make

from tuwen import dataset as datasets
from tuwen import pipelines
from tuwen.cli import run
from tuwen.errors import ModelError, PictureError
from tuwen.pipelines import HubAnswerer
from tuwen.records import Question

QUESTIONS = ["a thing", "red", "红色的东西在左边", "a red thing red"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For models this small, threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw(path: Path, seed: int, width: int = 48, height: int = SIDE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST).save(path)
    return path


def tokens(question: str) -> torch.Tensor:
    """As BERT spells it."""
    pieces = question.split() if question.isascii() else list(question)
    return torch.tensor([[BERT_WORDS.index(word) for word in ("[CLS]", *pieces, "[SEP]")]])


def pixels(path: Path, wide: int) -> torch.Tensor:
    """As its makers prepare it: (1, 3, SIDE, wide)."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((wide, SIDE), Image.Resampling.BICUBIC)
    x = (np.asarray(small, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return torch.from_numpy(x.transpose(2, 0, 1).copy())[None]


def test_vilt_is_the_plain_forward_pass(tmp_path: Path) -> None:
    model = make("vilt", tmp_path / "model")
    model.config.max_image_length = -1  # all patches: the plain pass would draw some of them at random
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}", device="cpu")
    assert isinstance(pipeline, HubAnswerer)
    paths = [draw(tmp_path / f"{seed}.png", seed) for seed in range(2)]
    asked = list(itertools.product(paths, QUESTIONS))
    answers = pipeline.answer([path for path, _ in asked], [question for _, question in asked], 4)
    compared = 0
    for (path, question), answer in zip(asked, answers, strict=True):
        given = {"input_ids": tokens(question), "pixel_values": pixels(path, 48)}
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        mask = torch.ones(1, SIDE, 48, dtype=torch.long)
        with torch.inference_mode():
            out = model(**given, pixel_mask=mask)
            *_, (_, (rows, columns)) = model.vilt.embeddings.visual_embed(given["pixel_values"], mask, -1)
        scores = [1 / (1 + np.exp(-float(value))) for value in out.logits[0]]
        order = sorted(range(len(ANSWERS)), key=lambda i: -scores[i])[:4]
        assert [one.text for one in answer.best] == [ANSWERS[i] for i in order]
        assert [one.score for one in answer.best] == pytest.approx([scores[i] for i in order], abs=1e-5)
        assert (answer.question, answer.file) == (question, str(path))
        assert answer.sure is bool(scores[order[0]] >= 0.5)
        assert (rows, columns) == (SIDE // PATCH, 48 // PATCH)
        assert answer.attention is not None
        assert answer.attention.grid == (rows, columns)
        assert answer.attention.weights.shape == (24,)
        assert answer.attention.weights.sum() == pytest.approx(1, abs=1e-5)
        compared += 1
    assert compared == 8
    assert len({answer.best[0].score for answer in answers}) == 8  # it tells pictures and questions apart


def test_vilt_s_attention_lies_where_the_patches_are(tmp_path: Path) -> None:
    """The model shuffles its patches: one that stands out must be found at its own place, whatever the shuffle."""
    model = make("vilt", tmp_path / "model")
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}", device="cpu")
    assert isinstance(pipeline, HubAnswerer)
    path = draw(tmp_path / "a.png", 0)
    given = {"input_ids": tokens("red"), "pixel_values": pixels(path, 48)}
    mask, found = torch.ones(1, SIDE, 48, dtype=torch.long), []
    for seed in (1, 2):
        with torch.inference_mode():
            torch.manual_seed(seed)
            embedded, _, (at, _) = model.vilt.embeddings.visual_embed(given["pixel_values"], mask, -1)
            cells = embedded.shape[1]
            out = model(
                input_ids=given["input_ids"],
                attention_mask=torch.ones_like(given["input_ids"]),
                image_embeds=embedded,
                pixel_mask=torch.ones(1, cells, dtype=torch.long),
                output_attentions=True,
            )
        own = out.attentions[-1][0, :, 0, 4:].mean(0)  # after three words and the picture's own token
        weights = torch.zeros(4, 6)
        weights[at[0, :, 0], at[0, :, 1]] = own / own.sum()
        found.append(weights.flatten().numpy())
        gaze = pipeline.answer([path], ["red"])[0].attention
        assert gaze is not None
        np.testing.assert_allclose(gaze.weights, found[-1], atol=1e-5)
    assert found[0].std() > 1e-4


def test_asking_leaves_the_global_draw_alone(tmp_path: Path) -> None:
    make("vilt", tmp_path / "model")
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}", device="cpu")
    assert isinstance(pipeline, HubAnswerer)
    path = draw(tmp_path / "a.png", 0)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    said = list(pipeline.answer_each([path, path], ["red", "a thing"]))
    assert len(said) == 2
    assert torch.equal(torch.rand(3), expected)
    stream = pipeline.answer_each([path, path], ["red", "a thing"])
    next(stream)
    assert not torch.is_inference_mode_enabled()  # between two answers the caller's torch is as it was


def test_blip_is_its_own_generate_and_the_score_a_probability(tmp_path: Path) -> None:
    model = make("blip", tmp_path / "model")
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}", device="cpu")
    assert isinstance(pipeline, HubAnswerer)
    path = draw(tmp_path / "a.png", 0)
    compared = told = 0
    for question in QUESTIONS:
        x, ids = pixels(path, SIDE), tokens(question)
        with torch.inference_mode():
            greedy = model.generate(ids, x, torch.ones_like(ids), max_new_tokens=10, do_sample=False, num_beams=1)
            wide = model.generate(
                ids, x, torch.ones_like(ids), max_new_tokens=10, do_sample=False, num_beams=3, num_return_sequences=3,
                length_penalty=0.0,
            )  # fmt: skip
            eyes = model.vision_model(pixel_values=x)[0]
            read = model.text_encoder(input_ids=ids, encoder_hidden_states=eyes)[0]
        one = pipeline.answer([path], [question], 1)[0].best
        three = pipeline.answer([path], [question], 3)[0]
        said = {}
        for row in (greedy[0], *wide):  # its probability, step by step, from a start word on
            kept = row.tolist()
            kept = kept[: kept.index(3, 1) + 1] if 3 in kept[1:] else kept
            total = 0.0
            for end in range(1, len(kept)):
                with torch.inference_mode():
                    out = model.text_decoder(
                        input_ids=torch.tensor([kept[:end]]), encoder_hidden_states=read, is_decoder=True
                    )
                total += float(out.logits[0, -1].log_softmax(0)[kept[end]])
            said[pipeline.tokenizer.decode(kept)] = np.exp(total)
        texts = list(said)
        assert (one[0].text, one[0].score) == (texts[0], pytest.approx(said[texts[0]], rel=1e-3))
        assert {answer.text for answer in three.best} <= set(texts)
        for answer in three.best:
            assert answer.score == pytest.approx(said[answer.text], rel=1e-3)
            told += 1
        scores = [answer.score for answer in three.best]
        assert scores == sorted(scores, reverse=True)
        assert three.attention is None
        compared += 1
    assert compared == 4
    assert told > 6


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_is_answered_as_alone(tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "model")
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}", device="cpu")
    assert isinstance(pipeline, HubAnswerer)
    assert (pipeline.task, pipeline.size, pipeline.languages) == ("vqa", SIDE, ["en", "zh"])
    paths = [draw(tmp_path / f"{n}.png", n, 48 + 16 * n) for n in range(3)]
    asked = [(paths[n % 3], QUESTIONS[n % 4]) for n in range(12)]
    together = pipeline.answer([path for path, _ in asked], [question for _, question in asked])
    for (path, question), answer in zip(asked, together, strict=True):
        alone = pipeline.answer([Image.open(path)], [question])[0]
        assert [one.text for one in answer.best] == [one.text for one in alone.best]
        assert [one.score for one in answer.best] == pytest.approx([one.score for one in alone.best], abs=1e-5)
    assert len(together) == 12
    assert pipeline.answer([], []) == []
    strange = pipeline.answer([paths[0]], ["zebra"])[0]
    assert strange.best
    assert not strange.sure  # whatever its score, it knows no word of it
    assert pipeline.unknown_words("a zebra") == ["zebra"]
    assert pipeline.answer([paths[0]], ["red " * 200])[0].best  # cut to its length


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_that_cannot_be_read(tmp_path: Path, kind: str) -> None:
    make(kind, tmp_path / "model")
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}")
    assert isinstance(pipeline, HubAnswerer)
    good, bad = draw(tmp_path / "a.png", 0), tmp_path / "bad.png"
    bad.write_bytes(b"no")
    failed: list[dict[str, str]] = []
    found = dict(pipeline.answer_each([bad, good, bad], ["red", "red", "a"], failed=failed))
    assert (sorted(found), len(failed), failed[0]["file"]) == ([1], 1, str(bad))
    with pytest.raises(PictureError, match=r"bad.png: not a picture"):
        pipeline.answer([bad], ["red"])
    with pytest.raises(ModelError, match="1 pictures and 2 questions"):
        pipeline.answer([good], ["red", "a"])


@pytest.mark.parametrize("kind", KINDS)
def test_commands(tmp_path: Path, make_toy: Callable[..., Path], kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    make(kind, tmp_path / "model")
    name, toy = f"hf:{tmp_path / 'model'}", make_toy(4, ("test",))
    files = sorted((toy / "images").iterdir())
    assert run(["ask", str(files[0]), str(files[1]), "a thing", "--model", name, "--json"]) == 0
    body: Any = json.loads(capsys.readouterr().out)
    assert [answer["file"] for answer in body["answers"]] == [str(files[0]), str(files[1])]
    assert body["model"] == name
    pipeline = pipelines.as_answerer(pipelines.load(name))
    expected = pipeline.answer(files[:2], ["a thing"] * 2)
    for answer, own in zip(body["answers"], expected, strict=True):
        assert [one["text"] for one in answer["best"]] == [one.text for one in own.best]
        grid = None if own.attention is None else own.attention.grid
        assert (answer["attention"] and (answer["attention"]["rows"], answer["attention"]["columns"])) == grid
    assert run(["ask", str(files[0]), "a thing", "--model", name]) == 0
    assert "%" in capsys.readouterr().out

    data = datasets.read(toy)
    for picture in data.pictures:
        picture.qa = [Question(question="a thing", answers=["yes", "yes", "no"])]
    datasets.save(data)
    assert run(["eval", name, "--data", str(toy), "--json", str(tmp_path / "eval.json")]) == 0
    score = json.loads((tmp_path / "eval.json").read_text())
    assert (score["task"], score["n"], score["model"]) == ("vqa", 4, name)
    assert score["protocol"]["weights_sha256"] == pipeline.about()["weights_sha256"]


def test_what_is_refused(tmp_path: Path) -> None:
    refused = 0
    for kind, file, why in (
        ("vilt", "preprocessor_config.json", "no preprocessor_config.json, which says how it sees"),
        ("blip", "vocab.txt", "no tokeniser"),
        ("vilt", "model.safetensors", "no model.safetensors"),
    ):
        folder = tmp_path / f"{kind}-{file}"
        make(kind, folder)
        (folder / file).unlink()
        for extra in folder.glob("tokenizer*.json") if file == "vocab.txt" else ():
            extra.unlink()
        with pytest.raises(ModelError, match=why):
            pipelines.load(f"hf:{folder}")
        refused += 1
    assert refused == 3
