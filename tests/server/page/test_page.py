"""A person's ways through the page, at a desk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")

from album_of_samples import COPIED, TWICE, Library
from browsing_person import Meet
from playwright.sync_api import Route, expect

ROOT = Path(__file__).parents[3]


def test_words_in_two_languages_find_the_picture_and_the_back_button_works(someone: Meet, library: Library) -> None:
    person = someone()
    person.visit()
    person.settled()
    expect(person.page.locator("h1")).to_have_text("All pictures")
    assert len(person.names()) == 30
    person.shoot("home")
    assert "motorcycle" in person.search("a red motorcycle")[0]
    person.shoot("search")
    expect(person.page).to_have_title("a red motorcycle · Tuwen")
    assert "motorcycle" in person.search("一辆红色的摩托车")[0]
    person.page.go_back()
    expect(person.page.locator("#q")).to_have_value("a red motorcycle")
    person.page.go_back()
    expect(person.page.locator("h1")).to_have_text("All pictures")


def test_pages_follow_each_other_in_rows_that_keep_every_shape(someone: Meet, library: Library) -> None:
    person = someone()
    person.visit()
    person.settled()
    pictures = person.page.locator(".grid .open")
    while (shown := pictures.count()) < library.count:
        person.page.keyboard.press("End")
        expect(pictures).not_to_have_count(shown)
    names = person.names()
    assert len(names) == library.count
    assert len(set(names)) == library.count
    shapes = person.page.evaluate(
        """() => [...document.querySelectorAll('.tile')].map((tile) => {
             const box = tile.getBoundingClientRect();
             return [box.width / box.height, Number(tile.style.getPropertyValue('--r')), box.right];
           })"""
    )
    assert len(shapes) == library.count
    assert all(abs(is_ / meant - 1) < 0.02 and right <= 1360 for is_, meant, right in shapes)
    assert person.shifts() < 0.05


def test_nothing_found_says_so_and_helps(someone: Meet) -> None:
    person = someone()
    person.visit("?q=zebra&mode=words&after=2001-01-01")
    person.settled()
    expect(person.page.locator(".state h2")).to_have_text("Nothing fits “zebra”")
    person.shoot("nothing")
    person.page.get_by_text("Take the filters away").click()
    person.page.get_by_text("Search by meaning, not only by caption words").click()
    person.settled()
    if not person.names():  # below the model's threshold: the last way left shows the nearest
        person.page.get_by_text("Show the closest ones anyway").click()
        person.settled()
    assert person.names()


def test_a_dropped_picture_finds_itself_and_words_join_it(someone: Meet, library: Library) -> None:
    person = someone()
    person.visit()
    person.settled()
    person.drop(library.pictures / "photographs" / "coffee.png")
    expect(person.page.locator(".dropped img")).to_be_visible()
    expect(person.page.locator("h1")).to_have_text("Like your picture")
    person.settled()
    assert "coffee" in person.names()[0]
    person.search("a cup on a wooden table")
    expect(person.page.locator("input[type=range]")).to_have_value("0.5")
    person.page.locator(".dropped .describe button").click()
    expect(person.page.locator(".dropped .made li").first).not_to_be_empty()
    person.shoot("dropped")
    person.page.locator(".chip.picture button").click()
    expect(person.page.locator(".dropped")).to_have_count(0)
    person.drop(ROOT / "pyproject.toml")
    expect(person.page.locator(".toasts")).to_have_text("That is not a picture.")


def test_a_picture_is_asked_about_and_shows_where_the_model_looked(someone: Meet) -> None:
    person = someone()
    person.visit()
    person.search("a red motorcycle")
    person.open_first()
    expect(person.page.locator(".viewer")).to_be_focused()
    person.page.keyboard.press("a")
    person.page.keyboard.type("what is in the picture?")
    person.page.keyboard.press("Enter")
    expect(person.page.locator(".answer .first")).not_to_be_empty()
    heat = person.page.locator("canvas.heat")
    expect(heat).to_be_visible()
    box, picture = heat.bounding_box(), person.page.locator(".stage .frame").bounding_box()
    assert box == picture, "the map must lie on the picture"
    expect(heat).not_to_have_js_property("width", 300)  # a canvas's own width: nothing is drawn yet
    drawn = heat.evaluate("(one) => new Set(one.getContext('2d').getImageData(0, 0, one.width, one.height).data).size")
    assert drawn > 8, "the map must not be one colour"
    person.shoot("asked")
    person.page.get_by_text("Hide where it looked").click()
    expect(heat).to_have_count(0)
    person.page.locator("#question").fill("how many?")
    person.page.keyboard.press("Enter")
    expect(person.page.locator(".answer")).to_have_count(2)
    person.page.locator(".what h2").click()
    person.page.keyboard.press("ArrowRight")
    expect(person.page.locator(".what p")).to_contain_text("2 of")
    person.page.keyboard.press("Escape")
    expect(person.page.locator(".viewer")).to_have_count(0)
    expect(person.page.locator("h1")).to_have_text("“a red motorcycle”")


def test_a_corrected_caption_is_kept_counted_and_becomes_a_data_set(someone: Meet, library: Library) -> None:
    hostile = 'A dahlia <img src=x onerror="document.title=1"> in bloom'
    person = someone()
    person.visit()
    person.settled()
    person.open_first()
    person.page.locator(".describe button").first.click()
    person.page.locator(".describe .made button").first.click()
    editor = person.page.locator(".editor textarea")
    expect(editor).to_be_focused()
    assert editor.input_value()
    editor.fill(hostile)
    person.shoot("correcting")
    editor.press("Enter")
    said = person.page.locator(".captions li p")
    expect(said.first).to_have_text(hostile)
    person.page.reload()
    expect(said.first).to_have_text(hostile)
    assert person.page.title() != "1"
    person.page.keyboard.press("e")
    expect(editor).to_have_value(hostile)
    editor.fill("An orange dahlia")
    editor.press("Escape")
    expect(said.first).to_have_text(hostile)
    person.page.go_back()
    person.visit("?view=library")
    expect(person.page.locator(".goal b")).to_have_text("1 picture corrected")
    person.page.get_by_role("button", name="Save as a data set").click()
    expect(person.page.locator(".learn [role=status]")).to_contain_text("1 captions saved in")
    person.shoot("library")
    made = Path(f"{library.db}.corrections") / "metadata.jsonl"
    rows = [json.loads(line) for line in made.read_text(encoding="utf-8").splitlines()]
    assert [caption["text"] if isinstance(caption, dict) else caption for caption in rows[0]["captions"]] == [hostile]


def test_tuning_shows_before_and_after_with_the_verdict(someone: Meet, library: Library) -> None:
    """The page alone: fifty corrections and a training are the server's tests' (`test_learning.py`)."""
    person, jobs = someone(), iter(["idle", "running", "done"])
    thumbnail = f"/api/pictures/{'0' * 64}/thumbnail"
    human = {"text": "A dahlia", "lang": "en", "source": "human"}
    made = {"text": "a dog in a field", "lang": "en", "source": "model:captioning"}
    one = {"file": "a.jpg", "captions": [human], "made": [made], "thumbnail": thumbnail}
    rows = [{"id": f"{n:064x}", **one} for n in range(60)]
    done = {
        "before": {"t2i_r1": 31.0, "t2i_r5": 55.5, "i2t_r1": 28.0},
        "after": {"t2i_r1": 44.5, "t2i_r5": 70.0, "i2t_r1": 41.0},
        "interval": {"t2i_r1": [6.0, 21.0], "t2i_r5": [7.5, 22.0], "i2t_r1": [5.0, 20.5]},
        "verdict": "improved",
        "words": ["Improved: +13.7 points of mean recall.", "有提高：平均召回率变化 +13.7 点。"],
        "n_test": 20,
        "use": "tuwen index pictures --db tuwen.db --model tuwen.db.tuned-1",
    }

    def tell(route: Route) -> None:
        state = next(jobs, "done")
        body = {"version": "0", "warnings": [], "state": state, "seconds": 3.0, "step": 40}
        route.fulfill(json={**body, **(done if state == "done" else {})}, status=200)

    person.page.route("**/api/corrections", lambda route: route.fulfill(json={"corrections": rows, "needed": 50}))
    person.page.route("**/api/tune", tell)
    person.page.route(
        "**/thumbnail*", lambda route: route.fulfill(path=library.pictures / "photographs" / "flower.jpg")
    )
    person.visit("?view=library")
    expect(person.page.locator(".goal b")).to_have_text("60 pictures corrected")
    person.page.get_by_role("button", name="Tune the search").click()  # told: running
    expect(person.page.locator(".outcome .verdict")).to_have_text("Improved: +13.7 points of mean recall.")
    expect(person.page.locator(".outcome tbody tr")).to_have_count(3)
    expect(person.page.locator(".outcome tbody tr").first).to_contain_text("31.044.5+6 … +21")
    expect(person.page.locator(".outcome .command")).to_have_text(str(done["use"]))
    person.shoot("tuned")
    person.page.get_by_text("Corrected captions").click()
    expect(person.page.locator(".corrected li")).to_have_count(30)
    person.page.locator(".corrected li").nth(3).scroll_into_view_if_needed()
    person.shoot("corrections")


def test_drawing(someone: Meet) -> None:
    person = someone()
    person.visit("?view=draw")
    person.page.locator("#prompt").fill("a large red circle above a small blue star")
    person.page.keyboard.press("Enter")
    drawn = person.page.locator(".drawn img")
    expect(drawn).to_have_count(4)
    person.page.wait_for_function(
        "() => [...document.querySelectorAll('.drawn img')].every((one) => one.naturalWidth >= 32)"
    )
    person.shoot("drawn")
    person.page.get_by_label("Find pictures like it").first.click()
    expect(person.page.locator(".dropped img")).to_be_visible()
    person.settled()
    assert person.names()


def test_an_album_is_made_with_the_keyboard_and_exported(someone: Meet) -> None:
    person, name = someone(), "Trips & <i>花<b>"
    person.visit()
    person.settled()
    for key in ("ArrowDown", "x", "ArrowRight", "ArrowRight", "Shift+X"):
        person.page.keyboard.press(key)
    expect(person.page.locator(".basket b")).to_have_text("3 selected")
    person.shoot("selected")
    person.page.get_by_role("button", name="Add to album").click()
    expect(person.page.locator("dialog input")).to_be_focused()
    person.page.keyboard.type(name)
    person.page.keyboard.press("Enter")
    expect(person.page.locator(".toasts")).to_contain_text("3 pictures added")
    expect(person.page.locator(".basket")).to_have_count(0)
    person.visit("?view=albums")
    person.page.get_by_text(name).click()
    expect(person.page.locator("h1")).to_have_text(name)
    expect(person.page.locator(".tile")).to_have_count(3)
    person.shoot("album")
    for kind in ("Zip", "CSV"):
        with person.page.expect_download() as download:
            person.page.get_by_role("link", name=kind).click()
        assert Path(download.value.path()).stat().st_size > 100
    person.page.locator(".tile .pick").first.click()
    person.page.get_by_role("button", name="Take out of the album").click()
    expect(person.page.locator(".tile")).to_have_count(2)
    person.page.get_by_role("button", name="Rename").click()
    expect(person.page.locator("dialog input")).to_be_focused()
    person.page.keyboard.type("Trips")
    person.page.keyboard.press("Enter")
    expect(person.page.locator("h1")).to_have_text("Trips")
    person.page.get_by_role("button", name="Delete the album").click()
    person.page.locator("dialog .button.main").click()
    expect(person.page.locator(".state h2")).to_have_text("No albums yet")


def test_duplicates_stand_together(someone: Meet) -> None:
    person = someone()
    person.visit("?view=duplicates")
    expect(person.page.locator(".group")).to_have_count(len(COPIED) + 1)
    person.page.get_by_text("Select all but the largest").click()
    expect(person.page.locator(".basket b")).to_have_text(f"{len(COPIED) + 1} selected")
    chosen = person.page.locator(".tile.chosen .open").evaluate_all("all => all.map((one) => one.ariaLabel)")
    assert len(chosen) == len(COPIED) + 1
    assert all("-small.jpg" in label or TWICE in label for label in chosen)
    person.shoot("duplicates")
    person.page.keyboard.press("Escape")
    expect(person.page.locator(".basket")).to_have_count(0)


def test_filters_are_chips_and_stay_in_the_address(someone: Meet) -> None:
    person = someone()
    person.visit()
    person.settled()
    person.page.get_by_label("Filters").first.click()
    person.page.get_by_role("combobox", name="Camera").select_option("Pixel 8")
    person.page.get_by_role("textbox", name="Without").fill("a woman")
    person.page.keyboard.press("Tab")
    expect(person.page.locator(".chips .chip")).to_have_count(2)
    person.shoot("filters")
    person.page.get_by_role("button", name="Done").click()
    person.settled()
    assert 0 < len(person.names()) <= 6
    person.page.reload()
    person.settled()
    expect(person.page.locator(".badge")).to_have_text("2")
    person.page.get_by_label("Remove Pixel 8").click()
    expect(person.page.locator(".chips .chip")).to_have_count(1)


def test_a_server_that_is_gone_is_told_and_tried_again(someone: Meet) -> None:
    person = someone()
    person.forgiven.append("net::ERR_FAILED")
    person.visit()
    person.settled()
    person.page.route("**/api/search*", lambda route: route.abort())
    person.page.keyboard.press("/")
    person.page.keyboard.type("a boat")
    person.page.keyboard.press("Enter")
    expect(person.page.locator(".state[role=alert]")).to_contain_text("Is “tuwen serve” still running?")
    person.shoot("gone")
    person.page.unroute("**/api/search*")
    person.page.get_by_role("button", name="Try again").click()
    expect(person.page.locator(".state[role=alert]")).to_have_count(0)
    person.settled()
