"""The catalog in other tools' formats: python -m scripts.exports [FOLDER] writes BibTeX, CSL-JSON, CSV and JSON.

The site publishes the same files under exports/.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bibtexparser.middlewares.names import parse_single_name_into_parts

from scripts.bibtex import to_bibtex
from scripts.catalog import FACETS, Catalog, Entry, load
from scripts.catalog.files import PAPERS, ROOT, write_atomically
from scripts.venues import VENUE, VENUE_KIND

CSL_TYPES = {
    "journal": "article-journal",
    "conference": "paper-conference",
    "workshop": "paper-conference",
    "preprint": "article",
    "thesis": "thesis",
    "web": "webpage",
}
FORMULA = ("=", "+", "-", "@", "\t")  # a cell that starts so is run by spreadsheets


def to_json(catalog: Catalog) -> str:
    """Every entry with all its fields, as JSON; what is empty is left out."""
    rows = [
        {key: value for key, value in entry.model_dump(mode="json").items() if value not in (None, [], {})} for entry in catalog
    ]
    return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"


def to_bibliography(catalog: Catalog) -> str:
    """Every entry as BibTeX, sorted by key."""
    return "\n".join(to_bibtex(entry) for entry in catalog)


def to_csl(catalog: Catalog) -> str:
    """Every entry as CSL-JSON, which reference managers and pandoc read."""
    return json.dumps([csl_item(entry) for entry in catalog], ensure_ascii=False, indent=1) + "\n"


def csl_item(entry: Entry) -> dict[str, Any]:
    """One entry as a CSL item."""
    kind = VENUE_KIND[entry.venue]
    item: dict[str, Any] = {
        "id": entry.id,
        "type": CSL_TYPES[kind],
        "title": entry.title,
        "author": [{"literal": author} if entry.corporate else csl_name(author) for author in entry.authors],
        "issued": {"date-parts": [[entry.year]]},
    }
    if kind in ("journal", "conference", "workshop"):
        item["container-title"] = VENUE[entry.venue]
    elif kind == "preprint":
        item["publisher"] = "arXiv"
    if entry.arxiv:
        item["number"] = f"arXiv:{entry.arxiv}"
    if entry.doi:
        item["DOI"] = entry.doi
    if address := entry.url or next(iter(entry.links.values()), None):
        item["URL"] = address
    return item


def csl_name(author: str) -> dict[str, str]:
    """A name in its parts, split as BibTeX splits it; a name of one word is literal."""
    parts = parse_single_name_into_parts(author)
    if not parts.first:
        return {"literal": author}
    name = {"family": " ".join(parts.last), "given": " ".join(parts.first)}
    if parts.von:
        name["non-dropping-particle"] = " ".join(parts.von)
    return name


COLUMNS: Mapping[str, Callable[[Entry], Any]] = MappingProxyType(
    {
        **{
            name: lambda entry, name=name: getattr(entry, name)
            for name in ("id", "title", "method", "authors", "year", "arxiv", "doi", "openreview", "url", "code")
        },
        **{facet: lambda entry, facet=facet: entry.terms(facet) for facet in FACETS},
        **{
            name: lambda entry, name=name: getattr(entry, name)
            for name in ("datasets", "metrics", "summary", "in_survey", "verified")
        },
    }
)


def to_csv(catalog: Catalog) -> str:
    """One row an entry, lists joined by `; `. Cells that a spreadsheet would run as a formula get an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in catalog:
        writer.writerow(cell(read(entry)) for read in COLUMNS.values())
    return out.getvalue()


def cell(value: Any) -> Any:
    """A value as the text of one cell."""
    if isinstance(value, tuple):
        value = "; ".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


EXPORTS: Mapping[str, Callable[[Catalog], str]] = MappingProxyType(
    {"papers.bib": to_bibliography, "papers.csl.json": to_csl, "papers.csv": to_csv, "papers.json": to_json}
)


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    folder = Path(words[0]) if words else ROOT / "build" / "exports"
    catalog = load(PAPERS)
    folder.mkdir(parents=True, exist_ok=True)
    for name, export in EXPORTS.items():
        write_atomically(folder / name, export(catalog))
        print(folder / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
