"""One tree of errors. A face prints the message as one line and exits with `exit_code`; no traceback reaches a user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TuwenError(Exception):
    """The data or the request is at fault. The message names the file and the mend, on one line."""

    exit_code = 1


class DataError(TuwenError):
    """A data set, a row or a picture is missing, broken or not what it should be."""


class PictureError(DataError):
    """One picture can't be read: missing, truncated, not a picture, or too large to decode."""


class ConfigError(TuwenError):
    """A recipe or an override is wrong."""


class ModelError(TuwenError):
    """A checkpoint is missing, unsafe, of another task, or not loadable here."""


class GraphError(ModelError):
    """A network can't be written as an ONNX graph; it runs through torch."""


class StoreError(TuwenError):
    """An index is missing, locked, of another model or of another format."""


def suggest(word: str, known: Iterable[str]) -> str:
    """`", did you mean 'lr'?"` for the nearest of `known`, or an empty string where nothing is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean '{near[0]}'?" if near else ""
