"""`/api/corrections` and `/api/tune`: what people corrected becomes a data set, and the search learns from it."""

from __future__ import annotations

import threading
from pathlib import Path

from fastapi import APIRouter

from tuwen import dataset, searching
from tuwen.holdout import LEAST
from tuwen.server.desk import Desk
from tuwen.server.limits import Refused
from tuwen.server.schemas import Caption, Corrected, Corrections, Exported, Tune, TuneRequest, thumbnail_url
from tuwen.store import FILES

EXPORTING = threading.Lock()  # two exports at once would write into each other


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["learning"])

    @routes.get("/api/corrections")
    async def corrections() -> Corrections:
        """Pictures whose captions people wrote or corrected in the page."""

        def act() -> Corrections:
            rows = [
                Corrected(
                    id=row["id"],
                    file=row["file"],
                    captions=[Caption(source="human", **one) for one in row["captions"]],
                    made=[Caption(**one) for one in row["made"]],
                    thumbnail=thumbnail_url(row["id"]),
                )
                for row in searching.corrected(desk.shared.store())
            ]
            return Corrections(corrections=rows, needed=LEAST)

        return await desk.looking.run(act)

    @routes.post("/api/corrections/export")
    async def export() -> Exported:
        """Write a data set of them on the server's machine, for `tuwen tune --data` and all else that takes one."""
        return await desk.making.run(_export, desk)

    @routes.post("/api/tune", status_code=202)
    async def tune(asked: TuneRequest) -> Tune:
        """Tune the search on the corrected and the given captions, one job at a time, and follow it by GET."""

        def act() -> Tune:
            store = desk.shared.store()
            made = _export(desk, given=True)
            if made.pictures < LEAST:
                raise Refused(
                    f"{made.pictures} pictures have captions that people wrote: tuning needs {LEAST}; correct some more"
                )
            lang = asked.lang.value if asked.lang else None
            desk.tuner.start(Path(made.data), store.model.name, made.pictures, lang, asked.epochs, asked.seed)
            return _state(desk)

        return await desk.making.run(act)

    @routes.get("/api/tune")
    async def state() -> Tune:
        """The job, or the last one: before and after on pictures held out, and how to use what came of it."""
        return await desk.looking.run(_state, desk)

    @routes.delete("/api/tune")
    async def stop() -> Tune:
        """Stop the job."""

        def act() -> Tune:
            desk.tuner.stop()
            return _state(desk)

        return await desk.looking.run(act)

    return routes


def _export(desk: Desk, given: bool = False) -> Exported:
    """People's captions as a data set beside the index; for tuning, those that a data set gave as well."""
    to = desk.db.with_name(f"{desk.db.name}.{'lessons' if given else 'corrections'}")
    with EXPORTING:
        searching.export_corrections(desk.shared.store(), to, given)
        made = dataset.read(to)
    captions = sum(len(picture.captions) for picture in made.pictures)
    return Exported(data=str(to), pictures=len(made.pictures), captions=captions)


def _state(desk: Desk) -> Tune:
    state = desk.tuner.state()
    if state["state"] == "done":
        folders = sorted({row["folder"] for row in desk.shared.store().scan(FILES, ["folder"])})
        pictures = folders[0] if folders else "PICTURES"
        state["use"] = f"tuwen index {pictures} --db {desk.db} --model {state['run']}"
    return Tune(**state)
