"""`tuwen models`, `get` and `doctor`; the hub is a stand-in on the loopback, and nothing else may be connected to."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_clips import make

from tuwen import checkpoint, pipelines
from tuwen.cli import models, run
from tuwen.pipelines.fetch import OFFERS

REPO = "somebody/tiny-clip"
COMMIT = "c" * 40

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])


class Hub(ThreadingHTTPServer):
    """Serves folders as the Hugging Face hub does; `asked` notes each request, `status` answers all with an error."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.folders: dict[str, tuple[Path, str]] = {}  # repository -> folder, commit
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, range
        self.status = 0
        self.break_after = 0  # bytes of the first large body, then the line drops
        self.url = f"http://127.0.0.1:{self.server_port}"

    def bodies(self) -> list[str]:
        """Names of the files whose bytes were asked for, in order."""
        return [path.rpartition("/")[2] for method, path, _ in self.asked if method == "GET" and "/resolve/" in path]


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.server.asked.append((self.command, path, self.headers["Range"]))
        if self.server.status:
            return self.send(self.server.status, b"{}")
        parts = path.split("/")
        repo = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repo not in self.server.folders:
            return self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        folder, commit = self.server.folders[repo]
        if parts[0] != "api":
            if parts[3] not in ("main", commit):
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.file(folder / "/".join(parts[4:]), commit)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        if parts[4] == "tree":
            return self.json([{"type": "file", "path": name(folder, path), **about(path)} for path in files])
        siblings = [{"rfilename": name(folder, path), **about(path)} for path in files]
        return self.json({"id": repo, "sha": commit, "siblings": siblings, "cardData": {"license": "cc0-1.0"}})

    def json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def file(self, path: Path, commit: str) -> None:
        if not path.is_file():
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        data, etag = path.read_bytes(), about(path).get("lfs", about(path)).get("sha256", about(path)["oid"])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(206 if start else 200, data[start:], headers)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if 0 < self.server.break_after < len(body):
            body, self.server.break_after = body[: self.server.break_after], 0
            self.close_connection = True
        self.wfile.write(body)


def name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


def about(path: Path) -> dict[str, Any]:
    """Size and ids of a file: of weights the sha256 too, as the hub gives for what lies in its large-file store."""
    data = path.read_bytes()
    found: dict[str, Any] = {"size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if path.suffix == ".safetensors":
        found["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        found["lfs"]["oid"] = found["lfs"]["sha256"]
    return found


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one tiny CLIP, and an empty cache of our own."""
    from huggingface_hub import constants

    make("clip", tmp_path / "served")
    (tmp_path / "served" / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    (tmp_path / "served" / "pytorch_model.bin").write_bytes(b"\x80a pickle")
    (tmp_path / "served" / "onnx").mkdir()
    (tmp_path / "served" / "onnx" / "config.json").write_text("{}")
    server = Hub()
    server.folders[REPO] = tmp_path / "served", COMMIT
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_get_then_use_without_a_network(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match=f"`tuwen models get {REPO}`"):
        pipelines.load(f"hf:{REPO}")
    assert not hub.asked  # loading asks nobody
    assert run(["models", "get", REPO, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    wanted = ["config.json", "merges.txt", "model.safetensors", "preprocessor_config.json", "tokenizer_config.json"]
    assert sorted(found["files"]) == [*wanted, "vocab.json"]
    assert sorted(hub.bodies()) == sorted(found["files"])  # no pickle, no read-me, nothing of `onnx`
    assert (found["model"], found["licence"], found["warnings"]) == (f"hf:{REPO}", "cc0-1.0", [])
    served = tmp_path / "served"
    assert found["bytes"] == sum((served / file).stat().st_size for file in found["files"])
    assert {path.name for path in Path(found["folder"]).iterdir()} == set(found["files"])
    assert Path(found["folder"]).is_relative_to(tmp_path / "cache")

    hub.asked.clear()
    assert run(["models", "get", f"hf:{REPO}"]) == 0  # again, with its prefix: nothing is fetched twice
    told = capsys.readouterr().out
    assert not hub.bodies()
    assert "licence: cc0-1.0" in told
    assert found["folder"] in told
    assert f"--model hf:{REPO}" in told

    hub.asked.clear()
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(3):
        Image.new("RGB", (40, 24), (80 * n, 0, 0)).save(pictures / f"{n}.png")
    db = ["--db", str(tmp_path / "db")]
    assert run(["index", str(pictures), *db, "--model", f"hf:{REPO}"]) == 0
    capsys.readouterr()
    assert run(["search", "red", *db, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["hits"]) == 3
    assert answer["model"] == f"hf:{REPO}"
    assert not hub.asked
    local, fetched = pipelines.load(f"hf:{served}"), pipelines.load(f"hf:{REPO}")
    assert fetched.fingerprint == local.fingerprint  # one by the hash in the blob's name, one by reading
    np.testing.assert_array_equal(fetched.embed_texts(["red"]), local.embed_texts(["red"]))


def test_a_broken_line_is_taken_up_where_it_broke(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)  # else nothing is written before 10 MB came
    hub.break_after = 60_000
    assert run(["models", "get", REPO, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "bytes=60000-" in [span for _, path, span in hub.asked if path.endswith(".safetensors")]
    assert pipelines.load(found["model"]).embed_texts(["red"]).shape == (1, 24)


def test_a_fetch_that_failed_is_completed_by_the_next(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "served" / "model.safetensors"
    hidden = weights.rename(tmp_path / "hidden")
    weights.symlink_to(hidden)  # listed, and gone when it is asked for
    original = Answer.file

    def fail(self: Answer, path: Path, commit: str) -> None:
        if path.name == "model.safetensors" and self.command == "GET":
            return self.send(403, b"{}")
        return original(self, path, commit)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Answer, "file", fail)
        assert run(["models", "get", REPO]) == 1
    err = capsys.readouterr().err
    assert "answered 403" in err
    assert len(err.strip().splitlines()) == 1
    assert run(["eval", f"hf:{REPO}", "--data", str(tmp_path)]) == 1  # what came is not taken for the model
    assert "tuwen models get" in capsys.readouterr().err
    hub.asked.clear()
    assert run(["models", "get", REPO]) == 0
    assert hub.bodies() == ["model.safetensors"]
    assert pipelines.load(f"hf:{REPO}").dim == 24


def test_best_is_a_fixed_commit(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert set(OFFERS) == {"best", "chinese"}
    for short, family in (("best", "siglip"), ("chinese", "chinese_clip")):
        offer = OFFERS[short]
        make(family, tmp_path / short)
        hub.folders[offer.repo] = tmp_path / short, offer.revision
        assert run(["models", "get", short]) == 0
        told = capsys.readouterr().out
        assert f"{offer.megabytes:,} MB; licence: {offer.licence}" in told
        assert f"--model hf:{offer.repo}" in told
        revisions = {
            path.split("/resolve/")[1].split("/")[0] for _, path, _ in hub.asked if offer.repo + "/res" in path
        }
        assert revisions == {offer.revision}
        assert pipelines.load(short).name == pipelines.load(f"hf:{short}").name == f"hf:{offer.repo}"
    assert run(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["here"]) for row in listed["offers"]] == [("best", True), ("chinese", True)]
    assert [row["name"] for row in listed["models"]] == checkpoint.shipped_models()
    assert run(["models"]) == 0
    told = capsys.readouterr().out
    assert all(offer.repo in told and offer.licence in told for offer in OFFERS.values())


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("unknown", "has no such public model"),
        ("gated", "ask for consent"),
        ("down", "answered 500"),
        ("unreachable", "check the network"),
        ("offline", "HF_HUB_OFFLINE is set"),
        ("pickle", "only pytorch_model.bin, a pickle"),
        ("typo", "did you mean 'best'?"),
        ("shell", "no model '../x/y' to fetch"),
    ],
)
def test_refused_in_one_line(
    wrong: str,
    told: str,
    hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from huggingface_hub import constants

    asked = {"unknown": "some/one", "typo": "bset", "shell": "../x/y"}.get(wrong, REPO)
    if wrong == "gated":

        def refuse(self: Answer) -> None:
            self.send(403, b"{}", {"X-Error-Code": "GatedRepo"})

        monkeypatch.setattr(Answer, "answer", refuse)
    elif wrong == "down":
        hub.status = 500
    elif wrong == "unreachable":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    elif wrong == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif wrong == "pickle":
        (tmp_path / "served" / "model.safetensors").unlink()
    capsys.readouterr()
    assert run(["models", "get", asked]) == 1
    out, err = capsys.readouterr()
    assert told in err
    assert len(err.strip().splitlines()) == 1
    assert "\n" not in out.strip()
    assert not hub.bodies()
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_shipped_model_is_not_fetched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(checkpoint, "shipped_models", lambda: ["retrieval"])
    assert run(["models", "get", "retrieval"]) == 1
    assert "comes inside the package" in capsys.readouterr().err


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["missing"] == []
    assert found["versions"]["torch"]
    assert run(["doctor"]) == 0
    assert "transformers" in capsys.readouterr().out


def test_doctor_names_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "PARTS", (*models.PARTS, "no-such-part"))
    assert run(["doctor", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["missing"] == ["no-such-part"]
    assert "no-such-part" in err
