"""`tuwen serve` as a process: its one line, its log, its stop; and what it says where it cannot start."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from fake_server import World, wait_for
from typer.testing import CliRunner

from tuwen import cli
from tuwen.cli import serve
from tuwen.errors import ConfigError

SERVED = Path(__file__).with_name("served.py")
LOOPBACK = pytest.mark.allow_hosts(["127.0.0.1"])


@contextmanager
def served(world: World, *options: str) -> Iterator[tuple[Any, str]]:
    """The process and the address that it printed."""
    process = subprocess.Popen(
        [sys.executable, str(SERVED), str(world.folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()  # type: ignore[union-attr]
        yield process, line
    finally:
        process.kill()
        process.communicate()


def address(line: str) -> str:
    """The URL of the line."""
    found = re.search(r"http://\S+", line)
    assert found, line
    return found[0]


def told(line: socket.socket) -> bytes:
    """An answer, as far as the end of its JSON."""
    got = b""
    while not got.endswith(b"}") and (more := line.recv(65536)):
        got += more
    return got


@LOOPBACK
def test_a_server_answers_and_sigterm_lets_it_finish_what_it_began(shown: World) -> None:
    (shown.folder / "began").unlink(missing_ok=True)
    with served(shown) as (process, line):
        url = address(line)
        assert line.startswith(f"{shown.db} at http://127.0.0.1:")
        assert httpx.get(f"{url}healthz", timeout=60).json()["status"] == "ok"
        assert httpx.get(f"{url}api/search", params={"q": "red"}, timeout=60).json()["hits"]
        answers: list[httpx.Response] = []
        asked = {"data": {"id": shown.id(0)}, "timeout": 60}
        slow = threading.Thread(target=lambda: answers.append(httpx.post(f"{url}api/caption", **asked)))  # type: ignore[arg-type]
        slow.start()
        assert wait_for((shown.folder / "began").exists, 60)
        process.send_signal(signal.SIGTERM)
        slow.join(60)
        assert answers[0].status_code == 200  # it was being answered when the signal came
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out == ""
        assert "Traceback" not in err
        lines = [line.split() for line in err.splitlines()]
        assert [line[2:5] for line in lines] == [
            ["GET", "/healthz", "200"], ["GET", "/api/search", "200"], ["POST", "/api/caption", "200"]
        ]  # fmt: skip
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}healthz", timeout=5)


@LOOPBACK
def test_ctrl_c_stops_it_with_130(shown: World) -> None:
    with served(shown) as (process, line):
        httpx.get(f"{address(line)}healthz", timeout=60)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in err


@LOOPBACK
def test_a_body_that_is_too_large_is_answered_before_it_is_whole(shown: World) -> None:
    with served(shown, "--upload-mb", "1") as (_, line):
        host, _, port = address(line).removeprefix("http://").rstrip("/").partition(":")
        head = f"POST /api/search HTTP/1.1\r\nHost: {host}\r\nContent-Length: {200 << 20}\r\n\r\n"
        with socket.create_connection((host, int(port)), 60) as line_:
            line_.settimeout(60)
            line_.sendall(head.encode() + b"\0" * 100_000)
            answer = told(line_)
        assert answer.startswith(b"HTTP/1.1 413 ")
        head = "POST /api/search HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\nContent-Type: {}\r\n\r\n"
        with socket.create_connection((host, int(port)), 60) as line_:
            line_.settimeout(60)
            line_.sendall(head.format(host, "multipart/form-data; boundary=x").encode())
            part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
            line_.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            for _ in range(20):
                line_.sendall(b"20000\r\n" + b"\0" * 0x20000 + b"\r\n")
            answer = told(line_)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"more than 1 MB" in answer


def test_where_other_machines_are_let_in_a_token_is_made_and_printed(
    shown: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    monkeypatch.setattr(serve, "listen", lambda host, port: Listening())
    monkeypatch.setattr("tuwen.server.running.run", lambda app, listening: None)
    monkeypatch.setattr("tuwen.server.create_app", lambda db, **options: made.append(options))
    said = CliRunner().invoke(cli.build(), ["serve", "--db", str(shown.db), "--host", "0.0.0.0"])
    assert said.exit_code == 0, said.output
    token = made[0]["token"]
    assert len(token) >= 20
    assert f"/?token={token}" in said.output
    assert "other machines can reach" in said.output
    assert not made[0]["loopback"]
    said = CliRunner().invoke(cli.build(), ["serve", "--db", str(shown.db), "--token", "chosen-by-me"])
    assert made[1]["token"] == "chosen-by-me"
    assert made[1]["loopback"]
    said = CliRunner().invoke(cli.build(), ["serve", "--db", str(shown.db)])
    assert made[2]["token"] is None
    assert "http://127.0.0.1:7860/ (" in said.output


class Listening:
    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 7860


@pytest.mark.parametrize("token", ["short", "with space in it", "ünïcödé-token"])
def test_a_token_that_is_none_is_refused(token: str, shown: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--db", str(shown.db), "--token", token]) == 1
    assert "--token" in capsys.readouterr().err


def test_a_missing_index_is_said_with_the_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["serve", "--db", str(tmp_path / "no.db")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"tuwen index PICTURES --db {tmp_path / 'no.db'}" in said


@LOOPBACK
def test_a_port_that_is_taken_is_said_in_a_line() -> None:
    first = serve.listen("127.0.0.1", 0)
    try:
        with pytest.raises(ConfigError, match=r"port \d+ of 127\.0\.0\.1 cannot be had .*--port"):
            serve.listen("127.0.0.1", first.getsockname()[1])
    finally:
        first.close()
    with pytest.raises(ConfigError, match="no address of this machine"):
        serve.listen("no such host", 0)


def test_addresses_are_ones_that_a_browser_opens() -> None:
    assert serve.url("127.0.0.1", 80, None) == "http://127.0.0.1:80/"
    assert serve.url("::1", 80, "t") == "http://[::1]:80/?token=t"
    assert serve.url("0.0.0.0", 80, None) == f"http://{socket.gethostname()}:80/"
