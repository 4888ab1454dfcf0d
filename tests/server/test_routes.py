"""Every route, with models that are quick and known."""

from __future__ import annotations

import base64
import csv
import io
import zipfile

import pytest
from fake_server import COUNT, Client, World
from PIL import Image

from tuwen import __version__, dataset
from tuwen.server.app import create_app
from tuwen.server.schemas import thumbnail_url


def test_search_by_words_finds_the_colour_and_pages_on(client: Client, shown: World) -> None:
    c = client()
    whole = c.get("/api/search", params={"q": "a red thing", "k": 200, "all": True}).json()
    assert len(whole["hits"]) == COUNT
    assert not whole["more"]
    assert whole["version"] == __version__
    first = whole["hits"][0]
    assert first["id"] == shown.id(0)  # red and red
    assert first["rank"] == 1
    assert (first["width"], first["height"]) == (16, 16)
    assert first["thumbnail"] == thumbnail_url(first["id"])
    pages = [
        c.get("/api/search", params={"q": "a red thing", "k": 5, "offset": n, "all": 1}).json() for n in (0, 5, 10)
    ]
    assert [page["more"] for page in pages] == [True, True, False]
    assert [hit for page in pages for hit in page["hits"]] == whole["hits"]


def test_search_in_chinese_and_no_match(client: Client, shown: World) -> None:
    c = client()
    assert c.get("/api/search", params={"q": "红色的东西"}).json()["hits"][0]["id"] == shown.id(0)
    nothing = c.get("/api/search", params={"q": "blockchain"}).json()
    assert nothing["hits"] == []
    assert c.get("/api/search", params={"q": "blockchain", "all": True}).json()["hits"]


def test_search_takes_every_filter(client: Client) -> None:
    c = client()
    for name, value, count in (
        ("format", "png", COUNT),
        ("format", "jpeg", 0),
        ("min_side", 16, COUNT),
        ("min_side", 17, 0),
        ("camera", "nikon", 0),
        ("folder", "no/such", 0),
        ("after", "2100-01-01", 0),
        ("before", "2100-01-01", COUNT),
    ):
        found = c.get("/api/search", params={"q": "red", "all": 1, "k": 50, name: value}).json()
        assert len(found["hits"]) == count, (name, value)
    assert c.get("/api/search", params={"q": "red", "sort": "date", "mode": "hybrid"}).status_code == 200


def test_search_by_picture_and_by_both(client: Client, shown: World) -> None:
    c = client()
    files = {"image": ("mine.png", shown.png(9), "image/png")}
    alone = c.post("/api/search", files=files, data={"k": "3"}).json()
    assert alone["hits"][0]["id"] == shown.id(9)
    assert len(alone["hits"]) == 3
    words = c.post("/api/search", files=files, data={"q": "red", "weight": "0"}).json()
    assert words["hits"][0]["id"] == shown.id(0)


def test_similar_leaves_the_picture_itself_out(client: Client, shown: World) -> None:
    found = client().get(f"/api/similar/{shown.id(3)}", params={"k": 50}).json()
    assert len(found["hits"]) == COUNT - 1
    assert shown.id(3) not in {hit["id"] for hit in found["hits"]}


def test_duplicates_stand_in_groups(client: Client) -> None:
    groups = client().get("/api/duplicates").json()["groups"]
    assert all(len(group) > 1 for group in groups)


def test_a_picture_has_its_facts_its_thumbnail_and_its_file(client: Client, shown: World) -> None:
    c, id = client(), shown.id(2)
    row = c.get(f"/api/pictures/{id}").json()
    assert row["files"] == [str(shown.pictures / "p002.png")] == [row["file"]]
    assert (row["width"], row["format"]) == (16, "PNG")
    thumb = c.get(row["thumbnail"], params={"side": 16})
    assert thumb.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(thumb.content)).size == (16, 16)
    assert "immutable" in thumb.headers["cache-control"]
    large = c.get(row["thumbnail"], params={"side": 1024})
    assert Image.open(io.BytesIO(large.content)).size == (16, 16)
    whole = c.get(row["picture"])
    assert whole.content == shown.png(2)
    assert whole.headers["content-type"] == "image/png"
    assert c.get(row["similar"]).json()["hits"]


def test_captions_of_an_indexed_picture_and_of_an_upload(client: Client, shown: World) -> None:
    c = client()
    said = c.post("/api/caption", data={"id": shown.id(0), "beams": "2"}).json()
    assert [one["text"] for one in said["texts"]] == ["a red thing", "a orange thing"]
    assert said["lang"] == "en"
    files = {"upload": ("mine.png", shown.png(0), "image/png")}
    said = c.post("/api/caption", files=files, data={"lang": "zh"}).json()
    assert said["texts"][0]["text"] == "红色的东西"


def test_answers_come_with_where_the_model_looked(client: Client, shown: World) -> None:
    c = client()
    said = c.post("/api/ask", data={"id": shown.id(0), "question": "what is it?", "k": "2"}).json()
    assert said["sure"]
    assert said["question"] == "what is it?"
    assert [one["text"] for one in said["best"]] == ["answer 1", "answer 2"]
    assert said["attention"] == {"rows": 2, "columns": 3, "boxes": None, "weights": [0.166667] * 6}
    files = {"upload": ("mine.png", shown.png(0), "image/png")}
    assert not c.post("/api/ask", files=files, data={"question": "hm"}).json()["sure"]


def test_drawings_are_pictures_and_strange_words_are_told(client: Client) -> None:
    drawn = client().post("/api/draw", json={"prompt": "a zzyzx circle", "n": 3, "seed": 7}).json()
    assert [one["seed"] for one in drawn["pictures"]] == [7, 8, 9]
    head, _, data = drawn["pictures"][0]["png"].partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (8, 8)
    assert "zzyzx" in drawn["warnings"][0]


@pytest.mark.parametrize(("route", "task"), [("caption", "captioning"), ("ask", "vqa"), ("draw", "text-to-image")])
def test_a_model_that_is_not_there_is_said_in_a_line(route: str, task: str, client: Client, shown: World) -> None:
    del shown.models[task]
    c = client()
    if route == "draw":
        answer = c.post("/api/draw", json={"prompt": "a circle"})
    else:
        answer = c.post(f"/api/{route}", data={"id": shown.id(0), **({"question": "what?"} if route == "ask" else {})})
    assert answer.status_code == 503
    assert task in answer.json()["error"]
    assert task in c.get("/api/stats").json()["models"][route]["why"]


def test_a_model_of_another_task_is_refused(client: Client, shown: World) -> None:
    answer = client(models={"draw": "captioning"}).post("/api/draw", json={"prompt": "a circle"})
    assert answer.status_code == 503
    assert "'captioning' is a captioning model" in answer.json()["error"]


def test_an_index_whose_model_is_gone_is_told_and_what_needs_no_model_goes_on(client: Client, shown: World) -> None:
    del shown.models["colours"]
    c = client()
    answer = c.get("/api/search", params={"q": "red"})
    assert answer.status_code == 503
    assert "its model 'colours'" in answer.json()["error"]
    assert c.get(f"/api/similar/{shown.id(0)}").status_code == 200


def test_a_model_that_refuses_a_request_says_why(client: Client, shown: World) -> None:
    from tuwen.errors import ModelError

    def refuse(*_: object, **__: object) -> None:
        raise ModelError("draws: n is 99: give at most 64")

    shown.models["text-to-image"].draw = refuse
    answer = client().post("/api/draw", json={"prompt": "a circle"})
    assert (answer.status_code, answer.json()["error"]) == (422, "draws: n is 99: give at most 64")


def test_a_language_that_the_model_does_not_speak(client: Client, shown: World) -> None:
    shown.models["captioning"].languages = ["en"]
    answer = client().post("/api/caption", data={"id": shown.id(0), "lang": "zh"})
    assert answer.status_code == 422
    assert "not in 'zh'" in answer.json()["error"]


def test_albums_are_made_changed_exported_and_outlive_the_server(client: Client, shown: World) -> None:
    c, ids = client(), [shown.id(n) for n in range(4)]
    made = c.post("/api/albums", json={"name": "Holidays 假期", "ids": ids[:3]})
    assert made.status_code == 201
    assert [hit["id"] for hit in made.json()["hits"]] == ids[:3]
    assert c.post("/api/albums", json={"name": "Holidays 假期"}).status_code == 409
    changed = c.put("/api/albums/Holidays 假期", json={"add": [ids[3], ids[1]], "remove": [ids[0]], "name": "Lakes"})
    assert changed.json()["ids"] == ids[1:4]
    assert c.get("/api/albums/Holidays 假期").status_code == 404
    heads = client().get("/api/albums").json()["albums"]  # another server over the same index
    assert heads == [{"name": "Lakes", "count": 3, "cover": thumbnail_url(ids[1])}]
    whole = c.get("/api/albums/Lakes/export", params={"format": "zip"})
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == {
            f"p{n:03}.png": shown.png(n) for n in (1, 2, 3)
        }
    table = c.get("/api/albums/Lakes/export", params={"format": "csv"}).content.decode("utf-8-sig")
    assert [row["id"] for row in csv.DictReader(io.StringIO(table))] == ids[1:4]
    assert c.delete("/api/albums/Lakes").status_code == 204
    assert c.delete("/api/albums/Lakes").status_code == 404
    assert c.get("/api/albums").json()["albums"] == []
    assert c.put("/api/albums/Lakes", json={"ids": ids, "name": "Seas"}).status_code == 404


def test_an_album_says_which_pictures_are_gone(client: Client, world: World) -> None:
    c = client(world)
    ids = [world.id(0), "0" * 64, world.id(1)]
    album = c.post("/api/albums", json={"name": "Some", "ids": ids}).json()
    assert (album["missing"], len(album["hits"]), album["ids"]) == (1, 2, ids)
    (world.pictures / "p000.png").unlink()
    whole = c.get("/api/albums/Some/export")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.namelist() == ["p001.png", "missing.txt"]
        assert len(archive.read("missing.txt").splitlines()) == 2


def test_a_damaged_album_file_is_named(client: Client, shown: World) -> None:
    path = shown.db.with_name("tuwen.db.albums.json")
    path.write_text('{"format": 1, "albums": [')
    answer = client().get("/api/albums")
    assert answer.status_code == 503
    assert str(path) in answer.json()["error"]


def test_a_corrected_caption_becomes_a_data_set(client: Client, world: World) -> None:
    c, id = client(world), world.id(5)
    row = c.put(f"/api/pictures/{id}/caption", json={"text": "My own words.", "lang": "en"}).json()
    assert row["captions"][0]["text"] == "My own words."
    assert row["captions"][0]["source"] == "human"
    corrections = c.get("/api/corrections").json()
    assert [one["id"] for one in corrections["corrections"]] == [id]
    assert corrections["needed"] == 50
    made = c.post("/api/corrections/export").json()
    assert (made["pictures"], made["captions"]) == (1, 1)
    data = dataset.read(world.db.with_name("tuwen.db.corrections"))
    assert data.path(data.pictures[0]) == world.pictures / "p005.png"
    assert data.pictures[0].captions[0].text == "My own words."
    assert c.post("/api/corrections/export").json() == made  # again, over the old one


def test_exporting_no_corrections_is_a_clear_line(client: Client) -> None:
    answer = client().post("/api/corrections/export")
    assert answer.status_code == 422
    assert "no corrected caption" in answer.json()["error"]


def test_stats_tell_what_the_index_holds(client: Client, world: World) -> None:
    stats = client(world).get("/api/stats").json()
    assert (stats["pictures"], stats["files"], stats["failed_count"]) == (COUNT, COUNT, 0)
    assert stats["folders"] == [str(world.pictures)]
    assert stats["formats"] == {"PNG": COUNT}
    assert stats["bytes"] > 0
    assert {task: model["loaded"] for task, model in stats["models"].items()} == dict.fromkeys(
        ("search", "caption", "ask", "draw"), False
    )


def test_a_missing_index_is_said_with_the_mend(client: Client, shown: World) -> None:
    nowhere = World(shown.folder / "nowhere")
    answer = client(nowhere).get("/api/search", params={"q": "red"})
    assert answer.status_code == 503
    assert "tuwen index PICTURES --db" in answer.json()["error"]


def test_a_new_index_is_taken_up_while_the_server_runs(client: Client, world: World) -> None:
    import shutil

    from fake_embedder import draw_many

    from tuwen.indexing import index_folder

    c = client(world)
    assert len(c.get("/api/search", params={"q": "red", "all": 1, "k": 50}).json()["hits"]) == COUNT
    draw_many(world.pictures, COUNT + 3)
    index_folder(world.pictures, world.db, world.models["colours"])
    assert len(c.get("/api/search", params={"q": "red", "all": 1, "k": 50}).json()["hits"]) == COUNT + 3
    shutil.rmtree(world.db)
    assert c.get("/api/search", params={"q": "red"}).status_code == 503
    index_folder(world.pictures, world.db, world.models["colours"])
    assert c.get("/api/search", params={"q": "red"}).status_code == 200


def test_the_page_the_reference_and_health(client: Client) -> None:
    c = client()
    assert c.get("/healthz").json() == {"status": "ok", "version": __version__}
    assert "<title>Tuwen" in c.get("/").text
    reference = c.get("/docs")
    assert reference.status_code == 200
    assert "http://" not in reference.text.replace("http://127.0.0.1:7860", "")  # nothing is fetched from elsewhere
    api = c.get("/openapi.json").json()
    paths = {path: set(methods) for path, methods in api["paths"].items()}
    assert len(paths) >= 18
    for path in paths:
        assert path in reference.text
    told = [r for methods in api["paths"].values() for route in methods.values() for r in route["responses"]]
    assert told.count("422") == sum(map(len, paths.values()))


def test_an_open_server_without_a_token_is_not_made(shown: World) -> None:
    with pytest.raises(ValueError, match="token"):
        create_app(shown.db, loopback=False)
