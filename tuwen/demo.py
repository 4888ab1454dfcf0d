"""The main job on the embedded models: photographs that come inside packages, indexed, searched in two languages,
described and asked about; and small pictures drawn from sentences."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL.Image import Resampling

from tuwen import calibrate
from tuwen.answering import as_dict as as_json
from tuwen.describing import as_dict
from tuwen.drawn_page import png
from tuwen.errors import DataError, StoreError
from tuwen.files import write_atomic
from tuwen.indexing import describe, index_folder
from tuwen.records import guess_language
from tuwen.report import Page, Words, write_page
from tuwen.scenes.faults import find_faults
from tuwen.searching import Hit, Query, find
from tuwen.store import FILES, LanceStore, check_model, open_store

if TYPE_CHECKING:
    from tuwen.pipelines import Answerer, Describer, Drawer, Embedder

SHOWN = 5  # hits a query
DESCRIBED = 12  # pictures that are described: the first by their names
ASKED_OF = 6  # of one's own pictures are asked about
LEAST = 12  # photographs that make a demo
SIDE = 256  # pixels of a drawn picture's file

# Where the photographs lie: package, folder, file, and whose they are as the package says it.
SAMPLES = [
    ("skimage", "data", "astronaut.png", "Eileen Collins; NASA, public domain"),
    ("skimage", "data", "brick.png", "CC0Textures, CC0"),
    ("skimage", "data", "camera.png", "Lav Varshney, CC0"),
    ("skimage", "data", "chelsea.png", "Stefan van der Walt, CC0"),
    ("skimage", "data", "coffee.png", "Rachel Michetti, CC0"),
    ("skimage", "data", "coins.png", "Brooklyn Museum, no known copyright restrictions"),
    ("skimage", "data", "grass.png", "linolafett, CC0"),
    ("skimage", "data", "gravel.png", "CC0Textures, CC0"),
    ("skimage", "data", "hubble_deep_field.jpg", "NASA, public domain"),
    ("skimage", "data", "moon.png", "as shipped by scikit-image"),
    ("skimage", "data", "motorcycle_left.png", "Middlebury 2014 stereo benchmark, as shipped by scikit-image"),
    ("skimage", "data", "motorcycle_right.png", "Middlebury 2014 stereo benchmark, as shipped by scikit-image"),
    ("skimage", "data", "page.png", "as shipped by scikit-image"),
    ("skimage", "data", "retina.jpg", "Mikael Häggström, CC0"),
    ("skimage", "data", "rocket.jpg", "SpaceX, public domain"),
    ("sklearn", "datasets/images", "china.jpg", "danielbuechele, CC BY 2.0"),
    ("sklearn", "datasets/images", "flower.jpg", "vultilion, CC BY 2.0"),
    ("matplotlib", "mpl-data/sample_data", "grace_hopper.jpg", "Grace Hopper; US Navy, public domain"),
]


@dataclass(frozen=True)
class Ask:
    """One question in two languages and the samples that fit it, None where nobody knows."""

    en: str
    zh: str
    meant: tuple[str, ...] | None = None


ASKED = [  # written before any model saw the samples
    Ask("a cat looking at the camera", "一只猫看着镜头", ("chelsea.png",)),
    Ask("a woman in an orange suit smiling", "一个穿橙色衣服的女人在微笑", ("astronaut.png",)),
    Ask("a man taking a picture with a camera", "一个男人在用相机拍照", ("camera.png",)),
    Ask("a red motorcycle", "一辆红色的摩托车", ("motorcycle_left.png", "motorcycle_right.png")),
    Ask("an orange flower", "一朵橙色的花", ("flower.jpg",)),
    Ask("a tall building among trees beside the water", "水边树林中的一座高楼", ("china.jpg",)),
    Ask("a cup on a wooden table", "木桌上的一个杯子", ("coffee.png",)),
    Ask("lights in the night sky", "夜空中的灯光", ("rocket.jpg",)),
    Ask("an old woman wearing a hat", "一个戴帽子的老妇人", ("grace_hopper.jpg",)),
    Ask("a quarterly tax return", "季度纳税申报表", ()),
]
OWN = [  # for a folder that the user names: nobody knows what is in it
    Ask("a dog running on the grass", "一只狗在草地上奔跑"),
    Ask("children playing", "孩子们在玩耍"),
    Ask("a person smiling", "一个人在微笑"),
    Ask("people at a table with food", "人们坐在摆着食物的桌子旁"),
    Ask("a lake or the sea", "湖泊或大海"),
    Ask("a street with cars", "有汽车的街道"),
    Ask("a mountain with snow", "雪山"),
    Ask("flowers", "花"),
]
LIKE = "motorcycle_left.png"


@dataclass(frozen=True)
class About:
    """One question about a sample in two languages and the answers that are right."""

    file: str
    en: str
    zh: str
    right: tuple[str, ...]


QUESTIONS = [  # written before any model answered them
    About("chelsea.png", "is there a cat in the picture?", "图中有猫吗？", ("yes", "是", "有")),
    About("chelsea.png", "is there a dog in the picture?", "图中有狗吗？", ("no", "否", "没有")),
    About("astronaut.png", "what is the colour of her suit?", "她的衣服是什么颜色的？", ("orange", "橙色", "橘色")),
    About("astronaut.png", "who is in the picture?", "图中的人是谁？", ("woman", "女人", "女士")),
    About("camera.png", "what is the man doing?", "男人在做什么？", ("taking pictures", "photographing", "拍照")),
    About("coffee.png", "what is on the table?", "桌子上有什么？", ("cup", "coffee", "杯子", "咖啡")),
    About("flower.jpg", "what colour is the flower?", "花是什么颜色的？", ("orange", "橙色", "红色", "red")),
    About("grace_hopper.jpg", "how many people are there?", "图中有几个人？", ("1",)),
    About("motorcycle_left.png", "what colour is the motorcycle?", "摩托车是什么颜色的？", ("red", "红色")),
    About("rocket.jpg", "is it a picture of a beach?", "这是海滩吗？", ("no", "否", "不是")),
]
OWN_QUESTIONS = (  # of the first pictures of a folder that the user names
    ("how many people are there?", "图中有几个人？"),
    ("what is the person doing?", "图中的人在做什么？"),
)
DRAWN = [  # written before any model drew them
    "a large red circle above a small blue star",
    "a small yellow heart on a grey background",
    "a black ring left of a purple square",
    "two green triangles",
    "一个红色的大正方形",
    "薄荷绿色的背景上有一个橙色爱心",
    "蓝色圆形的左边有一个黄色十字形",
    "图中有两个紫色六边形",
]
ABOUT_DRAWN = [  # which drawing, a question about it and the answer, if it shows what was asked
    (0, "what shape is above the blue star?", "circle"),
    (2, "is the black ring left or right of the purple square?", "left"),
    (3, "how many triangles are there?", "2"),
    (5, "爱心是什么颜色的？", "橙色"),
    (6, "蓝色圆形的左边是什么图形？", "十字形"),
]


def collect(folder: Path) -> dict[str, str]:
    """Copy the samples that are installed here into a folder: name -> credit. DataError below LEAST."""
    credits = {}
    for package, inside, name, credit in SAMPLES:
        spec = find_spec(package)
        source = Path((spec.submodule_search_locations or [""])[0]) / inside / name if spec else Path()
        if not source.is_file():
            continue
        target = folder / name
        if not target.is_file() or target.read_bytes() != source.read_bytes():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        credits[name] = f"{credit} ({package})"
    if len(credits) < LEAST:
        raise DataError(
            f"{folder}: only {len(credits)} sample photographs are installed: pip install 'tuwen[demo]', "
            "or name a folder of your own: tuwen demo PICTURES"
        )
    return credits


def run_demo(
    pipeline: Embedder,
    out: Path,
    pictures: Path | None = None,
    describer: Describer | None = None,
    answerer: Answerer | None = None,
    drawer: Drawer | None = None,
    geometer: Answerer | None = None,
) -> dict[str, Any]:
    """Index, search in two languages and by a picture, describe, answer, draw, write `report.html`; returns what was
    seen. The `geometer` answers questions about flat shapes: about what was drawn."""
    credits: dict[str, str] = {}
    db, asked = out / "index", OWN
    folder = pictures or out / "pictures"
    if pictures is None:
        credits, asked = collect(folder), ASKED
    _clear(db, pipeline, folder)
    report = index_folder(folder, db, pipeline)
    store = open_store(db)
    rows = sorted((row for row in store.scan(FILES) if row["state"] == "ok"), key=lambda row: row["path"])
    if not rows:
        raise DataError(f"{folder}: none of its {len(report.failed)} pictures can be read")
    queries = [_ask(store, pipeline, ask, lang, len(rows)) for ask in asked for lang in ("en", "zh")]
    like = Path(folder, LIKE) if LIKE in credits else Path(rows[0]["folder"], rows[0]["path"])
    near = find(store, pipeline, Query(image=like, k=SHOWN)).hits
    drawn = _draw(drawer, out / "drawn") if drawer else []
    seen = {
        "pictures": len(rows),
        "index": asdict(report),
        "queries": queries,
        "like": {"file": str(like), "hits": [asdict(hit) for hit in near]},
        "captions": _describe(describer, rows) if describer else [],
        "describer": describer.name if describer else None,
        "answers": _answer(answerer, rows, bool(credits)) if answerer else [],
        "answerer": answerer.name if answerer else None,
        "drawn": drawn,
        "drawer": drawer.name if drawer else None,
        "about_drawn": _answer_drawn(geometer, drawn) if geometer and drawn else [],
        "threshold": calibrate.lines(pipeline),
        "model": str(store.model),
        "report": str(out / "report.html"),
    }
    write_page(out / "report.html", _page(seen, rows, credits, near))
    return seen


def _clear(db: Path, pipeline: Embedder, folder: Path) -> None:
    """Take away the demo's own index of an earlier model, or of another folder."""
    if not (db / "index.json").exists():
        return
    try:
        check_model(db, describe(pipeline))
        if all(row["folder"] == str(folder.resolve()) for row in open_store(db).scan(FILES, ["folder"])):
            return
    except StoreError:
        pass
    shutil.rmtree(db)


def _ask(store: LanceStore, pipeline: Embedder, ask: Ask, lang: str, count: int) -> dict[str, Any]:
    words = ask.en if lang == "en" else ask.zh
    hits = find(store, pipeline, Query(words, k=count)).hits  # all that pass the threshold
    ranks = [hit.rank for hit in hits if Path(hit.file).name in (ask.meant or ())]
    return {
        "query": words,
        "lang": lang,
        "meant": None if ask.meant is None else list(ask.meant),
        "rank": min(ranks, default=None),
        "hits": [asdict(hit) for hit in hits[:SHOWN]],
    }


def _describe(describer: Describer, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best caption of each of the first pictures, in every language of the model, picture by picture."""
    files = [Path(row["folder"], row["path"]) for row in rows[:DESCRIBED]]
    told = [describer.caption(files, lang) for lang in describer.languages]
    return [as_dict(one) for both in zip(*told, strict=True) for one in both]


def _answer(answerer: Answerer, rows: list[dict[str, Any]], samples: bool) -> list[dict[str, Any]]:
    """Answers to the questions about the samples, or to a few about the first of one's own pictures, each language of
    the model after the other. `right`: whether the best answer is, None where nobody knows."""
    files = {row["path"]: Path(row["folder"], row["path"]) for row in rows}
    asked: list[tuple[Path, str, tuple[str, ...] | None]] = []
    for lang in answerer.languages:
        spoken = 0 if lang == "en" else 1
        if samples:
            asked += [(files[one.file], (one.en, one.zh)[spoken], one.right) for one in QUESTIONS if one.file in files]
        else:
            asked += [(file, both[spoken], None) for file in list(files.values())[:ASKED_OF] for both in OWN_QUESTIONS]
    answers = answerer.answer([file for file, _, _ in asked], [question for _, question, _ in asked], attend=False)
    return [
        {**as_json(answer), "right": None if right is None else answer.best[0].text in right}
        for answer, (_, _, right) in zip(answers, asked, strict=True)
    ]


def _draw(drawer: Drawer, folder: Path) -> list[dict[str, Any]]:
    """A picture of each sentence, enlarged into a file. `right`: whether the checker of scenes finds all of it."""
    drawn = []
    for number, one in enumerate(drawer.draw(DRAWN), 1):
        wrong = find_faults(one.image, one.prompt)
        file = folder / f"{number}.png"
        write_atomic(file, png(one.image.resize((SIDE, SIDE), Resampling.NEAREST)))
        drawn.append(
            {"file": str(file), "prompt": one.prompt, "seed": one.seed, "right": None if wrong is None else not wrong}
        )
    return drawn


def _answer_drawn(geometer: Answerer, drawn: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `_answer`; nobody knows where a drawing is not as asked."""
    files = [Path(drawn[number]["file"]) for number, _, _ in ABOUT_DRAWN]
    answers = geometer.answer(files, [question for _, question, _ in ABOUT_DRAWN], attend=False)
    return [
        {**as_json(answer), "right": answer.best[0].text == right if drawn[number]["right"] else None}
        for answer, (number, _, right) in zip(answers, ABOUT_DRAWN, strict=True)
    ]


def tally(queries: list[dict[str, Any]], lang: str) -> tuple[int, int, int]:
    """Of one language: how often the picture meant came first, among the first three, and the number asked."""
    ranks = [query["rank"] for query in queries if query["meant"] and query["lang"] == lang]
    return sum(r == 1 for r in ranks), sum(r is not None and r <= 3 for r in ranks), len(ranks)


def _page(seen: dict[str, Any], rows: list[dict[str, Any]], credits: dict[str, str], near: list[Hit]) -> Page:
    count, queries = seen["pictures"], seen["queries"]
    page = Page(
        title=("Find your own pictures by what is in them", "用一句话，找到自己的照片"),
        lead=(
            f"{count} photographs, indexed and searched on this machine: no cloud, no tags, in English and Chinese.",
            f"{count} 张照片，全部在本机建立索引并搜索：不上传、无需标签，中英文皆可。",
        ),
        facts=[(str(count), ("photographs indexed", "张照片已索引"))],
        footer=[
            f"model {seen['model']}; no-match threshold {seen['threshold'] or 'not set'}; score: cosine",
            *([f"described by {seen['describer']}"] if seen["describer"] else []),
            *([f"answered by {seen['answerer']}"] if seen["answerer"] else []),
            *([f"drawn by {seen['drawer']}"] if seen["drawer"] else []),
        ],
    )
    for lang, tongue in (("en", ("English", "英文")), ("zh", ("Chinese", "中文"))):
        first, three, asked = tally(queries, lang)
        if asked:
            words = (
                f"{tongue[0]}: picture meant among the first 3 ({first} came first)",
                f"{tongue[1]}：目标图片在前三（{first} 次排第一）",
            )
            page.facts.append((f"{three} / {asked}", words))
    cards = [[_query(page, query) for query in queries[n : n + 2]] for n in range(0, len(queries), 2)]
    note: Words = (
        "The same question in both languages. The bar is the cosine of words and picture.",
        "同一个问题用两种语言提出。色条为文字与图片的余弦相似度。",
    )
    if credits:
        note = (
            f"{note[0]} A green frame marks the picture meant; the questions were written before any model saw it.",
            f"{note[1]}绿框为目标图片；问题在模型看到图片之前就已写定。",
        )
    page.sections.append({"kind": "queries", "title": ("By words", "以文找图"), "note": note, "cards": cards})
    like = Path(seen["like"]["file"])
    card = {"picture": page.picture(like), "title": like.name, "lines": [], "hits": [page.hit(hit) for hit in near]}
    page.sections.append({"kind": "like", "title": ("By a picture", "以图找图"), "note": None, "cards": [card]})
    if seen["captions"]:
        page.sections.append(told_section(page, seen["captions"]))
    if seen["answers"]:
        page.sections.append(_answers_section(page, seen["answers"], ("Asked", "图片问答")))
    if seen["drawn"]:
        page.sections.append(_drawn_section(page, seen["drawn"]))
    if seen["about_drawn"]:
        title = ("Asked about the drawings", "对所画图形提问")
        page.sections.append(_answers_section(page, seen["about_drawn"], title))
    wall = [
        {
            "picture": page.picture(Path(row["folder"], row["path"])),
            "title": row["path"],
            "said": credits.get(row["path"], ""),
            "shape": f"{row['width']}/{row['height']}",
        }
        for row in rows[:60]
    ]
    title = (f"What was indexed ({count})", f"索引中的照片（{count}）")
    page.sections.append({"kind": "wall", "title": title, "note": None, "pictures": wall})
    return page


def told_section(page: Page, captions: list[dict[str, Any]]) -> dict[str, Any]:
    """The pictures that were described, each with a line a language."""
    lines: dict[str, list[tuple[str, str]]] = {}
    for one in captions:
        lines.setdefault(one["file"], []).append((one["lang"], one["texts"][0]["text"] if one["texts"] else ""))
    cards = [{"picture": page.picture(file), "title": Path(file).name, "lines": own} for file, own in lines.items()]
    note: Words = (
        f"{len(cards)} pictures in the order of their names, none chosen by eye. The model says something of every "
        "picture, and knows only what it learnt from: of other things it says what is most like them.",
        f"按文件名排列的 {len(cards)} 张图片，未经人工挑选。"
        "模型对任何图片都会给出描述，但只认识训练中见过的事物，对其他内容只会说出最相近的。",
    )
    return {"kind": "told", "title": ("Described", "自动描述"), "note": note, "cards": cards}


def _answers_section(page: Page, answers: list[dict[str, Any]], title: Words) -> dict[str, Any]:
    """The pictures that were asked about, each with a line a question."""
    lines: dict[str, list[tuple[str, str]]] = {}
    for one in answers:
        best, mark = one["best"][0], {True: " ✓", False: " ✗", None: ""}[one["right"]]
        doubt = "" if one["sure"] else " (?)"
        text = f"{one['question']} {best['text']} {best['score']:.0%}{doubt}{mark}"
        lines.setdefault(one["file"], []).append((guess_language(one["question"]), text))
    cards = [{"picture": page.picture(file), "title": Path(file).name, "lines": own} for file, own in lines.items()]
    note: Words = (
        "The questions were written before any model answered them. (?) marks an answer that the model is not sure of, "
        "✓ and ✗ say whether it is right. The model knows what its training showed, and no more.",
        "问题在模型作答之前就已写定。(?) 表示模型没有把握，✓ 与 ✗ 表示对错。模型只了解训练中见过的内容。",
    )
    return {"kind": "told", "title": title, "note": note, "cards": cards}


def _drawn_section(page: Page, drawn: list[dict[str, Any]]) -> dict[str, Any]:
    """What was drawn, each under its sentence."""
    pictures = [
        {
            "picture": page.picture(one["file"]),
            "title": one["prompt"] + {True: " ✓", False: " ✗", None: ""}[one["right"]],
            "said": f"seed {one['seed']}",
            "shape": "1/1",
        }
        for one in drawn
    ]
    note: Words = (
        "The sentences were written before any model drew them. ✓ and ✗ say whether a checker, which reads the pixels, "
        "finds everything there. The model draws flat shapes: colours, sizes, numbers and places.",
        "句子在模型作画之前就已写定。✓ 与 ✗ 为像素检查器的判断。模型只画平面图形：颜色、大小、数量与位置。",
    )
    return {"kind": "wall", "title": ("Drawn", "以文作图"), "note": note, "pictures": pictures}


def _query(page: Page, query: dict[str, Any]) -> dict[str, Any]:
    rank, verdict = query["rank"], None
    if query["meant"]:
        verdict = ("picture meant: not found", "未找到目标图片")
        if rank is not None:
            verdict = (f"picture meant: rank {rank}", f"目标图片：第 {rank} 位")
    elif query["meant"] is not None and query["hits"]:
        verdict = ("no picture is meant: the nearest ones", "无目标图片，以下为最接近的")
    hits = [page.hit(Hit(**hit), Path(hit["file"]).name in (query["meant"] or ())) for hit in query["hits"]]
    return {
        "words": query["query"],
        "lang": query["lang"],
        "verdict": verdict,
        "good": rank is not None and rank <= 3,
        "hits": hits,
    }
