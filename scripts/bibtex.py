"""BibTeX entries from catalog entries."""

import re
from functools import cache

import bibtexparser
from bibtexparser.middlewares import LatexEncodingMiddleware
from bibtexparser.model import Entry as BibtexEntry
from bibtexparser.model import Field
from pylatexenc.latexencode import RULE_REGEX, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from scripts.catalog import Entry
from scripts.venues import VENUE, VENUE_KIND

# entry type and the field that names the venue, by kind of venue
TYPES = {
    "journal": ("article", "journal"),
    "conference": ("inproceedings", "booktitle"),
    "workshop": ("inproceedings", "booktitle"),
    "preprint": ("misc", "howpublished"),
    "thesis": ("phdthesis", "school"),
    "web": ("misc", "howpublished"),
}


def to_bibtex(entry: Entry) -> str:
    """One BibTeX entry, key = id, in LaTeX-safe ASCII where LaTeX has a name for the character; ends with a line break.

    The type follows from the kind of venue. The title is braced as a whole, so that no style changes its capitals.
    """
    kind, place = TYPES[VENUE_KIND[entry.venue]]
    texts = {
        "title": entry.title,
        "author": " and ".join(entry.authors),
        place: VENUE[entry.venue],
    }
    record = BibtexEntry(kind, entry.id, [Field(name, text) for name, text in texts.items()])
    (record,) = LatexEncodingMiddleware(encoder=encoder()).transform(bibtexparser.Library([record])).entries
    record["title"] = f"{{{record['title']}}}"
    if entry.corporate:  # BibTeX would take the last word for a family name
        record["author"] = " and ".join(f"{{{author}}}" for author in record["author"].split(" and "))
    verbatim = {
        "year": str(entry.year),
        "eprint": entry.arxiv,
        "archivePrefix": entry.arxiv and "arXiv",
        "doi": entry.doi,
        "url": entry.url or entry.links.get("OpenReview") or entry.links.get("arXiv"),
    }
    for name, text in verbatim.items():
        if text:
            record[name] = text
    style = bibtexparser.BibtexFormat()
    style.indent, style.value_column, style.trailing_comma = "  ", "auto", False
    return bibtexparser.write_string(bibtexparser.Library([record]), bibtex_format=style)


@cache
def encoder() -> UnicodeToLatexEncoder:
    """Encodes plain text: a dollar is a dollar, and braces become names, since BibTeX counts even escaped ones."""
    braces = [(re.compile(r"\{"), r"\\ensuremath{\\lbrace}"), (re.compile(r"\}"), r"\\ensuremath{\\rbrace}")]
    rules = [UnicodeToLatexConversionRule(RULE_REGEX, braces), "defaults"]
    return UnicodeToLatexEncoder(conversion_rules=rules, unknown_char_warning=False)
