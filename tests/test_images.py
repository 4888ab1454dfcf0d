"""Decoding and views: every mode, every orientation, every way a file can be bad."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, JpegImagePlugin

from tuwen import images
from tuwen.errors import ConfigError, PictureError
from tuwen.images import View

RED = (200, 30, 40)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth random picture: like a photograph, it survives a resize."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def palette(transparent: bool) -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, *RED, 9, 9, 9, 0, 255, 0])
    if transparent:
        image.putpixel((0, 0), 3)
        image.info["transparency"] = 3
    return image


def grey16() -> Image.Image:
    return Image.fromarray(np.full((8, 8), 100 * 256 + 17, np.uint16))


MODES = {  # a file, its picture, and the colour in its middle
    "rgb.png": (Image.new("RGB", (8, 8), RED), RED),
    "rgb.bmp": (Image.new("RGB", (8, 8), RED), RED),
    "rgb.webp": (Image.new("RGB", (8, 8), RED), RED),
    "rgb.tif": (Image.new("RGB", (8, 8), RED), RED),
    "rgb.gif": (Image.new("RGB", (8, 8), RED), RED),
    "rgb.ppm": (Image.new("RGB", (8, 8), RED), RED),
    "rgb.jp2": (Image.new("RGB", (8, 8), RED), RED),
    "grey.png": (Image.new("L", (8, 8), 90), (90, 90, 90)),
    "bits.png": (Image.new("1", (8, 8), 1), (255, 255, 255)),
    "grey.jpg": (Image.new("L", (8, 8), 90), (90, 90, 90)),
    "grey16.png": (grey16(), (100, 100, 100)),
    "grey16.tif": (grey16(), (100, 100, 100)),
    "grey32.tif": (Image.new("I", (8, 8), 100 * 256), (100, 100, 100)),
    "clear.png": (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255)),
    "half.png": (Image.new("RGBA", (8, 8), (0, 0, 0, 128)), (127, 127, 127)),
    "half_grey.png": (Image.new("LA", (8, 8), (0, 128)), (127, 127, 127)),
    "clear.webp": (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255)),
    "palette.png": (palette(False), RED),
    "palette_clear.png": (palette(True), RED),
    "cmyk.jpg": (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (254, 0, 0)),
    "cmyk.tif": (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (255, 0, 0)),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb(tmp_path: Path, name: str) -> None:
    picture, colour = MODES[name]
    picture.save(tmp_path / name)
    pixels = images.load(tmp_path / name, 4)
    assert pixels.shape == (4, 4, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels[3, 3].astype(int) - colour).max() <= 3, pixels[3, 3]
    assert images.open_image(tmp_path / name).mode == "RGB"


def test_float_grey_is_stretched_and_clear_palette_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(-2, 3, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "f.tif")
    pixels = np.asarray(images.open_image(tmp_path / "f.tif"))
    assert (pixels.min(), pixels.max()) == (0, 255)
    palette(True).save(tmp_path / "p.png")
    assert tuple(np.asarray(images.open_image(tmp_path / "p.png"))[0, 0]) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = Image.new("RGB", (48, 32))  # three corners of three colours tell all eight apart
    for colour, corner in (("red", (0, 0)), ("lime", (24, 0)), ("blue", (0, 16))):
        upright.paste(colour, (*corner, corner[0] + 24, corner[1] + 16))
    undo = images._TURNS.get(orientation)
    turned = {
        Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
        Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
    }
    stored = upright if undo is None else upright.transpose(turned.get(undo, undo))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"turned{suffix}"
    stored.save(path, exif=exif, **({"quality": 95, "subsampling": 0} if suffix == ".jpg" else {}))
    found = images.open_image(path)
    assert found.size == (48, 32)
    assert np.abs(np.asarray(found, int) - np.asarray(upright)).max() <= 8
    known = images.probe(path)
    assert (known["width"], known["height"]) == (48, 32)
    pixels = images.load(path, 16)
    assert np.abs(pixels.astype(int) - images.load_pil(upright, 16)).max() <= 12
    with Image.open(path) as opened:  # the ways to the same picture agree, and none turns it twice
        assert np.array_equal(images.load_pil(opened, 16), pixels)
    assert np.array_equal(images.load_pil(found, 16), pixels)


def test_draft_decodes_less_and_looks_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(1600, 1200).save(tmp_path / "large.jpg", quality=95)
    plain = images.load_pil(images.open_image(tmp_path / "large.jpg"), 64)
    decoded = []
    draft = JpegImagePlugin.JpegImageFile.draft

    def spy(self: JpegImagePlugin.JpegImageFile, mode: str | None, size: tuple[int, int]) -> object:
        out = draft(self, mode, size)
        decoded.append(self.size)
        return out

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "draft", spy)
    for view in (View(), View("center")):
        fast = images.load(tmp_path / "large.jpg", 64, view)
        side = min(decoded[-1])
        assert 128 <= side < 600, decoded
        if view == View():
            assert np.abs(fast.astype(int) - plain).mean() < 1
    assert len(decoded) == 2


def test_squash_shows_all_and_center_cuts(tmp_path: Path) -> None:
    wide = Image.new("RGB", (64, 16), "white")
    wide.paste("red", (0, 0, 8, 16))  # at the left edge, which a centre crop never sees
    assert (images.load_pil(wide, 16)[:, 0] == (255, 0, 0)).all()
    assert (images.load_pil(wide, 16, View("center")) == 255).all()


def test_center_is_resize_then_crop() -> None:
    picture = noise(300, 200)
    scaled = picture.resize((384, 256), Image.Resampling.BICUBIC)
    plain = np.asarray(scaled.crop((80, 16, 304, 240)), int)
    assert np.abs(images.load_pil(picture, 224, View("center")) - plain).mean() < 0.5


def test_crop_is_by_seed_and_content(tmp_path: Path) -> None:
    for name, seed in (("a.png", 0), ("b.png", 1)):
        noise(60, 40, seed).save(tmp_path / name)
    first = images.load(tmp_path / "a.png", 32, View("crop", seed=1))
    assert np.array_equal(first, images.load(tmp_path / "a.png", 32, View("crop", seed=1)))
    assert not np.array_equal(first, images.load(tmp_path / "a.png", 32, View("crop", seed=2)))
    boxes = {images._box(60, 40, 32, View("crop", seed=seed), content) for seed in range(20) for content in range(20)}
    assert len(boxes) == 400
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 60
        assert 0 <= top < bottom <= 40
        assert right - left == pytest.approx(40 * 32 / 37)
    assert images.load_pil(noise(60, 40), 32, View("crop", seed=1)).shape == (32, 32, 3)


def test_flip_mirrors() -> None:
    picture = noise(50, 50)
    flipped = images.load_pil(picture, 50, View(flip=True))
    assert np.array_equal(flipped, images.load_pil(picture, 50)[:, ::-1])
    assert not np.array_equal(flipped, images.load_pil(picture, 50))


def test_view_is_its_text() -> None:
    views = [
        View(kind, flip, seed)
        for kind in ("squash", "center", "crop", "zoom")
        for flip in (False, True)
        for seed in (0, 7)
    ]  # type: ignore[arg-type]
    texts = {str(view) for view in views}
    assert texts == {
        "squash",
        "squash+flip",
        "center",
        "center+flip",
        "crop:0",
        "crop:7",
        "crop:0+flip",
        "crop:7+flip",
    } | {"zoom:0", "zoom:7", "zoom:0+flip", "zoom:7+flip"}
    assert {str(View.parse(text)) for text in texts} == texts
    for wrong in ("", "crop", "squash:1", "middle", "squash+flip+flip", "center:0"):
        with pytest.raises(ConfigError, match="not a view"):
            View.parse(wrong)


def test_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.webp", "a.tif", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert np.abs(images.load(tmp_path / name, 4)[0, 0].astype(int) - (255, 0, 0)).max() <= 4, name


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_pixels_are_limited_before_decoding(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    refused = 0
    for width, height in ((50_000, 50_000), (12_001, 10_000), (100_000, 100_000)):
        path = tmp_path / f"{width}.png"
        path.write_bytes(png_header(width, height))
        for call in (images.open_image, images.probe, lambda p: images.load(p, 8), lambda p: images.thumbnail(p, 8)):
            with pytest.raises(PictureError, match=f"{path}: {width}x{height} pixels are more than 120 million"):
                call(path)
            refused += 1
    assert refused == 12
    (tmp_path / "fits.png").write_bytes(png_header(12_000, 10_000))  # over Pillow's own limit: read without its warning
    assert images.probe(tmp_path / "fits.png")["width"] == 12_000
    assert not recwarn.list


def broken_files(folder: Path) -> dict[str, bytes]:
    whole, jpeg = io.BytesIO(), io.BytesIO()
    noise(64, 64).save(whole, "PNG")
    noise(64, 64).save(jpeg, "JPEG")
    return {
        "empty.jpg": b"",
        "text.jpg": b"this is not a picture at all, only words",
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "cut.png": whole.getvalue()[: len(whole.getvalue()) // 2],
        "header.jpg": jpeg.getvalue()[:20],
        "header.png": whole.getvalue()[:20],
        "one.png": b"\x89",
        "zeros.jpg": bytes(5000),
        "page.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
        "noise.webp": b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(range(28)),
    }


def test_bad_files_are_named(tmp_path: Path) -> None:
    bad = broken_files(tmp_path)
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "folder.jpg").mkdir()
    names = [*bad, "folder.jpg", "missing.jpg"]
    assert len(names) == 12
    for name in names:
        for call in (lambda p: images.load(p, 8), images.open_image, lambda p: images.thumbnail(p, 8)):
            with pytest.raises(PictureError) as caught:
                call(tmp_path / name)
            text = str(caught.value)
            assert text.startswith(f"{tmp_path / name}: "), text
            assert "\n" not in text
    with pytest.raises(PictureError, match=r"missing\.jpg"):
        images.content_id(tmp_path / "missing.jpg")


def test_cut_anywhere_is_a_picture_or_an_error(tmp_path: Path) -> None:
    seen = {"picture": 0, "error": 0}
    for suffix in (".jpg", ".png", ".gif", ".webp", ".tif", ".bmp"):
        whole = io.BytesIO()
        noise(24, 24).save(whole, images.Image.registered_extensions()[suffix])
        data = whole.getvalue()
        for end in range(0, len(data), max(1, len(data) // 25)):
            (tmp_path / f"a{suffix}").write_bytes(data[:end])
            try:
                assert images.load(tmp_path / f"a{suffix}", 8).shape == (8, 8, 3)
                seen["picture"] += 1
            except PictureError:
                seen["error"] += 1
    assert seen["error"] > 100, seen


def test_heic_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(PictureError, match=r"a\.heic"):
        images.load(tmp_path / "a.heic", 8)
    assert ".heic" in images.SUFFIXES


def test_thumbnail_keeps_the_shape(tmp_path: Path) -> None:
    noise(200, 100).save(tmp_path / "a.png")
    small = Image.open(io.BytesIO(images.thumbnail(tmp_path / "a.png", 50)))
    assert (small.format, small.size) == ("JPEG", (50, 25))
    noise(20, 10).save(tmp_path / "b.png")
    assert Image.open(io.BytesIO(images.thumbnail(tmp_path / "b.png", 50))).size == (20, 10)


def test_probe_reads_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Acme\0", "One"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2024:05:06 07:08:09"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "S", 2: (33.0, 51.0, 30.0), 3: "E", 4: (151.0, 12.0, 0.0)})
    noise(20, 10).save(tmp_path / "a.jpg", exif=exif)
    assert images.probe(tmp_path / "a.jpg") == {
        "width": 20,
        "height": 10,
        "format": "JPEG",
        "date": "2024-05-06T07:08:09",
        "camera": "Acme One",
        "gps": (-33.858333, 151.2),
    }
    noise(20, 10).save(tmp_path / "b.png")
    plain = images.probe(tmp_path / "b.png")
    assert [plain["date"], plain["camera"], plain["gps"]] == [None, None, None]


def test_broken_exif_costs_nothing(tmp_path: Path) -> None:
    noise(20, 10).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(range(200)))
    code = (
        "import sys; from tuwen import images as i; print(i.load(sys.argv[1], 8).shape, i.probe(sys.argv[1])['date'])"
    )
    out = subprocess.run([sys.executable, "-c", code, tmp_path / "a.jpg"], capture_output=True, text=True, check=True)
    assert (out.stdout, out.stderr) == ("(8, 8, 3) None\n", "")


def test_impossible_exif_is_no_place_and_no_date(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.DateTime] = "0000:00:00 00:00:00"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (133.0, 0.0, 0.0), 3: "E", 4: (1.0, 0.0, 0.0)})
    noise(20, 10).save(tmp_path / "a.jpg", exif=exif)
    found = images.probe(tmp_path / "a.jpg")
    assert (found["date"], found["gps"]) == (None, None)


def test_content_id_is_of_the_bytes(tmp_path: Path) -> None:
    noise(8, 8).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.png").read_bytes())
    noise(8, 8, 1).save(tmp_path / "c.png")
    ids = [images.content_id(tmp_path / name) for name in ("a.png", "b.jpg", "c.png")]
    assert ids[0] == ids[1] != ids[2]
    assert images.load(tmp_path / "b.jpg", 4).shape == (4, 4, 3)  # the suffix says nothing


def test_threads_see_the_same(tmp_path: Path) -> None:
    paths = []
    for seed in range(12):
        paths.append(tmp_path / f"{seed}.jpg")
        noise(90, 60, seed).save(paths[-1])
    alone = [images.load(path, 24) for path in paths]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda path: images.load(path, 24), paths * 4))
    assert len(together) == 48
    assert all(np.array_equal(a, b) for a, b in zip(alone * 4, together, strict=True))


def test_light_modules_import_no_torch() -> None:
    heavy = "{'torch', 'transformers', 'onnxruntime', 'matplotlib'}"
    code = f"import sys, tuwen.images, tuwen.graphs; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_zoom_shows_a_part_of_the_picture() -> None:
    boxes = {images._box(60, 40, 32, View("zoom", seed=seed), content) for seed in range(20) for content in range(20)}
    assert len(boxes) == 400
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= 60
        assert 0 <= top < bottom <= 40
        assert images.ZOOM <= (right - left) / 60 <= 1
        assert images.ZOOM <= (bottom - top) / 40 <= 1
    sides = np.array([(right - left) / 60 for left, _, right, _ in boxes])
    assert sides.min() < 0.65
    assert sides.max() > 0.95
