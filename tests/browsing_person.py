"""A person at a browser: real Chromium, a real server, and what the browser complained of."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Request

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = (1360, 860), (390, 844)
PATIENCE = 120_000  # milliseconds: the machine may be busy, and a step that is done goes on at once
SHOTS = Path(__file__).parents[1] / "build" / "page"  # git-ignored

DROP = """({name, type, data}) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const carried = new DataTransfer();
  carried.items.add(new File([bytes], name, {type}));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer: carried, bubbles: true, cancelable: true}));
  }
}"""
SHIFTS = """new Promise((done) => {
  let sum = 0;
  const watch = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) sum += entry.value;
  });
  watch.observe({type: "layout-shift", buffered: true});
  setTimeout(() => done(sum), 50);
})"""


@dataclass
class Person:
    """A window of a browser, and what went wrong in it."""

    page: Page
    base: str
    kind: str
    complaints: list[str] = field(default_factory=list)
    forgiven: list[str] = field(default_factory=list)  # parts of complaints that a test provokes

    def visit(self, address: str = "") -> None:
        """Open an address of the page."""
        self.page.goto(self.base + address)

    def search(self, words: str) -> list[str]:
        """Type words and press enter; the names of the files that are shown."""
        self.page.keyboard.press("/")
        box = self.page.locator("#q")
        box.fill(words)
        box.press("Enter")
        self.page.wait_for_function("words => new URLSearchParams(location.search).get('q') === words", arg=words)
        self.settled()
        return self.names()

    def settled(self) -> None:
        """Wait until what is shown is what was asked for."""
        self.page.wait_for_function(
            "() => document.querySelector('.results') && !document.querySelector('.bone') "
            "&& !document.querySelector('.grid[aria-busy=true]')"
        )

    def names(self) -> list[str]:
        """The last part of each shown picture's label: its file."""
        return [
            str(label)
            for label in self.page.locator(".grid .open").evaluate_all("all => all.map((one) => one.ariaLabel)")
        ]

    def drop(self, path: Path) -> None:
        """Drop a file on the page."""
        data = base64.b64encode(path.read_bytes()).decode()
        self.page.evaluate(DROP, {"name": path.name, "type": mimetypes.guess_type(path.name)[0] or "", "data": data})

    def open_first(self) -> None:
        """Open the first picture, and wait for what is known of it."""
        self.page.locator(".grid .open").first.click()
        self.page.locator(".viewer .captions").wait_for()

    def shoot(self, name: str) -> Path:
        """A picture of the window, once every thumbnail in it is there; a closed list's have a box but never come."""
        self.page.wait_for_function(
            """() => [...document.querySelectorAll('main img, dialog img')].every((image) => {
                 const box = image.getBoundingClientRect();
                 const seen = box.bottom > 0 && box.top < innerHeight && image.checkVisibility();
                 return !seen || (image.complete && image.naturalWidth > 0);
               })"""
        )
        self.page.wait_for_timeout(500)  # fading in
        path = SHOTS / f"{self.kind}-{name}.png"
        self.page.screenshot(path=path)
        return path

    def shifts(self) -> float:
        """How much the page jumped by itself: the cumulative layout shift."""
        return float(self.page.evaluate(SHIFTS))


Meet = Callable[..., Person]


def meet(browser: Browser, base: str, kind: str, lang: str, dark: bool, **options: Any) -> Person:
    """Open a window; all that the browser complains of is written down, foreign addresses too."""
    width, height = PHONE if "phone" in kind else DESKTOP
    touch = {"has_touch": True, "is_mobile": True} if "phone" in kind else {}
    context = browser.new_context(
        viewport={"width": width, "height": height},
        locale={"en": "en-US", "zh": "zh-CN"}[lang],
        color_scheme="dark" if dark else "light",
        accept_downloads=True,
        **touch,
        **options,
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    person = Person(page, base, "-".join([kind, lang, *(["dark"] if dark else [])]))

    def asked(request: Request) -> None:
        if not request.url.startswith((base, "blob:", "data:")):
            person.complaints.append(f"asked another server: {request.url}")

    page.on("request", asked)
    page.on("pageerror", lambda error: person.complaints.append(f"error: {error}"))
    page.on(
        "console",
        lambda said: (
            person.complaints.append(f"{said.type}: {said.text}") if said.type in ("error", "warning") else None
        ),
    )
    return person
