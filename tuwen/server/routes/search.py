"""`/api/search`, `/api/similar`, `/api/duplicates`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Query

from tuwen import searching
from tuwen.browsing import newest
from tuwen.server.desk import Desk, check_id
from tuwen.server.schemas import Groups, Hit, Hits, Page, PictureId, SearchPicture, SearchWords, Wanted, thumbnail_url


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["search"])

    @routes.get("/api/search")
    async def search(wanted: Annotated[SearchWords, Query()]) -> Hits:
        """Pictures that fit words, best first; none where nothing passes the model's no-match threshold. Without words:
        all pictures, the newest first."""
        return await desk.looking.run(_find, desk, wanted, wanted.q, None, 0.0)

    @routes.post("/api/search")
    async def search_picture(wanted: Annotated[SearchPicture, Form(media_type="multipart/form-data")]) -> Hits:
        """Pictures like an uploaded one, or like it and fitting words."""

        def act() -> Hits:
            with desk.picture(None, wanted.image) as path:
                return _find(desk, wanted, wanted.q, path, wanted.weight)

        return await desk.looking.run(act)

    @routes.get("/api/similar/{id}")
    async def similar(id: PictureId, page: Annotated[Page, Query()]) -> Hits:
        """Pictures like an indexed one, itself left out."""

        def act() -> Hits:
            store = desk.shared.store()
            check_id(store, id)
            return as_hits(searching.similar(store, id, page.k, page.offset))

        return await desk.looking.run(act)

    @routes.get("/api/duplicates")
    async def duplicates() -> Groups:
        """Near-duplicates, in groups."""

        def act() -> Groups:
            return Groups(
                groups=[[as_hit(hit) for hit in group] for group in searching.duplicates(desk.shared.store())]
            )

        return await desk.making.run(act)

    return routes


def _find(desk: Desk, wanted: Wanted, words: str | None, image: Path | None, weight: float) -> Hits:
    kept = searching.Filter(**{name: getattr(wanted, name) for name in searching.Filter.__dataclass_fields__})
    if words is None and image is None:
        hits, more = newest(desk.shared.store(), kept, wanted.k, wanted.offset)
        return Hits(hits=[as_hit(hit) for hit in hits], more=more)
    store, pipeline = desk.shared.search()
    query = searching.Query(
        text=words,
        image=image,
        weight=weight,
        without=wanted.without,
        mode=wanted.mode.value,
        filter=kept,
        order=wanted.sort.value,
        offset=wanted.offset,
        k=wanted.k,
        everything=wanted.everything,
    )
    return as_hits(searching.find(store, pipeline, query))


def as_hits(found: searching.Found) -> Hits:
    """A page of hits as JSON has it."""
    return Hits(hits=[as_hit(hit) for hit in found.hits], more=found.more, warnings=found.warnings)


def as_hit(hit: searching.Hit) -> Hit:
    """A hit as JSON has it."""
    return Hit(
        id=hit.id,
        file=hit.file,
        score=hit.score,
        rank=hit.rank,
        caption=hit.caption,
        width=hit.width,
        height=hit.height,
        date=hit.date,
        thumbnail=thumbnail_url(hit.id),
    )
