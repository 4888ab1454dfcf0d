"""The routes, by subject. Each module makes a router over one desk; no mathematics here, and no state."""

from __future__ import annotations

from fastapi import APIRouter

from tuwen.server.desk import Desk
from tuwen.server.routes import albums, asking, learning, pictures, search, state


def make(desk: Desk) -> list[APIRouter]:
    """All routers."""
    return [part.router(desk) for part in (search, asking, pictures, albums, learning, state)]
