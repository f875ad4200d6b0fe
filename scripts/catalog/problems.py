"""What the checker reports: problems with their place, and the nearest known word for a wrong one."""

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PROBLEMS = 10_000  # a file with more is of another kind; the report says that it stops here
MAX_WORK = 10_000_000  # about a second of searching for nearest words; beyond it nothing is suggested


@dataclass(frozen=True)
class Problem:
    """One problem: where (file, line from 1, entry, field), what was found, what is allowed, and the nearest known word."""

    file: str
    line: int
    entry: str  # the entry's id, `entry 3` if it has none, or "" for the file as a whole
    field: str  # path such as claims[1].reported.value, or ""
    found: str
    message: str  # what is allowed
    nearest: str | None = None

    def __str__(self) -> str:
        where = ": ".join(part for part in (f"{self.file}:{self.line}", self.entry, self.field) if part)
        found = f"found {self.found}; " if self.found else ""
        hint = f"; did you mean {self.nearest}?" if self.nearest else ""
        text = f"{where}: {found}{self.message}{hint}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)  # a terminal obeys control characters


class CatalogError(Exception):
    """The catalog cannot be loaded; `problems` holds every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Finder:
    """Finds nearest words; remembers answers, and stops searching when it has worked too long."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], str | None] = {}
        self.words: dict[str, dict[str, str]] = {}  # of each collection: spelling for comparison, spelling to report
        self.holders: dict[str, dict[str, list[str]]] = {}  # of each collection: the words that hold three letters
        self.work = 0

    def nearest(self, word: str, among: str, words: Iterable[str]) -> str | None:
        """The nearest of `words` (a collection named `among`), or None if none is near."""
        key = (among, word)
        if key not in self.answers:
            if self.work > MAX_WORK or not word or len(word) > 200:
                return None
            if among not in self.words:
                self.words[among] = {folded(spelling): spelling for spelling in words}
            candidates = self.likely(folded(word), among)
            self.work += 100 * len(candidates)
            found = difflib.get_close_matches(folded(word), candidates, 1, 0.6)
            self.answers[key] = self.words[among][found[0]] if found else None
        return self.answers[key]

    def likely(self, word: str, among: str) -> list[str]:
        """All words of a small collection; of a large one the fifty that share most triples of letters with the word."""
        words = self.words[among]
        if len(words) <= 400:
            return list(words)
        if among not in self.holders:
            holders: dict[str, list[str]] = {}
            for other in words:
                for triple in triples(other):
                    holders.setdefault(triple, []).append(other)
            self.holders[among] = holders
        shared: Counter[str] = Counter()
        for triple in triples(word):
            found = self.holders[among].get(triple, ())
            self.work += len(found)
            shared.update(found)
        return [other for other, _ in shared.most_common(50)]


def folded(word: str) -> str:
    """A word with upper and lower case and -, _ and blank taken as equal."""
    return word.lower().replace("_", "-").replace(" ", "-")


def triples(word: str) -> set[str]:
    """The runs of three letters of a word, its ends marked."""
    word = f"^{word}$"
    return {word[start : start + 3] for start in range(len(word) - 2)}


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The nearest of some words, or None."""
    return Finder().nearest(word, "", words)


def shown(value: object) -> str:
    """A value as a report shows it: quoted, on one line, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text) - 2:,} characters)"
