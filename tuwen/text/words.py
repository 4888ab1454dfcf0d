"""What a word is, in English and in Chinese."""

from __future__ import annotations

import io
import logging
import re
import unicodedata
import warnings
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuwen.errors import DataError
from tuwen.files import cache_folder

SPACE = "▁"  # what a space is inside a subword
HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
HAN_RUN = re.compile(f"[{HAN}]+")
# A clitic is a word of its own ("man 's"), as in the Penn treebank; a hyphen holds a word together.
CLITIC = r"['’](?:s|t|re|ve|ll|d|m)\b"
LETTER = rf"(?:(?![{HAN}])[^\W_])"
PLAIN = re.compile(rf"[^\W_]+(?:-[^\W_]+)*|{CLITIC}", re.IGNORECASE)
# A run with any Han character goes to jieba whole, as "T恤" is one of its words; all else is cut here.
MIXED = re.compile(rf"(?P<zh>[A-Za-z0-9]*[{HAN}][{HAN}A-Za-z0-9]*)|{LETTER}+(?:-{LETTER}+)*|{CLITIC}", re.IGNORECASE)

_dictionary = ""  # lines of jieba's user format


def normalise(text: str) -> str:
    """Unicode NFKC, lower case, single spaces. Half a surrogate pair, which no file can hold, becomes `?`."""
    text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode()).lower()
    return " ".join(text.replace(SPACE, " ").split())


def set_dictionary(path: Path | None) -> None:
    """Let jieba know the words of a file (one a line, `word [frequency] [tag]`); None forgets them.

    A tokeniser trained from then on keeps these words inside itself. DataError where the file can't be read.
    """
    global _dictionary
    try:
        _dictionary = path.read_text("utf-8-sig") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise DataError(f"{path}: can't read the jieba dictionary ({why})") from None


def dictionary() -> str:
    """The lines that `set_dictionary` read last."""
    return _dictionary


@lru_cache(maxsize=4)
def segmenter(lines: str) -> Any:
    """A silent jieba with these extra words. Its cache is our own, not one in a shared temporary folder."""
    with warnings.catch_warnings():  # it imports pkg_resources and holds invalid escapes
        warnings.simplefilter("ignore")
        import jieba
    jieba.setLogLevel(logging.CRITICAL)
    cutter = jieba.Tokenizer()
    folder = cache_folder() / f"jieba-{version('jieba')}"
    with suppress(OSError):  # a read-only home: jieba falls back to the temporary folder
        folder.mkdir(parents=True, exist_ok=True)
        cutter.tmp_dir = str(folder)
    cutter.initialize()
    if lines:
        cutter.load_userdict(io.StringIO(lines))
    return cutter


def split_words(text: str, lang: str | None = None, lines: str | None = None) -> list[str]:
    """Words of a text, lower-cased, without punctuation; Chinese by jieba, exact mode, in mixed text too.

    `lang="en"` keeps jieba out. `lines` are a tokeniser's own jieba words (else: of `set_dictionary`).
    """
    text = unicodedata.normalize("NFKC", text)
    if lang == "en":
        return [word.lower().replace("’", "'") for word in PLAIN.findall(text)]
    words: list[str] = []
    for chunk in MIXED.finditer(text):
        if chunk["zh"]:
            cut = segmenter(_dictionary if lines is None else lines).cut(chunk[0])
            words.extend(word.lower() for word in cut)
        else:
            words.append(chunk[0].lower().replace("’", "'"))
    return words


def protocol() -> dict[str, str]:
    """Names and versions of what cuts text, to stand beside a score."""
    return {
        "words": "tuwen-words 1",
        "jieba": f"jieba {version('jieba')}",
        "subwords": f"tokenizers {version('tokenizers')}",
    }
