"""What the checker reports: problems with their place, and the nearest known word for a wrong one."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

MAX_PROBLEMS = 10_000  # a file with more is of another kind; the report says that it stops here
MAX_SEARCHES = 400  # difflib over thousands of ids is slow; beyond this many different words nothing is suggested


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
        return f"{where}: {found}{self.message}{hint}"


class CatalogError(Exception):
    """The catalog cannot be loaded; `problems` holds every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Finder:
    """Finds nearest words; remembers answers, and stops searching after MAX_SEARCHES different questions."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], str | None] = {}

    def nearest(self, word: str, among: str, words: Iterable[str]) -> str | None:
        """The nearest of `words` (a collection named `among`), or None if none is near."""
        key = (among, word)
        if key not in self.answers:
            if len(self.answers) >= MAX_SEARCHES or not word or len(word) > 200:
                return None
            self.answers[key] = nearest(word, words)
        return self.answers[key]


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The nearest of some words, upper and lower case and -/_/blank taken as equal, or None."""
    plain = {spelling.lower().replace("_", "-").replace(" ", "-"): spelling for spelling in words}
    found = difflib.get_close_matches(word.lower().replace("_", "-").replace(" ", "-"), plain, 1, 0.6)
    return plain[found[0]] if found else None


def shown(value: object) -> str:
    """A value as a report shows it: quoted, on one line, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text) - 2:,} characters)"
