"""An index of a dozen small pictures, and a client without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_embedder import FakeEmbedder, draw_many
from fake_server import COUNT, Client, World
from fastapi.testclient import TestClient

from tuwen.indexing import index_folder
from tuwen.server import create_app


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `pictures` with its index, to copy: its rows name this place."""
    folder = tmp_path_factory.mktemp("world")
    draw_many(folder / "pictures", COUNT)
    index_folder(folder / "pictures", folder / "tuwen.db", FakeEmbedder())
    return folder


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Pictures and an index of one's own, to change."""
    draw_many(tmp_path / "pictures", COUNT)
    made = World(tmp_path)
    index_folder(made.pictures, made.db, made.models["colours"])
    return made


@pytest.fixture
def shown(indexed: Path) -> Iterator[World]:
    """The pictures and the index that all tests share, to read; what a test put beside them is taken away."""
    yield World(indexed)
    for path in indexed.glob("tuwen.db.*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def client(shown: World) -> Iterator[Client]:
    """`client(world=shown, base_url=..., **options of create_app)`."""
    with ExitStack() as stack:

        def make(world: World = shown, base_url: str = "http://localhost:7860", **options: Any) -> TestClient:
            app = create_app(world.db, **{"load": world.load, **options})
            return stack.enter_context(TestClient(app, base_url, raise_server_exceptions=False))

        yield make
