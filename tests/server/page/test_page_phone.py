"""The same page on a phone, in both languages, light and dark."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")

from album_of_samples import Library
from browsing_person import Meet
from playwright.sync_api import expect


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_everything_can_be_done_on_a_phone(someone: Meet, library: Library, lang: str) -> None:
    person = someone("phone", lang, dark=lang == "zh")
    person.visit()
    person.settled()
    assert len(person.names()) == 16
    person.shoot("home")
    person.page.mouse.wheel(0, 30_000)
    expect(person.page.locator(".grid .open")).not_to_have_count(16)
    person.page.evaluate("scrollTo(0, 0)")
    assert "motorcycle" in person.search({"en": "a red motorcycle", "zh": "一辆红色的摩托车"}[lang])[0]
    person.shoot("search")
    person.page.locator(".filters").tap()
    sheet = person.page.locator("#filters").bounding_box()
    assert sheet is not None
    assert sheet["x"] == 0
    assert abs(sheet["y"] + sheet["height"] - 844) < 2
    person.shoot("filters")
    person.page.locator("#filters .button.main").tap()
    person.page.locator(".grid .open").first.tap()
    person.page.locator("#question").fill({"en": "what is it?", "zh": "图里有什么？"}[lang])
    person.page.locator(".viewer form .button.main").first.tap()
    expect(person.page.locator("canvas.heat")).to_be_visible()
    person.shoot("asked")
    person.page.locator(".captions .button.quiet").last.tap()
    person.page.locator(".editor textarea").fill({"en": "A dahlia", "zh": "一朵大丽花"}[lang])
    person.page.locator(".editor .button.main").tap()
    expect(person.page.locator(".captions li p").first).to_have_text({"en": "A dahlia", "zh": "一朵大丽花"}[lang])
    person.shoot("corrected")
    person.page.locator(".over.left button").tap()
    expect(person.page.locator(".viewer")).to_have_count(0)
    person.drop(library.pictures / "photographs" / "chelsea.png")
    expect(person.page.locator(".dropped img")).to_be_visible()
    person.settled()
    assert "chelsea" in person.names()[0]
    person.shoot("dropped")
    for number, view in enumerate(("albums", "draw", "duplicates", "library"), 2):
        person.page.locator(f".tabs .place:nth-child({number})").tap()
        expect(person.page.locator("h1")).to_be_visible()
        if view == "draw":
            person.page.locator(".tries button").first.tap()
            expect(person.page.locator(".drawn img")).to_have_count(4)
        expect(person.page.locator(".bone, .bones")).to_have_count(0)
        assert person.page.evaluate("document.documentElement.scrollWidth") <= 390, view
        person.shoot(view)
