"""What every importer shares: its options, the rows that it gathers, what it skips, and reading foreign files."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuwen.dataset import ALIASES, MANIFEST, ROWS
from tuwen.errors import DataError
from tuwen.records import Caption, Picture, Question

FILE_KEYS = (
    "file_name", "filename", "file", "image_file", "image_path", "file_path", "filepath", "image_name", "image",
    "image_file_name", "image_filename", "img", "img_path", "img_name", "path", "picture", "photo", "name", "image_id",
    "图片", "文件", "文件名",
)  # fmt: skip
CAPTION_KEYS = (
    "captions", "caption", "text", "texts", "sentences", "sentence", "raw", "sentences_raw", "caption_text", "comment",
    "description", "descriptions", "title", "alt", "alt_text", "en", "zh", "cn", "english", "chinese",
    "标题", "描述", "说明",
)  # fmt: skip
PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00", b"7z\xbc\xaf")  # gzip, zip, bzip2, xz, 7z


@dataclass
class Skipped:
    """What was left out: reason -> [how many, the first few]."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, why: str, what: str) -> None:
        self.counts[why] = self.counts.get(why, 0) + 1
        shown = self.examples.setdefault(why, [])
        if len(shown) < 3:
            shown.append(what)

    def as_list(self) -> list[dict[str, Any]]:
        """`[{why, count, examples}]`, the most frequent first."""
        order = sorted(self.counts, key=lambda why: -self.counts[why])
        return [{"why": why, "count": self.counts[why], "examples": self.examples[why]} for why in order]


@dataclass
class ImportOptions:
    """What the user asked for. `staging` is an empty folder on the disk of the data set: files made go there first."""

    dest: Path
    staging: Path
    images: Path | None = None
    split: str | None = None
    copy: bool = False
    annotations: Sequence[Path] = ()
    features: dict[str, Path] = field(default_factory=dict)  # matrices that the data set holds already
    present: Sequence[Picture] = ()  # and its rows


@dataclass
class Imported:
    """Rows as a layout lists them.

    `folders` are where the pictures may lie, best first, unless the user names one. `located`: every `file_name`
    lies in `folders[0]`. `made`: every `file_name` is relative to the data set: staged there, or without a file.
    `features`: matrices by name, relative to the data set where they are staged.
    """

    name: str
    pictures: list[Picture]
    folders: list[Path] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)
    located: bool = False
    made: bool = False
    features: dict[str, str] = field(default_factory=dict)


class Rows:
    """Pictures gathered by the name that a layout gives them, in the order of first sight."""

    def __init__(self) -> None:
        self.skipped = Skipped()
        self._at: dict[str, Picture] = {}

    def add(self, name: str, captions: Iterable[Caption] = (), **keys: Any) -> Picture:
        """The picture of that name, with these captions added; `keys` that are None or known already change nothing."""
        picture = self._at.get(name)
        if picture is None:
            picture = self._at[name] = Picture(file_name=name)
        for caption in captions:
            if caption.text.strip():
                picture.captions.append(caption)
            else:
                self.skipped.add("empty caption", name)
        for key, value in keys.items():
            if value is not None and getattr(picture, key, None) is None:
                setattr(picture, key, value)
        return picture

    def ask(self, picture: Picture, question: str, answers: Sequence[str], **keys: Any) -> None:
        """Add a question; an empty one is skipped."""
        if question.strip():
            picture.qa.append(Question(question=question.strip(), answers=list(answers), **keys))
        else:
            self.skipped.add("empty question", picture.file_name)

    def drop(self, picture: Picture, why: str) -> None:
        """Leave a gathered picture out after all."""
        del self._at[picture.file_name]
        self.skipped.add(why, picture.file_name)

    @property
    def pictures(self) -> list[Picture]:
        return list(self._at.values())


def sentence(text: str, lang: str = "", source: str = "human") -> Caption:
    """A caption with its spaces tidied."""
    return Caption(text=" ".join(text.split()), lang=lang, source=source)


def read_captions(value: Any, lang: str = "") -> Iterator[Caption]:
    """Captions in whatever shape they come: a string, a list (or one as a string, as a cell of a CSV holds it),
    `{raw|text|caption|tokens}`, `{en: ..., zh: ...}`."""
    if isinstance(value, str):
        for one in _listed(value):
            yield sentence(one, lang)
    elif isinstance(value, dict):
        text = next((value[key] for key in ("raw", "text", "caption", "sentence") if value.get(key)), None)
        if isinstance(text, list):  # one list a key, as a table keeps a list of such
            yield from read_captions(text, lang)
        elif isinstance(text, str):
            yield sentence(text, value.get("lang") or lang, value.get("source") or "human")
        elif isinstance(value.get("tokens"), list):
            yield sentence(join_tokens(value["tokens"]), lang)
        else:
            for key in ("en", "zh"):
                yield from read_captions(value.get(key), key)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from read_captions(item, lang)


def _listed(text: str) -> list[str]:
    """The strings of a list that a string spells, as JSON or as Python; else the string itself."""
    if re.fullmatch(r"\s*\[.*\]\s*", text, re.DOTALL):
        for read in (json.loads, ast.literal_eval):
            try:
                held = read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(held, list) and all(isinstance(item, str) for item in held):
                return held
    return [text]


def join_tokens(tokens: Sequence[Any]) -> str:
    """Words as a sentence: with spaces, but none beside Chinese."""
    text = " ".join(map(str, tokens))
    return re.sub(r"(?<=[\u3000-\u9fff\uff00-\uffef]) (?=\S)|(?<=\S) (?=[\u3000-\u9fff\uff00-\uffef])", "", text)


def split_name(name: str | None) -> str | None:
    """`dev`, `validation`, `restval` ... under our names; None for an empty one."""
    name = str(name or "").strip()
    return ALIASES.get(name.lower(), name) or None


def guess_split(text: str) -> str | None:
    """The split that a file or folder name speaks of: `captions_val2014.json` is `val`."""
    text = re.sub(r"test[-_]?(?:dev|std|standard|challenge)", "test", text.lower())  # parts of a test
    text = re.sub(r"(?<![a-z])eval(?:uation)?(?![a-z])", "val", text)
    found = re.findall(r"(?<![a-z])(train|validation|valid|val|dev|test)(?![a-z])", text)
    return split_name(found[-1]) if found else None


def choose(src: Path, patterns: Sequence[str], what: str, many: bool = False) -> list[Path]:
    """SRC itself where it is a file, else the files in it or one or two below that match the first fitting pattern.

    Patterns are regular expressions over the file's name. DataError where none matches, or several do and not `many`.
    """
    if src.is_file():
        return [src]
    if not src.exists():
        raise DataError(f"{src}: no such file; name the {what} as SRC")
    folders = [src]
    for _ in range(3):
        inside = [path for folder in folders for path in _inside(folder)]
        files = [path for path in inside if path.is_file() and not _ours(path)]
        for pattern in patterns:
            found = [path for path in files if re.fullmatch(pattern, path.name, re.IGNORECASE)]
            if len(found) > 1 and not many:
                names = ", ".join(path.name for path in found[:4])
                raise DataError(f"{src}: several files fit ({names}); name one of them as SRC")
            if found:
                return found
        folders = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    raise DataError(f"{src}: no {what} in it; name the file itself as SRC")


def _ours(path: Path) -> bool:
    """Whether it is one of the two files of a data set: SRC may hold DEST."""
    return path.name in (ROWS, MANIFEST) and all(path.with_name(name).is_file() for name in (ROWS, MANIFEST))


def _inside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # a folder of another user's, somewhere below
        return []


def read_text(path: Path) -> str:
    """A text file: UTF-8 with or without its mark, UTF-16 with it, else GB 18030 or Windows-1252. DataError: none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from None
    if data.startswith(PACKED):
        raise DataError(f"{path}: packed; unpack it and name what is in it")
    # Chinese stands in pairs of high bytes; an é of Windows-1252 stands alone, and GB 18030 would make 茅 of it.
    other = "gb18030" if re.search(rb"[\x80-\xff]{2}", data) else "cp1252"
    for encoding in ("utf-16",) if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig", other):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{path}: not a text in a known encoding; save it as UTF-8")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that hold something, from 1, without their ends."""
    for number, line in enumerate(split_lines(read_text(path)), 1):
        if line.strip():
            yield number, line


def split_lines(text: str) -> list[str]:
    """The lines of a file; `str.splitlines` would also cut a caption at a form feed or at U+2028."""
    return re.split(r"\r\n|\r|\n", text)


def read_json(path: Path) -> Any:
    """A JSON file, or JSON lines as a list. DataError names the line."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line, why = getattr(error, "lineno", 1), _fault(error)
    held: list[Any] = []
    for number, one in enumerate(split_lines(text), 1):
        if one.strip():
            try:
                held.append(json.loads(one))
            except (ValueError, RecursionError) as error:
                if held:  # a first line that is whole: these are JSON lines
                    line, why = number, _fault(error)
                raise DataError(f"{path}:{line}: not JSON ({why}); is it whole?") from None
    return held


def _fault(error: Exception) -> str:
    return f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)


def need(condition: object, path: Path, expected: str) -> None:
    """DataError where a file is not what its FORMAT says."""
    if not condition:
        raise DataError(f"{path}: not this FORMAT ({expected}); choose another FORMAT or SRC")


def read_table(path: Path, delimiter: str | None = None) -> list[list[str]]:
    """The rows of a CSV or TSV, cells stripped; the delimiter, if not given, is a tab, else the first of `,|;`."""
    csv.field_size_limit(1 << 24)
    text = read_text(path)
    first = next((line for line in split_lines(text) if line.strip()), "")
    if delimiter is None:
        delimiter = "\t" if "\t" in first else min(",|;", key=lambda mark: f"{first}{mark}".index(mark))
    if delimiter not in "\t|":
        try:
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
            return [[cell.strip() for cell in row] for row in rows if any(cell.strip() for cell in row)]
        except csv.Error:  # a lone quotation mark in some caption: it quotes nothing, those of other lines do
            return [row for line in split_lines(text) if any(row := _cells(line, delimiter))]
    return [row for line in split_lines(text) if any(row := _plain_cells(line, delimiter))]


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of one line, stripped; where its quotation marks do not pair up, none of them quotes a cell."""
    try:
        return [
            cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
        ]
    except (csv.Error, StopIteration):
        return _plain_cells(line, delimiter)


def _plain_cells(line: str, delimiter: str) -> list[str]:
    return [_unquote(cell.strip()) for cell in line.split(delimiter)]


def _unquote(cell: str) -> str:
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"').strip() if quoted else cell
