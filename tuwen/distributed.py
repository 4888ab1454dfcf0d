"""Tensors of all processes together, with their gradients."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def gather(rows: Tensor) -> Tensor:
    """(n, ...) rows of this process -> (N, ...) rows of all, in order of rank; the gradient reaches each process's own.

    Every process then computes the loss of the whole batch, and the averaging of gradients gives its exact gradient.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return rows
    from torch.distributed.nn.functional import all_gather

    size = torch.tensor([len(rows)], device=rows.device)
    sizes = [torch.zeros_like(size) for _ in range(distributed.get_world_size())]
    distributed.all_gather(sizes, size)
    most = int(torch.stack(sizes).max())
    padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
    if rows.is_floating_point():
        blocks = all_gather(padded)  # type: ignore[no-untyped-call]
    else:
        blocks = [torch.zeros_like(padded) for _ in sizes]
        distributed.all_gather(blocks, padded.contiguous())
    return torch.cat([block[: int(n)] for block, n in zip(blocks, sizes, strict=True)])
