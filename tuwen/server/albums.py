"""Albums: names for lists of pictures, kept as one JSON file beside the index."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path

from tuwen.files import write_atomic
from tuwen.server.limits import Missing, Refused

FORMAT = 1
MOST, MOST_PICTURES = 1_000, 10_000  # albums, and pictures in one


class Shelf:
    """All albums of an index, by name. They outlive the index: ids are of contents, so a new index finds them again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def all(self) -> dict[str, list[str]]:
        """Ids by name, in the order of names. Refused (503) where the file is damaged."""
        try:
            body = json.loads(self.path.read_text(encoding="utf-8"))
            if body["format"] != FORMAT:
                raise ValueError(f"format {body['format']} is not {FORMAT}, update tuwen")
            return {str(name): [str(id) for id in ids] for name, ids in sorted(body["albums"].items())}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Refused(f"{self.path}: cannot be read ({error}); mend or move it", 503) from None

    def get(self, name: str) -> list[str]:
        """The ids of one album. Missing."""
        return _known(self.all(), name)

    def add(self, name: str, ids: Iterable[str]) -> list[str]:
        """A new album; its ids. Refused (409) where the name is taken."""
        with self._lock:
            albums = self.all()
            if name in albums:
                raise Refused(f"{name}: there is an album of this name; change it with PUT", 409)
            if len(albums) >= MOST:
                raise Refused(f"there are {MOST:,} albums, the most there can be; delete one", 409)
            return self._write(albums, name, ids)

    def change(
        self,
        name: str,
        to: str | None = None,
        ids: Iterable[str] | None = None,
        add: Iterable[str] = (),
        remove: Iterable[str] = (),
    ) -> list[str]:
        """Replace the ids, then add and remove some, then rename; the ids. Missing, Refused (409)."""
        with self._lock:
            albums = self.all()
            old, out = _known(albums, name), set(remove)
            kept = [id for id in (*(old if ids is None else ids), *add) if id not in out]
            if to is not None and to != name:
                if to in albums:
                    raise Refused(f"{to}: there is an album of this name; name another", 409)
                del albums[name]
            return self._write(albums, to or name, kept)

    def delete(self, name: str) -> None:
        """Take an album away; its pictures stay. Missing."""
        with self._lock:
            albums = self.all()
            _known(albums, name)
            del albums[name]
            self._save(albums)

    def _write(self, albums: dict[str, list[str]], name: str, ids: Iterable[str]) -> list[str]:
        albums[name] = list(dict.fromkeys(ids))  # each once, in their order
        if len(albums[name]) > MOST_PICTURES:
            raise Refused(f"{name}: more than {MOST_PICTURES:,} pictures; make a second album", 409)
        self._save(albums)
        return albums[name]

    def _save(self, albums: dict[str, list[str]]) -> None:
        write_atomic(self.path, json.dumps({"format": FORMAT, "albums": albums}, ensure_ascii=False, indent=1) + "\n")


def _known(albums: dict[str, list[str]], name: str) -> list[str]:
    if name not in albums:
        raise Missing(f"{name}: there is no album of this name")
    return albums[name]
