"""Files written whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """What can be made again (graphs, features, unpacked models) is kept here: $TUWEN_CACHE, or the user's cache."""
    return Path(os.environ.get("TUWEN_CACHE") or platformdirs.user_cache_dir("tuwen"))


def write_atomic(path: Path, data: bytes | str) -> None:
    """Write beside, flush to disk, then rename: a reader sees the old file or the new one, never a part.

    A device or a pipe (`--json /dev/stdout`) is written to as it is: a rename would put a file in its place.
    """
    content = data.encode() if isinstance(data, str) else data
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_text(text: str) -> str:
    """Hex sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()
