"""Weights from disk: safetensors, or a `.pth` of nothing but tensors; a pickle could run code and is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuwen.errors import ModelError


def load_weights(path: Path) -> dict[str, Tensor]:
    """A state dict on the CPU. ModelError where the file is missing, broken or more than tensors."""
    if not path.is_file():
        raise ModelError(f"{path}: there is no such weight file")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    if path.suffix not in (".pth", ".pt", ".bin"):
        raise ModelError(f"{path}: weights are read from .safetensors or .pth; convert the file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"{path}: holds more than tensors, so it is refused; save `model.state_dict()` alone"
        ) from None
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as weights: {_line(error)}") from None
    return _state_dict(found, path)


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as safetensors: {_line(error)}") from None


def _state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """The state dict inside the usual wrappers, without the prefix of data-parallel training."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path}: holds no state dict; save `model.state_dict()`")
    return {key.removeprefix("module."): value for key, value in found.items() if isinstance(value, Tensor)}


def fill(module: torch.nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dict that must fit exactly. ModelError names the first keys or shapes that do not."""
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    strange = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    for what, keys in (("lacks", missing), ("has unknown", strange), ("has other shapes of", shapes)):
        if keys:
            more = f" and {len(keys) - 2} more" if len(keys) > 2 else ""
            raise ModelError(f"{source}: {what} {', '.join(keys[:2])}{more}; these weights are of another tower")
    module.load_state_dict(state, strict=False)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
