"""What a hostile client sends: a 4xx or a clear line, never a 500, a hang, or a file from outside the folder."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fake_server import Client, World, jpeg, png_header, wait_for
from fastapi.testclient import TestClient

from tuwen.server.limits import Limits

SECRET = b"top secret"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>1</script></svg>'
HTML = b"<!doctype html><script>alert(1)</script>"
UPLOADS = {
    "svg": ("a.svg", SVG, "image/svg+xml"),
    "svg that says png": ("a.png", SVG, "image/png"),
    "html": ("a.html", HTML, "text/html"),
    "html that says jpeg": ("a.jpg", HTML, "image/jpeg"),
    "nothing": ("a.png", b"", "image/png"),
    "50,000 x 50,000 pixels": ("a.png", png_header(50_000, 50_000), "image/png"),
    "a header alone": ("a.png", png_header(16, 16), "image/png"),
    "cut off": ("a.jpg", jpeg(256)[:400], "image/jpeg"),
    "eps": ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/x-eps"),
}
TAKERS = {"search": "image", "caption": "upload", "ask": "upload"}
IDS = ("../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..", "0" * 64, "A" * 64, "0" * 63)
QUERY = "a red thing " * 900  # over 10,000 characters


@pytest.fixture(autouse=True)
def no_fault(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever came, the server never stumbled: a fault of ours is the only thing that it logs as an error."""
    with caplog.at_level(logging.INFO, "tuwen.server"):
        yield
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []


def said(answer: object) -> str:
    """The one line of an error, and nothing beside it."""
    body = json.loads(answer.content)  # type: ignore[attr-defined]
    assert set(body) == {"error", "request_id"}
    assert answer.headers["x-request-id"] == body["request_id"]  # type: ignore[attr-defined]
    assert body["error"]
    assert "\n" not in body["error"]
    assert "Traceback" not in body["error"]
    return str(body["error"])


@pytest.mark.parametrize("route", TAKERS)
@pytest.mark.parametrize("what", UPLOADS)
def test_what_is_no_picture_is_refused(what: str, route: str, client: Client) -> None:
    answer = client().post(f"/api/{route}", files={TAKERS[route]: UPLOADS[what]}, data=_more(route))
    assert answer.status_code == 422
    error = said(answer)
    assert error.startswith("upload: ")
    assert "/tmp" not in error
    if "50,000" in what:
        assert "50000x50000 pixels are more than" in error


@pytest.mark.parametrize("id", IDS)
def test_ids_lead_nowhere(id: str, client: Client) -> None:
    c = client()
    for path in ("/api/pictures/{}", "/api/pictures/{}/file", "/api/pictures/{}/thumbnail", "/api/similar/{}"):
        answer = c.get(path.format(id))
        assert answer.status_code in (404, 422), path
        assert b"root:" not in answer.content
        said(answer)
    assert c.put(f"/api/pictures/{id}/caption", json={"text": "mine"}).status_code in (404, 405, 422)
    assert c.post("/api/caption", data={"id": id}).status_code in (404, 422)


@pytest.mark.parametrize("path", ["/page/../../cli/serve.py", "/page/..%2f..%2fcli%2fserve.py", "/page//etc/passwd"])
def test_the_page_folder_is_not_left(path: str, client: Client) -> None:
    answer = client().get(path)
    assert answer.status_code == 404
    said(answer)


def test_a_link_out_of_the_folder_is_not_followed_when_it_is_put_there_later(client: Client, world: World) -> None:
    c, secret = client(world), world.folder / "secret.png"
    secret.write_bytes(world.png(1) + SECRET)
    path = world.pictures / "p004.png"
    id, stat = world.id(4), path.stat()
    path.unlink()
    path.symlink_to(secret)
    os.utime(secret, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    answer = c.get(f"/api/pictures/{id}/file")
    assert answer.status_code == 404
    assert "tuwen index" in said(answer)
    assert c.get(f"/api/pictures/{id}/thumbnail", params={"side": 2048}).status_code == 404
    assert c.post("/api/caption", data={"id": id}).status_code == 404


def test_a_folder_that_became_a_link_is_not_followed(client: Client, tmp_path: Path) -> None:
    from fake_embedder import draw

    from tuwen.indexing import index_folder

    world = World(tmp_path)
    draw(world.pictures / "p000.png", "red")
    draw(world.pictures / "sub" / "in.png", "blue")
    index_folder(world.pictures, world.db, world.models["colours"])
    c = client(world)
    found = c.get("/api/search", params={"q": "blue"}).json()["hits"][0]
    assert c.get(f"/api/pictures/{found['id']}/file").status_code == 200
    (world.pictures / "sub").rename(tmp_path / "elsewhere")
    (world.pictures / "sub").symlink_to(tmp_path / "elsewhere")
    assert c.get(f"/api/pictures/{found['id']}/file").status_code == 404


def test_another_file_in_the_place_of_a_picture_is_not_served(client: Client, world: World) -> None:
    c, id = client(world), world.id(4)
    (world.pictures / "p004.png").write_bytes(HTML + SECRET)
    answer = c.get(f"/api/pictures/{id}/file")
    assert answer.status_code == 404
    assert SECRET not in answer.content
    (world.pictures / "p004.png").unlink()
    assert c.get(f"/api/pictures/{id}/file").status_code == 404


def test_a_copy_that_is_touched_is_still_that_picture(client: Client, world: World) -> None:
    id = world.id(4)
    os.utime(world.pictures / "p004.png")
    assert client(world).get(f"/api/pictures/{id}/file").content == world.png(4)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "streamed"])
def test_a_body_of_200_mb_is_stopped_early(declared: bool, client: Client) -> None:
    sent, block = 0, b"\0" * (1 << 20)

    def body() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 1
            yield block

    headers = {"content-type": "multipart/form-data; boundary=x"}
    if declared:
        headers["content-length"] = str(200 << 20)
    answer = client(limits=Limits(upload=4 << 20)).post("/api/search", content=body(), headers=headers)
    assert answer.status_code == 413
    assert said(answer) == "more than 4 MB were sent; make the picture smaller"


def test_a_length_that_is_no_number_is_refused(client: Client) -> None:
    for length in ("-1", "1e9", "9" * 400):
        answer = client().post("/api/search", content=b"x", headers={"content-length": length})
        assert answer.status_code in (400, 413), length
        said(answer)


def test_100_uploads_at_once_are_all_answered(client: Client, shown: World) -> None:
    c = client()
    c.get("/api/search", params={"q": "red"})
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda n: _search(c, shown.png(n % 12)), range(100)))
    assert [answer[0] for answer in answers] == [200] * 100
    assert [answer[1] for answer in answers] == [shown.id(n % 12) for n in range(100)]


def test_more_than_the_server_takes_is_told_so_and_it_recovers(client: Client, shown: World) -> None:
    model, gate = shown.models["captioning"], threading.Event()
    caption = model.caption
    model.caption = lambda *a, **k: (gate.wait(30), caption(*a, **k))[1]
    c = client(limits=Limits(making=2, waiting=2, seconds=30))
    with ThreadPoolExecutor(12) as pool:
        waiting = [pool.submit(c.post, "/api/caption", data={"id": shown.id(0)}) for _ in range(12)]
        refused = list(_first(waiting, 8))
        gate.set()
        statuses = [one.result().status_code for one in waiting]
    assert statuses.count(503) == len(refused) == 8
    assert statuses.count(200) == 4
    assert all("try again" in said(one.result()) for one in refused)
    assert c.post("/api/caption", data={"id": shown.id(0)}).status_code == 200


def test_what_takes_too_long_is_given_up_and_does_not_pile_up(client: Client, shown: World) -> None:
    model, gate, begun = shown.models["captioning"], threading.Event(), []
    caption = model.caption

    def slow(items: list[Path], *args: object, **options: object) -> object:
        begun.append(len(items))
        gate.wait(30)
        return caption(items, *args, **options)

    model.caption = slow
    c = client(limits=Limits(seconds=1.5))
    with ThreadPoolExecutor(4) as pool:
        first = c.post("/api/caption", data={"id": shown.id(0)})
        rest = list(pool.map(lambda _: c.post("/api/caption", data={"id": shown.id(0)}), range(4)))
    assert [one.status_code for one in (first, *rest)] == [504] * 5
    assert "1.5 s" in said(first)
    waiting = c.app.state.desk.shared.waiting  # type: ignore[attr-defined]
    assert wait_for(lambda: waiting("caption") == 0)
    gate.set()
    assert c.post("/api/caption", data={"id": shown.id(0)}).status_code == 200
    assert sum(begun) == 2  # the one that had begun, and the last: those between were dropped unread


@pytest.mark.parametrize("name", ["q", "without", "folder", "camera", "format"])
def test_a_query_of_10000_characters_is_refused(name: str, client: Client) -> None:
    answer = client().get("/api/search", params={"q": "red", name: QUERY})
    assert answer.status_code == 422
    error = said(answer)
    assert error.startswith(f"{name}: ")
    assert "1000 characters" in error


def test_long_words_elsewhere_are_refused_too(client: Client, shown: World) -> None:
    c = client()
    for answer in (
        c.post("/api/draw", json={"prompt": QUERY}),
        c.post("/api/ask", data={"id": shown.id(0), "question": QUERY}),
        c.put(f"/api/pictures/{shown.id(0)}/caption", json={"text": QUERY}),
        c.post("/api/albums", json={"name": QUERY}),
    ):
        assert answer.status_code == 422
        said(answer)


def test_signs_that_mean_something_elsewhere_are_only_words(client: Client) -> None:
    c, names = client(), ("q", "without", "folder", "camera", "format")
    for text in ("'; DROP TABLE files; --", "\0", "%00", "{{7*7}}", "\u202e\U0001f436", "'", '"', "\\", "🐕" * 300):
        for mode in ("vector", "words", "hybrid"):
            answer = c.get("/api/search", params={"mode": mode, **dict.fromkeys(names, text)})
            assert answer.status_code in (200, 422), (mode, text)
    assert c.get("/api/search", params={"q": "red"}).json()["hits"]


@pytest.mark.parametrize("name", ["..", ".", "../up", "a/b", "a\\b", "\0", "", " ", "x" * 101])
def test_names_of_albums_are_plain(name: str, client: Client) -> None:
    answer = client().post("/api/albums", json={"name": name})
    assert answer.status_code == 422
    said(answer)


def test_cells_that_a_spreadsheet_would_run_are_made_harmless() -> None:
    from tuwen.server.routes.albums import _csv
    from tuwen.server.schemas import Hit

    hit = Hit(id="0", file="/p/a.jpg", score=0, rank=1, caption='=HYPERLINK("http://x","y")', thumbnail="t")
    assert "'=HYPERLINK" in _csv([hit])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"prompt": 7}', b'{"prompt": "a", "n": 1e9}', b"\xff\xfe"]
)
def test_bodies_that_are_no_request(body: bytes, client: Client) -> None:
    answer = client().post("/api/draw", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422)
    said(answer)


def test_a_name_that_is_misspelt_is_told(client: Client, shown: World) -> None:
    answer = client().get("/api/search", params={"q": "red", "ofset": 3})
    assert answer.status_code == 422
    assert said(answer).startswith("ofset: ")
    assert client().post("/api/ask", data={"question": "what?"}).status_code == 422


def test_a_fault_of_ours_is_one_line_and_no_traceback(
    client: Client, shown: World, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret /path\nand more")

    shown.models["captioning"].caption = broken
    answer = client().post("/api/caption", data={"id": shown.id(0)})
    assert answer.status_code == 500
    assert said(answer) == "the server failed (RuntimeError); its log names this request"
    faults = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(faults) == 1
    assert "secret /path and more" in faults[0].message
    caplog.clear()


def _more(route: str) -> dict[str, str]:
    return {"question": "what is it?"} if route == "ask" else {}


def _search(c: TestClient, png: bytes) -> tuple[int, str]:
    answer = c.post("/api/search", files={"image": ("a.png", png, "image/png")}, data={"k": "1"})
    return answer.status_code, answer.json()["hits"][0]["id"]


def _first(waiting: list, count: int) -> Iterator:  # type: ignore[type-arg]
    """The first `count` to be done."""
    from concurrent.futures import as_completed

    for _, one in zip(range(count), as_completed(waiting, timeout=30), strict=False):
        yield one
