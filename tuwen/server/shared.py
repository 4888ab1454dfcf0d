"""The index and the models, opened once and shared by all requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuwen import images, pipelines
from tuwen.errors import ModelError, StoreError
from tuwen.indexing import describe
from tuwen.pipelines import Embedder, Vectors
from tuwen.server.batching import Batcher
from tuwen.server.limits import Busy, Limits, Refused, Slow
from tuwen.store import LanceStore, check_model, open_store

if TYPE_CHECKING:
    from PIL.Image import Image

    from tuwen.pipelines import Described

Load = Callable[[str], Any]
CAPTION, ASK, DRAW = "caption", "ask", "draw"
MODELS = {CAPTION: "captioning", ASK: "vqa", DRAW: "text-to-image"}
ABLE = {CAPTION: "caption", ASK: "answer", DRAW: "draw"}  # the method that makes a pipeline fit
AT_ONCE = {CAPTION: 16, ASK: 16}


class Together:
    """An embedder whose calls from many threads meet in batches; everything else is the embedder's own."""

    def __init__(self, pipeline: Embedder, limits: Limits, decoding: threading.Semaphore) -> None:
        self.pipeline, self._decoding = pipeline, decoding
        one = threading.Lock()  # a model answers one call at a time: on a CPU two would only share its cores

        def texts(items: Sequence[str], _: Any) -> Sequence[Any]:
            with one:
                return list(pipeline.embed_texts(items))

        def pixels(items: Sequence[NDArray[np.uint8]], _: Any) -> Sequence[Any]:
            with one:
                return list(pipeline.embed_pixels(np.stack(items)))

        self.texts = Batcher[str, Any](texts, most=256, waiting=limits.waiting, seconds=limits.seconds)
        self.pixels = Batcher[NDArray[np.uint8], Any](pixels, waiting=limits.waiting, seconds=limits.seconds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipeline, name)

    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Sentences -> (n, dim)."""
        return np.stack(self.texts.all(list(texts)))

    def embed_images(self, pictures: Iterable[Path | str | Image]) -> Vectors:
        """Paths or PIL pictures -> (n, dim). PictureError where one can't be read."""
        return self.embed_pixels(np.stack([self._view(picture) for picture in pictures]))

    def embed_pixels(self, pixels: NDArray[np.uint8]) -> Vectors:
        """(B, size, size, 3) -> (B, dim)."""
        return np.stack(self.pixels.all(list(pixels)))

    def stop(self) -> None:
        """Let nothing wait any more."""
        self.texts.stop()
        self.pixels.stop()

    def _view(self, picture: Path | str | Image) -> NDArray[np.uint8]:
        with self._decoding:
            if isinstance(picture, str | Path):
                return images.load(picture, self.pipeline.size, self.pipeline.view)
            return images.load_pil(picture, self.pipeline.size, self.pipeline.view)


class Shared:
    """The index in `db`, its model, and the models that caption, answer and draw; each is loaded when first asked for.

    `load` gives a pipeline by name; `names` says which by task.
    """

    def __init__(
        self, db: Path, limits: Limits, names: dict[str, str] | None = None, load: Load = pipelines.load
    ) -> None:
        self.db, self.limits, self.names, self.load = db, limits, {**MODELS, **(names or {})}, load
        self.decoding = threading.Semaphore(limits.decoding)  # whole pictures in memory at once
        self.loaded: dict[str, Any] = {}
        self.failed: dict[str, str] = {}  # why a model could not be had, when it was last tried
        self._locks = {task: threading.Lock() for task in (*self.names, "search")}
        self._batchers: dict[str, Batcher[Any, Any]] = {}
        self._opened: tuple[tuple[int, int], LanceStore, Together] | None = None

    def search(self) -> tuple[LanceStore, Together]:
        """The index and its own model, never another; opened again when the index was made anew.

        Raises:
            StoreError, Busy: there is no index, or its model cannot be had.
        """
        with self._locked("search"):
            stamp = _stamp(self.db / "index.json")
            if self._opened is None or self._opened[0] != stamp:
                store = open_store(self.db)
                old = self._opened
                if old is not None and old[1].model == store.model:
                    pipeline = old[2]
                else:
                    pipeline = self._embedder(store)
                    if old is not None:
                        old[2].stop()
                self._opened = stamp, store, pipeline
            return self._opened[1:]

    def store(self) -> LanceStore:
        """The index, to read, without its model. StoreError where there is none."""
        opened = self._opened
        return opened[1] if opened and opened[0] == _stamp(self.db / "index.json") else open_store(self.db)

    def caption(self, picture: Path, lang: str, beams: int | None) -> Described:
        """Captions of one picture, best first, made together with those of other requests."""
        pipeline = self.model(CAPTION)
        if lang not in pipeline.languages:
            raise Refused(f"{pipeline.name} describes pictures in {' and '.join(pipeline.languages)}, not in '{lang}'")
        out: Described = self._batchers[CAPTION](picture, (lang, beams))
        return out

    def answer(self, picture: Path, question: str, k: int) -> Any:
        """An `Answer` to one question about one picture, found together with those of other requests."""
        self.model(ASK)
        return self._batchers[ASK]((picture, question), k)

    def draw(self, prompt: str, n: int, seed: int) -> list[Any]:
        """n drawings of a prompt. Never with those of others: the same seed shall draw the same picture."""
        self.model(DRAW)
        out: list[Any] = self._batchers[DRAW]((prompt, n, seed))
        return out

    def model(self, task: str) -> Any:
        """The pipeline of a task. Busy (503) where it is not installed."""
        with self._locked(task):
            if task not in self.loaded:
                try:
                    pipeline = self._fit(task)
                except ModelError as error:
                    self.failed[task] = str(error)
                    raise Busy(f"no model to {task} with: {error}") from None
                self.failed.pop(task, None)
                self._batchers[task] = self._batcher(task, pipeline)
                self.loaded[task] = pipeline
            return self.loaded[task]

    def waiting(self, task: str) -> int:
        """How many requests wait for a model."""
        return len(self._batchers.get(task, ()))

    def embedder(self) -> Together | None:
        """The index's model, where it is loaded."""
        return self._opened[2] if self._opened else None

    def stop(self) -> None:
        """Let nothing wait any more."""
        for batcher in self._batchers.values():
            batcher.stop()
        if self._opened:
            self._opened[2].stop()

    def _fit(self, task: str) -> Any:
        name = self.names[task]
        pipeline = self.load(name)
        if not hasattr(pipeline, ABLE[task]):
            raise ModelError(f"'{name}' is a {pipeline.task} model; name another")
        return pipeline

    def _embedder(self, store: LanceStore) -> Together:
        try:
            pipeline = pipelines.as_embedder(self.load(store.model.name))
        except ModelError as error:
            raise Busy(f"{self.db}: its model {store.model} cannot be loaded: {error}") from None
        check_model(self.db, describe(pipeline, store.model.name))
        return Together(pipeline, self.limits, self.decoding)

    def _batcher(self, task: str, pipeline: Any) -> Batcher[Any, Any]:
        def caption(items: Sequence[Path], key: tuple[str, int | None]) -> Sequence[Any]:
            lang, beams = key
            described: list[Any] = pipeline.caption(items, lang, beams=beams)
            return described

        def answer(items: Sequence[tuple[Path, str]], k: int) -> Sequence[Any]:
            answers: list[Any] = pipeline.answer([path for path, _ in items], [text for _, text in items], k)
            return answers

        def draw(items: Sequence[tuple[str, int, int]], _: None) -> Sequence[Any]:
            return [pipeline.draw([prompt], n=n, seed=seed) for prompt, n, seed in items]

        call: Any = {CAPTION: caption, ASK: answer, DRAW: draw}[task]
        limits = self.limits
        return Batcher(call, most=AT_ONCE.get(task, 1), waiting=limits.waiting, seconds=limits.seconds)

    @contextmanager
    def _locked(self, task: str) -> Iterator[None]:
        """One loads, the others wait for it, but not for ever."""
        if not self._locks[task].acquire(timeout=self.limits.seconds):
            raise Slow(f"the model to {task} with is still being loaded; try again in a moment")
        try:
            yield
        finally:
            self._locks[task].release()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        raise StoreError(f"{path.parent}: no index there; make one: tuwen index PICTURES --db {path.parent}") from None
    return stat.st_mtime_ns, stat.st_ino
