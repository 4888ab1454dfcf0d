"""What stands before every route: who may ask, how much may be sent, and what is written of it in the log."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import re
import secrets
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote, urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuwen.server.limits import Refused

log = logging.getLogger("tuwen.server")

COOKIE = "tuwen"
DRAIN = 2.0  # seconds that a refused body is still read, unkept, so that its sender gets to hear why
BODY_SECONDS = 120.0  # for a whole body: one that trickles must not hold a place for ever
SAFE = {"GET", "HEAD", "OPTIONS"}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
}
OPEN = {"/healthz"}  # asked by those who watch over a machine: no token


class Guard:
    """Middleware. Gives each request an id, checks host, origin and token, bounds the body, and writes one log line.

    Args:
        upload: bytes of a body.
        token: that must come as `Authorization: Bearer`, as the cookie, or once as `?token=` of the page.
        loopback: answer only where `Host` names this machine: a foreign name that resolves to 127.0.0.1 (DNS
            rebinding) would make another site's page this one's origin.
    """

    def __init__(self, app: ASGIApp, upload: int, token: str | None = None, loopback: bool = True) -> None:
        self.app, self.upload, self.token, self.loopback = app, upload, token, loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers, began = Headers(scope=scope), time.monotonic()
        id_ = request_id(headers)
        scope.setdefault("state", {})["request_id"] = id_
        status, body = 0, _Bounded(receive, self.upload)

        async def answer(message: Message) -> None:
            nonlocal status
            if body.refused and status == 0:
                return  # what the route makes of a body that was cut off: the refusal is said below
            if message["type"] == "http.response.start":
                status = message["status"]
                out = MutableHeaders(scope=message)
                out["X-Request-ID"] = id_
                for name, value in HEADERS.items():
                    out[name] = value
                if "cache-control" not in out:  # the page's own files are asked for again, but sent when they changed
                    out["Cache-Control"] = "no-cache" if scope["path"].startswith("/page/") else "no-store"
            await send(message)

        try:
            self._check(scope, headers)
            if (page := self._sign_in(scope)) is not None:
                await _redirect(answer, page, str(self.token))
            else:
                await self.app(scope, body, answer)
            if (refused := body.refused) is not None and status == 0:
                body.refused = None
                await _refuse(answer, receive, refused, id_)
        except Refused as error:
            if status == 0:
                body.refused = None
                await _refuse(answer, receive, error, id_)
        except Exception as error:  # a fault of ours: said in one line here and there, never as a traceback
            log.error("%s fault: %s: %s", id_, type(error).__name__, " ".join(str(error).split())[:300])
            log.debug("%s", id_, exc_info=True)
            if status == 0:
                fault = Refused(f"the server failed ({type(error).__name__}); its log names this request", 500)
                await _refuse(answer, receive, fault, id_)
        finally:
            took = 1000 * (time.monotonic() - began)
            log.info("%s %s %s %s %.0f ms", id_, scope["method"], quote(scope["path"]), status or "-", took)

    def _check(self, scope: Scope, headers: Headers) -> None:
        """Refused where this request may not ask."""
        host = headers.get("host", "")
        if self.loopback and not is_loopback(_name(host)):
            raise Refused(f"this server answers to localhost alone, not to {quote(host)[:100]}", 403)
        _check_origin(scope["method"], scope["path"], headers, host)
        if self.token is not None and scope["path"] not in OPEN and not self._known(scope, headers):
            raise Refused("no or a wrong token: open the address that `tuwen serve` printed, or send "
                          "Authorization: Bearer TOKEN", 401)  # fmt: skip
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self.upload:
            raise too_large(self.upload)

    def _known(self, scope: Scope, headers: Headers) -> bool:
        token = str(self.token)
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and _same(given.strip(), token):
            return True
        if _same(_cookie(headers), stamp(token)):
            return True
        return self._sign_in(scope) is not None

    def _sign_in(self, scope: Scope) -> str | None:
        """Where to send who opened the page with the token in its address; None for all others."""
        if self.token is None or scope["method"] != "GET" or scope["path"].startswith("/api/"):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=50).get("token", [])
        return quote("/" + scope["path"].lstrip("/\\")) if len(given) == 1 and _same(given[0], self.token) else None


class _Bounded:
    """Receives a body, and stops where it grows too large, whatever its header said, or comes too slowly."""

    def __init__(self, receive: Receive, upload: int) -> None:
        self.receive, self.upload = receive, upload
        self.refused: Refused | None = None
        self._read, self._whole, self._until = 0, False, time.monotonic() + BODY_SECONDS

    async def __call__(self) -> Message:
        """The next part."""
        if self._whole:
            return await self.receive()
        try:
            with anyio.fail_after(max(0.0, self._until - time.monotonic())):
                message = await self.receive()
        except TimeoutError:
            self.refused = Refused("the body came too slowly, so it was given up", 408)
            raise self.refused from None
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._read > self.upload:
                self.refused = too_large(self.upload)
                raise self.refused
        return message


def request_id(headers: Headers) -> str:
    """The id that the client gave, where it is a plain one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", given) else secrets.token_hex(8)


def is_loopback(name: str) -> bool:
    """Whether a host's name can only mean this machine."""
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def stamp(token: str) -> str:
    """What the cookie holds: it proves the token and does not tell it."""
    return hashlib.sha256(f"tuwen cookie {token}".encode()).hexdigest()


def too_large(upload: int) -> Refused:
    """Of a body."""
    return Refused(f"more than {upload / 2**20:,.0f} MB were sent; make the picture smaller", 413)


def _check_origin(method: str, path: str, headers: Headers, host: str) -> None:
    """Refuse what another site's page makes a browser send: it may lead here by a link, and nothing else."""
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin")
    link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    foreign = site not in ("same-origin", "none") or (
        method not in SAFE and origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    )
    if foreign and not link:
        raise Refused("refused: this came from another site's page", 403)


def _name(host: str) -> str:
    """A `Host` without its port."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]*)(?::\d{1,5})?", host)
    return found[1] if found else ""


def _cookie(headers: Headers) -> str:
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


async def _redirect(send: Send, page: str, token: str) -> None:
    cookie = f"{COOKIE}={stamp(token)}; Path=/; HttpOnly; SameSite=Strict"
    headers = [(b"location", page.encode()), (b"set-cookie", cookie.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _refuse(send: Send, receive: Receive, error: Refused, id_: str) -> None:
    """Answer at once, then read on for a moment: a sender whose line is cut never sees the answer."""
    body = problem(str(error), id_)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    with anyio.move_on_after(DRAIN):
        while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
            pass
    await send({"type": "http.response.body", "body": b""})


def problem(error: str, id_: str) -> bytes:
    """The body of every error."""
    return json.dumps({"error": " ".join(error.split()), "request_id": id_}, ensure_ascii=False).encode()
