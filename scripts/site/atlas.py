"""All that the pages are made from, read once: catalog, modules, recorded results, pictures, notebooks."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from ..catalog import FACETS, Catalog, Entry, load
from ..vocabulary import VOCABULARIES
from .modules import Module, read_modules, read_settings
from .recorded import read_leaderboard, read_pictures, read_results

BRANCH = "main"
RELATIONS = {
    "extends": "Builds on",
    "extended_by": "Built on by",
    "breaks": "Breaks",
    "broken_by": "Broken by",
    "defends_against": "Defends against",
    "defended_by": "Defended against by",
    "compares_with": "Compares with",
    "compared_by": "Compared with by",
    "surveys": "Reviews",
    "surveyed_by": "Reviewed by",
}


@dataclass(frozen=True)
class Atlas:
    """The input of every page."""

    catalog: Catalog
    bibtex: Mapping[str, str] = field(default_factory=dict)
    modules: Mapping[str, Module] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    leaderboard: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pictures: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notebooks: frozenset[str] = frozenset()
    histories: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    repo_url: str = "https://github.com/inversion-atlas/inversion-atlas"

    @cached_property
    def influence(self) -> Mapping[str, int]:
        """How many papers of the catalog extend, break, defend against or compare themselves with each."""
        near = ("extends", "breaks", "defends_against", "compares_with")
        return Counter(target for entry in self.catalog for name in near for target in getattr(entry.relations, name))

    def blob(self, path: str) -> str:
        """The address of a file of the repository."""
        return f"{self.repo_url}/blob/{BRANCH}/{path}"

    def colab(self, paper: str) -> str:
        """The address that opens a paper's notebook in Colab."""
        repository = self.repo_url.rstrip("/").removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{repository}/blob/{BRANCH}/docs/notebooks/{paper}.ipynb"


def short_name(entry: Entry) -> str:
    """What a paper is called in a list: its method's name, else its first author and year."""
    if entry.method:
        return entry.method
    return f"{family(entry.authors[0])}{' et al.' if len(entry.authors) > 1 else ''} ({entry.year})"


def family(author: str) -> str:
    """The last word of a name."""
    return author.split()[-1]


def byline(entry: Entry, limit: int = 3) -> str:
    """The authors, shortened."""
    names = list(entry.authors)
    return ", ".join(names) if len(names) <= limit else f"{names[0]} and {len(names) - 1} others"


def title_after_name(entry: Entry) -> str:
    """The title for a place where the method's name stands already."""
    name = f"{entry.method}:"
    return entry.title[len(name) :].strip() if entry.method and entry.title.startswith(name) else entry.title


def read_atlas(root: Path, docs: Path, repo_url: str) -> Atlas:
    """Reads everything under the project's root. Raises CatalogError or ValueError, naming the file."""
    from ..bibtex import to_bibtex

    catalog = load(root / "papers.yaml")
    return Atlas(
        catalog=catalog,
        bibtex={entry.id: to_bibtex(entry) for entry in catalog},
        modules=read_modules(root / "implementations"),
        settings=read_settings(root / "implementations"),
        results=read_results(docs / "results"),
        leaderboard=read_leaderboard(docs / "results"),
        pictures=read_pictures(docs / "results"),
        notebooks=frozenset(path.stem for path in (docs / "notebooks").glob("*.ipynb")),
        histories=read_histories(docs / "histories.yaml"),
        repo_url=repo_url.rstrip("/"),
    )


def read_histories(path: Path) -> dict[str, dict[str, str]]:
    """The short histories of terms, by facet and term; none where the file is missing. Raises ValueError naming the place."""
    if not path.exists():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: a mapping of vocabularies is expected")
    for facet, terms in found.items():
        if facet not in FACETS or not isinstance(terms, dict):
            raise ValueError(f"{path}: {facet!r} is no vocabulary with terms; there are {', '.join(FACETS)}")
        for term, history in terms.items():
            if term not in VOCABULARIES[facet] or not isinstance(history, str):
                raise ValueError(f"{path}: {facet}: {term!r} is no term of scripts/vocabulary.py with a text")
    return found
