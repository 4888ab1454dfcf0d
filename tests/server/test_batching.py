"""Requests that meet: the same results as one after the other, in fewer calls."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fake_embedder import FakeEmbedder, draw_many
from fake_server import Client, World, wait_for

from tuwen.errors import PictureError
from tuwen.server.batching import Batcher
from tuwen.server.limits import Busy, Limits, Slow
from tuwen.server.shared import Shared, Together


def squares(items: Sequence[int], _: Any) -> list[int]:
    return [item * item for item in items]


def test_items_that_come_together_share_calls_and_keep_their_results() -> None:
    batcher = Batcher(squares, most=8, linger=0.05)
    with ThreadPoolExecutor(50) as pool:
        assert list(pool.map(batcher, range(50))) == [n * n for n in range(50)]
    assert sum(batcher.calls) == 50
    assert max(batcher.calls) <= 8
    assert len(batcher.calls) < 30


def test_only_items_of_one_key_share_a_call_and_none_waits_for_ever() -> None:
    seen: list[set[int]] = []

    def call(items: Sequence[int], key: int) -> list[int]:
        seen.append({item % 3 for item in items})
        assert {item % 3 for item in items} == {key}
        return list(items)

    batcher = Batcher(call, linger=0.05)
    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(lambda n: batcher(n, n % 3), range(30))) == list(range(30))
    assert all(len(keys) == 1 for keys in seen)
    assert len(seen) < 30


def test_one_bad_item_costs_nobody_else() -> None:
    def call(items: Sequence[int], _: None) -> list[int]:
        if 3 in items:
            raise PictureError("3: broken")
        return list(items)

    batcher = Batcher(call, linger=0.1)
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(batcher, n) for n in range(6)]
    assert [n if n == 3 else asked[n].result() for n in range(6)] == list(range(6))
    with pytest.raises(PictureError, match="3: broken"):
        asked[3].result()


def test_a_call_that_gives_too_few_results_is_an_error_for_all_and_the_next_is_answered() -> None:
    wrong = [True]

    def call(items: Sequence[int], _: None) -> list[int]:
        return [] if wrong[0] else list(items)

    batcher = Batcher(call)
    with pytest.raises(ValueError, match="shorter"):
        batcher(1)
    wrong[0] = False
    assert batcher(1) == 1


def test_a_full_queue_refuses_and_a_late_item_is_dropped_unread() -> None:
    gate, read = threading.Event(), list[int]()

    def call(items: Sequence[int], _: None) -> list[int]:
        read.extend(items)
        gate.wait(20)
        return list(items)

    batcher = Batcher(call, most=1, waiting=1, seconds=2)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher, 1)
        assert wait_for(lambda: read == [1])
        second = pool.submit(batcher, 2)
        assert wait_for(lambda: len(batcher) == 1)
        with pytest.raises(Busy, match="waiting"):
            batcher(3)
        for late in (first, second):
            with pytest.raises(Slow, match="2 s"):
                late.result()
    assert len(batcher) == 0
    gate.set()
    assert batcher(4) == 4
    assert read == [1, 4]


def test_stopping_frees_those_who_wait() -> None:
    gate, begun = threading.Event(), threading.Event()

    def call(items: Sequence[int], _: None) -> list[int]:
        begun.set()
        gate.wait(20)
        return list(items)

    batcher = Batcher(call, most=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(batcher, 1)
        assert begun.wait(20)
        second = pool.submit(batcher, 2)
        assert wait_for(lambda: len(batcher) == 1)
        batcher.stop()
        with pytest.raises(Busy, match="stopping"):
            second.result()
        gate.set()
        assert first.result() == 1
    with pytest.raises(Busy, match="stopping"):
        batcher(3)


def test_an_embedder_together_gives_what_it_gives_alone(shown: World) -> None:
    alone, inner = FakeEmbedder(), FakeEmbedder()
    together = Together(inner, Limits(), threading.Semaphore(2))
    paths = sorted(shown.pictures.iterdir())
    texts = [f"a {name} thing" for name in ("red", "green", "blue", "蓝", "moon")] * 4
    np.testing.assert_array_equal(together.embed_images(paths), alone.embed_images(paths))
    np.testing.assert_array_equal(together.embed_texts(texts), alone.embed_texts(texts))
    inner.batches.clear()
    with ThreadPoolExecutor(12) as pool:
        rows = np.concatenate(list(pool.map(lambda path: together.embed_images([path]), paths)))
    np.testing.assert_array_equal(rows, alone.embed_images(paths))
    assert sum(inner.batches) == len(paths)
    assert len(inner.batches) < len(paths)
    assert together.threshold == alone.threshold  # all else is the embedder's own
    together.stop()


def test_parallel_requests_get_what_serial_ones_get(client: Client, shown: World) -> None:
    c = client()
    asked: list[tuple[str, str, dict[str, Any]]] = [
        *(("GET", "/api/search", {"params": {"q": f"a {name} thing", "k": 3}}) for name in ("red", "green", "blue")),
        *(
            ("POST", "/api/caption", {"data": {"id": shown.id(n), "lang": lang}})
            for n in (0, 1)
            for lang in ("en", "zh")
        ),
        *(("POST", "/api/ask", {"data": {"id": shown.id(n), "question": "what is it?"}}) for n in range(4)),
        *(("POST", "/api/search", {"files": {"image": ("a.png", shown.png(n))}, "data": {"k": "2"}}) for n in range(3)),
    ]

    def send(one: tuple[str, str, dict[str, Any]]) -> Any:
        answer = c.request(one[0], one[1], **one[2])
        assert answer.status_code == 200
        return answer.json()

    serial = [send(one) for one in asked]
    model, waiting = shown.models["vqa"], c.app.state.desk.shared.waiting  # type: ignore[attr-defined]
    answer, sizes = model.answer, model.sizes
    sizes.clear()
    # The first call waits until the questions of all others are there, as a slow model makes them wait.
    model.answer = lambda *a: (sizes or wait_for(lambda: len(a[0]) + waiting("ask") == 8), answer(*a))[1]
    with ThreadPoolExecutor(len(asked) * 2) as pool:
        assert list(pool.map(send, asked * 2)) == serial * 2
    assert len(sizes) <= 2
    assert sum(sizes) == 8


def test_a_model_is_loaded_once_however_many_ask_first(shown: World) -> None:
    loaded: list[str] = []

    def load(name: str) -> Any:
        loaded.append(name)
        threading.Event().wait(0.05)
        return shown.load(name)

    shared = Shared(shown.db, Limits(), load=load)
    with ThreadPoolExecutor(16) as pool:
        opened = list(pool.map(lambda _: shared.search()[1], range(16)))
        list(pool.map(lambda _: shared.model("caption"), range(16)))
    assert len(set(map(id, opened))) == 1
    assert loaded == ["colours", "captioning"]
    shared.stop()


def test_another_model_of_the_index_is_taken_up(world: World) -> None:
    import shutil

    from tuwen.indexing import index_folder

    shared = Shared(world.db, Limits(), load=world.load)
    first = shared.search()[1]
    assert shared.search()[1] is first
    shutil.rmtree(world.db)
    world.models["others"] = FakeEmbedder("others", "0ther000")
    draw_many(world.pictures, 2)
    index_folder(world.pictures, world.db, world.models["others"])
    assert shared.search()[1].name == "others"
    shared.stop()
