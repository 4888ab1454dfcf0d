"""What holds all over the page: its words, its keys, its names, its colours, and where its code comes from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")

from browsing_person import Meet
from playwright.sync_api import expect
from serve_with_stand_ins import MISSING

PAGE = Path(__file__).parents[3] / "tuwen" / "server" / "page"
NAMELESS = """() => {
  const named = (one) => {
    const labels = [...(one.labels || [])].map((by) => by.textContent);
    const by = document.getElementById(one.getAttribute('aria-labelledby'))?.textContent;
    const pictures = [...one.querySelectorAll('img')].map((image) => image.alt);
    return [one.ariaLabel, one.title, one.textContent, by, ...labels, ...pictures].join('').trim();
  };
  const all = 'button, a, input:not([hidden]), textarea, select, [role=img], dialog';
  return [...document.querySelectorAll(all)]
    .filter((one) => one.checkVisibility() && !named(one))
    .map((one) => one.outerHTML.slice(0, 120));
}"""
CONTRAST = """([ink, ground]) => {
  const style = getComputedStyle(document.documentElement);
  const pen = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = (name) => {
    pen.fillStyle = style.getPropertyValue(name);
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""  # WCAG 2.2, relative luminance
MADE = re.compile(  # keys that the page puts together, as t(`mode_${mode}`)
    r"(mode|sort|chip|theme|model|ask|draw|learn|help|key)_\w+|search|albums|draw|duplicates|library|formats|cameras"
    r"|without|after|before|folder|camera|format|min_side|taken|place|dimensions"
)
PAIRS = [
    ("--ink", "--ground"), ("--ink", "--card"), ("--soft", "--ground"), ("--soft", "--card"), ("--soft", "--sunk"),
    ("--seal", "--card"), ("--seal", "--ground"), ("--seal-ink", "--seal"), ("--good", "--good-wash"),
    ("--good", "--card"), ("--warn", "--warn-wash"), ("--warn", "--card"), ("--bar-ink", "--bar"),
]  # fmt: skip


def test_languages_and_colours_are_remembered(someone: Meet) -> None:
    person = someone()
    person.visit("?view=library")
    person.page.get_by_role("button", name="中文").click()
    expect(person.page.locator("h1")).to_have_text("图库")
    person.page.get_by_role("radio", name="深色").click()
    expect(person.page.locator("html")).to_have_attribute("data-theme", "dark")
    person.page.reload()
    expect(person.page.locator("h1")).to_have_text("图库")
    assert person.page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert person.page.evaluate("document.documentElement.lang") == "zh"
    person.shoot("library-in-chinese-dark")


def test_every_language_has_every_word(someone: Meet) -> None:
    person = someone()
    person.visit()
    words = person.page.evaluate("async () => (await import('./page/words.js')).LANGUAGES")
    assert set(words) == {"en", "zh"}
    assert len(words["en"]) > 150
    assert set(words["en"]) == set(words["zh"])

    def gaps(said: str | dict[str, str]) -> set[str]:
        return set(re.findall(r"\{(\w+)\}", said if isinstance(said, str) else said["other"]))

    assert {key for key in words["en"] if gaps(words["en"][key]) != gaps(words["zh"][key])} == set()
    source = "\n".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js"))
    unused = {key for key in words["en"] if f'"{key}"' not in source and not MADE.fullmatch(key)}
    assert unused == set()


@pytest.mark.parametrize("dark", [False, True])
def test_everything_has_a_name_and_text_can_be_read(someone: Meet, dark: bool) -> None:
    person = someone(dark=dark)
    looked = 0
    for address in ("", "?view=albums", "?view=draw", "?view=duplicates", "?view=library"):
        person.visit(address)
        person.page.locator("h1").wait_for()
        expect(person.page.locator(".bone, .bones")).to_have_count(0)
        assert person.page.evaluate(NAMELESS) == [], address
        looked += int(person.page.locator("button, a, input").count())
    assert looked > 100
    person.visit()
    person.settled()
    person.open_first()
    assert person.page.evaluate(NAMELESS) == []
    for ink, ground in PAIRS:
        assert person.page.evaluate(CONTRAST, [ink, ground]) >= 4.5, (ink, ground)


def test_the_keyboard_alone_reaches_everything(someone: Meet) -> None:
    person = someone()
    person.visit()
    person.settled()
    person.page.keyboard.press("?")
    expect(person.page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    person.shoot("help")
    person.page.keyboard.press("Escape")
    person.search("a red motorcycle")
    person.page.keyboard.press("ArrowDown")
    first = person.page.evaluate("document.activeElement.dataset.id")
    assert first
    person.page.keyboard.press("ArrowDown")
    assert person.page.evaluate("document.activeElement.dataset.id") not in (None, first)
    person.page.keyboard.press("ArrowUp")
    assert person.page.evaluate("document.activeElement.dataset.id") == first
    person.page.keyboard.press("Enter")
    person.page.locator(".viewer .captions").wait_for()
    person.page.keyboard.press("Escape")
    expect(person.page.locator(".viewer")).to_have_count(0)
    assert person.page.evaluate("document.activeElement.dataset.id") == first, "the focus must come back"
    said = person.page.locator("[aria-live=polite].unseen")
    expect(said).to_contain_text("pictures")


def test_no_script_of_the_page_may_come_from_elsewhere(someone: Meet) -> None:
    person = someone()
    policies: list[str] = []
    person.page.on("response", lambda answer: policies.append(answer.headers.get("content-security-policy", "")))
    person.visit()
    person.settled()
    assert len(policies) > 20
    assert all("script-src 'self'" in policy or "default-src 'self'" in policy for policy in policies)
    assert not any("unsafe-eval" in policy or "script-src 'unsafe-inline'" in policy for policy in policies)
    sources = [path for path in PAGE.rglob("*") if path.suffix in (".js", ".html", ".css")]
    assert len(sources) > 20
    for path in sources:
        text = path.read_text(encoding="utf-8")
        own = path.parent.name != "vendor"
        assert not own or not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|dangerously", text
        ), path
        assert not own or not re.search(r"https?://(?!www\.w3\.org)", text), path


def test_every_model_of_the_page_is_a_real_one() -> None:
    if MISSING:
        pytest.skip(f"stand-ins were tested with: {' and '.join(MISSING)} is not shipped yet")
