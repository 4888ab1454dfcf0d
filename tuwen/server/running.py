"""A server from its first line to its last: signals, the log, and the models read before somebody waits for them."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading

import numpy as np
import uvicorn
from fastapi import FastAPI

from tuwen.errors import TuwenError
from tuwen.server.desk import Desk

log = logging.getLogger("tuwen.server")

GRACE = 10  # seconds for requests that are being answered when the server is told to stop


def run(app: FastAPI, listening: socket.socket) -> None:
    """Answer until SIGTERM or Ctrl-C, then let what is being answered come to its end.

    SIGTERM returns; Ctrl-C raises KeyboardInterrupt after all is closed.
    """
    _log()
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=32 * 1024,
        ws="none",
    )
    server = uvicorn.Server(config)
    threading.Thread(target=warm, args=(app.state.desk,), name="warm", daemon=True).start()
    # uvicorn raises the signal again when it is done: SIGTERM then is no accident, and the exit code is 0.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
        listening.close()


def warm(desk: Desk) -> None:
    """Open the index and its model, both sides of it, so that the first search does not wait for that."""
    try:
        _, pipeline = desk.shared.search()
        pipeline.embed_texts(["."])
        pipeline.embed_pixels(np.zeros((1, pipeline.size, pipeline.size, 3), np.uint8))
    except TuwenError as error:
        log.warning("%s", error)


def new_token() -> str:
    """128 random bits."""
    return secrets.token_urlsafe(16)


def _log() -> None:
    """One line a request, on standard error: time, id, what was asked, status, time taken. Never what was searched."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers = [handler]
    log.setLevel(logging.DEBUG if os.environ.get("TUWEN_DEBUG") else logging.INFO)
    log.propagate = False
