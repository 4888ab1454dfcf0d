"""The page of a tuned run: what was gained, and the pictures that got better and worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuwen.errors import DataError
from tuwen.report import Page, Words, charts, markdown, read_lines, write_page
from tuwen.tune import KEYS, RESULT

VERDICTS: dict[str, Words] = {
    "improved": ("Improved", "有提高"),
    "worse": ("Worse", "变差了"),
    "no gain to be seen": ("No gain to be seen", "看不出提高"),
    "the data is too small to tell": ("The data is too small to tell", "数据太少，无法判断"),
}
WAYS: dict[str, Words] = {"i2t": ("picture to text", "以图找文"), "t2i": ("text to picture", "以文找图")}


def write_tuned(run: Path) -> Path:
    """Write `report.html` of a run of `tuwen tune` from its `tune.json`; its path. DataError where that is missing."""
    try:
        result: dict[str, Any] = json.loads((run / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{run / RESULT}: missing, so this is no run of `tuwen tune`") from None
    except ValueError as error:
        raise DataError(f"{run / RESULT}: not JSON ({error}); tune again") from None
    verdict, n = VERDICTS[result["verdict"]], result["n_test"]
    page = Page(
        title=(f"{verdict[0]}: {Path(result['run']).name}", f"{verdict[1]}：{Path(result['run']).name}"),
        lead=(result["words"][0], result["words"][1]),
        facts=_facts(result),
        footer=[str(run.resolve()), f"tuned from {result['from']} ({result['from_fingerprint']})"],
    )
    moved = result["pictures"]
    for name, title in (("better", ("Got better", "变好的图片")), ("worse", ("Got worse", "变差的图片"))):
        cards = [_card(page, example) for example in result[name]]
        note = (
            f"{moved[name]} of {n} held-out pictures; shown are the first {len(cards)} by change of rank, ties in the "
            "data's order. On the right: the captions that the tuned model puts first, its own ones marked.",
            f"{n} 张留出图片中有 {moved[name]} 张；按名次变化排列，显示前 {len(cards)} 张，相同者按数据顺序。"
            "右侧为调整后模型排在最前的说明，本图的说明有标记。",
        )
        page.sections.append({"kind": "like", "title": title, "note": note, "cards": cards})
    curves = charts(read_lines(run / "metrics.jsonl"))
    note = (
        "Over steps. The held-out part is scored once, at the end, and is none of these.",
        "横轴为步数。留出部分只在最后评分一次，不在其中。",
    )
    page.sections.append({"kind": "charts", "title": ("Curves", "曲线"), "note": note, "charts": curves})
    html = markdown((run / "README.md").read_text(encoding="utf-8"))
    page.sections.append({"kind": "paper", "title": ("Model card", "模型卡"), "note": None, "html": html})
    path = run / "report.html"
    write_page(path, page)
    return path


def _facts(result: dict[str, Any]) -> list[tuple[str, Words]]:
    """Each recall before and after, with the interval of the difference."""
    facts = []
    for key in KEYS:
        (way, cut), (low, high) = key.split("_r"), result["interval"][key]
        span = f"{low:+.1f} to {high:+.1f}"
        words = (
            f"R@{cut}, {WAYS[way][0]}, before and after; difference 95% {span}",
            f"R@{cut}，{WAYS[way][1]}，调整前后；差的 95% 区间 {low:+.1f} 至 {high:+.1f}",
        )
        facts.append((f"{result['before'][key]:.1f} → {result['after'][key]:.1f}", words))
    return facts


def _card(page: Page, example: dict[str, Any]) -> dict[str, Any]:
    """One picture as the template takes it."""
    ranks = [f"rank of its best caption: {example['before']} → {example['after']}"]
    ranks += [f"“{one['text']}”: {one['before']} → {one['after']}" for one in example["captions"]]
    hits = [
        {
            "picture": None,
            "title": "",
            "rank": rank,
            "score": one["score"],
            "bar": round(100 * min(max(one["score"], 0.0), 1.0), 1),
            "said": one["text"],
            "meant": one["right"],
        }
        for rank, one in enumerate(example["first"]["after"], 1)
    ]
    return {"picture": page.picture(example["file"]), "title": example["title"], "lines": ranks, "hits": hits}
