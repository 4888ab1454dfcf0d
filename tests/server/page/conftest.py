"""One server over one index, and one browser, for all tests of the page.

Real Chromium, a real `tuwen serve`, a real index of package photographs with the shipped model. A model that is not
shipped (yet) has a stand-in, and `tests/serve_with_stand_ins.py` says which. Screenshots lie in build/page.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from album_of_samples import Library, make_album

if TYPE_CHECKING:
    from browsing_person import Meet
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[3]
TESTS = ROOT / "tests"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests; each has windows of its own. Skips where there is no browser to test in."""
    if CHROMIUM is None:
        pytest.skip("no chromium here: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    from browsing_person import FLAGS, PATIENCE, SHOTS

    SHOTS.mkdir(parents=True, exist_ok=True)
    api.expect.set_options(timeout=PATIENCE)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def library(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """Made once, where there is a browser; the server ends with the tests."""
    folder = tmp_path_factory.mktemp("library")
    count = make_album(folder / "pictures")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    env["TUWEN_CACHE"] = str(folder / "cache")
    db = folder / "tuwen.db"
    subprocess.run(
        [sys.executable, "-m", "tuwen", "index", folder / "pictures", "--db", db],
        env=env,
        check=True,
        capture_output=True,
    )
    served = [sys.executable, TESTS / "serve_with_stand_ins.py", "serve", "--db", db, "--port", "0"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(served, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://[^ ]+/", line)
        assert found, f"{line}{(folder / 'log').read_text()}"
        yield Library(folder / "pictures", db, count, found[0])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        process.stdout.close()


@pytest.fixture
def someone(browser: Browser, library: Library) -> Iterator[Meet]:
    """`someone(kind="desktop", lang="en", dark=False)`; in the end nobody's browser may have complained."""
    from browsing_person import Person, meet

    met: list[Person] = []

    def make(kind: str = "desktop", lang: str = "en", dark: bool = False) -> Person:
        person = meet(browser, library.base, kind, lang, dark)
        met.append(person)
        return person

    yield make
    for person in met:
        person.page.context.close()
        left = [said for said in person.complaints if not any(part in said for part in person.forgiven)]
        assert left == [], person.kind
