"""The loaded catalog: entries in order, found by id, by facet, and by relation."""

from collections.abc import Iterable, Iterator

from scripts.vocabulary import VOCABULARIES

from .model import Entry, Relations
from .problems import nearest

FACETS = ("kind", "setting", "modality", "access", "goal", "knowledge", "adversary", "approach", "technique", "venue")
REVERSE = {
    "extends": "extended_by",
    "breaks": "broken_by",
    "defends_against": "defended_by",
    "compares_with": "compared_by",
    "surveys": "surveyed_by",
}


class Catalog:
    """All entries, sorted by id as in the file."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = tuple(entries)
        self.by_id = {entry.id: entry for entry in self.entries}
        self._reverse: dict[str, dict[str, list[Entry]]] = {}
        for entry in self.entries:
            for relation in Relations.model_fields:
                for target in getattr(entry.relations, relation):
                    self._reverse.setdefault(target, {}).setdefault(REVERSE[relation], []).append(entry)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __contains__(self, paper: object) -> bool:
        return paper in self.by_id

    def __getitem__(self, paper: str) -> Entry:
        """The entry of an id. Raises KeyError that names the nearest id."""
        if paper not in self.by_id:
            near = self.nearest(paper)
            raise KeyError(f"no paper {paper!r}{f'; did you mean {near}?' if near else ''}")
        return self.by_id[paper]

    def filter(self, **facets: str | Iterable[str]) -> list[Entry]:
        """Entries that have, for each facet given, any of its terms. Raises ValueError for unknown facets and terms."""
        wanted = {}
        for facet, words in facets.items():
            if facet not in FACETS:
                raise ValueError(f"no facet {facet!r}; there are {', '.join(FACETS)}")
            wanted[facet] = {words} if isinstance(words, str) else set(words)
            for word in sorted(wanted[facet] - set(VOCABULARIES[facet])):
                near = nearest(word, VOCABULARIES[facet])
                raise ValueError(f"no term {word!r} of {facet}{f'; did you mean {near}?' if near else ''}")
        return [e for e in self.entries if all(words & set(e.terms(facet)) for facet, words in wanted.items())]

    def related(self, paper: str) -> dict[str, list[Entry]]:
        """Related entries by relation, both ways (`extends` and `extended_by` …); relations without entries are left out."""
        entry = self[paper]
        forward = {name: [self.by_id[i] for i in getattr(entry.relations, name)] for name in Relations.model_fields}
        backward = self._reverse.get(paper, {})
        found = {**forward, **{name: list(backward.get(name, ())) for name in REVERSE.values()}}
        return {name: entries for name, entries in found.items() if entries}

    def nearest(self, paper: str) -> str | None:
        """The id nearest to a word, or None."""
        return nearest(paper, self.by_id)
