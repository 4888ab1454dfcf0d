"""What a request may cost, and how a request that may not be answered is told so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from tuwen.errors import TuwenError

R = TypeVar("R")


@dataclass(frozen=True)
class Limits:
    """Bounds of a server."""

    upload: int = 32 * 2**20  # bytes of a request's body
    seconds: float = 60.0  # of a request, once its body is there
    looking: int = 8  # requests that search and read at once: more would only wait for one another's turn
    making: int = 16  # requests that caption, answer, draw or write at once: these must not hold up the others
    waiting: int = 512  # requests for a thread, and items for a model
    decoding: int = 2  # pictures decoded at once: the largest that is taken has 120 million pixels


class Refused(TuwenError):
    """A request that is not answered; `status` is what HTTP calls it."""

    status = 422

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status or self.status


class Missing(Refused):
    """There is no such thing."""

    status = 404


class Busy(Refused):
    """Too much at once, or a model that is not there."""

    status = 503


class Slow(Refused):
    """Not done in time."""

    status = 504


class Work:
    """Threads that work for requests, at most so many, and a bounded queue before them: late work does not pile up."""

    def __init__(self, threads: int, limits: Limits) -> None:
        self.threads, self.limits = threads, limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
        self._pending = 0
        self._lock = threading.Lock()

    async def run(self, act: Callable[..., R], *args: Any) -> R:
        """`act(*args)` in a thread.

        Raises:
            Busy: too many wait already.
            Slow: not done in time. What has not begun is dropped; what runs ends by itself and counts until then.
        """
        with self._lock:
            if self._pending >= self.threads + self.limits.waiting:
                raise Busy("too many requests at once; try again in a moment")
            self._pending += 1
        future = self._pool.submit(act, *args)
        future.add_done_callback(self._done)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.limits.seconds)
        except asyncio.TimeoutError:
            raise Slow(f"took longer than {self.limits.seconds:g} s, so it was given up; try again later") from None

    def stop(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, _: Future[Any]) -> None:
        with self._lock:
            self._pending -= 1
