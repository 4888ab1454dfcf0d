"""The one way a picture is decoded and viewed: training, scoring and indexing all see the same pixels."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import threading
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tuwen.errors import ConfigError, PictureError
from tuwen.files import sha256_file

Pixels: TypeAlias = NDArray[np.uint8]

DECODER = "1"  # goes into the key of every cached feature: raise it when the same file would give other pixels
ZOOM = 0.6  # least share of the width, and of the height, that a `zoom` shows
MAX_PIXELS = 120_000_000
LARGE = 50_000_000  # pixels, beyond what phones take
FEW_AT_ONCE = threading.BoundedSemaphore(2)  # large ones that all threads hold open together
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".tif", ".tiff",
    ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm",
})  # fmt: skip

# Tried in turn, by the first bytes of a file. Others that Pillow knows stay shut: some start a program (EPS).
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")
_PLUGINS = ("Jpeg", "Png", "WebP", "Gif", "Bmp", "Tiff", "Avif", "Jpeg2K", "Ppm")

_TURNS = {  # the EXIF orientation, and what undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _register_formats() -> None:
    for name in _PLUGINS:
        with contextlib.suppress(ImportError):  # AVIF came with Pillow 11.2
            importlib.import_module(f"PIL.{name}ImagePlugin")
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()


_register_formats()
# What a decoder makes of damaged notes (EXIF, ICC) is no matter of the user's: what counts is raised.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True)
class View:
    """How a picture becomes a square; `str(view)` is its key in a cache.

    `squash`: the whole picture, resized to the square; nothing is cut off. `center`: the shorter side to
    256/224 of the square, then the centre (the published test view). `crop`: the same resize, then a crop
    drawn from `seed` and the picture's content: another for each picture, and the same one each time.
    `zoom`: a part with 60% to 100% of the width and of the height, drawn likewise, squashed: for training alone.
    """

    kind: Literal["squash", "center", "crop", "zoom"] = "squash"
    flip: bool = False
    seed: int = 0

    def __str__(self) -> str:
        seed = f":{self.seed}" if self.drawn else ""
        return f"{self.kind}{seed}{'+flip' if self.flip else ''}"

    @property
    def drawn(self) -> bool:
        """Whether it shows a part that the seed and the picture's content decide."""
        return self.kind in ("crop", "zoom")

    @classmethod
    def parse(cls, text: str) -> View:
        """The view whose `str` is `text`; ConfigError for any other text."""
        found = re.fullmatch(r"(squash|center|(?:crop|zoom)(?=:))(?::(\d+))?(\+flip)?", text)
        view = cls(found[1], bool(found[3]), int(found[2] or 0)) if found else None  # type: ignore[arg-type]
        if view is None or str(view) != text:
            raise ConfigError(
                f"'{text}' is not a view: squash, center, crop:SEED or zoom:SEED, each with or without +flip"
            )
        return view


def load(path: Path | str, size: int, view: View | None = None) -> Pixels:
    """Decode a picture and view it: uint8 (size, size, 3), RGB. PictureError names the file and why.

    A JPEG is decoded at the smallest eighth that leaves at least twice the pixels needed along each side.
    """
    view = view or View()
    with _opened(path) as image:
        content = zlib.crc32(Path(path).read_bytes()) if view.drawn else None
        image.draft(None, (2 * _resized(size, view),) * 2)
        return load_pil(image, size, view, content)


def load_both(path: Path | str, size: int, view: View, side: int) -> tuple[Pixels, Image.Image]:
    """The pixels that `load` gives, and the whole picture with its longer side at most `side`: RGB, decoded once."""
    with _opened(path) as image:
        content = zlib.crc32(Path(path).read_bytes()) if view.drawn else None
        image.draft(None, (2 * _resized(size, view),) * 2)
        whole = to_rgb(_upright(image))
        pixels = load_pil(whole, size, view, content)
        small = whole.copy()
        small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
        return pixels, small


def load_pil(image: Image.Image, size: int, view: View | None = None, content: int | None = None) -> Pixels:
    """View an open picture, turned as its EXIF says: uint8 (size, size, 3), RGB. `content` seeds a `crop`."""
    view, image = view or View(), to_rgb(_upright(image))
    if view.drawn and content is None:
        content = zlib.crc32(image.tobytes())
    box = _box(*image.size, size, view, content or 0)
    square = image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    if view.flip:
        square = square.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(square)


def open_image(path: Path | str) -> Image.Image:
    """Decode a whole picture: RGB, turned as its EXIF says. PictureError names the file and why."""
    with _opened(path) as image:
        return to_rgb(_upright(image))


def thumbnail(path: Path | str, side: int, quality: int = 85) -> bytes:
    """JPEG bytes of the whole picture, its longer side at most `side` pixels."""
    with _opened(path) as image:
        image.draft(None, (2 * side, 2 * side))
        small = to_rgb(_upright(image))
        small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
        out = io.BytesIO()
        small.save(out, "JPEG", quality=quality)
    return out.getvalue()


def content_id(path: Path | str) -> str:
    """Hex sha256 of the file's bytes: the same picture under any name."""
    try:
        return sha256_file(Path(path))
    except OSError as error:
        raise PictureError(f"{path}: cannot be read: {error.strerror or error}") from None


def probe(path: Path | str) -> dict[str, Any]:
    """What the header says, no pixel decoded; absent is None.

    `width`, `height` (upright), `format`, `date` (ISO 8601), `camera`, `gps` (latitude, longitude; degrees).
    """
    with _opened(path) as image:
        exif = _exif(image)
        width, height = image.size
        if exif.get(ExifTags.Base.Orientation, 1) >= 5:
            width, height = height, width
        return {
            "width": width,
            "height": height,
            "format": image.format,
            "date": _date(exif),
            "camera": _camera(exif),
            "gps": _gps(exif),
        }


def shown_part(width: int, height: int, size: int, view: View) -> tuple[float, float, float, float]:
    """What a `squash` or `center` view shows of an upright picture, in its pixels: left, top, right, bottom."""
    return _box(width, height, size, view, 0)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode as RGB: transparency over white, 16-bit grey by its high byte, float grey by its range."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey(np.asarray(image), image.mode)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image)
        image = ground
    return image.convert("RGB")


def _grey(values: NDArray[Any], mode: str) -> Pixels:
    if mode == "F":
        values = np.nan_to_num(values.astype(np.float32))
        low, high = float(values.min()), float(values.max())
        return np.asarray((values - low) * (255 / max(high - low, 1e-12)), dtype=np.uint8)
    return np.asarray(np.clip(values, 0, 65535).astype(np.uint16) >> 8, dtype=np.uint8)


@contextlib.contextmanager
def _opened(path: Path | str) -> Iterator[Image.Image]:
    """A picture's header, within the limit; whatever goes wrong inside the block is told of this file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            image = _header(file, path)
            width, height = image.size
            if width * height > MAX_PIXELS:
                limit = MAX_PIXELS // 1_000_000
                raise PictureError(f"{path}: {width}x{height} pixels are more than {limit} million; make it smaller")
            with FEW_AT_ONCE if width * height > LARGE else contextlib.nullcontext():
                yield image
    except PictureError:
        raise
    except FileNotFoundError:
        raise PictureError(f"{path}: there is no such file") from None
    except MemoryError:
        raise PictureError(f"{path}: too large for this machine's memory") from None
    except Exception as error:  # of foreign bytes decoders make OSError, SyntaxError, struct.error, zlib.error ...
        why = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise PictureError(f"{path}: cannot be decoded: {why}; replace or remove it") from None


def _header(file: BinaryIO, path: Path) -> Image.Image:
    """`Image.open` without its pixel check: that warns, and all threads share the filters. Ours follows."""
    start = file.read(16)
    if not start:
        raise PictureError(f"{path}: the file is empty; replace or remove it")
    for name in FORMATS:
        opener, accepts = Image.OPEN.get(name, (None, None))
        if opener is None or (accepts is not None and accepts(start) is not True):
            continue
        file.seek(0)
        with contextlib.suppress(SyntaxError, IndexError, TypeError, KeyError, EOFError):
            return opener(file, str(path))
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1"):
        raise PictureError(f"{path}: HEIC needs one more package: pip install pillow-heif")
    raise PictureError(f"{path}: not a picture, or cut within its header; replace or remove it")


def _resized(size: int, view: View) -> int:
    return size if view.kind in ("squash", "zoom") else round(size * 256 / 224)


def _box(width: int, height: int, size: int, view: View, content: int) -> tuple[float, float, float, float]:
    """The part of the picture that the view shows, in its pixels: left, top, right, bottom."""
    if view.kind == "squash":
        return 0, 0, width, height
    if view.kind == "zoom":
        draw = np.random.default_rng((view.seed, content, 1))
        wide, high = draw.uniform(ZOOM, 1, 2) * (width, height)
        left, top = draw.random(2) * (width - wide, height - high)
        return left, top, left + wide, top + high
    side = min(width, height) * size / _resized(size, view)
    if view.kind == "center":
        across, down = 0.5, 0.5
    else:
        across, down = np.random.default_rng((view.seed, content)).random(2)
    left, top = (width - side) * across, (height - side) * down
    return left, top, min(left + side, width), min(top + side, height)


def _upright(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_exif(image).get(ExifTags.Base.Orientation, 1))
    image.load()
    if turn is None:
        return image
    image = image.transpose(turn)
    image.info = {key: value for key, value in image.info.items() if key == "transparency"}  # else it is turned twice
    return image


def _exif(image: Image.Image) -> Image.Exif:
    try:
        return image.getexif()
    except Exception:  # a broken block of notes must not cost the picture
        return Image.Exif()


def _part(exif: Image.Exif, part: ExifTags.IFD) -> dict[int, Any]:
    try:
        return exif.get_ifd(part)
    except Exception:
        return {}


def _date(exif: Image.Exif) -> str | None:
    taken = _part(exif, ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    found = re.match(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d:\d\d:\d\d)", str(taken or ""))
    return f"{found[1]}-{found[2]}-{found[3]}T{found[4]}" if found and found[1] != "0000" else None


def _camera(exif: Image.Exif) -> str | None:
    make, model = (
        str(exif.get(tag) or "").replace("\0", " ").strip() for tag in (ExifTags.Base.Make, ExifTags.Base.Model)
    )
    return (model if model.lower().startswith(make.lower()) else f"{make} {model}").strip() or None


def _gps(exif: Image.Exif) -> tuple[float, float] | None:
    tags = _part(exif, ExifTags.IFD.GPSInfo)
    try:
        places = []
        for name, below_zero, most in (("Latitude", "S", 90), ("Longitude", "W", 180)):
            degrees, minutes, seconds = (float(value) for value in tags[ExifTags.GPS[f"GPS{name}"]])
            sign = -1 if str(tags.get(ExifTags.GPS[f"GPS{name}Ref"], "")).upper().startswith(below_zero) else 1
            place = sign * (degrees + minutes / 60 + seconds / 3600)
            if not abs(place) <= most:
                return None
            places.append(round(place, 6))
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    return places[0], places[1]
