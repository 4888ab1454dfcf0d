"""The rating page of `tuwen report RUN --rate`: one picture at a time, good or bad, served on loopback alone."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tuwen import __version__
from tuwen.errors import DataError
from tuwen.votes import Item, add_vote, items_folder, read_votes, summarise

HOSTS = ("127.0.0.1", "localhost")
PORT = 7861
LONGEST = 4096  # bytes of a vote
INLINE = "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
POLICY = f"default-src 'none'; img-src 'self' data:; connect-src 'self'; {INLINE}"


class Server(ThreadingHTTPServer):
    """Serves one run's items; each request has a thread, and votes are written one after the other.

    Raises:
        DataError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, run: Path, items: list[Item], fingerprint: str, name: str, port: int = PORT) -> None:
        self.run, self.fingerprint = run, fingerprint
        self.items = {item.id: item for item in items}
        self.page = render(name, items, fingerprint).encode()
        try:
            super().__init__((HOSTS[0], port), Handler)
        except OSError as error:
            raise DataError(f"port {port}: {error.strerror or error}; name another with --port") from None

    @property
    def url(self) -> str:
        """Where people go."""
        return f"http://{HOSTS[0]}:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    """`GET /`, `/pictures/ID.png`, `/summary`; `POST /votes` with `{item, vote, who}`."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if not self._is_own():
            return
        if self.path == "/":
            self._answer(self.server.page, "text/html; charset=utf-8")
        elif self.path == "/summary":
            found = summarise(read_votes(self.server.run, self.server.fingerprint))
            self._answer(json.dumps(found).encode(), "application/json")
        elif item := self.server.items.get(self.path.removeprefix("/pictures/").removesuffix(".png")):
            folder = items_folder(self.server.run, self.server.fingerprint)
            self._answer((folder / item.file).read_bytes(), "image/png")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there is no such page")

    def do_POST(self) -> None:
        if not self._is_own():
            return
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, LONGEST))
        # A page of another site may send a form here, but not JSON: for that a browser asks us first, and gets no yes.
        if self.headers.get_content_type() != "application/json" or length > LONGEST:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send a short JSON object")
            return
        said = _parse(body)
        item = self.server.items.get(str(said.get("item")))
        if self.path != "/votes" or item is None or said.get("vote") not in ("good", "bad", None):
            self._refuse(HTTPStatus.BAD_REQUEST, "send {item, vote: good, bad or null, who} to /votes")
            return
        add_vote(self.server.run, item, said.get("vote"), str(said.get("who") or ""), self.server.fingerprint)
        self._answer(b'{"kept": true}', "application/json")

    def _is_own(self) -> bool:
        """Whether it came by this machine's own name: a foreign name that points here is another site's trick."""
        if (self.headers.get("Host") or "").rsplit(":", 1)[0] in HOSTS:
            return True
        self._refuse(HTTPStatus.FORBIDDEN, "open this page as http://127.0.0.1")
        return False

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        self.wfile.write(body)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self._answer(json.dumps({"error": why}).encode(), "application/json", status)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the terminal belongs to who started it."""


def _parse(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def render(name: str, items: list[Item], fingerprint: str) -> str:
    """The page. It knows neither the kind of an item nor what a checker says of it."""
    folder = files("tuwen") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "rate.html.jinja").read_text(encoding="utf-8"))
    shown = [{"id": item.id, "lang": item.lang, "prompt": item.prompt} for item in items]
    css = Markup((folder / "page.css").read_text(encoding="utf-8"))
    return template.render(name=name, model=fingerprint, items=shown, css=css, version=__version__).lstrip()
