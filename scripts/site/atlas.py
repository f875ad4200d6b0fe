"""All that the pages are made from, read once: catalog, modules, recorded results, pictures, notebooks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..vocabulary import VOCABULARIES
from .modules import Module, read_modules, read_settings
from .recorded import read_pictures, read_results

BRANCH = "main"
FACETS = tuple(name for name in VOCABULARIES if name != "relation")
RELATIONS = {
    "extends": ("Builds on", "Built on by"),
    "compares_with": ("Compares with", "Compared with in"),
    "breaks": ("Breaks", "Broken by"),
    "defends_against": ("Defends against", "Defended against by"),
    "surveys": ("Reviews", "Reviewed in"),
}


@dataclass(frozen=True)
class Atlas:
    """The input of every page. `entries` are catalog entries in the catalog's order."""

    entries: Sequence[Any]
    bibtex: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, Module] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pictures: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notebooks: frozenset[str] = frozenset()
    repo_url: str = "https://github.com/inversion-atlas/inversion-atlas"

    @cached_property
    def by_id(self) -> dict[str, Any]:
        return {entry.id: entry for entry in self.entries}

    @cached_property
    def related(self) -> dict[str, dict[str, list[str]]]:
        """For each paper the related ones by relation in words, both directions."""
        found: dict[str, dict[str, list[str]]] = {entry.id: {} for entry in self.entries}
        for relation, (forward, backward) in RELATIONS.items():
            for entry in self.entries:
                for other in relations_of(entry).get(relation, ()):
                    found[entry.id].setdefault(forward, []).append(other)
                    if other in found:
                        found[other].setdefault(backward, []).append(entry.id)
        return found

    def blob(self, path: str) -> str:
        """The address of a file of the repository."""
        return f"{self.repo_url}/blob/{BRANCH}/{path}"

    def colab(self, paper: str) -> str:
        """The address that opens a paper's notebook in Colab."""
        repository = self.repo_url.rstrip("/").removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/docs/notebooks/{paper}.ipynb"


def as_tuple(value: Any) -> tuple[str, ...]:
    """A term or several as a tuple."""
    return () if not value else (value,) if isinstance(value, str) else tuple(value)


def terms_of(entry: Any, facet: str) -> tuple[str, ...]:
    """The terms of an entry in one vocabulary."""
    model, taxonomy = getattr(entry, "threat_model", None), getattr(entry, "taxonomy", None)
    if facet in ("access", "goal", "knowledge", "adversary"):
        return as_tuple(getattr(model, facet, None))
    if facet == "approach":
        return as_tuple(getattr(taxonomy, "approach", None))
    if facet == "technique":
        return as_tuple(getattr(taxonomy, "techniques", None))
    return as_tuple(getattr(entry, facet, None))


def relations_of(entry: Any) -> dict[str, tuple[str, ...]]:
    """The ids that an entry names, by relation."""
    relations = getattr(entry, "relations", None) or {}
    pairs = relations.items() if isinstance(relations, Mapping) else ((name, getattr(relations, name, ())) for name in RELATIONS)
    return {name: as_tuple(ids) for name, ids in pairs if ids}


def short_name(entry: Any) -> str:
    """What a paper is called in a list: its method's name, else its first author and year."""
    if entry.method:
        return entry.method
    return f"{family(entry.authors[0])}{' et al.' if len(entry.authors) > 1 else ''} ({entry.year})"


def family(author: str) -> str:
    """The last word of a name."""
    return author.split()[-1]


def byline(entry: Any, limit: int = 3) -> str:
    """The authors, shortened."""
    names = list(entry.authors)
    return ", ".join(names) if len(names) <= limit else f"{names[0]} and {len(names) - 1} others"


def read_atlas(root: Path, docs: Path, repo_url: str) -> Atlas:
    """Reads everything under the project's root. Raises what the readers raise, naming the file."""
    from ..bibtex import to_bibtex
    from ..catalog import load

    catalog = load(root / "papers.yaml")
    entries = tuple(catalog.entries)
    return Atlas(
        entries=entries,
        bibtex={entry.id: to_bibtex(entry) for entry in entries},
        modules=read_modules(root / "implementations"),
        settings=read_settings(root / "implementations"),
        results=read_results(docs / "results"),
        pictures=read_pictures(docs / "results"),
        notebooks=frozenset(path.stem for path in (docs / "notebooks").glob("*.ipynb")),
        repo_url=repo_url.rstrip("/"),
    )
