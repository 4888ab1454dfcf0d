"""`/api/pictures/{id}`: metadata, the thumbnail, the file itself, and its caption as a person wants it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response

from tuwen import images, searching
from tuwen.browsing import KEPT
from tuwen.server.desk import Desk, check_id, find_file
from tuwen.server.limits import Missing
from tuwen.server.schemas import Caption, Correction, PictureId, PictureRow, thumbnail_url
from tuwen.store import THUMBNAILS, LanceStore

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # an id is of a content: it never changes
TYPES = {
    "JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif",
    "BMP": "image/bmp", "TIFF": "image/tiff", "AVIF": "image/avif", "HEIF": "image/heif", "JPEG2000": "image/jp2",
    "PPM": "image/x-portable-pixmap",
}  # fmt: skip


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["pictures"])

    @routes.get("/api/pictures/{id}")
    async def picture(id: PictureId) -> PictureRow:
        """All that the index knows of a picture."""
        return await desk.looking.run(_row, desk, id)

    @routes.get("/api/pictures/{id}/thumbnail", response_class=Response, responses=binary("image/jpeg"))
    async def thumbnail(id: PictureId, side: Annotated[int, Query(ge=16, le=2048)] = 256) -> Response:
        """A JPEG, its longer side at most `side` pixels."""

        def act() -> Response:
            store = desk.shared.store()
            kept = side <= KEPT and next(iter(store.scan(THUMBNAILS, ["key"], ("key", [id]))), None) is not None
            body = searching.thumbnail(store, id, side) if kept else _drawn(desk, store, id, side)
            return Response(body, media_type="image/jpeg", headers=FOREVER)

        return await desk.looking.run(act)

    @routes.get("/api/pictures/{id}/file", response_class=FileResponse, responses=binary("image/*"))
    async def file(id: PictureId) -> FileResponse:
        """The file as it lies on the disk."""

        def act() -> FileResponse:
            path = find_file(desk.shared.store(), id)
            kind = TYPES.get(images.probe(path)["format"])
            if kind is None:
                raise Missing(f"{path.name}: not a picture any more")
            return FileResponse(
                path, media_type=kind, filename=path.name, content_disposition_type="inline", headers=FOREVER
            )

        return await desk.looking.run(act)

    @routes.put("/api/pictures/{id}/caption")
    async def correct(id: PictureId, caption: Correction) -> PictureRow:
        """Write a caption as a person wants it; the model's stays beside it."""

        def act() -> PictureRow:
            check_id(desk.shared.store(), id)
            searching.set_caption(desk.db, id, caption.text, caption.lang.value)
            return _row(desk, id)

        return await desk.making.run(act)

    return routes


def _row(desk: Desk, id: str) -> PictureRow:
    store = desk.shared.store()
    check_id(store, id)
    row: dict[str, Any] = searching.read_picture(store, id)
    plain = {name: row.get(name) for name in ("width", "height", "format", "size", "date", "camera")}
    places = {name: row.get(name) for name in ("latitude", "longitude")}
    return PictureRow(
        id=id,
        file=row["file"],
        files=row["files"],
        captions=[Caption(**one) for one in row["captions"]],
        **plain,
        **places,
        thumbnail=thumbnail_url(id),
        picture=f"/api/pictures/{id}/file",
        similar=f"/api/similar/{id}",
    )


def _drawn(desk: Desk, store: LanceStore, id: str, side: int) -> bytes:
    """A thumbnail of the file itself, where the store keeps none so large."""
    file = find_file(store, id)
    with desk.shared.decoding:
        return images.thumbnail(file, side)


def binary(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI of an answer that is a file."""
    body = {"schema": {"type": "string", "format": "binary"}}
    return {200: {"content": dict.fromkeys(kinds, body), "description": "A file"}}
