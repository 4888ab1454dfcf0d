"""What a captioner says of pictures that are not of its own source: `python scripts/caption_page.py`.

Thirty pictures by a fixed rule: the photographs of `tuwen demo`, then the first of DAQUAR by file name, where it lies
beside the repository. The page with all of them goes to demo/, which git ignores, because DAQUAR is not ours to give
away; the sheet for the docs holds the photographs alone, whose terms `tuwen/demo.py` names.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from tuwen import demo, images, pipelines, viz
from tuwen.describing import as_dict
from tuwen.report import Page, write_page

PICTURES, COLUMNS = 30, 6
WIDTH, HEIGHT, TEXT, GAP = 260, 195, 17, 14  # pixels of a picture, of a line, between

Said = dict[str, list[str]]  # language -> the best caption of each picture


def main() -> None:
    """Describe, then write the page and the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="captioning")
    parser.add_argument("--page", type=Path, default=Path("demo/captions.html"))
    parser.add_argument("--sheet", type=Path, default=Path("docs/images/captions.png"))
    parser.add_argument("--daquar", type=Path, default=Path("../shared/data/daquar/images"))
    args = parser.parse_args()
    describer = pipelines.as_describer(pipelines.load(args.model))
    photographs = [args.page.parent / "pictures" / name for name in demo.collect(args.page.parent / "pictures")]
    rooms = sorted(args.daquar.glob("*.jpg"), key=lambda path: path.name)[: max(0, PICTURES - len(photographs))]
    files = [*photographs, *rooms]
    told = {lang: describer.caption(files, lang) for lang in describer.languages}
    said = {lang: [one.texts[0].text if one.texts else "" for one in own] for lang, own in told.items()}
    for row, file in enumerate(files):
        print(file.name, *(own[row] for own in said.values()), sep="\n  ")
    rows = [as_dict(one) for both in zip(*told.values(), strict=True) for one in both]
    write_page(args.page, _page(describer, rows, len(photographs), len(rooms)))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(photographs, said).quantize(256).save(args.sheet, optimize=True)  # a third of the bytes
    print(f"{args.page}: {len(files)} pictures; {args.sheet}: {len(photographs)}")


def _page(describer: pipelines.Describer, rows: list[dict[str, Any]], photographs: int, rooms: int) -> Page:
    page = Page(
        title=("Pictures of another source, described", "描述其他来源的图片"),
        lead=(
            f"{photographs} photographs from Python packages and the first {rooms} rooms of DAQUAR by file name. "
            "None was chosen by eye, and none is of the data that the model learnt from.",
            f"{photographs} 张 Python 软件包自带的照片，以及按文件名排列的前 {rooms} 张 DAQUAR 室内照片。"
            "未经人工挑选，均不属于模型的训练数据。",
        ),
        footer=[f"model {describer.name} {describer.fingerprint}; " + str(describer.about().get("decoding", ""))],
    )
    page.sections = [demo.told_section(page, rows)]
    return page


def draw_sheet(files: list[Path], said: Said) -> Image.Image:
    """A contact sheet: each picture and what is said of it in each language."""
    fonts = {lang: viz.find_font(lang == "zh", TEXT) for lang in said}
    shown = {lang: font for lang, font in fonts.items() if font is not None}
    texts = [
        [(font, line) for lang, font in shown.items() for line in _wrap(said[lang][row], font, lang)]
        for row in range(len(files))
    ]
    lines = max(map(len, texts))
    step = (WIDTH + GAP, HEIGHT + GAP + (lines + 1) * (TEXT + 6))
    down = -(-len(files) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * step[0] + GAP, down * step[1] + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for place, (file, own) in enumerate(zip(files, texts, strict=True)):
        left, top = GAP + place % COLUMNS * step[0], GAP + place // COLUMNS * step[1]
        picture = images.open_image(file)
        picture.thumbnail((WIDTH, HEIGHT))
        sheet.paste(picture, (left, top))
        for number, (font, line) in enumerate(own):
            draw.text((left, top + HEIGHT + 6 + number * (TEXT + 6)), line, "black", font)
    return sheet


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, lang: str) -> list[str]:
    """Lines no wider than a picture; Chinese may break between any two signs."""
    between = "" if lang == "zh" else " "
    lines: list[str] = []
    for word in list(text) if lang == "zh" else text.split():
        longer = f"{lines[-1]}{between}{word}" if lines else word
        if lines and font.getlength(longer) <= WIDTH:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


if __name__ == "__main__":
    main()
