"""Who may ask: tokens, hosts, other sites' pages; what every answer carries, and what the log says."""

from __future__ import annotations

import json
import logging
import re

import pytest
from fake_server import Client

from tuwen.server.guard import is_loopback

TOKEN = "a-token-of-some-length"
GET = "/api/albums"


def test_every_answer_is_kept_from_being_taken_for_something_else(client: Client) -> None:
    c = client()
    for path in ("/", GET, "/nope", "/docs", "/healthz"):
        headers = c.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert headers["x-frame-options"] == "DENY"
        assert re.fullmatch(r"[0-9a-f]{16}", headers["x-request-id"])


def test_the_log_names_the_request_and_never_what_was_searched(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tuwen.server"):
        c = client()
        assert c.get(GET, headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
        forged = c.get("/a%0Ab?q=private words", headers={"x-request-id": "two words"})
    assert forged.headers["x-request-id"] != "two words"
    lines = [record.getMessage() for record in caplog.records if record.name == "tuwen.server"]
    assert re.fullmatch(rf"mine-1 GET {GET} 200 \d+ ms", lines[0])
    assert "/a%0Ab 404" in lines[1]
    assert len(lines) == 2
    assert "private" not in "".join(lines)


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.5", "", "a b"]
)
def test_a_foreign_name_for_this_machine_is_refused(host: str, client: Client) -> None:
    answer = client().get(GET, headers={"host": host})
    assert answer.status_code == 403
    assert "localhost" in answer.json()["error"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:99", "127.0.0.1:7860", "127.8.8.8", "[::1]:7860", "localhost."]
)
def test_every_name_of_this_machine_is_taken(host: str, client: Client) -> None:
    assert client().get(GET, headers={"host": host}).status_code == 200


def test_loopback_by_address_and_by_name() -> None:
    assert [is_loopback(name) for name in ("127.0.0.1", "::1", "[::1]", "localhost")] == [True] * 4
    assert [is_loopback(name) for name in ("0.0.0.0", "::", "192.168.1.2", "example.com", "")] == [False] * 5


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},  # a form
    ],
)
def test_another_sites_page_changes_nothing(headers: dict[str, str], client: Client) -> None:
    c = client()
    for method, path in (("POST", GET), ("PUT", f"{GET}/x"), ("DELETE", f"{GET}/x"), ("POST", "/api/draw")):
        answer = c.request(method, path, json={"name": "x"}, headers=headers)
        assert answer.status_code == 403, (method, path)
        assert "another site" in answer.json()["error"]
    assert c.get(GET).json()["albums"] == []


def test_another_sites_page_reads_nothing_but_may_link_here(client: Client) -> None:
    c = client()
    assert c.get(GET, headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}).status_code == 403
    assert c.get("/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200


@pytest.mark.parametrize(
    "headers", [{}, {"origin": "http://localhost:7860", "sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}]
)
def test_the_page_itself_and_a_script_may_change_things(headers: dict[str, str], client: Client) -> None:
    assert client().post(GET, json={"name": "x"}, headers=headers).status_code == 201


def test_without_the_token_nothing_is_told(client: Client) -> None:
    c = client(token=TOKEN, loopback=False, base_url="http://box.lan:7860")
    for path in ("/", GET, "/openapi.json", "/docs", "/page/app.js"):
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Basic {TOKEN}"},
            {"cookie": "tuwen=x"},
        ):
            answer = c.get(path, headers=headers)
            assert answer.status_code == 401, (path, headers)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert TOKEN not in answer.text
    assert c.get(f"{GET}?token={TOKEN}").status_code == 401  # in an address it opens the page, nothing else
    assert c.get("/healthz").json()["status"] == "ok"


def test_the_token_opens_as_a_header_and_as_a_cookie(client: Client) -> None:
    c = client(token=TOKEN, loopback=False, base_url="http://box.lan:7860")
    assert c.get(GET, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    came = c.get(f"/?token={TOKEN}", follow_redirects=False)
    assert came.status_code == 303
    assert came.headers["location"] == "/"
    cookie = came.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert c.get(GET).status_code == 200  # the client keeps cookies
    assert c.get("/").status_code == 200


def test_a_signed_in_visitor_is_sent_nowhere_else(client: Client) -> None:
    c = client(token=TOKEN, base_url="http://localhost:7860")
    came = c.get(f"//evil.example/?token={TOKEN}", follow_redirects=False)
    assert not came.headers.get("location", "/").startswith("//")


def test_a_wrong_method_and_a_wrong_address_are_told_in_a_line(client: Client) -> None:
    c = client()
    for answer, status in ((c.patch(GET), 405), (c.get("/api/nothing"), 404)):
        assert answer.status_code == status
        assert set(json.loads(answer.content)) == {"error", "request_id"}
