"""Without words the page shows everything, the newest first."""

from __future__ import annotations

import os

from fake_embedder import FakeEmbedder, draw
from fake_server import COUNT, Client, World

from tuwen.indexing import index_folder


def test_without_words_all_pictures_come_by_date_and_page_on(client: Client, world: World) -> None:
    for n, path in enumerate(sorted(world.pictures.glob("*.png"))):
        os.utime(path, (1_600_000_000 + n, 1_600_000_000 + n))
    draw(world.pictures / "old.png", "red", seed=99)
    os.utime(world.pictures / "old.png", (1_000_000_000, 1_000_000_000))
    index_folder(world.pictures, world.db, FakeEmbedder())
    c = client(world)
    pages = [c.get("/api/search", params={"k": 5, "offset": n}).json() for n in (0, 5, 10)]
    hits = [hit for page in pages for hit in page["hits"]]
    assert [page["more"] for page in pages] == [True, True, False]
    assert len({hit["id"] for hit in hits}) == COUNT + 1
    assert [hit["rank"] for hit in hits] == list(range(1, COUNT + 2))
    names = [hit["file"].rsplit("/", 1)[1] for hit in hits]
    assert names == [*sorted(names[:-1], reverse=True), "old.png"]
    assert c.get("/api/search", params={"before": "2010-01-01"}).json()["hits"][0]["file"].endswith("old.png")
    assert c.get("/api/search", params={"min_side": 17}).json()["hits"] == []
