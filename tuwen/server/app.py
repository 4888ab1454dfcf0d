"""The app: one object that holds what all requests share, the routes over it, and the guard before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from tuwen import __version__, pipelines
from tuwen.errors import StoreError, TuwenError
from tuwen.server import reference, routes
from tuwen.server.albums import Shelf
from tuwen.server.desk import Desk
from tuwen.server.guard import Guard, problem
from tuwen.server.limits import Limits, Refused, Work
from tuwen.server.schemas import Problem
from tuwen.server.shared import Load, Shared
from tuwen.server.tuning import Tuner

PAGE = Path(__file__).parent / "page"
WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": what}
    for status, what in (
        (400, "A body that cannot be read"), (401, "No token"), (403, "Another site, or another host"),
        (404, "No such thing"), (409, "Not as things are now"), (413, "Too large"),
        (422, "A wrong value, or no picture"), (503, "Busy, or no such model here"), (504, "Not done in time"),
    )
}  # fmt: skip


def create_app(
    db: Path,
    *,
    token: str | None = None,
    loopback: bool = True,
    models: dict[str, str] | None = None,
    limits: Limits | None = None,
    load: Load = pipelines.load,
    tuner: Tuner | None = None,
) -> FastAPI:
    """The server over the index in `db`, as an ASGI app.

    Args:
        token: asked of every request; None asks for none.
        loopback: answer only to names of this machine (`Host`); False where others may reach it, then with a token.
        models: names by task (`caption`, `ask`, `draw`); default: the shipped ones.
        limits: bounds of uploads, time and load.
        load: gives a pipeline by its name.
        tuner: runs the tuning; default: `tuwen tune` in a process of its own.

    Raises:
        ValueError: open to other machines, and no token.
    """
    if not loopback and not token:
        raise ValueError("a server that other machines reach needs a token")
    limits, db = limits or Limits(), Path(db).expanduser().resolve()
    shelf = Shelf(db.with_name(f"{db.name}.albums.json"))
    desk = Desk(
        db,
        Shared(db, limits, models, load),
        Work(limits.looking, limits),
        Work(limits.making, limits),
        shelf,
        tuner or Tuner(db),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.stop()

    app = FastAPI(
        title="Tuwen",
        version=__version__,
        description="Find, describe, ask and draw pictures. Every error is `{error, request_id}`.",
        docs_url=None,
        redoc_url=None,
        responses=WRONG,
        lifespan=lifespan,
    )
    app.state.desk = desk
    for router in routes.make(desk):
        app.include_router(router)
    _tell_errors(app)
    if PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=PAGE), name="page")
    app.add_api_route("/", _index, include_in_schema=False)
    app.add_api_route("/docs", lambda: HTMLResponse(reference.render(app.openapi())), include_in_schema=False)
    app.add_middleware(Guard, upload=limits.upload, token=token, loopback=loopback)
    return app


def _index() -> Response:
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


def _tell_errors(app: FastAPI) -> None:
    """Every error as one plain line."""

    async def refused(request: Request, error: Exception) -> Response:
        return _answer(request, _status(error), str(error))

    async def wrong(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _answer(request, 422, "; ".join(_line(one) for one in error.errors()[:3]))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {404: "there is no such address; see /docs", 405: "this address does not take that method; see /docs"}
        return _answer(request, error.status_code, said.get(error.status_code, str(error.detail)), error.headers)

    app.add_exception_handler(TuwenError, refused)
    app.add_exception_handler(RequestValidationError, wrong)
    app.add_exception_handler(HTTPException, http)


def _status(error: Exception) -> int:
    if isinstance(error, Refused):
        return error.status
    return 503 if isinstance(error, StoreError) else 422  # a model that is not there is told as Busy by `Shared`


def _answer(request: Request, status: int, text: str, headers: Any = None) -> Response:
    body = problem(text, request.scope["state"]["request_id"])
    return Response(body, status, dict(headers or {}), media_type="application/json")


def _line(one: dict[str, Any]) -> str:
    """What is wrong with one value: its name, and what pydantic says of it."""
    where = ".".join(str(part) for part in one["loc"][1:]) or str(one["loc"][0])
    return f"{where}: {str(one['msg']).removeprefix('Value error, ')}"
