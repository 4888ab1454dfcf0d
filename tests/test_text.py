"""Tokenisers: words, subwords and the hub's behind one interface."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuwen.errors import ConfigError, DataError, ModelError
from tuwen.text import (
    HubTokenizer,
    SubwordTokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
    normalise,
    protocol,
    set_dictionary,
    split_words,
)

TEXTS = [
    "A brown dog runs over the grass.",
    "Two dogs run; a man's dog swims.",
    "一只狗在草地上奔跑。",
    "一只棕色的狗在水里游泳。",
    "A man in a T-shirt throws a ball.",
    "穿着T恤的男人扔球。",
] * 3


@pytest.fixture(scope="module")
def word() -> WordTokenizer:
    return WordTokenizer.train(TEXTS)


@pytest.fixture(scope="module")
def subword() -> SubwordTokenizer:
    return SubwordTokenizer.train(TEXTS, size=700)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)


def test_import_is_light() -> None:
    heavy = ("torch", "transformers", "jieba", "tokenizers")
    done = run_python(f"import sys, tuwen.text\nprint([m for m in {heavy} if m in sys.modules])")
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_jieba_is_quiet_and_keeps_its_cache_to_itself(tmp_path: Path) -> None:
    code = f"import os\nos.environ['TUWEN_CACHE'] = {str(tmp_path)!r}\nfrom tuwen.text import split_words\n"
    done = run_python(code + "print(split_words('一只狗在游泳'))")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "'一只', '狗'" in done.stdout
    assert [p.name for p in tmp_path.glob("jieba-*/*")] == ["jieba.cache"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's dog, isn't IT?", ["a", "man", "'s", "dog", "isn", "'t", "it"]),
        ("a man ’s well-known café", ["a", "man", "'s", "well-known", "café"]),
        ("一只狗在草地上奔跑。", ["一只", "狗", "在", "草地", "上", "奔跑"]),
        ("a dog 一只狗 runs", ["a", "dog", "一只", "狗", "runs"]),
        ("穿着Ｔ恤在swimming", ["穿着", "t恤", "在", "swimming"]),
        ("3 dogs, 12:30", ["3", "dogs", "12", "30"]),
        ("", []),
        (" .,!? 。", []),
    ],
)
def test_split_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_english_only_leaves_chinese_uncut() -> None:
    assert split_words("dog 一只狗", lang="en") == ["dog", "一只狗"]


def test_word_order_is_stable(word: WordTokenizer) -> None:
    again = WordTokenizer.train(reversed(TEXTS))
    assert again.words == word.words
    assert word.words[:6] == ["<pad>", "<unk>", "<bos>", "<eos>", "a", "dog"]  # 15 times, then 6
    assert (word.pad_id, word.unk_id, word.bos_id, word.eos_id) == (0, 1, 2, 3)


def test_minimum_count_and_maximum_size() -> None:
    texts = ["a a a b b c", "狗"]
    assert WordTokenizer.train(texts).words[4:] == ["a", "b", "c", "狗"]
    assert WordTokenizer.train(texts, min_count=2).words[4:] == ["a", "b"]
    assert WordTokenizer.train(texts, max_size=1).words[4:] == ["a"]
    assert WordTokenizer.train(texts, min_count=2).size == 6


def test_word_encode_pads_frames_and_cuts(word: WordTokenizer) -> None:
    ids, lengths = word.encode(["a dog", "", "a zebra swims 一只狗"], bos=True, eos=True)
    assert ids.dtype == lengths.dtype == np.int64
    assert lengths.tolist() == [4, 3, 7]
    a, dog = word.words.index("a"), word.words.index("dog")
    assert ids[0].tolist() == [2, a, dog, 3, 0, 0, 0]
    assert ids[1].tolist() == [2, 1, 3, 0, 0, 0, 0]  # an empty text is one unknown word
    assert ids[2][2] == word.unk_id
    cut, lengths = word.encode(["a dog a dog a dog"], max_length=4, bos=True, eos=True)
    assert (cut.tolist(), lengths.tolist()) == ([[2, a, dog, 3]], [4])
    assert word.encode([])[0].shape == (0, 1)
    with pytest.raises(ConfigError, match="at least 3"):
        word.encode(["a"], max_length=2, bos=True, eos=True)


def test_word_decode(word: WordTokenizer) -> None:
    for text in ["a man's dog", "一只狗在草地上奔跑", "a dog 一只狗 runs"]:
        ids, _ = word.encode([text], bos=True, eos=True)
        assert word.decode(ids[0]) == text
    assert word.decode([2, 4, 3, 5, 0]) == "a"
    assert word.decode([1]) == "<unk>"


def test_unknown_words(word: WordTokenizer, subword: SubwordTokenizer) -> None:
    for tokenizer in (word, subword):
        assert tokenizer.unknown("a zebra and a dog 一只斑马") == ["zebra", "and", "斑马"]
        assert tokenizer.unknown("a man 一只狗") == []
    assert subword._composed("狗男人")  # made of two words that were seen
    assert not subword._composed("狗马")


def test_own_dictionary_is_kept_inside(tmp_path: Path) -> None:
    text = "云边有个小卖部"
    before = split_words(text)
    lines = tmp_path / "own.txt"
    lines.write_text("云边有个小卖部 1000000 n\n", "utf-8")
    try:
        set_dictionary(lines)
        assert split_words(text) == [text] != before
        for kind in (WordTokenizer, SubwordTokenizer):
            kind.train([text] * 3).save(tmp_path / kind.kind)
    finally:
        set_dictionary(None)
    assert split_words(text) == before
    for name in ("word", "subword"):
        assert load_tokenizer(tmp_path / name).unknown(text) == []
    assert load_tokenizer(tmp_path / "word").pieces(text) == [text]
    with pytest.raises(DataError, match=r"gone\.txt"):
        set_dictionary(tmp_path / "gone.txt")


def test_subword_training_is_deterministic(subword: SubwordTokenizer, tmp_path: Path) -> None:
    SubwordTokenizer.train(TEXTS, size=700).save(tmp_path / "a")
    subword.save(tmp_path / "b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_subword_pieces_keep_to_words(subword: SubwordTokenizer) -> None:
    vocabulary = json.loads(subword._backend.to_str())["model"]["vocab"]
    assert len(vocabulary) == subword.size <= 700
    assert not [piece for piece in vocabulary if "▁" in piece[1:]]  # nothing is merged over a space
    assert subword.pieces("a dog") == ["▁a", "▁dog"]
    assert subword.pieces("一只狗在草地上") == ["一只", "狗", "在", "草地", "上"]  # nor over jieba's words
    ids, lengths = subword.encode(["a dog"], bos=True, eos=True)
    assert (ids[0, 0], ids[0, -1], lengths.tolist()) == (2, 3, [4])


@pytest.mark.parametrize(
    "text",
    [
        "🐕‍🦺 runs",
        "龘靐齉",
        "𠮷野家",
        "<eos> <0x41> <pad>",
        "a\x00b\tc",
        "▁under▁",
        "ＡＢＣ ①",
        "  ",
        "naïve Ωmega",
        "\ud800x",
    ],
)
def test_subword_round_trip(subword: SubwordTokenizer, text: str) -> None:
    ids, lengths = subword.encode([text])
    assert subword.decode(ids[0, : lengths[0]]) == normalise(text)
    assert not (ids == subword.unk_id).any() or not normalise(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_subword_round_trip_of_anything(subword: SubwordTokenizer, text: str) -> None:
    ids, lengths = subword.encode([text, "a dog"], bos=True, eos=True, max_length=400)
    assert subword.decode(ids[0, : lengths[0]]) == normalise(text)
    assert subword.decode(ids[1]) == "a dog"


def test_rare_signs_become_bytes(subword: SubwordTokenizer) -> None:
    assert subword.pieces("龘") == ["<0xE9>", "<0xBE>", "<0x98>"]
    assert subword.decode([4 + 0xE9, 4 + 0xBE]) == "\ufffd"  # a character cut in the middle
    with pytest.raises(ConfigError, match="too small"):
        SubwordTokenizer.train(TEXTS, size=100)


def test_batch_equals_rows(word: WordTokenizer, subword: SubwordTokenizer) -> None:
    for tokenizer in (word, subword):
        ids, lengths = tokenizer.encode(TEXTS[:6])
        for row, length, text in zip(ids, lengths, TEXTS, strict=False):
            alone, (n,) = tokenizer.encode([text])
            assert n == length
            assert alone[0].tolist() == row[:length].tolist()
            assert (row[length:] == tokenizer.pad_id).all()


def test_save_and_load(word: WordTokenizer, subword: SubwordTokenizer, tmp_path: Path) -> None:
    for tokenizer in (word, subword):
        folder = tmp_path / tokenizer.kind
        tokenizer.save(folder)
        assert sorted(p.name for p in folder.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
        again: Tokenizer = load_tokenizer(folder)
        assert (again.kind, again.size) == (tokenizer.kind, tokenizer.size)
        np.testing.assert_array_equal(again.encode(TEXTS)[0], tokenizer.encode(TEXTS)[0])
        assert again.unknown("a zebra 斑马") == tokenizer.unknown("a zebra 斑马") == ["zebra", "斑马"]
        assert json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["protocol"] == protocol()


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("tokenizer_config.json", None, "no such file"),
        ("tokenizer_config.json", "{", "broken"),
        ("tokenizer_config.json", "[]", "broken"),
        ("tokenizer_config.json", '{"kind": "morse"}', "unknown kind 'morse'"),
        ("tokenizer.json", None, "broken"),
        ("tokenizer.json", "{}", "broken"),
    ],
)
def test_broken_files_are_one_line(
    word: WordTokenizer, subword: SubwordTokenizer, tmp_path: Path, name: str, body: str | None, message: str
) -> None:
    for tokenizer in (word, subword):
        folder = tmp_path / tokenizer.kind
        tokenizer.save(folder)
        if body is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(body)
        with pytest.raises(ModelError, match=message) as caught:
            load_tokenizer(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)


def test_hub_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "run", "##s"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "bert")
    tokenizer = HubTokenizer(tmp_path / "bert")
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2, 3)
    assert tokenizer.size == 9
    ids, lengths = tokenizer.encode(["a dog", "A dog runs"])
    assert ids.dtype == lengths.dtype == np.int64
    assert ids.tolist() == [[2, 5, 6, 3, 0, 0], [2, 5, 6, 7, 8, 3]]
    assert lengths.tolist() == [4, 6]
    assert tokenizer.encode(["a dog runs"], max_length=4)[0].tolist() == [[2, 5, 6, 3]]
    assert tokenizer.decode(ids[1]) == "a dog runs"
    assert tokenizer.unknown("a zebra runs") == ["zebra"]
    tokenizer.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again.kind == "hub"
    np.testing.assert_array_equal(again.encode(["a dog", "A dog runs"])[0], ids)
    with pytest.raises(ModelError, match="no tokeniser there") as caught:
        HubTokenizer(tmp_path / "nowhere")
    assert "\n" not in str(caught.value)
