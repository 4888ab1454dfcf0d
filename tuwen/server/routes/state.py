"""`/api/stats`, `/healthz`, and the reference of the REST at `/docs`."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path
from typing import Any

from fastapi import APIRouter

from tuwen.server.desk import Desk
from tuwen.server.schemas import Health, Model, Stats
from tuwen.server.shared import ABLE
from tuwen.store import FILES, NOTES, LanceStore

SHOWN = 100  # files that cannot be read


def router(desk: Desk) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["state"])

    @routes.get("/healthz")
    async def health() -> Health:
        """Whether the server is alive. Asks for no token, and says nothing else."""
        return Health(status="ok")

    @routes.get("/api/stats")
    async def stats() -> Stats:
        """What the index holds, and the models."""
        return await desk.looking.run(lambda: _stats(desk, desk.shared.store()))

    return routes


def _stats(desk: Desk, store: LanceStore) -> Stats:
    columns = ["content", "folder", "path", "format", "camera", "date", "captions", "state", "why"]
    contents: set[str] = set()
    folders: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    cameras: Counter[str] = Counter()
    dates: list[str] = []
    failed: list[dict[str, str]] = []
    captions = files = 0
    for row in store.scan(FILES, columns):
        files += 1
        folders[row["folder"]] += 1
        if row["state"] != "ok":
            failed.append({"file": str(Path(row["folder"]) / row["path"]), "why": row["why"] or ""})
            continue
        if row["content"] in contents:
            continue
        contents.add(row["content"])
        captions += len(row["captions"] or ())
        formats.update([row["format"]] if row["format"] else [])
        cameras.update([row["camera"]] if row["camera"] else [])
        dates += [row["date"]] if row["date"] else []
    captions += sum(note["content"] in contents for note in store.scan(NOTES, ["content"]))
    failed.sort(key=lambda one: one["file"])
    return Stats(
        db=str(desk.db),
        pictures=len(contents),
        files=files,
        failed=failed[:SHOWN],
        failed_count=len(failed),
        folders=sorted(folders),
        captions=captions,
        formats=dict(formats.most_common()),
        cameras=dict(cameras.most_common(50)),
        first_date=min(dates, default=None),
        last_date=max(dates, default=None),
        bytes=sum(map(_size, desk.db.rglob("*"))),
        index_model=store.model.name,
        models=_models(desk, store),
    )


def _size(path: Path) -> int:
    """Bytes of a file; 0 of a folder, and of what a writer has just taken away."""
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def _models(desk: Desk, store: LanceStore) -> dict[str, Model]:
    search: Any = desk.shared.embedder()
    models = {
        "search": Model(
            name=store.model.name, languages=search.languages if search else None, loaded=search is not None
        )
    }
    for task in ABLE:
        loaded = desk.shared.loaded.get(task)
        models[task] = Model(
            name=desk.shared.names[task],
            languages=getattr(loaded, "languages", None),
            loaded=loaded is not None,
            why=desk.shared.failed.get(task),
        )
    return models
