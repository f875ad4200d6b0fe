"""Citations in hand-written pages: `[@gmi; @ked_mi]` becomes links to the papers' pages, with references at the end."""

import posixpath
import re

from ..catalog import Entry
from .atlas import Atlas, byline, short_name
from .markup import spaced, text

CITATION = re.compile(r"\[@([a-z0-9_]+(?:\s*;\s*@[a-z0-9_]+)*)\]")
CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]*`)", re.DOTALL)


class UnknownCitation(ValueError):
    """A page cites what the catalog does not have."""


def cite(markdown: str, atlas: Atlas, path: str) -> str:
    """A page (at `path` in docs/) with its citations resolved. Raises UnknownCitation naming page, key and nearest id."""
    cited: dict[str, Entry] = {}
    up = to_papers(path)
    parts = CODE.split(markdown)
    body = "".join(
        part if index % 2 else CITATION.sub(lambda match: linked(match[0], atlas, path, cited), part)
        for index, part in enumerate(parts)
    )
    return f"{body.rstrip()}\n\n{references(cited, up)}\n" if cited else markdown


def cited_text(value: str, atlas: Atlas, path: str) -> str:
    """Plain text with citations, as Markdown that shows exactly this text and links. Raises UnknownCitation."""
    parts = re.split(rf"({CITATION.pattern})", value)
    keep = parts[:: CITATION.groups + 2]  # between two citations: the text, the whole citation, its group
    found = parts[1 :: CITATION.groups + 2]
    return "".join(
        spaced(text_part) + (linked(found[index], atlas, path, {}) if index < len(found) else "")
        for index, text_part in enumerate(keep)
    ).strip()


def to_papers(path: str) -> str:
    """The way from a page of docs/ to the folder of the papers' pages."""
    return posixpath.relpath("papers", posixpath.dirname(path) or ".")


def linked(citation: str, atlas: Atlas, path: str, cited: dict[str, Entry]) -> str:
    """One citation as links; what it cites is added to `cited`."""
    links = []
    for key in re.findall(r"@([a-z0-9_]+)", citation):
        if key not in atlas.catalog:
            near = atlas.catalog.nearest(key)
            hint = f"; did you mean @{near}?" if near else ""
            raise UnknownCitation(f"{path} cites @{key}, which the catalog does not have{hint}")
        entry = atlas.catalog[key]
        cited[key] = entry
        links.append(f"[{label(entry)}]({to_papers(path)}/{key}.md)")
    return f'<span class="ia-cite" markdown="span">({"; ".join(links)})</span>'


def label(entry: Entry) -> str:
    """What stands in the text: GMI 2020, Zhang et al. 2020."""
    name = short_name(entry).removesuffix(f" ({entry.year})")
    return text(f"{name} {entry.year}")


def references(cited: dict[str, Entry], up: str) -> str:
    """The list at the end of a page, by first author and year."""
    ordered = sorted(cited.values(), key=lambda entry: (entry.authors[0].split()[-1].lower(), entry.year, entry.id))
    lines = [
        f"- {text(byline(entry, 6))}. [{text(entry.title)}]({up}/{entry.id}.md). {text(entry.venue)} {entry.year}."
        for entry in ordered
    ]
    listed = "\n".join(lines)
    return f'## References\n\n<div class="ia-references" data-search-exclude markdown="1">\n\n{listed}\n\n</div>'
