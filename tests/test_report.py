"""Pages: whole in one file, every text escaped, curves that hold every point they should."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fake_embedder import draw

from tuwen import viz
from tuwen.errors import DataError
from tuwen.report import charts, markdown, read_lines, write_run

EVIL = '<script>alert("x")</script>&'


class Reader(HTMLParser):
    """Checks that tags nest, and keeps what refers outside the page and what is said."""

    EMPTY = ("meta", "br", "img", "input", "hr", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.outside += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Reader:
    page = Reader()
    html = path.read_text(encoding="utf-8")
    page.feed(html)
    assert page.open == []
    assert not re.search(r"url\((?!data:)|@import", html)
    assert [link for link in page.outside if not link.startswith("data:")] == []
    return page


def write_metrics(run: Path, lines: int = 40) -> None:
    run.mkdir(exist_ok=True)
    rows: list[dict[str, object]] = []
    for step in range(1, lines + 1):
        rows.append(
            {"step": step, "epoch": step / 10, "split": "train", "loss": 5 / step, "hinge": 3 / step, "lr": 1e-3}
        )
        if step % 10 == 0:
            rows.append(
                {"step": step, "epoch": step / 10, "split": "val", "i2t_r1": step / 2, "i2t_r5": step, "rsum": step}
            )
            rows[-1]["en/i2t_r1"] = step / 3
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_page_is_whole_and_escaped(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"name": EVIL, "task": "retrieval"}))
    (tmp_path / "README.md").write_text(
        f"# Card {EVIL}\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[link](javascript:alert(1))\n"
    )
    draw(tmp_path / "pictures" / "a.png", "red")
    examples = [
        {"picture": "pictures/a.png", "lines": [EVIL], "hits": [{"title": EVIL, "score": 0.5, "said": "words"}]},
        {"picture": "gone.png", "hits": [{"picture": "pictures/a.png", "meant": True}]},
    ]
    (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in examples))
    score = {
        "split": "test",
        "n": 10,
        "per_language": {"en": {"i2t_r1": 27.13}},
        "intervals": {"en": {"i2t_r1": [24, 29]}},
    }
    (tmp_path / "scores.json").write_text(json.dumps({"test": score}))
    assert write_run(tmp_path) == tmp_path / "report.html"
    page = read(tmp_path / "report.html")
    assert page.tags.count("script") == 1  # ours
    assert page.tags.count("svg") == 5  # loss, lr, rsum, i2t_r, en/i2t_r
    assert page.text.count(EVIL) >= 5
    assert "27.1" in page.text
    assert "24.0–29.0" in page.text
    html = (tmp_path / "report.html").read_text()
    assert html.count("data:image/jpeg") == 1
    assert "<td>2</td>" in html
    assert "javascript:" not in re.sub(r"\[link\]\(.*?\)", "", html)


def test_a_run_that_goes_on_has_a_page_too(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "spl')  # being written just now
    write_run(tmp_path / "run", tmp_path / "page.html")
    assert "best validation rsum" in read(tmp_path / "page.html").text
    assert not (tmp_path / "run" / "report.html").exists()


def test_wrong_runs_are_one_line_and_write_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place, why in (("none", "no such run"), ("empty", r"metrics\.jsonl: no line")):
        with pytest.raises(DataError, match=why):
            write_run(tmp_path / place)
    write_metrics(tmp_path / "bad")
    with (tmp_path / "bad" / "metrics.jsonl").open("r+") as file:
        file.write("oops")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: "):
        write_run(tmp_path / "bad")
    (tmp_path / "bad" / "metrics.jsonl").unlink()
    write_metrics(tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text("{")
    with pytest.raises(DataError, match=r"config\.json"):
        write_run(tmp_path / "bad")
    assert list(tmp_path.rglob("*.html")) == []


def test_charts_group_what_belongs_together(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    made = charts(read_lines(tmp_path / "metrics.jsonl"))
    assert [[name for name, _ in chart["legend"]] for chart in made] == [
        ["loss", "hinge"], ["rsum"], ["i2t_r1", "i2t_r5"], ["en/i2t_r1"], ["lr"],
    ]  # fmt: skip
    assert [chart["more"] for chart in made] == [False, False, False, True, True]
    assert dict(made[1]["legend"]) == {"rsum": "40"}


def test_chart_places_points_by_their_values() -> None:
    points = [(0.0, 0.0), (5.0, 10.0), (10.0, 5.0)]
    svg = ET.fromstring(viz.chart({"a": points, "<b>": [(0.0, math.nan), (10.0, 0.0)]}, "<loss>"))
    assert svg.attrib["aria-label"] == "<loss>"
    lines = [line.attrib["points"].split() for line in svg.iter("polyline")]
    assert [len(line) for line in lines] == [3, 1]
    (x0, y0), (x1, y1), (x2, y2) = (tuple(map(float, place.split(","))) for place in lines[0])
    assert (x0, x2) == (viz.LEFT, viz.WIDTH - viz.RIGHT)
    assert x1 == pytest.approx((x0 + x2) / 2)
    assert (y0, y1) == (viz.HEIGHT - viz.BOTTOM, viz.TOP)
    assert y2 == pytest.approx((y0 + y1) / 2)
    assert viz.chart({"a": [(1.0, math.inf)]}, "none") == ""


def test_long_lines_are_averaged_and_keep_their_end() -> None:
    points = [(float(n), math.sin(n)) for n in range(10_000)]
    thin = viz.thin(points)
    assert 150 < len(thin) <= viz.MOST
    assert thin[-1] == points[-1]
    run = math.ceil(len(points) / viz.MOST)
    assert thin[0] == (points[run - 1][0], pytest.approx(sum(y for _, y in points[:run]) / run))
    assert viz.thin(points[:5]) == points[:5]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 100, [0, 50, 100]),
        (0, 1, [0, 0.5, 1]),
        (1e-5, 2e-4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
        (-3, 97, [-50, 0, 50, 100]),
    ],
)
def test_ticks_are_round_and_span(low: float, high: float, wanted: list[float]) -> None:
    assert viz.ticks(low, high) == pytest.approx(wanted)
    for value in (0.0, 5.0, -2.0):
        marks = viz.ticks(value, value)
        assert min(marks) <= value <= max(marks)
        assert len(marks) >= 2


def test_an_answering_run_s_curves_are_told_apart() -> None:
    rows = [
        {"step": 20, "split": "train", "loss": 2.0, "cross_entropy": 2.0, "data_seconds": 0.1, "forward_seconds": 0.2},
        {"step": 20, "split": "val", "accuracy": 30.0, "upper_bound": 90.0, "train/accuracy": 40.0, "lang/en": 31.0},
        {"step": 20, "split": "val", "answer_type/number": 25.0, "answer_type/other": 35.0, "ece": 3.0},
    ]
    made = {chart["title"][0]: [name for name, _ in chart["legend"]] for chart in charts(rows)}
    assert made["Training loss"] == ["loss", "cross_entropy"]
    assert made["Accuracy, and what bounds it (%)"] == ["accuracy", "upper_bound", "train/accuracy"]
    assert made["Accuracy by type of answer (%)"] == ["answer_type/number", "answer_type/other"]
    assert made["Accuracy by language (%)"] == ["lang/en"]
    assert made["Seconds a step: reading, forward, backward"] == ["data_seconds", "forward_seconds"]
    assert made["ece"] == ["ece"]


def test_markdown_shows_html_and_obeys_none() -> None:
    assert "&lt;img" in markdown("<img src=x onerror=alert(1)>")
    assert "<table>" in markdown("| a |\n|---|\n| b |\n")


def test_thumbnails_are_inside_or_none(tmp_path: Path) -> None:
    assert (viz.thumbnail_uri(draw(tmp_path / "a.png", "red")) or "").startswith("data:image/jpeg;base64,")
    assert viz.thumbnail_uri(tmp_path / "gone.png") is None
