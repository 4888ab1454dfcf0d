"""Models of the hub against the plain forward pass of transformers, and through every command that takes one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from tiny_clips import BERT_WORDS, CLIP_WORDS, FAMILIES, GEMMA_WORDS, MEAN, SIDE, STD, make, write_json

from tuwen import pipelines
from tuwen.cli import run
from tuwen.errors import ModelError
from tuwen.images import View
from tuwen.pipelines.hub import HubEmbedder

SENTENCES = ["Red", "a red thing", "一只狗在草地上奔跑", "狗", ""]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For models this small, threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pictures(folder: Path, count: int = 5) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for n in range(count):
        pixels = np.random.default_rng(n).integers(0, 256, (6, 10, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 24)).save(folder / f"{n}.png")
        paths.append(folder / f"{n}.png")
    return paths


def unit(rows: Any) -> NDArray[np.float32]:
    array = rows.detach().numpy()
    result: NDArray[np.float32] = array / np.linalg.norm(array, axis=-1, keepdims=True)
    return result


def ids_by_hand(family: str, text: str) -> list[int]:
    """The token ids that the makers' code gives for a sentence, spelt out."""
    if family == "clip":  # bytes, the last of a word marked; `red` alone is a piece
        pieces: list[str] = []
        for word in text.lower().split():
            signs = [BYTE[value] for value in word.encode()]
            pieces += ["red</w>"] if word == "red" else [*signs[:-1], f"{signs[-1]}</w>"]
        return [CLIP_WORDS.index(word) for word in ("<|startoftext|>", *pieces, "<|endoftext|>")]
    if family == "siglip":  # lower case, the end word, and then its padding up to 64
        letters = [GEMMA_WORDS.index(sign) for sign in text.lower().replace(" ", "▁")]
        return [*letters, 1, *[0] * (63 - len(letters))]
    words = text.lower().split() if text.isascii() else list(text)
    return [BERT_WORDS.index(word) for word in ("[CLS]", *words, "[SEP]")]


def _bytes() -> dict[int, str]:
    """GPT-2's printable sign for each byte (Radford et al. 2019)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [value for value in range(256) if value not in plain]
    return {value: chr(value) for value in plain} | {value: chr(256 + n) for n, value in enumerate(rest)}


BYTE = _bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_the_plain_forward_pass(tmp_path: Path, family: str) -> None:
    model = make(family, tmp_path / "model")
    paths = pictures(tmp_path / "pictures")
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}", device="cpu")
    assert isinstance(pipeline, HubEmbedder)
    assert (pipeline.task, pipeline.size, pipeline.view, pipeline.threshold) == ("retrieval", SIDE, View(), {})
    assert pipeline.name == f"hf:{tmp_path / 'model'}"
    own = pipeline.embed_images(paths), pipeline.embed_texts(SENTENCES)

    looked = 0
    for row, path in enumerate(paths):
        small = Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        x = (np.asarray(small, np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        for column, text in enumerate(SENTENCES):
            ids = torch.tensor([ids_by_hand(family, text)])  # one sentence alone: nothing is padded but by its makers
            with torch.inference_mode():
                out = model(input_ids=ids, pixel_values=torch.from_numpy(x.transpose(2, 0, 1).copy())[None])
            np.testing.assert_allclose(own[0][row], unit(out.image_embeds)[0], atol=2e-5)
            np.testing.assert_allclose(own[1][column], unit(out.text_embeds)[0], atol=2e-5)
            looked += 1
    assert looked == 25
    assert own[0].dtype == own[1].dtype == np.float32
    assert own[0].shape == (5, pipeline.dim)
    for rows in own:  # random as it is, the model tells its inputs apart
        assert np.abs(rows @ rows.T - np.eye(5)).max() < 0.9999


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_equals_each_alone(tmp_path: Path, family: str) -> None:
    make(family, tmp_path / "model")
    pipeline = pipelines.load(f"hf:{tmp_path / 'model'}")
    paths = pictures(tmp_path / "pictures", 34)  # more than a batch, as the sentences are
    texts = [SENTENCES[n % 5] + "狗" * (n % 7) for n in range(135)]
    images, sentences = pipeline.embed_images(paths), pipeline.embed_texts(texts)
    assert (images.shape, sentences.shape) == ((34, pipeline.dim), (135, pipeline.dim))
    for row in range(0, 34, 11):
        np.testing.assert_allclose(images[row], pipeline.embed_images([paths[row]])[0], atol=1e-5)
        np.testing.assert_allclose(images[row], pipeline.embed_images([Image.open(paths[row])])[0], atol=1e-5)
    for row in range(0, 135, 16):
        np.testing.assert_allclose(sentences[row], pipeline.embed_texts([texts[row]])[0], atol=1e-5)
    assert pipeline.embed_texts([]).shape == pipeline.embed_images([]).shape == (0, pipeline.dim)
    assert np.isfinite(pipeline.embed_texts(["red " * 500])).all()  # cut to its length


def test_languages_and_unknown_words(tmp_path: Path) -> None:
    found = {}
    for family in FAMILIES:
        make(family, tmp_path / family)
        pipeline = pipelines.load(f"hf:{tmp_path / family}")
        found[family] = pipeline.languages, pipeline.unknown_words("a zebra 狗")
    assert found["clip"] == (["en"], ["狗"])  # its bytes spell any word, but Chinese it never learnt
    assert found["siglip"] == (["en", "zh"], [])
    assert found["chinese_clip"] == (["zh"], ["zebra"])


@pytest.mark.parametrize("family", FAMILIES)
def test_commands(
    tmp_path: Path, make_toy: Callable[..., Path], family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(family, tmp_path / "model")
    name, toy, db = f"hf:{tmp_path / 'model'}", make_toy(12, ("test",)), tmp_path / "db"
    assert run(["eval", name, "--data", str(toy), "--json", str(tmp_path / "eval.json")]) == 0
    score = json.loads((tmp_path / "eval.json").read_text())
    assert (score["n"], score["model"], sorted(score["per_language"])) == (12, name, ["en", "zh"])
    assert 0 < score["metrics"]["rsum"] <= 600
    pipeline = pipelines.load(name)
    assert score["protocol"]["weights_sha256"] == pipeline.about()["weights_sha256"]
    capsys.readouterr()

    def ask(*arguments: str) -> Any:
        assert run([*arguments, "--db", str(db), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert ask("index", str(toy), "--model", name)["added"] == 12
    assert ask("index", str(toy))["unchanged"] == 12
    files = sorted((toy / "images").iterdir())
    vectors = pipeline.embed_images(files)

    hits = ask("search", "红色的东西", "-k", "12")["hits"]
    expected = dict(zip(map(str, files), vectors @ pipeline.embed_texts(["红色的东西"])[0], strict=True))
    assert len(hits) == 12
    assert [hit["score"] for hit in hits] == pytest.approx([expected[hit["file"]] for hit in hits], abs=1e-4)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)

    hits = ask("search", "--image", str(files[3]), "-k", "2")["hits"]
    assert hits[0]["file"] == str(files[3])
    assert hits[0]["score"] == pytest.approx(1, abs=1e-4)

    hits = ask("search", "--image", str(files[3]), "--for", "captions", "-k", "5")["hits"]
    texts = [hit["text"] for hit in hits]
    assert len(set(texts)) == 5
    assert [hit["score"] for hit in hits] == pytest.approx(list(pipeline.embed_texts(texts) @ vectors[3]), abs=1e-4)


def test_shards_half_precision_and_fingerprints(tmp_path: Path) -> None:
    model = make("clip", tmp_path / "whole")
    whole = pipelines.load(f"hf:{tmp_path / 'whole'}")
    make("clip", tmp_path / "shards")
    (tmp_path / "shards" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    shards = pipelines.load(f"hf:{tmp_path / 'shards'}")
    assert isinstance(shards, HubEmbedder)
    assert len(shards.sha256) > 2
    np.testing.assert_array_equal(shards.embed_texts(SENTENCES), whole.embed_texts(SENTENCES))

    make("clip", tmp_path / "half")
    model.half().save_pretrained(tmp_path / "half")
    half = pipelines.load(f"hf:{tmp_path / 'half'}")
    np.testing.assert_allclose(half.embed_texts(SENTENCES), whole.embed_texts(SENTENCES), atol=5e-3)
    assert half.embed_texts(["red"]).dtype == np.float32

    make("clip", tmp_path / "other", seed=1)
    make("clip", tmp_path / "seen")
    sight = tmp_path / "seen" / "preprocessor_config.json"
    sight.write_text(sight.read_text().replace("0.3", "0.35"))
    others = [pipelines.load(f"hf:{tmp_path / name}").fingerprint for name in ("other", "seen", "half")]
    assert len({whole.fingerprint, *others}) == 4
    make("clip", tmp_path / "again")
    assert pipelines.load(f"hf:{tmp_path / 'again'}").fingerprint == whole.fingerprint


def test_without_the_makers_picture_file_the_family_s_norm(tmp_path: Path) -> None:
    means = {}
    for family in FAMILIES:
        make(family, tmp_path / family)
        (tmp_path / family / "preprocessor_config.json").unlink()
        pipeline = pipelines.load(f"hf:{tmp_path / family}", device="cpu")
        assert isinstance(pipeline, HubEmbedder)
        means[family] = [round(value / 255, 4) for value in pipeline._mean.flatten().tolist()]
    clip = [0.4815, 0.4578, 0.4082]
    assert means == {"clip": clip, "siglip": [0.5, 0.5, 0.5], "chinese_clip": clip}


# what is refused


def pickle_only(folder: Path) -> None:
    weights = transformers.CLIPModel.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def a_shard_is_missing(folder: Path) -> None:
    model = transformers.CLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    sorted(folder.glob("model-0*.safetensors"))[1].unlink()


def broken_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def weights_of_another(folder: Path) -> None:
    other = transformers.BertModel(transformers.BertConfig(**{**EYELESS, "vocab_size": 40}))
    other.save_pretrained(folder / "other")
    (folder / "other" / "model.safetensors").replace(folder / "model.safetensors")


def no_words(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink()


def text_alone(folder: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**{**EYELESS, "vocab_size": 40})).save_pretrained(folder)


def naflex(folder: Path) -> None:
    write_json(folder / "config.json", {"model_type": "siglip2"})


EYELESS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pickle": (pickle_only, "pytorch_model.bin: a pickle could run code"),
    "no weights": (no_weights, "no model.safetensors in"),
    "a missing shard": (a_shard_is_missing, "model-00002-of-"),
    "broken weights": (broken_weights, "cannot be loaded"),
    "another's weights": (weights_of_another, "its weights lack"),
    "no tokeniser": (no_words, "no tokeniser (tokenizer.json"),
    "text alone": (text_alone, "not a model of pictures and texts"),
    "NaFlex": (naflex, "pictures of any shape"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_refused_in_one_line(tmp_path: Path, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, told = REFUSED[why]
    make("clip", tmp_path / "model")
    (tmp_path / "pictures").mkdir()
    capsys.readouterr()
    spoil(tmp_path / "model")
    capsys.readouterr()
    arguments = ["index", str(tmp_path / "pictures"), "--db", str(tmp_path / "db"), "--model"]
    assert run([*arguments, f"hf:{tmp_path / 'model'}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert str(tmp_path / "model") in err
    assert not (tmp_path / "db").exists()


@pytest.mark.parametrize("name", ["hf:nobody/none", "hf:/no/such/folder", "hf:../none", "hf:best", "best"])
def test_what_is_not_here_is_never_fetched_unasked(name: str) -> None:
    with pytest.raises(ModelError) as told:  # the suite blocks sockets: a try to connect would raise otherwise
        pipelines.load(name)
    repo = "google/siglip2-base-patch16-224" if name.endswith("best") else name.removeprefix("hf:")
    assert repo in str(told.value)
    wanted = "there is no such folder" if "/no" in name and "nobody" not in name else f"`tuwen models get {repo}`"
    assert wanted in str(told.value)
    assert "\n" not in str(told.value)
