"""`/api/albums`: named lists of pictures, and their export."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, cast
from urllib.parse import quote

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse

from tuwen.dataset import free_name
from tuwen.errors import TuwenError
from tuwen.handout import safe_cell
from tuwen.hits import hits_of, live_rows
from tuwen.server.desk import Desk, find_file
from tuwen.server.limits import Missing
from tuwen.server.routes.pictures import binary
from tuwen.server.routes.search import as_hit
from tuwen.server.schemas import (
    Album,
    AlbumChange,
    AlbumHead,
    AlbumName,
    AlbumNew,
    Albums,
    Hit,
    thumbnail_url,
)
from tuwen.store import LanceStore

BLOCK = 1 << 18


class As(str, Enum):
    """What an album is exported as."""

    zip = "zip"
    csv = "csv"


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["albums"])

    @routes.get("/api/albums")
    async def albums() -> Albums:
        """All albums, by name."""

        def act() -> Albums:
            heads = [
                AlbumHead(name=name, count=len(ids), cover=thumbnail_url(ids[0]) if ids else None)
                for name, ids in desk.albums.all().items()
            ]
            return Albums(albums=heads)

        return await desk.looking.run(act)

    @routes.post("/api/albums", status_code=201)
    async def make(new: AlbumNew) -> Album:
        """A new album."""
        return await desk.looking.run(lambda: _album(desk, new.name, desk.albums.add(new.name, new.ids)))

    @routes.get("/api/albums/{name}")
    async def album(name: AlbumName) -> Album:
        """An album with its pictures."""
        return await desk.looking.run(lambda: _album(desk, name, desk.albums.get(name)))

    @routes.put("/api/albums/{name}")
    async def change(name: AlbumName, to: AlbumChange) -> Album:
        """Replace, add, remove, rename."""

        def act() -> Album:
            ids = desk.albums.change(name, to.name, to.ids, to.add, to.remove)
            return _album(desk, to.name or name, ids)

        return await desk.looking.run(act)

    @routes.delete("/api/albums/{name}", status_code=204)
    async def delete(name: AlbumName) -> Response:
        """Take an album away; its pictures stay."""
        await desk.looking.run(desk.albums.delete, name)
        return Response(status_code=204)

    @routes.get("/api/albums/{name}/export", response_class=Response, responses=binary("application/zip", "text/csv"))
    async def export(name: AlbumName, format: Annotated[As, Query()] = As.zip) -> Response:
        """The pictures as a zip, or a table of them as CSV."""
        store, ids = await desk.looking.run(lambda: (desk.shared.store(), desk.albums.get(name)))
        ending = f"attachment; filename*=UTF-8''{quote(name)}.{format.value}"
        if format is As.zip:
            return StreamingResponse(
                _zip(store, ids), media_type="application/zip", headers={"Content-Disposition": ending}
            )
        table = await desk.looking.run(lambda: _csv(_hits(store, ids)))
        return Response(table, media_type="text/csv; charset=utf-8", headers={"Content-Disposition": ending})

    return routes


def _album(desk: Desk, name: str, ids: list[str]) -> Album:
    hits = _hits(desk.shared.store(), ids)
    return Album(name=name, ids=ids, hits=hits, missing=len(ids) - len(hits))


def _hits(store: LanceStore, ids: list[str]) -> list[Hit]:
    """The pictures of an album that the index holds, in its order; their score says nothing."""
    rows = live_rows(store, ids)
    return [as_hit(hit) for hit in hits_of(store, [(id, 0.0) for id in ids if id in rows], rows, None, 0)]


def _csv(hits: list[Hit]) -> str:
    out = io.StringIO()
    table = csv.writer(out)
    table.writerow(("rank", "file", "caption", "date", "width", "height", "id"))
    for hit in hits:
        safe = map(safe_cell, (hit.file, hit.caption, hit.date))
        table.writerow((hit.rank, *safe, hit.width, hit.height, hit.id))
    return "\ufeff" + out.getvalue()  # the mark tells Excel that it is UTF-8


class _Pipe(io.RawIOBase):
    """Takes what is written until it is fetched: a zip is sent as it is made, and never lies whole in memory."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def fetch(self) -> bytes:
        out, self.parts = b"".join(self.parts), []
        return out


def _zip(store: LanceStore, ids: list[str]) -> Iterator[bytes]:
    """The pictures by their names, each once; what cannot be had is listed in `missing.txt`."""
    pipe, names, gone = _Pipe(), list[str](), list[str]()
    with zipfile.ZipFile(cast("Any", pipe), "w", zipfile.ZIP_STORED) as archive:
        for id in ids:
            try:
                path = find_file(store, id)
                source = path.open("rb")
            except (TuwenError, OSError) as error:
                gone.append(f"{id}: {error}" if not isinstance(error, Missing) else str(error))
                continue
            stem = free_name(path.stem, names)
            names.append(stem)
            with source, archive.open(zipfile.ZipInfo(stem + path.suffix), "w", force_zip64=True) as to:
                while block := source.read(BLOCK):
                    to.write(block)
                    yield pipe.fetch()
        if gone:
            archive.writestr("missing.txt", "\n".join(gone) + "\n")
    yield pipe.fetch()
