"""Graphs: equal to torch, made once, whole or made anew, and opened without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tuwen import graphs
from tuwen.errors import ModelError


class Words(nn.Module):
    """Two inputs, one of them of a free length, as a text side has."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.rnn = nn.Embedding(20, 6), nn.GRU(6, 5, batch_first=True)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.rnn(self.table(ids))
        last: Tensor = states.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, 5))[:, 0]
        return last


def write_words(path: Path) -> None:
    inputs = (torch.ones(2, 3, dtype=torch.long), torch.tensor([3, 2]))
    graphs.export(Words(), inputs, ("ids", "lengths"), path, axes={"ids": {1: "time"}})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUWEN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "graphs"


def test_equals_torch_at_other_shapes(tmp_path: Path) -> None:
    write_words(tmp_path / "words.onnx")
    session = graphs.open_graph(tmp_path / "words.onnx")
    compared = 0
    for batch, time in ((1, 1), (2, 3), (7, 11)):
        ids = torch.randint(0, 20, (batch, time))
        lengths = torch.randint(1, time + 1, (batch,))
        out = session.run(None, {"ids": ids.numpy(), "lengths": lengths.numpy()})[0]
        assert np.allclose(out, Words()(ids, lengths).detach().numpy(), atol=1e-6)
        compared += out.size
    assert compared == 5 * (1 + 2 + 7)
    assert [path.name for path in tmp_path.iterdir()] == ["words.onnx"]


def test_training_mode_is_left_as_it_was(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    graphs.export(net, (torch.ones(2, 3),), ("x",), tmp_path / "a.onnx")
    assert net.training
    out = graphs.open_graph(tmp_path / "a.onnx").run(None, {"x": np.ones((4, 3), np.float32)})[0]
    assert np.allclose(out, net.eval()(torch.ones(4, 3)).detach().numpy(), atol=1e-6)


def test_made_once_and_anew_where_broken(cache: Path) -> None:
    made = []

    def make(path: Path) -> None:
        made.append(path)
        write_words(path)

    ids = {"ids": np.ones((1, 2), np.int64), "lengths": np.array([2])}
    first = graphs.session("hf:some/name 1", make).run(None, ids)[0]
    again = graphs.session("hf:some/name 1", make).run(None, ids)[0]
    assert np.array_equal(first, again)
    assert len(made) == 1
    [file] = cache.iterdir()
    whole = file.read_bytes()
    broken = (b"", whole[:-100], b"\0" * len(whole), whole[:-200] + bytes([whole[-200] ^ 1]) + whole[-199:])
    for number, data in enumerate(broken, 2):
        file.write_bytes(data)
        assert np.array_equal(graphs.session("hf:some/name 1", make).run(None, ids)[0], first)
        assert len(made) == number
        assert [path.read_bytes() == whole for path in cache.iterdir()] == [True]
    graphs.session("another", make)
    assert len(made) == 6


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TUWEN_CACHE", str(tmp_path / "file"))
    assert graphs.session("words", write_words).get_inputs()[0].name == "ids"


def test_failures_are_model_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hopeless(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("no\nway")

    with pytest.raises(ModelError, match="cannot be written as an ONNX graph: no way"):
        graphs.export(Hopeless(), (torch.ones(1),), ("x",), tmp_path / "a.onnx")
    (tmp_path / "b.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"b\.onnx: cannot be opened"):
        graphs.open_graph(tmp_path / "b.onnx")
    monkeypatch.setattr(graphs, "LIMIT", 100)
    with pytest.raises(ModelError, match="too large"):
        write_words(tmp_path / "c.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.onnx"]


CHILD = """
import sys
sys.path.insert(0, {tests!r})
from tuwen import graphs
def make(path):
    from test_graphs import write_words
    write_words(path)
session = graphs.session("shared", make)
print(len(session.get_inputs()), "torch" in sys.modules)
"""


def test_two_processes_and_then_no_torch(cache: Path) -> None:
    command = [sys.executable, "-c", CHILD.format(tests=str(Path(__file__).parent))]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [child.communicate() for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert outputs == [("2 True\n", "")] * 2  # and no warning escaped
    third = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (third.stdout, third.stderr) == ("2 False\n", "")
    assert [path for path in cache.iterdir() if path.suffix != ".onnx"] == []
