"""Features of a frozen tower, computed once and kept: float16 blocks on disk, mapped into memory."""

from __future__ import annotations

import json
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from tuwen import graphs, images
from tuwen.errors import DataError, GraphError
from tuwen.files import cache_folder, sha256_text, write_atomic
from tuwen.images import Pixels, View
from tuwen.progress import bar as progress_bar
from tuwen.towers import Pooled, Tower

Kind: TypeAlias = Literal["grid", "pooled"]
Halves: TypeAlias = NDArray[np.float16]
Runner: TypeAlias = Callable[[Pixels], NDArray[Any]]
Row: TypeAlias = tuple[Path, int]  # a block, and the row in it

BLOCK = 256  # rows a file: what a killed run loses at most
AHEAD = 3  # batches decoded while one is run
OPEN_BLOCKS = 256  # mapped at once: each holds a file descriptor
LITTER_AGE = 3600  # seconds after which an unfinished file is nobody's


class Features:
    """Rows of float16 features, (D,) or (N, D) each, that stay on disk until they are asked for.

    `features[rows]` gathers any rows in any order, (len(rows), ..., D). `shape` is that of all rows together.
    """

    def __init__(
        self,
        parts: Sequence[Path | NDArray[Any]],
        part: NDArray[np.int64],
        offset: NDArray[np.int64],
        row: tuple[int, ...],
    ) -> None:
        """Row i is row `offset[i]` of `parts[part[i]]`; each has the shape `row`."""
        self._parts, self._part, self._offset = parts, part, offset
        self._open = lru_cache(OPEN_BLOCKS)(self._map)
        self.shape = (len(part), *row)

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, rows: Any) -> Halves:
        chosen = np.arange(len(self))[rows]
        out = np.empty((chosen.size, *self.shape[1:]), np.float16)
        for place, row in enumerate(chosen.flat):  # one copy a row: rows are long, and seldom lie together
            out[place] = self._open(self._part[row])[self._offset[row]]
        return out.reshape(*chosen.shape, *self.shape[1:])

    def __reduce__(self) -> tuple[Any, ...]:  # without the maps, which would carry their data
        return Features, (self._parts, self._part, self._offset, self.shape[1:])

    def _map(self, index: int) -> NDArray[Any]:
        part = self._parts[index]
        return np.asarray(np.load(part, mmap_mode="r") if isinstance(part, Path) else part)


def from_matrix(path: Path, rows: Sequence[int] | NDArray[np.int64] | None = None) -> Features:
    """A precomputed matrix, (n, D) or (n, N, D), of a `.npy` or of one tensor in a `.pth`; `rows` chooses of them.

    Raises:
        DataError: no such file, no such matrix in it, or fewer rows than are asked for.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such feature matrix")
    try:
        matrix = np.load(path, mmap_mode="r") if path.suffix == ".npy" else _read_tensor(path)
    except Exception as error:  # torch.load raises whatever its unpickler does
        why = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: cannot be read as one matrix, in .npy or one tensor in .pth: {why}") from None
    if matrix.ndim not in (2, 3):
        raise DataError(f"{path}: features are (pictures, width) or (pictures, regions, width); this is {matrix.shape}")
    chosen = np.arange(len(matrix)) if rows is None else np.asarray(rows, np.int64)
    if chosen.size and not 0 <= chosen.min() <= chosen.max() < len(matrix):
        raise DataError(
            f"{path}: has {len(matrix)} rows, {chosen.min()} to {chosen.max()} are asked for; is it of other data?"
        )
    parts = [path if path.suffix == ".npy" else matrix]
    return Features(parts, np.zeros(len(chosen), np.int64), chosen, matrix.shape[1:])


def extract(
    tower: Tower,
    paths: Sequence[Path],
    kind: Kind = "grid",
    view: View | None = None,
    cache: Path | None = None,
    batch: int = 32,
    progress: bool = True,
) -> Features:
    """The tower's features of these pictures, one row a path; only what the cache lacks is computed.

    `grid`: rows (N, tower.grid_width); `pooled`: rows (tower.pooled_width,). The cache is keyed by the pictures'
    content, the tower's weights, the decoder, the transform, the view and the kind. Blocks are written whole,
    under names of their own: a killed run goes on from its last block, and two runs at once do no harm.

    Raises:
        PictureError: a picture cannot be read. What was computed before it is kept.
    """
    view = view or tower.view
    about = _about(tower, kind, view)
    folder = (cache or cache_folder() / "features") / sha256_text(json.dumps(about))[:24]
    with ThreadPoolExecutor(max(2, graphs.cores())) as pool:
        contents = list(pool.map(images.content_id, paths))
        known = _read_index(folder)
        missing = {content: path for content, path in zip(contents, paths, strict=True) if content not in known}
        if missing:
            _sweep(folder)
            _write(folder / "about.json", json.dumps(about, indent=1))
            _compute(tower, kind, view, missing, folder, pool, batch, progress)
            known = _read_index(folder)
    return _gather(contents, known)


def runner(tower: Tower, kind: Kind) -> Runner:
    """Pixels -> features as arrays: through a cached ONNX graph on a CPU, through torch on a GPU."""
    device = tower.mean.device
    module = tower if kind == "grid" else Pooled(tower)
    if device.type == "cpu":
        with suppress(GraphError):  # too large for a graph, or not traceable: then through torch
            example = torch.zeros(2, tower.size, tower.size, 3, dtype=torch.uint8)
            key = f"{tower.name}-{kind}-{sha256_text(tower.sha256 + tower.transform)[:16]}"
            session = graphs.session(key, lambda path: graphs.export(module, [example], ["pixels"], path))
            return lambda pixels: np.asarray(session.run(None, {"pixels": pixels})[0])

    def run(pixels: Pixels) -> NDArray[Any]:
        with torch.inference_mode():
            return module(torch.from_numpy(pixels).to(device)).float().cpu().numpy()  # type: ignore[no-any-return]

    return run


def _about(tower: Tower, kind: Kind, view: View) -> dict[str, str]:
    return {
        "tower": tower.name,
        "sha256": tower.sha256,
        "decoder": images.DECODER,
        "transform": tower.transform,
        "view": str(view),
        "kind": kind,
    }


def _compute(
    tower: Tower,
    kind: Kind,
    view: View,
    missing: dict[str, Path],
    folder: Path,
    pool: ThreadPoolExecutor,
    batch: int,
    show: bool,
) -> None:
    """Run the tower over pictures by content, and write the blocks."""
    training = tower.training
    run = runner(tower.eval(), kind)
    what = f"{tower.name} {kind} {view}"
    rows: dict[str, Halves] = {}
    try:
        with progress_bar() as bar:
            task = bar.add_task(what, total=len(missing), note="", visible=show)
            for contents, pixels in _decoded(pool, missing, tower.size, view, batch):
                rows.update(zip(contents, run(pixels).astype(np.float16), strict=True))
                bar.advance(task, len(contents))
                if len(rows) >= BLOCK:
                    _write_block(folder, rows)
                    rows = {}
    finally:  # also where a picture is broken or the user stops it
        tower.train(training)
        if rows:
            _write_block(folder, rows)


def _decoded(
    pool: ThreadPoolExecutor, pictures: dict[str, Path], size: int, view: View, batch: int
) -> Iterator[tuple[list[str], Pixels]]:
    """Batches of contents and pixels (B, S, S, 3), some decoded ahead in threads (Pillow lets go of the lock)."""
    items = iter(pictures.items())
    ahead: deque[list[tuple[str, Future[Pixels]]]] = deque()
    try:
        while True:
            while len(ahead) < AHEAD and (some := list(islice(items, batch))):
                ahead.append([(content, pool.submit(images.load, path, size, view)) for content, path in some])
            if not ahead:
                return
            now = ahead.popleft()
            yield [content for content, _ in now], np.stack([future.result() for _, future in now])
    finally:
        for _, future in (pair for some in ahead for pair in some):
            future.cancel()


def _write_block(folder: Path, rows: dict[str, Halves]) -> None:
    """A block and then its index: a block without one does not count."""
    data = BytesIO()
    np.save(data, np.stack(list(rows.values())))
    name = uuid.uuid4().hex
    index = {"bytes": data.tell(), "rows": list(rows)}
    _write(folder / f"{name}.npy", data.getvalue())
    _write(folder / f"{name}.rows.json", json.dumps(index))


def _write(path: Path, data: bytes | str) -> None:
    try:
        write_atomic(path, data)
    except OSError as error:
        raise DataError(f"{path.parent}: features cannot be written ({error.strerror}); make room there") from None


def _read_index(folder: Path) -> dict[str, Row]:
    """Every whole row in a cache, by content. Blocks that are broken or cut are passed over."""
    known: dict[str, Row] = {}
    for path in sorted(folder.glob("*.rows.json")):
        with suppress(OSError, ValueError, KeyError):
            index = json.loads(path.read_text())
            block = path.with_name(path.name.replace(".rows.json", ".npy"))
            if block.stat().st_size == index["bytes"]:
                known = {content: (block, row) for row, content in enumerate(index["rows"])} | known
    return known


def _gather(contents: Sequence[str], known: dict[str, Row]) -> Features:
    blocks = sorted({known[content][0] for content in contents})
    number = {block: index for index, block in enumerate(blocks)}
    part = np.array([number[known[content][0]] for content in contents], np.int64)
    offset = np.array([known[content][1] for content in contents], np.int64)
    return Features(blocks, part, offset, np.load(blocks[0], mmap_mode="r").shape[1:] if blocks else (0,))


def _sweep(folder: Path) -> None:
    """Remove what killed runs left: unfinished files, and blocks without an index."""
    old = time.time() - LITTER_AGE
    for path in (*folder.glob(".*.tmp"), *folder.glob("*.npy")):
        with suppress(OSError):
            if path.stat().st_mtime < old and not path.with_suffix(".rows.json").exists():
                path.unlink()


def _read_tensor(path: Path) -> NDArray[Any]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # the format before torch 1.6 cannot be mapped
        found = torch.load(path, map_location="cpu", weights_only=True)
    values = found.values() if isinstance(found, dict) else [found]
    tensors = [value for value in values if isinstance(value, torch.Tensor) and value.ndim > 1]
    if len(tensors) != 1:
        raise ValueError(f"it holds {len(tensors)} matrices")
    tensor = tensors[0].detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
