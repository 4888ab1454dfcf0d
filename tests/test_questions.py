"""Questions made from captions: what is asked, what is never denied, and that a second run changes nothing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import typer

from tuwen import dataset as datasets
from tuwen import questions
from tuwen.cli import questions as command
from tuwen.dataset import Dataset
from tuwen.errors import DataError
from tuwen.questions import chinese, english
from tuwen.questions.asking import Ask, denials, gather, positives
from tuwen.questions.words import WORDS
from tuwen.records import Caption, Manifest, Picture, Question

DOG = ["A black dog is running in the snow.", "A black dog runs through the snow.", "The dog is running in the snow."]
CAT = ["A white cat is sleeping on a couch.", "A white cat sleeps on the couch.", "A cat sleeping on a couch."]
MAN = ["A man is playing guitar on a stage.", "A man plays guitar on stage.", "The man is playing the guitar."]
GIRL = ["A girl is swimming in the pool.", "A girl swims in a pool.", "The girl swimming in the pool."]
HORSES = ["Two horses are running on the grass.", "Two horses run on the grass.", "Two brown horses running on grass."]
DOG_ZH = ["一只黑色的狗在雪地里奔跑。", "一只黑狗在雪地里奔跑。", "一只狗在雪地里跑。"]
MEN_ZH = ["两个男人在沙滩上踢足球。", "两个男人在沙滩上踢足球。", "两个男人在踢球。"]
WOMAN_ZH = ["一个女人在床上睡觉。", "一个女人在睡觉。", "一个女人睡在床上。"]
WORLD = [DOG, CAT, MAN, GIRL, HORSES, DOG_ZH, MEN_ZH, WOMAN_ZH]


def picture(captions: list[str], number: int = 0, split: str = "train") -> Picture:
    return Picture(file_name=f"{number}.png", split=split, captions=[Caption(text=text) for text in captions])


def ask(captions: list[str], lang: str) -> dict[str, set[str]]:
    """Every question that the captions answer, with its answers."""
    say = {"en": english.say, "zh": chinese.say}[lang]
    found: dict[str, set[str]] = {}
    for one in positives(questions.understand(picture(captions))):
        if (said := say(one, Random(0))) is not None:
            found[f"{one.form}: {said[0]}"] = set(said[1])
    return found


def answers(captions: list[str], lang: str) -> dict[str, set[str]]:
    return {key.split(":")[0]: value for key, value in ask(captions, lang).items()}


def make_world(folder: Path, copies: int = 6) -> Path:
    folder.mkdir(exist_ok=True)
    pictures = [picture(captions, i) for i, captions in enumerate(WORLD * copies)]
    datasets.save(Dataset(folder, Manifest(name="world"), pictures), folder)
    return folder


def made_in(folder: Path) -> list[Question]:
    return [q for p in datasets.read(folder).pictures for q in p.qa if q.source == "questions"]


def test_every_type_in_english() -> None:
    dog = answers(DOG, "en")
    assert dog["animal"] == {"dog"}
    assert dog["colour"] == {"black"}
    assert dog["action"] == {"running"}
    assert dog["place"] == {"in the snow"}
    assert dog["count"] == {"1"}
    assert all(dog[f"is {form}"] == {"yes"} for form in ("animal", "colour", "action", "place", "count"))
    assert answers(HORSES, "en")["count"] == {"2"}
    assert answers(MAN, "en")["who"] == answers(MAN, "en")["person"] == {"man"}
    assert answers(MAN, "en")["action"] == {"playing guitar"}


def test_every_type_in_chinese() -> None:
    dog = answers(DOG_ZH, "zh")
    assert (dog["animal"], dog["colour"], dog["action"], dog["place"]) == ({"狗"}, {"黑色"}, {"奔跑"}, {"雪地里"})
    assert all(dog[f"is {form}"] == {"是"} for form in ("animal", "colour", "action", "place"))
    men = answers(MEN_ZH, "zh")
    assert (men["count"], men["action"], men["place"]) == ({"2"}, {"踢足球"}, {"沙滩上"})
    assert answers(WOMAN_ZH, "zh")["person"] == {"女人"}


def test_facts_told_in_one_language_are_asked_in_the_other() -> None:
    assert answers(DOG, "zh")["colour"] == {"黑色"}
    assert answers(MEN_ZH, "en")["action"] == {"playing soccer"}


@pytest.mark.parametrize(
    ("captions", "form"),
    [
        (["A black dog runs.", "A white dog runs.", "A dog runs."], "colour"),  # captions disagree
        (["A black dog and a white dog run.", "Two dogs run.", "Two dogs play."], "colour"),  # of which?
        (["Two dogs run.", "Three dogs run.", "Dogs run."], "count"),
        (["A man on a bench.", "A woman on a bench.", "Someone on a bench."], "person"),
        (["A boy near the water.", "A boy looking at the ocean.", "A boy by the pool."], "place"),
        (["A boy kicks a ball high in the air.", "A boy kicks a ball in the air.", "A boy."], "place"),
        (["Two girls order from the waiter.", "Two girls and a waiter.", "Two girls sit."], "count"),
        (["A golden retriever runs.", "A golden retriever is running.", "A dog runs."], "colour"),
        (["A group of men is running.", "Men running.", "A crowd runs."], "count"),
        (["A man walks his dog.", "A man with a dog.", "A dog sled is pulled by men."], "animal"),
        (["两只狗在跑。", "三只狗在跑。", "狗在跑。"], "count"),
        (["一个男人牵着狗在散步。", "男人和狗在散步。", "遛狗的人在散步。"], "action"),
    ],
)
def test_what_captions_leave_open_is_not_asked(captions: list[str], form: str) -> None:
    lang = "zh" if captions[0] > "z" else "en"
    assert form not in answers(captions, lang)


@pytest.mark.parametrize(
    ("captions", "form", "never"),
    [
        (DOG, "is animal", {"dog"}),
        ([*DOG, "A kitten watches it."], "is animal", {"dog", "cat"}),
        ([*DOG, "A hound."], "is animal", {"dog"}),
        ([*DOG, "一只猫。"], "is animal", {"dog", "cat"}),  # told in the other language
        ([*DOG, "A dog with a red collar."], "is colour", {"black", "red", "pink", "orange", "brown", "grey"}),
        (DOG, "is place", {"in the snow", "on the ice", "on a hill", "on a mountain"}),
        (DOG, "is action", {"running", "jumping", "walking", "playing"}),
        (GIRL, "is action", {"swimming", "surfing", "rowing", "playing"}),
        (HORSES, "is count", {"2"}),
    ],
)
def test_a_no_never_contradicts_a_caption(captions: list[str], form: str, never: set[str]) -> None:
    facts = questions.understand(picture(captions))
    kind = form.removeprefix("is ")
    pool = ["1", "2", "3"] if kind == "count" else list(WORDS[kind])
    (yes,) = [one for one in positives(facts) if one.form == form and one.kind in ("animal", "person")][:1] or [
        Ask(form, ("yes",), value=next(iter(never)))
    ]
    found = set(denials(yes, facts, pool))
    assert found
    assert not found & never


def test_a_doubted_person_is_a_person() -> None:
    captions = ["A man is climbing a rock.", "A woman is climbing a rock.", "A climber climbs a rock."]
    assert "action: what is the person doing?" in ask(captions, "en")
    assert "is person" not in answers(captions, "en")


def test_balance_holds(tmp_path: Path) -> None:
    result = questions.write(make_world(tmp_path), seed=3, per_picture=12)
    made = made_in(tmp_path)
    assert result["questions"] == len(made) > 60
    assert set(result["types"]) == {"subject", "colour", "counting", "action", "place", "yes/no"}
    for lang, yes, no in (("en", "yes", "no"), ("zh", "是", "否")):
        polar = result["answers"][lang]["yes/no"]
        assert polar[yes] == polar[no] > 0
        for kind, found in result["answers"][lang].items():
            if len(found) >= 2:
                share = max(questions.SHARE_COUNT if kind == "counting" else questions.SHARE, 1 / len(found))
                assert max(found.values()) <= share * sum(found.values()) + 1
    asked = Counter(
        (q.question, q.answers[0]) for q in made if q.question_type == "yes/no" and q.answers[0] in "yes no"
    )
    assert asked
    per_picture = [sum(q.source == "questions" for q in p.qa) for p in datasets.read(tmp_path).pictures]
    assert max(per_picture) <= 12


def test_a_second_run_replaces_only_its_own(tmp_path: Path) -> None:
    folder = make_world(tmp_path)
    data = datasets.read(folder)
    own = Question(question="what is the dog doing?", answers=["running"], id="mine")
    data.pictures[0].qa = [own]
    datasets.save(data)
    first = questions.write(folder, seed=1)
    text = (folder / "metadata.jsonl").read_text()
    second = questions.write(folder, seed=1)
    assert (folder / "metadata.jsonl").read_text() == text
    assert (first["replaced"], second["replaced"]) == (0, len(made_in(folder)))
    questions.write(folder, seed=2)
    assert (folder / "metadata.jsonl").read_text() != text
    human = [q for q in datasets.read(folder).pictures[0].qa if q.source == "human"]
    assert [q.id for q in human] == ["mine"]
    assert sum(q.question == own.question for q in datasets.read(folder).pictures[0].qa) == 1
    ids = [q.id for q in made_in(folder)]
    assert len(set(ids)) == len(ids) > 0


def test_splits_are_balanced_apart(tmp_path: Path) -> None:
    pictures = [picture(c, i, "train" if i % 2 else "val") for i, c in enumerate([DOG, DOG, CAT, CAT, GIRL, MAN] * 6)]
    datasets.save(Dataset(tmp_path, Manifest(name="x"), pictures), tmp_path)
    questions.write(tmp_path, per_picture=20)
    counts = Counter(
        (p.split, q.answers[0]) for p in datasets.read(tmp_path).pictures for q in p.qa if q.question_type == "yes/no"
    )
    assert counts["train", "yes"] == counts["train", "no"] > 0
    assert counts["val", "yes"] == counts["val", "no"] > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "!!! ... ???",
        "。。。，",
        "is",
        "and and and",
        "of the",
        "在在在",
        "的",
        "a" * 5000,
        "狗" * 2000,
        "two",
        "一只",
        "\ud800",
        "🐕🐕",
    ],
)
def test_hostile_captions_are_survived(text: str) -> None:
    for captions in ([text], [text, *DOG], [text, *DOG_ZH]):
        facts = gather([english.read(t) for t in captions] + [chinese.read(t) for t in captions])
        for one in positives(facts):
            for said in (english.say(one, Random(0)), chinese.say(one, Random(0))):
                assert said is None or (said[0] and all(said[1]))


def test_nothing_to_ask_is_said_in_one_line(tmp_path: Path) -> None:
    datasets.save(Dataset(tmp_path, Manifest(name="x"), [picture(["lovely", "好看"])]), tmp_path)
    before = (tmp_path / "metadata.jsonl").read_bytes()
    with pytest.raises(DataError, match="no caption tells anything"):
        questions.write(tmp_path)
    with pytest.raises(DataError, match="use --lang en or --lang zh"):
        questions.write(tmp_path, lang="fr")
    assert (tmp_path / "metadata.jsonl").read_bytes() == before


def test_machine_captions_tell_nothing_but_keep_a_no_away() -> None:
    seen = picture(DOG)
    seen.captions.append(Caption(text="a cat", source="model:x"))
    facts = questions.understand(seen)
    (yes,) = [one for one in positives(facts) if one.form == "is animal"]
    assert denials(yes, facts, ["cat", "horse"]) == ["horse"]
    silent = questions.understand(Picture(file_name="x", captions=[Caption(text=t, source="model:x") for t in DOG]))
    assert positives(silent) == []


def test_the_command_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_world(tmp_path)
    app = typer.Typer()
    command.register(app)
    app(["--json", "--seed", "4", "--lang", "zh", str(folder)], standalone_mode=False)
    result = json.loads(capsys.readouterr().out)
    assert {"version", "warnings", "questions", "types", "languages", "answers", "note"} <= set(result)
    assert set(result["languages"]) == {"zh"}
    app([str(folder)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "yes/no" in shown
    assert "in place of" in shown
