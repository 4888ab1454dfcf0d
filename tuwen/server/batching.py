"""Requests that come together are answered together: one call of a model for all that wait."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tuwen.server.limits import Busy, Slow

T = TypeVar("T")
R = TypeVar("R")


@dataclass
class _Asked(Generic[T, R]):
    item: T
    key: Hashable
    future: Future[R]


class Batcher(Generic[T, R]):
    """A queue before a model: items of the same key go through `call(items, key)` together, in the order they came.

    The first that comes waits `linger` seconds for others, unless `most` are there; while a call runs, the queue fills
    by itself. Where a call fails, each of its items is tried alone, so that one bad picture costs nobody else.

    Args:
        call: items of one key -> as many results.
        most: items a call.
        linger: seconds.
        waiting: items in the queue; more are refused.
        seconds: that an item may take, waiting included.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T], Any], Sequence[R]],
        *,
        most: int = 32,
        linger: float = 0.004,
        waiting: int = 512,
        seconds: float = 60.0,
    ) -> None:
        self.call, self.most, self.linger, self.waiting, self.seconds = call, most, linger, waiting, seconds
        self.calls: list[int] = []  # sizes, for whoever wants to see how well requests met; the last 1,000
        self._queue: deque[_Asked[T, R]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopped = False

    def __call__(self, item: T, key: Hashable = None) -> R:
        """The result for one item, from whatever call it went into.

        Raises:
            Busy: the queue is full, or the server stops.
            Slow: not done in time; what had not begun by then is dropped.
        """
        return self.all([item], key)[0]

    def all(self, items: Sequence[T], key: Hashable = None) -> list[R]:
        """As a call for each, but handed in together."""
        asked = [_Asked[T, R](item, key, Future()) for item in items]
        with self._changed:
            if self._stopped:
                raise Busy("the server is stopping")
            if len(self._queue) + len(asked) > self.waiting:
                raise Busy(f"{len(self._queue)} requests are waiting for this model; try again in a moment")
            self._queue.extend(asked)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        until = time.monotonic() + self.seconds
        try:
            return [one.future.result(max(0.0, until - time.monotonic())) for one in asked]
        except Late:
            raise Slow(f"took longer than {self.seconds:g} s, so it was given up; try again later") from None
        finally:
            self._drop([one for one in asked if one.future.cancel()])  # True where it had not begun

    def __len__(self) -> int:
        """How many wait."""
        return len(self._queue)

    def stop(self) -> None:
        """Refuse what waits and what comes; a call that runs ends by itself."""
        with self._changed:
            self._stopped = True
            waiting, self._queue = list(self._queue), deque()
            self._changed.notify_all()
        for one in waiting:
            if one.future.set_running_or_notify_cancel():
                one.future.set_exception(Busy("the server is stopping"))

    def _drop(self, asked: Sequence[_Asked[T, R]]) -> None:
        if asked:
            out = set(map(id, asked))
            with self._changed:
                self._queue = deque(one for one in self._queue if id(one) not in out)

    def _work(self) -> None:
        while batch := self._take():
            if begun := [one for one in batch if one.future.set_running_or_notify_cancel()]:
                self.calls = [*self.calls[-999:], len(begun)]
                self._run(begun)

    def _take(self) -> list[_Asked[T, R]]:
        """The next items of one key; none when stopped."""
        with self._changed:
            while not self._queue:
                while not self._queue and not self._stopped:
                    self._changed.wait()
                until = time.monotonic() + self.linger
                while not self._stopped and len(self._queue) < self.most and (left := until - time.monotonic()) > 0:
                    self._changed.wait(left)
                if self._stopped:
                    return []
            key = self._queue[0].key
            batch = [one for one in self._queue if one.key == key][: self.most]
            taken = set(map(id, batch))
            self._queue = deque(one for one in self._queue if id(one) not in taken)
            return batch

    def _run(self, batch: Sequence[_Asked[T, R]]) -> None:
        try:
            results = self.call([one.item for one in batch], batch[0].key)
            for one, result in zip(batch, results, strict=True):
                one.future.set_result(result)
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for one in batch:
                if not one.future.done():
                    self._run([one])
