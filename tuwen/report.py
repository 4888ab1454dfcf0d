"""Pages of pictures, scores and curves: one HTML file each, with everything inside, in both languages."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from tuwen import __version__, viz
from tuwen.errors import DataError
from tuwen.files import write_atomic

if TYPE_CHECKING:
    from tuwen.searching import CaptionHit, Hit
    from tuwen.store import Model

Words = tuple[str, str]  # English, Chinese
LEADING = ("loss", "rsum", "cider", "accuracy", "i2t_r", "t2i_r")  # the groups of curves that are shown first
BESIDE_ACCURACY = ("accuracy", "exact", "upper_bound", "majority", "train/accuracy")
NAMES: dict[str, Words] = {
    "loss": ("Training loss", "训练损失"),
    "lr": ("Learning rate", "学习率"),
    "rsum": ("Sum of the six recalls", "六个召回率之和"),
    "step_seconds": ("Seconds a step: reading, forward, backward", "每步耗时（秒）：读取、前向、反向"),
    "accuracy": ("Accuracy, and what bounds it (%)", "准确率及其上下界（%）"),
    "answer_type": ("Accuracy by type of answer (%)", "各类答案的准确率（%）"),
    "question_type": ("Accuracy by type of question (%)", "各类问题的准确率（%）"),
    "lang": ("Accuracy by language (%)", "各语言的准确率（%）"),
    "i2t_r": ("Picture to text: R@1, R@5, R@10 (%)", "以图找文：R@1、R@5、R@10（%）"),
    "t2i_r": ("Text to picture: R@1, R@5, R@10 (%)", "以文找图：R@1、R@5、R@10（%）"),
}
SINGLE = {  # scores of one number a language: name, digits
    "cider": ("CIDEr", 1),
    "bleu4": ("BLEU-4", 1),
    "accuracy": ("accuracy", 1),
    "exact": ("exact match", 1),
    "scenes_right": ("scenes all right, %", 1),
    "kid": ("KID", 4),
}


@dataclass
class Page:
    """What a page shows. `sections` are dicts with a `kind` that `templates/page.html.jinja` knows."""

    title: Words
    lead: Words
    facts: list[tuple[str, Words]] = field(default_factory=list)  # (value, label)
    sections: list[dict[str, Any]] = field(default_factory=list)
    footer: list[str] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)  # class -> data URI: each is in the page once
    _classes: dict[str, str | None] = field(default_factory=dict)

    def picture(self, file: Path | str) -> str | None:
        """The class that draws a picture file; None where it can't be read."""
        key = str(Path(file).resolve())
        if key not in self._classes:
            uri = viz.thumbnail_uri(file)
            self._classes[key] = f"p{len(self.pictures)}" if uri else None
            if uri:
                self.pictures[f"p{len(self.pictures)}"] = uri
        return self._classes[key]

    def hit(self, hit: Hit | CaptionHit, meant: bool = False) -> dict[str, Any]:
        """One hit as the template takes it."""
        said = getattr(hit, "text", None) or getattr(hit, "caption", None)
        return {
            "picture": self.picture(hit.file),
            "title": Path(hit.file).name,
            "rank": hit.rank,
            "score": hit.score,
            "bar": _bar(hit.score),
            "said": said,
            "meant": meant,
        }


def write_page(path: Path, page: Page) -> None:
    """Render a page into one file. Every text is escaped."""
    folder = files("tuwen") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((folder / "page.html.jinja").read_text(encoding="utf-8"))
    css = Markup((folder / "page.css").read_text(encoding="utf-8"))
    parts = {name: getattr(page, name) for name in ("title", "lead", "facts", "sections", "pictures")}
    footer = [*page.footer, f"Tuwen {__version__}"]
    write_atomic(path, template.render(**parts, footer=footer, css=css).lstrip())


def write_hits(path: Path, query: str | Path, hits: Sequence[Hit] | Sequence[CaptionHit], model: Model) -> None:
    """The page of `tuwen search --html`."""
    count = len(hits)
    page = Page(
        title=(f"{count} hits", f"{count} 个结果"),
        lead=("Best first; the bar is the cosine.", "按相似度排列，色条为余弦相似度。"),
        footer=[f"model {model}"],
    )
    found = [page.hit(hit) for hit in hits]
    if isinstance(query, Path):
        card = {"picture": page.picture(query), "title": query.name, "lines": [], "hits": found}
        page.sections = [{"kind": "like", "title": ("Like this picture", "与此图相似"), "note": None, "cards": [card]}]
    else:
        page.sections = [{"kind": "hits", "title": (query, query), "note": None, "hits": found}]
    write_page(path, page)


def write_run(run: Path, out: Path | None = None) -> Path:
    """The page of a training run: scores, curves, examples and model card. Returns its path.

    Reads `metrics.jsonl` (lines `{step, epoch, split, NAME: value}`), and where they exist `config.json`,
    `scores.json`, `README.md` and `examples.jsonl` (lines `{picture, title, lines, hits: [{picture, title, score,
    said, meant}]}`, paths relative to the run). DataError where the run or its metrics are missing or broken.
    """
    if not run.is_dir():
        raise DataError(f"{run}: there is no such run")
    rows = read_lines(run / "metrics.jsonl")
    if not rows:
        raise DataError(f"{run / 'metrics.jsonl'}: no line in it; a run writes it while it trains")
    config, scores = _read_json(run / "config.json"), _read_json(run / "scores.json")
    name, task = str(config.get("name") or run.resolve().name), str(config.get("task") or "")
    last = rows[-1]
    page = Page(
        title=(name, name),
        lead=(f"A {task} run, {_count(last, 'step')} steps.", f"{task} 训练，共 {_count(last, 'step')} 步。"),
        facts=[*_facts(rows, scores), *_votes(run)],
        footer=[str(run.resolve())],
    )
    page.sections.append(
        {"kind": "charts", "title": ("Curves", "曲线"), "note": ("Over steps.", "横轴为步数。"), "charts": charts(rows)}
    )
    if examples := read_lines(run / "examples.jsonl"):
        page.sections.append(_examples(page, examples, run))
    if (run / "README.md").is_file():
        html = markdown((run / "README.md").read_text(encoding="utf-8"))
        page.sections.append({"kind": "paper", "title": ("Model card", "模型卡"), "note": None, "html": html})
    path = out or run / "report.html"
    write_page(path, page)
    return path


def charts(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Curves of every number that a run logged, in groups: losses together, R@1, R@5 and R@10 together."""
    groups: dict[str, dict[str, list[viz.Point]]] = {}
    for row in rows:
        for name, value in row.items():
            if name in ("step", "epoch", "seconds", "split") or not isinstance(value, int | float):
                continue
            group = _group(row["split"], name)
            line = name if row["split"] in ("train", "val") else f"{row['split']} {name}"
            groups.setdefault(group, {}).setdefault(line, []).append((row["step"], float(value)))
    order = sorted(groups, key=lambda group: (LEADING.index(group) if group in LEADING else len(LEADING), group))
    return [
        {
            "title": NAMES.get(group, (group, group)),
            "svg": viz.chart(groups[group], group),
            "legend": [(line, viz.short(points[-1][1])) for line, points in groups[group].items()],
            "more": group not in LEADING,
        }
        for group in order
    ]


def _group(split: str, name: str) -> str:
    if name == "lr":
        return name
    if name.endswith("_seconds"):
        return "step_seconds"
    if name in BESIDE_ACCURACY:
        return "accuracy"
    if (group := name.partition("/")[0]) in NAMES and group != name:
        return group
    return "loss" if split == "train" else re.sub(r"\d+$", "", name)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON lines file, none where it is not there. A last line that was cut off is passed over."""
    if not path.is_file():
        return []
    rows, lines = [], path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            if number == len(lines):
                break
            raise DataError(f"{path}:{number}: not JSON; remove the line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: not a JSON object; remove the line")
        rows.append(row)
    return rows


def markdown(text: str) -> Markup:
    """Markdown with tables as HTML; HTML inside it is shown, not obeyed."""
    from markdown_it import MarkdownIt

    return Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render(text))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    return value if isinstance(value, dict) else {}


def _facts(rows: Sequence[Mapping[str, Any]], scores: Mapping[str, Any]) -> list[tuple[str, Words]]:
    """The final scores with their intervals, or the best validation so far."""
    for split in ("test", "val", "held-out"):
        if isinstance(scores.get(split), dict):
            return _scored(scores[split])
    best: dict[str, float] = {}
    for row in rows:
        for name, value in row.items():
            if row.get("split") == "val" and name in ("rsum", "i2t_r1", "t2i_r1", "cider", "accuracy"):
                best[name] = max(value, best.get(name, -math.inf))
    return [(f"{value:.1f}", (f"best validation {name}", f"验证集最佳 {name}")) for name, value in best.items()]


def _scored(score: Mapping[str, Any]) -> list[tuple[str, Words]]:
    facts: list[tuple[str, Words]] = []
    where = f"{score.get('split')}, n = {score.get('n')}"
    for lang, metrics in (score.get("per_language") or {"all": score.get("metrics") or {}}).items():
        for key, way in (("i2t_r1", ("picture to text", "以图找文")), ("t2i_r1", ("text to picture", "以文找图"))):
            if key in metrics:
                low, high = (score.get("intervals") or {}).get(lang, {}).get(key) or (None, None)
                span = f" ({low:.1f}–{high:.1f})" if low is not None else ""
                label = f"R@1 {lang}, {way[0]}{span}, {where}", f"R@1 {lang},{way[1]}{span},{where}"
                facts.append((f"{metrics[key]:.1f}", label))
        for key, (name, digits) in SINGLE.items():
            if metrics.get(key) is not None:
                facts.append((f"{metrics[key]:.{digits}f}", (f"{name} {lang}, {where}", f"{name} {lang},{where}")))
    return facts


def _votes(run: Path) -> list[tuple[str, Words]]:
    """What people said of a drawing model's samples, and of the controls among them."""
    if not (run / "votes.jsonl").is_file():
        return []
    from tuwen.votes import read_votes, summarise

    found = summarise(read_votes(run))
    names: dict[str, Words] = {
        "drawn": ("of drawn pictures are good", "的生成图片被认为好"),
        "real": ("of real ones among them", "的混入真实图片被认为好"),
        "other": ("of those with words of another", "的配错文字图片被认为好"),
    }
    facts = []
    for kind, (english, chinese) in names.items():
        if one := found[kind]:
            low, high = one["interval"]
            about = f"({low}–{high}), n = {one['n']}"
            people = found["people"]
            facts.append(
                (f"{one['good']:.1f}%", (f"{english} {about}, {people} people", f"{chinese}{about}，{people} 人"))
            )
    return facts


def _count(row: Mapping[str, Any], name: str) -> str:
    return f"{row.get(name, 0):,}"


def _examples(page: Page, rows: Sequence[Mapping[str, Any]], run: Path) -> dict[str, Any]:
    def shown(row: Mapping[str, Any], rank: int | None) -> dict[str, Any]:
        file = row.get("picture")
        return {
            "picture": page.picture(run / file) if file else None,
            "title": str(row.get("title") or (Path(file).name if file else "")),
            "rank": rank,
            "score": row.get("score"),
            "bar": _bar(row.get("score")),
            "said": row.get("said"),
            "meant": bool(row.get("meant")),
        }

    cards = [
        {
            **shown(row, None),
            "lines": [str(line) for line in row.get("lines", [])],
            "hits": [shown(hit, rank) for rank, hit in enumerate(row.get("hits", []), 1)],
        }
        for row in rows
    ]
    return {"kind": "like", "title": ("Examples", "示例"), "note": None, "cards": cards}


def _bar(score: float | None) -> float:
    """A cosine as a percentage of a bar."""
    return round(100 * min(max(score or 0.0, 0.0), 1.0), 1)
