"""Networks as ONNX graphs in the user's cache: several times faster on a CPU, and run without torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tuwen.errors import GraphError, ModelError
from tuwen.files import cache_folder, write_atomic

if TYPE_CHECKING:
    import onnxruntime
    from torch import Tensor, nn

Axes: TypeAlias = Mapping[str, Mapping[int, str]]

LIMIT = 2_000_000_000  # bytes: one protobuf message holds no more than 2 GiB


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def export(
    module: nn.Module,
    inputs: Sequence[Tensor],
    names: Sequence[str],
    path: Path,
    outputs: Sequence[str] = ("out",),
    axes: Axes | None = None,
) -> None:
    """Write `module(*inputs)` as a float32 graph. The first axis of each input and output is free; `axes` frees
    others, as `{"ids": {1: "time"}}`.

    Traced, not `torch.export`ed: that takes ten times as long and fails on several towers (torch 2.13).

    Raises:
        GraphError: the network is too large for one graph, or cannot be traced.
    """
    import torch

    if sum(value.nbytes for value in module.state_dict().values()) > LIMIT:
        raise GraphError("the network is too large for one ONNX graph; it runs through torch")
    free = {name: {0: "batch"} | dict((axes or {}).get(name, {})) for name in (*names, *outputs)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".graph") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that tracing is old, and that shapes become constants: both are meant
        written = Path(folder) / "graph.onnx"
        try:
            with torch.no_grad():
                torch.onnx.export(
                    module,
                    tuple(inputs),
                    str(written),
                    input_names=list(names),
                    output_names=list(outputs),
                    dynamic_axes=free,
                    dynamo=False,
                )
        except Exception as error:  # the exporter raises its own, RuntimeError, TypeError ...
            why = " ".join(str(error).split())[:200]
            raise GraphError(f"the network cannot be written as an ONNX graph: {why}") from error
        written.replace(path)


def session(key: str, make: Callable[[Path], None], threads: int | None = None) -> onnxruntime.InferenceSession:
    """The graph of a key, made by `make(path)` where the cache has none, opened on the CPU.

    A graph's file is named by its own hash, so that a broken one is seen and made anew, and two processes
    that make the same one don't disturb each other. A cache that cannot be written is done without.
    """
    name = re.sub(r"[^\w.-]+", "_", key)
    folder = cache_folder() / "graphs"
    data = _cached(folder, name)
    if data is None:
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "graph.onnx"
            make(path)
            data = path.read_bytes()
        with contextlib.suppress(OSError):
            write_atomic(folder / f"{name}.{_mark(data)}.onnx", data)
    return open_graph(data, threads)


def open_graph(graph: bytes | Path, threads: int | None = None) -> onnxruntime.InferenceSession:
    """A CPU session over a graph. ModelError where the bytes are none."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # leaves the cores to who decodes
    options.log_severity_level = 3  # errors only
    source: Any = graph if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base but Exception
        name = "the graph" if isinstance(graph, bytes) else graph
        raise ModelError(f"{name}: cannot be opened: {' '.join(str(error).split())[:200]}") from None


def _cached(folder: Path, name: str) -> bytes | None:
    for path in sorted(folder.glob(f"{name}.*.onnx")):
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            if path.name == f"{name}.{_mark(data)}.onnx":
                return data
            path.unlink()
    return None


def _mark(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
