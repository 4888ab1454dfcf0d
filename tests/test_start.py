"""Starting from another's transformer: layers copied, words from pieces, Chinese words from what they translate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tuwen.text import SubwordTokenizer
from tuwen.text.align import align
from tuwen.towers.start import start_bert

ENGLISH = [
    "a red dog runs",
    "the blue cat sleeps",
    "a red cat runs",
    "the blue dog sleeps",
    "a dog and a cat",
    "dog",
    "cat",
]
CHINESE = ["红狗跑", "蓝猫睡", "红猫跑", "蓝狗睡", "狗和猫", "狗", "猫"]


def test_alignment_equals_the_slow_algorithm() -> None:
    draw = np.random.default_rng(0)
    source = [draw.integers(0, 6, draw.integers(1, 5)) for _ in range(12)]
    target = [np.unique(draw.integers(6, 12, 4)) for _ in range(12)]
    chance: dict[tuple[int, int], float] = {}
    for _ in range(4):
        count: dict[tuple[int, int], float] = {}
        for ours, theirs in zip(source, target, strict=True):
            options = [*theirs.tolist(), 12]
            for s in ours.tolist():
                total = sum(chance.get((s, t), 1.0) for t in options)
                for t in options:
                    count[s, t] = count.get((s, t), 0.0) + chance.get((s, t), 1.0) / total
        totals: dict[int, float] = {}
        for (_s, t), value in count.items():
            totals[t] = totals.get(t, 0.0) + value
        chance = {(s, t): value / totals[t] for (s, t), value in count.items()}
    got = {(int(s), int(t)): c for s, t, c in zip(*align(source, target, size=12, rounds=4), strict=True)}
    assert got == pytest.approx({pair: value for pair, value in count.items() if pair[1] != 12})


def test_alignment_finds_the_translation() -> None:
    words = {
        word: i
        for i, word in enumerate([*"红蓝狗猫跑睡和", "red", "blue", "dog", "cat", "runs", "sleeps", "and", "a", "the"])
    }
    source = [np.array([words[c] for c in text]) for text in CHINESE]
    target = [np.unique([words[w] for w in text.split()]) for text in ENGLISH]
    s, t, count = align(source, target, size=len(words), rounds=20)
    best = {}
    for a, b, c in zip(s, t, count, strict=True):
        best.setdefault(int(a), (int(b), c))
    names = list(words)
    found = {names[a]: names[b] for a, (b, _) in best.items()}
    assert {found[c] for c in "狗猫"} == {"dog", "cat"}
    assert (found["狗"], found["猫"]) == ("dog", "cat")


def test_a_small_transformer_starts_from_a_larger(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "a",
        "red",
        "dog",
        "runs",
        "the",
        "blue",
        "cat",
        "sleep",
        "##s",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    size = {"hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 32}
    theirs = BertModel(BertConfig(vocab_size=len(vocabulary), num_hidden_layers=3, **size))
    theirs.save_pretrained(tmp_path)
    tokenizer = SubwordTokenizer.train(ENGLISH * 3 + CHINESE * 3, size=600)
    small = {**size, "type_vocab_size": 1}
    ours = BertModel(BertConfig(vocab_size=tokenizer.size, num_hidden_layers=2, **small), add_pooling_layer=False)

    def ids(text: str) -> np.ndarray:
        rows, lengths = tokenizer.encode([text])
        return rows[0][: lengths[0]]

    pairs = [ids(text) for text in CHINESE], [np.unique(ids(text)) for text in ENGLISH]
    start_bert(ours, str(tmp_path), tokenizer, pairs)
    for mine, other in zip(ours.encoder.layer, theirs.encoder.layer, strict=False):
        for a, b in zip(mine.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    rows, words = ours.embeddings.word_embeddings.weight, theirs.embeddings.word_embeddings.weight
    (dog,) = ids("dog")
    torch.testing.assert_close(rows[dog], words[vocabulary.index("dog")])
    (sleeps,) = ids("sleeps")
    expected = words[[vocabulary.index("sleep"), vocabulary.index("##s")]].mean(0)
    torch.testing.assert_close(rows[sleeps], expected)
    (zh_dog,) = ids("狗")
    (zh_cat,) = ids("猫")
    assert (rows[zh_dog] - rows[dog]).norm() < (rows[zh_cat] - rows[dog]).norm()
    assert not rows[tokenizer.pad_id].any()


def test_a_source_that_reads_chinese_gives_its_own_vectors(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "dog", "runs", *"红狗跑蓝猫睡和"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    size = {"hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": 1}
    theirs = BertModel(BertConfig(vocab_size=len(vocabulary), **size))
    theirs.save_pretrained(tmp_path)
    tokenizer = SubwordTokenizer.train(ENGLISH * 3 + CHINESE * 3, size=600)
    ours = BertModel(BertConfig(vocab_size=tokenizer.size, type_vocab_size=1, **size), add_pooling_layer=False)
    start_bert(ours, str(tmp_path), tokenizer, ([], []))
    rows, words = ours.embeddings.word_embeddings.weight, theirs.embeddings.word_embeddings.weight
    ids, _ = tokenizer.encode(["狗"])
    torch.testing.assert_close(rows[ids[0, 0]], words[vocabulary.index("狗")])
