"""From the readings of a picture's captions to what may be asked about it, in no language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tuwen.questions.reading import Noun, Reading
from tuwen.questions.words import NO_COUNT, WORDS

ADULTS = {"man": {"woman", "girl"}, "woman": {"man", "boy"}, "boy": {"woman", "girl"}, "girl": {"man", "boy"}}
EXACT = ("man", "woman", "boy", "girl")
TYPES = {"animal": "subject", "who": "subject", "person": "subject", "colour": "colour", "count": "counting",
         "action": "action", "place": "place"}  # fmt: skip


@dataclass(frozen=True)
class Ask:
    """One question with its answers as concepts. A yes/no question has `value`, what it asks whether it is so."""

    form: str
    answers: tuple[str, ...]
    about: str = ""
    kind: str = ""
    several: bool = False
    value: str = ""

    @property
    def type(self) -> str:
        """The question type that people read."""
        return TYPES.get(self.form, "yes/no")


@dataclass
class Agent:
    """Who or what a picture shows, if its captions leave no doubt: one being, or several of one name."""

    name: str
    kind: str
    several: bool
    actions: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    named: bool = True  # called by more than "person"


@dataclass
class Facts:
    """What all captions of a picture say together."""

    agents: list[Agent] = field(default_factory=list)
    animals: list[str] = field(default_factory=list)  # the one animal that all captions name, if it is one
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # (kind, concept) -> number
    colours: dict[tuple[str, str], str] = field(default_factory=dict)
    hints: set[tuple[str, str]] = field(default_factory=set)
    people: list[str] = field(default_factory=list)

    def hinted(self, kind: str) -> set[str]:
        """Concepts of a kind that some caption may touch."""
        return {key for what, key in self.hints if what == kind}


def gather(readings: list[Reading]) -> Facts:
    """Join the captions of one picture; what they disagree about is left out."""
    facts = Facts()
    for reading in readings:
        facts.hints |= reading.hints
    need = 2 if len(readings) >= 3 else 1
    _gather_animals(readings, facts, need)
    _gather_people(readings, facts, need)
    _gather_colours(readings, facts, need)
    return facts


def _numbers(nouns: Iterable[Noun]) -> tuple[set[int], Counter[int]]:
    """The number classes told (1, or 2 for several), and how often each exact number above one."""
    classes, exact = set(), Counter[int]()
    for noun in nouns:
        if noun.number is not None:
            classes.add(1 if noun.number == 1 else 2)
            if noun.number > 1:
                exact[noun.number] += 1
    return classes, exact


def _gather_animals(readings: list[Reading], facts: Facts, need: int) -> None:
    seen = {key for kind, key in facts.hints if kind == "animal"}
    nouns = [noun for r in readings for noun in r.nouns if noun.kind == "animal"]
    told = {noun.concept for noun in nouns if noun.sure}
    if not told or not all(noun.sure for noun in nouns):
        return
    if len(told) == 1 and all(_kin("animal", key, next(iter(told))) for key in seen):
        named = sum(any(n.kind == "animal" for n in r.nouns) for r in readings)
        facts.animals = sorted(told) if named >= need else []
    for concept in sorted(told):
        if any(_kin("animal", concept, other) for other in told - {concept}):
            continue
        own = [noun for noun in nouns if noun.concept == concept]
        classes, exact = _numbers(own)
        twice = any(sum(n.concept == concept for n in r.nouns) > 1 for r in readings)
        another = any(noun.another for noun in own) or any(
            r.crowd and any(n.concept == concept for n in r.nouns) for r in readings
        )
        where = [r for r in readings if any(n.concept == concept for n in r.nouns)]
        if len(where) < max(need, len(readings) / 3):  # a lone caption or two may be about another picture
            continue
        if classes == {1} and not twice and not another:
            if len(where) > need:
                facts.counts["animal", concept] = 1
            facts.agents.append(_attribute(readings, Agent(concept, "animal", False), {concept}, need))
        elif classes == {2} and len(exact) == 1 and exact.total() >= need and not another and not twice:
            facts.counts["animal", concept] = next(iter(exact))
            facts.agents.append(_attribute(readings, Agent(concept, "animal", True), {concept}, need))


def _gather_people(readings: list[Reading], facts: Facts, need: int) -> None:
    with_people = [r for r in readings if any(n.kind == "person" for n in r.nouns)]
    if len(with_people) < need or any(r.crowd for r in readings):
        return
    if any(not n.sure or n.another for r in with_people for n in r.nouns if n.kind == "person"):
        return
    totals: Counter[int] = Counter()
    for reading in with_people:
        numbers = [n.number for n in reading.nouns if n.kind == "person"]
        if 0 in numbers:
            return
        if None not in numbers:
            totals[sum(n for n in numbers if n)] += 1
        elif len(numbers) > 1:
            return
    if len(totals) != 1 or totals.total() < need:
        return
    total = next(iter(totals))
    names = Counter(n.concept for r in with_people for n in r.nouns if n.kind == "person")
    if total > 1 or totals.total() > need:
        facts.counts["person", "person"] = total
    everyone = set(names)
    if total == 1:
        name = _settle(names, need)
        facts.people = [name] if name != "person" else []
        facts.agents.append(_attribute(readings, Agent(name, "person", False, named=name != "person"), everyone, need))
    elif all(len([n for n in r.nouns if n.kind == "person"]) == 1 for r in with_people):
        name = _settle(names, need)
        facts.agents.append(_attribute(readings, Agent(name, "person", True, named=name != "person"), everyone, need))


def _settle(names: Counter[str], need: int) -> str:
    """The name that most captions use, if none speaks against it; else "person"."""
    best = max(sorted(names), key=lambda name: (name != "person", names[name]))
    young = {"boy", "girl", "child", "baby"}
    against = {
        "man": {"woman", "girl", "boy", "child", "baby"}, "woman": {"man", "girl", "boy", "child", "baby"},
        "boy": {"man", "woman", "girl"}, "girl": {"man", "woman", "boy"}, "child": {"man", "woman"},
        "baby": {"man", "woman"},
    }.get(best, set())  # fmt: skip
    if best == "person" or names[best] < need or against & set(names):
        return "child" if set(names) <= young and len(names) > 1 else "person"
    return best


def _attribute(readings: list[Reading], agent: Agent, concepts: set[str], need: int) -> Agent:
    """Give an agent what `need` captions say of it: those whose only being it is, or whose one subject it is."""
    for reading in readings:
        living = reading.living()
        subjects = reading.subjects
        if len(subjects) == 1 and subjects[0].concept in concepts and subjects[0].kind == agent.kind and reading.action:
            agent.actions.append(reading.action)
        if (
            living
            and {n.concept for n in living} <= concepts
            and all(n.kind == agent.kind for n in living)
            and len(living) == 1
        ):
            agent.places += reading.places[:1]
    agent.actions = _without_odd(agent.actions) if len(agent.actions) >= need else []
    agent.places = _without_odd(agent.places) if len(agent.places) >= need else []
    return agent


def _without_odd(values: list[str]) -> list[str]:
    """The values without those that one caption says against three or more."""
    votes = Counter(values)
    most = max(votes.values())
    return [value for value in values if 3 * votes[value] > most]


def _top(values: list[str]) -> str | None:
    """What more than half of the captions that speak of it say, if there is such a value."""
    value, votes = Counter(values).most_common(1)[0]
    return value if 2 * votes > len(values) else None


def _gather_colours(readings: list[Reading], facts: Facts, need: int) -> None:
    own: dict[tuple[str, str], list[Noun]] = {}
    for reading in readings:
        seen = set()
        for noun in reading.nouns:
            key = (noun.kind, noun.concept)
            if noun.kind in ("animal", "thing"):
                own.setdefault(key, []).append(noun)
                if key in seen:
                    noun.mixed = True
                seen.add(key)
    alone = {(agent.kind, agent.name) for agent in facts.agents if not agent.several}
    one_person = any(kind == "person" for kind, _ in alone)
    for key, nouns in own.items():
        kind, concept = key
        colours = Counter(noun.colour for noun in nouns if noun.colour)
        classes, _ = _numbers(nouns)
        if len(colours) != 1 or any(n.mixed or n.another for n in nouns) or (2 in classes and concept not in NO_COUNT):
            continue
        tags = WORDS[kind][concept].tags
        worn = bool(tags & {"torso", "legs", "head", "neck", "hair"})
        kin = [other for other in own if other != key and other[0] == kind and tags & WORDS[kind][other[1]].tags]
        colour = next(iter(colours))
        if (kin or not one_person) if worn else (kind == "animal" and (kin or key not in alone)):
            continue
        if any(noun.colour and noun.colour != colour for other in kin for noun in own[other]):
            continue
        if colours.total() >= need:
            facts.colours[key] = colour


def _kin(kind: str, one: str, other: str) -> bool:
    """Whether two concepts may be one thing, or be true together."""
    a, b = WORDS[kind][one], WORDS[kind][other]
    return one == other or bool(a.tags & b.tags) or "any" in a.tags or "any" in b.tags


def positives(facts: Facts) -> list[Ask]:
    """Every question that the captions answer, the yes of yes/no among them."""
    found: list[Ask] = []
    if facts.animals:
        animal = facts.animals[0]
        found += [Ask("animal", (animal,)), Ask("is animal", ("yes",), kind="animal", value=animal)]
    for (kind, concept), number in facts.counts.items():
        found.append(Ask("count", (str(number),), concept, kind))
        found.append(Ask("is count", ("yes",), concept, kind, True, str(number)))
    for (kind, concept), colour in facts.colours.items():
        found.append(Ask("colour", (colour,), concept, kind))
        found.append(Ask("is colour", ("yes",), concept, kind, value=colour))
    for agent in facts.agents:
        whose = (agent.name, agent.kind, agent.several)
        if agent.kind == "person" and not agent.several and agent.named:
            found.append(Ask("person", (agent.name,)))
            if agent.name in EXACT:
                found.append(Ask("is person", ("yes",), kind="person", value=agent.name))
        if agent.actions:
            found.append(Ask("action", tuple(agent.actions), *whose))
            top = _top(agent.actions)
            if top:
                found.append(Ask("is action", ("yes",), *whose, top))
            if top and agent.kind == "person" and agent.named and not agent.several and len(facts.agents) == 1:
                found.append(Ask("who", (agent.name,), value=top))
        if agent.places:
            found.append(Ask("place", tuple(agent.places), *whose))
            if top := _top(agent.places):
                found.append(Ask("is place", ("yes",), *whose, top))
    return found


def denials(yes: Ask, facts: Facts, pool: list[str]) -> list[str]:
    """What of `pool` may stand in the place of a true value and make the answer "no", in the order of `pool`."""
    kind = {"is animal": "animal", "is colour": "colour", "is action": "action", "is place": "place"}.get(yes.form)
    if yes.form == "is count":
        return [n for n in pool if n != yes.value]
    if yes.form == "is person":
        return [p for p in pool if p in ADULTS[yes.value] and p not in facts.hinted("person")]
    if kind is None:
        return []
    touched = facts.hinted(kind) | set(yes.value.split(" and ") if kind == "colour" else [yes.value])
    if any(noun not in WORDS[kind] for noun in touched):
        return []
    return [
        value
        for value in pool
        if value != yes.value and not any(_kin(kind, part, other) for part in value.split(" and ") for other in touched)
    ]
