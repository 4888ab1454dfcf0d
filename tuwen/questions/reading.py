"""What one caption says, in no language: the things it names, and what its subject does and where."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Noun:
    """A person, an animal or a thing that a caption names.

    `number` is 1 or more where the caption tells it, 0 for several, None where it says nothing; `sure` is False where
    the words around it may mean something else ("a dog sled").
    """

    concept: str
    kind: str
    number: int | None = None
    colour: str | None = None
    mixed: bool = False  # a colour stands there that is no single answer
    sure: bool = True
    another: bool = False


@dataclass
class Reading:
    """One caption. `hints` holds every concept that it may touch, as (kind, key)."""

    nouns: list[Noun] = field(default_factory=list)
    subjects: list[Noun] = field(default_factory=list)
    action: str | None = None
    places: list[str] = field(default_factory=list)
    hints: set[tuple[str, str]] = field(default_factory=set)
    crowd: bool = False  # groups, couples, parts: people whose number nobody can tell

    def living(self) -> list[Noun]:
        """Its people and animals."""
        return [noun for noun in self.nouns if noun.kind in ("person", "animal")]
