"""Fitting a state dict to a network of ours."""

from __future__ import annotations

import torch
from torch import Tensor

from tuwen.errors import ModelError


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
