"""A person who is quicker than the machine: what is typed while an answer is on its way stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")

from browsing_person import Meet
from playwright.sync_api import Page, Route, expect


@contextmanager
def waiting(page: Page, address: str, answer: Callable[[Route], Any] = Route.continue_) -> Iterator[None]:
    """What is asked of an address inside gets its answer afterwards."""
    asked: list[Route] = []
    page.route(address, lambda route: asked.append(route))
    yield
    page.route(address, answer)  # the newest way goes first: nothing waits from here on
    for route in asked:
        answer(route)


def test_a_filter_is_typed_while_results_arrive(someone: Meet) -> None:
    person = someone()
    person.visit()
    person.settled()
    count, without = person.page.locator("p.unseen"), person.page.get_by_role("textbox", name="Without")
    expect(count).not_to_be_empty()
    before = count.inner_text()
    person.page.get_by_label("Filters").first.click()
    with waiting(person.page, "**/api/search*"):
        person.page.get_by_role("combobox", name="Camera").select_option("Pixel 8")
        without.fill("a woman")
    expect(count).not_to_have_text(before)  # the results are there, and the page was drawn anew
    expect(without).to_have_value("a woman")
    person.page.keyboard.press("Tab")
    expect(person.page.locator(".chips .chip")).to_have_count(2)
    person.page.get_by_role("button", name="Clear filters").click()
    expect(person.page.locator(".chips .chip")).to_have_count(0)
    expect(without).to_have_value("")


def test_words_wait_in_the_search_box_while_a_filter_is_chosen(someone: Meet) -> None:
    person = someone()
    person.visit("?view=albums")
    person.page.locator("#q").fill("a red motorcycle")
    person.page.get_by_label("Filters").first.click()
    person.page.get_by_role("radio", name="Newest").click()
    expect(person.page.locator("h1")).to_have_text("All pictures")
    expect(person.page.locator("#q")).to_have_value("a red motorcycle")
    person.page.locator("#q").press("Enter")
    expect(person.page.locator("h1")).to_have_text("“a red motorcycle”")
    expect(person.page.locator(".chips .chip")).to_have_count(1)


def test_the_next_question_is_typed_before_the_answer(someone: Meet) -> None:
    person = someone()
    person.visit()
    person.settled()
    person.open_first()
    question, answers = person.page.locator("#question"), person.page.locator(".answer")
    with waiting(person.page, "**/api/ask"):
        question.fill("what is in the picture?")
        question.press("Enter")
        question.fill("how many?")
    expect(answers).to_have_count(1)
    expect(question).to_have_value("how many?")
    question.press("Enter")
    expect(answers).to_have_count(2)
    expect(question).to_have_value("")


def test_a_caption_that_is_typed_on_while_it_is_saved_stays_open(someone: Meet) -> None:
    person = someone()
    person.visit()
    person.settled()
    person.open_first()
    person.page.keyboard.press("e")
    editor = person.page.locator(".editor textarea")
    with waiting(person.page, "**/caption", lambda route: route.fulfill(json={})):
        editor.fill("A dahlia")
        editor.press("Enter")
        editor.fill("An orange dahlia")
    expect(person.page.locator(".toasts")).to_have_text("Saved. A corrected caption teaches the search.")
    expect(editor).to_have_value("An orange dahlia")
