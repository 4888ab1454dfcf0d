"""Runs on disk: weights as safetensors, everything else as JSON or YAML, each file written whole or not at all.

A run folder holds `model.safetensors`, `config.json` (it alone rebuilds the model), the tokeniser's files,
`recipe.yaml`, `metrics.jsonl`, a model card and `last/` for an exact resume. Nothing is ever pickled or unpickled.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuwen.errors import ModelError
from tuwen.files import sha256_file, sha256_text, write_atomic

if TYPE_CHECKING:
    import torch

FORMAT = 1
BLOCK = 32  # numbers of 4 bits that share a scale
WEIGHTS = "model.safetensors"
SHIPPED = Path(__file__).resolve().parent / "weights"


def find_run(name: str) -> Path:
    """The folder of a run: a path, or the name of a model that comes inside the package.

    Raises:
        ModelError: there is no such folder, or it holds no model.
    """
    for folder in (Path(name), SHIPPED / name):
        if (folder / "config.json").is_file():
            return folder
    if Path(name).is_dir():
        raise ModelError(
            f"{name}: no config.json in it, so it is no run: name the folder that `tuwen train --out` wrote"
        )
    shipped = ", ".join(shipped_models()) or "none"
    raise ModelError(f"no model {name}: name a run's folder, hf:REPO, hf:/local/folder or a shipped model ({shipped})")


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def read_config(folder: Path, task: str | None = None) -> dict[str, Any]:
    """`config.json` of a run; with `task`, only where the run is of that task.

    Raises:
        ModelError: missing, not JSON, of a newer format, or of another task.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int) or "task" not in config:
        raise ModelError(f"{path}: not the config of a tuwen run (no `format` and `task`)")
    if config["format"] > FORMAT:
        raise ModelError(f"{path}: format {config['format']} is newer than this version reads ({FORMAT}): update tuwen")
    if task and config["task"] != task:
        raise ModelError(f"{folder}: a {config['task']} model, but {task} is needed here: name another with --model")
    return config


def fingerprint(folder: Path, config: dict[str, Any]) -> str:
    """What tells a run's vectors from those of every other: its weights, its tower's, and how often it looks."""
    looks = config["model"].get("image", {}).get("looks", 1)
    often = f" {looks} looks" if looks > 1 else ""
    return sha256_text(f"{sha256_file(folder / WEIGHTS)} {config['tower']['sha256']}{often}")[:16]


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write `config.json`."""
    write_atomic(folder / "config.json", json.dumps({"format": FORMAT, **config}, ensure_ascii=False, indent=2) + "\n")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write named tensors as safetensors, whole or not at all."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(plain))


def halve(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Numbers in fp16."""
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def pack(tensors: dict[str, torch.Tensor], narrow: Iterable[str] = ()) -> dict[str, torch.Tensor]:
    """Half the size of fp16: matrices as bytes with one scale a row (`NAME` int8, `NAME.scale` fp16), the rest in fp16.

    The scale is the row's largest number over 127, so no number moves by much more than 1/254 of it. Those in `narrow`
    take half of that again: 4 bits a number (`NAME` uint8, two in each), a scale every 32.
    """
    packed = halve(tensors)
    for name, tensor in tensors.items():
        if name in narrow:
            packed[name], packed[f"{name}.scale"] = _by_blocks(tensor.float())
        elif tensor.is_floating_point() and tensor.ndim > 1:
            packed[name], packed[f"{name}.scale"] = _by_rows(tensor.float())
    return packed


def _by_rows(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 numbers, and their scales."""
    import torch

    largest = matrix.flatten(1).abs().amax(1).clamp(min=1e-5)  # 1e-5 / 127: above 0 in fp16
    scale = (largest / 127).half().view(-1, *[1] * (matrix.ndim - 1))
    return (matrix / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def _by_blocks(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows, columns) -> numbers of 4 bits (rows, columns / 2), and scales (rows, columns / 32).

    Of sixteen scales tried for each block, that which moves it least.
    """
    import torch

    blocks = matrix.view(len(matrix), -1, BLOCK)
    largest = blocks.gather(2, blocks.abs().argmax(2, keepdim=True))  # signed: it may stand at -8
    best, error = torch.zeros_like(largest), torch.full_like(largest, torch.inf)
    for share in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65):
        for full in (-largest * share / 8, largest * share / 7):
            scale = torch.where(full.abs() < 1e-6, 1e-6, full).half().float()
            moved = ((blocks / scale).round().clamp(-8, 7) * scale - blocks).square().sum(2, keepdim=True)
            best, error = torch.where(moved < error, scale, best), torch.minimum(moved, error)
    numbers = ((blocks / best).round().clamp(-8, 7) + 8).to(torch.uint8).flatten(1)
    return numbers[:, ::2] * 16 + numbers[:, 1::2], best.squeeze(2).half()


def unpack(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `pack` made, as fp32 matrices; other tensors as they are."""
    import torch

    out = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.int8, torch.uint8) or f"{name}.scale" not in tensors:
            continue
        scale = out.pop(f"{name}.scale").float()
        if tensor.dtype == torch.uint8:
            numbers = torch.stack([tensor // 16, tensor % 16], 2).float() - 8  # (rows, bytes, 2)
            out[name] = (numbers.view(len(tensor), -1, BLOCK) * scale[:, :, None]).flatten(1)
        else:
            out[name] = tensor.float() * scale
    return out


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Named tensors of a safetensors file, or of a `.pth` by `weights_only=True`; a pickle could run code: refused.

    Raises:
        ModelError: missing, truncated, or more than tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ModelError(f"{path}: there is no such weight file")
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise ModelError(f"{path}: weights are read from .safetensors or .pth; convert the file")
    try:
        if path.suffix == ".safetensors":
            return unpack(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError) as error:
        why = "a pickle, or another format" if _is_pickle(path) else f"truncated or broken ({_line(error)})"
        raise ModelError(f"{path}: cannot be read as safetensors: {why}; train or convert it again") from None
    except pickle.UnpicklingError:
        raise ModelError(f"{path}: a pickle of more than tensors is refused; save `model.state_dict()` alone") from None
    except Exception as error:  # torch raises zip, runtime and value errors alike
        raise ModelError(f"{path}: cannot be read as weights: {_line(error)}") from None
    return _state_dict(found, path)


def _state_dict(found: Any, path: Path) -> dict[str, torch.Tensor]:
    """The state dict inside the usual wrappers, without the prefix of data-parallel training."""
    import torch

    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not any(isinstance(value, torch.Tensor) for value in found.values()):
        raise ModelError(f"{path}: holds no state dict; save `model.state_dict()`")
    return {key.removeprefix("module."): value for key, value in found.items() if isinstance(value, torch.Tensor)}


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    return head[:1] == b"\x80" or head == b"PK\x03\x04"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def load_state(module: torch.nn.Module, tensors: dict[str, torch.Tensor], where: str) -> None:
    """Put the tensors into the module, in the module's own precision.

    Raises:
        ModelError: a tensor is missing, left over, or of another shape; the first is named.
    """
    own = module.state_dict()
    missing, extra = own.keys() - tensors.keys(), tensors.keys() - own.keys()
    if missing or extra:
        name, what = (min(missing), "missing") if missing else (min(extra), "left over")
        raise ModelError(f"{where}: weights do not fit config.json: {name} is {what}")
    for name, tensor in own.items():
        if tensors[name].shape != tensor.shape:
            raise ModelError(
                f"{where}: {name} is {tuple(tensors[name].shape)}, config.json asks for {tuple(tensor.shape)}"
            )
    module.load_state_dict({name: tensors[name].to(tensor.dtype) for name, tensor in own.items()})


# `last/`: one safetensors file a save, named by its step, and `state.json`, replaced last, which names it.
# A kill at any moment leaves a `state.json` whose tensors are whole.


def save_last(folder: Path, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Save what an exact resume needs, replacing the save before it."""
    name = f"step-{state['step']:08d}.safetensors"
    write_tensors(folder / name, tensors)
    write_atomic(folder / "state.json", json.dumps({"format": FORMAT, "tensors": name, **state}, indent=2))
    for old in folder.iterdir():
        if old.name not in (name, "state.json"):
            old.unlink(missing_ok=True)


def load_last(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What `save_last` wrote.

    Raises:
        ModelError: nothing was saved, or what was saved is damaged.
    """
    path = folder / "state.json"
    if not path.is_file():
        raise ModelError(f"{folder.parent}: nothing was saved there yet: delete it and train without --resume")
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        name = Path(state["tensors"]).name
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: damaged: {error}") from error
    return read_tensors(folder / name), state
