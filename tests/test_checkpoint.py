"""What is read: safetensors and plain state dicts; what is refused: everything else, in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tuwen import checkpoint
from tuwen.errors import ModelError


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, ("touch /tmp/tuwen-was-here",))


def test_tensors_survive_the_round_trip(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor(2.0, dtype=torch.float16)}
    checkpoint.write_tensors(tmp_path / "w.safetensors", tensors)
    read = checkpoint.read_tensors(tmp_path / "w.safetensors")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) and read[name].dtype == tensors[name].dtype for name in tensors)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pkl"])
def test_a_pickle_is_refused_and_never_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps({"a": Evil()}))
    trace = Path("/tmp/tuwen-was-here")
    trace.unlink(missing_ok=True)
    with pytest.raises(ModelError) as caught:
        checkpoint.read_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


def test_a_plain_state_dict_is_read(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(2)}}, tmp_path / "m.pth")
    assert checkpoint.read_tensors(tmp_path / "m.pth")["w"].tolist() == [1, 1]
    torch.save({"w": "text"}, tmp_path / "n.pth")
    with pytest.raises(ModelError, match="holds no state dict"):
        checkpoint.read_tensors(tmp_path / "n.pth")


def test_truncated_weights_are_told(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    checkpoint.write_tensors(path, {"a": torch.randn(100)})
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ModelError, match="truncated"):
        checkpoint.read_tensors(path)


def test_weights_that_do_not_fit_name_the_first_fault() -> None:
    module = torch.nn.Linear(2, 3)
    good = module.state_dict()
    for tensors, message in (
        ({"weight": good["weight"]}, "bias is missing"),
        ({**good, "extra": good["bias"]}, "extra is left over"),
        ({**good, "bias": torch.zeros(9)}, "bias is"),
    ):
        with pytest.raises(ModelError, match=message):
            checkpoint.load_state(module, tensors, "here")


def test_half_precision_weights_load_into_a_full_model() -> None:
    module = torch.nn.Linear(2, 3)
    checkpoint.load_state(module, {k: torch.ones_like(v).half() for k, v in module.state_dict().items()}, "here")
    assert module.weight.dtype == torch.float32
    assert module.weight.eq(1).all()


def test_config_of_another_task_or_format_is_refused(tmp_path: Path) -> None:
    checkpoint.write_config(tmp_path, {"task": "captioning"})
    with pytest.raises(ModelError, match="a captioning model"):
        checkpoint.read_config(tmp_path, task="retrieval")
    checkpoint.write_config(tmp_path, {"task": "retrieval", "format": 99})
    with pytest.raises(ModelError, match="newer"):
        checkpoint.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="not the config"):
        checkpoint.read_config(tmp_path)
    with pytest.raises(ModelError, match="no model nothing-here"):
        checkpoint.find_run("nothing-here")


def test_a_save_of_last_replaces_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save_last(tmp_path / "last", {"w": torch.full((2,), float(step))}, {"step": step})
    tensors, state = checkpoint.load_last(tmp_path / "last")
    assert state["step"] == 2
    assert tensors["w"].tolist() == [2, 2]
    assert len(list((tmp_path / "last").iterdir())) == 2


def test_packed_matrices_come_back_within_half_a_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = {
        "matrix": torch.randn(7, 33) * torch.logspace(-4, 3, 7)[:, None],
        "kernel": torch.randn(5, 3, 3, 3),
        "zeros": torch.zeros(2, 4),
        "bias": torch.randn(9),
        "count": torch.tensor([3, 4]),
    }
    packed = checkpoint.pack(full)
    assert {name for name, tensor in packed.items() if tensor.dtype == torch.int8} == {"matrix", "kernel", "zeros"}
    checkpoint.write_tensors(tmp_path / "m.safetensors", packed)
    read = checkpoint.read_tensors(tmp_path / "m.safetensors")
    assert read.keys() == full.keys()
    assert torch.equal(read["zeros"], full["zeros"])
    assert torch.equal(read["count"], full["count"])
    torch.testing.assert_close(read["bias"].float(), full["bias"], rtol=1e-3, atol=1e-3)
    for name in ("matrix", "kernel"):
        rows = full[name].flatten(1)
        largest = rows.abs().amax(1, keepdim=True)
        # Half a step, and what rounding the scale to fp16 adds; scales below its normal range are coarser.
        away = (read[name].flatten(1) - rows).abs()
        assert (away <= largest * (0.5 / 127 + 2e-3) + 1e-5).all(), name
        assert away.max() > 0


def test_bytes_without_a_scale_stay_bytes() -> None:
    tensors = {"picture": torch.ones(2, 2, dtype=torch.int8), "x.scale": torch.ones(2)}
    assert checkpoint.unpack(tensors).keys() == tensors.keys()
    assert checkpoint.unpack(tensors)["picture"].dtype == torch.int8


def test_another_number_of_looks_is_another_model(tmp_path: Path) -> None:
    checkpoint.write_tensors(tmp_path / checkpoint.WEIGHTS, {"a": torch.ones(2)})
    config: dict[str, Any] = {"tower": {"sha256": "0"}, "model": {"image": {}}}
    once = checkpoint.fingerprint(tmp_path, config)
    config["model"]["image"] = {"looks": 1}
    assert checkpoint.fingerprint(tmp_path, config) == once
    config["model"]["image"] = {"looks": 2}
    assert checkpoint.fingerprint(tmp_path, config) != once


def test_narrow_matrices_come_back_within_half_a_step_of_their_block(tmp_path: Path) -> None:
    torch.manual_seed(0)
    full = {"words": torch.randn(5, 96) * torch.logspace(-3, 2, 5)[:, None], "other": torch.randn(4, 64)}
    full["words"][1, :32] = 0
    packed = checkpoint.pack(full, ["words"])
    assert (packed["words"].dtype, packed["words"].shape) == (torch.uint8, (5, 48))
    assert packed["words.scale"].shape == (5, 3)
    checkpoint.write_tensors(tmp_path / "m.safetensors", packed)
    read = checkpoint.read_tensors(tmp_path / "m.safetensors")
    assert read.keys() == full.keys()
    blocks = full["words"].view(5, 3, 32)
    away = (read["words"].view(5, 3, 32) - blocks).abs()
    largest = blocks.abs().amax(2, keepdim=True)
    assert (away.square().sum(2) <= (largest / 7 / 2).square()[..., 0] * 32 + 1e-9).all()  # as a plain scale at worst
    assert torch.equal(read["words"][1, :32], full["words"][1, :32])
    assert away.max() > 0
    torch.testing.assert_close(read["other"], checkpoint.unpack(checkpoint.pack(full))["other"])


def test_a_scale_beside_plain_numbers_is_a_parameter_like_others() -> None:
    tensors = {"norm": torch.ones(2), "norm.scale": torch.ones(2)}
    assert checkpoint.unpack(tensors).keys() == tensors.keys()
