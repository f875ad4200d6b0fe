"""The taxonomy: an overview, a page a vocabulary, a page a term with its definition, history and papers."""

from collections import Counter
from collections.abc import Mapping
from urllib.parse import quote

from ..catalog import FACETS, Entry
from ..venues import KINDS
from ..vocabulary import VOCABULARIES
from .atlas import Atlas, byline, short_name, title_after_name
from .citations import cited_text
from .markup import anchor, block, front_matter, link, number, page, table, term_link, term_page, text
from .paper_page import status

TAXONOMY = {
    "kind": ("Kinds of work", "What a paper is: an attack, a defense, a measurement."),
    "setting": ("Settings", "Which system is attacked, and what of it is exposed."),
    "modality": ("Modalities", "Which kind of private data is at stake."),
    "access": ("Access", "What the adversary sees. In the code each is an oracle that answers exactly this."),
    "goal": ("Goals", "What the adversary tries to rebuild."),
    "knowledge": ("Knowledge", "What the adversary may assume besides its access."),
    "adversary": ("Adversaries", "Who the adversary is."),
    "approach": ("Approaches", "How the attack or defense goes about it."),
    "technique": ("Techniques", "The tools that the methods are built from."),
    "venue": ("Venues", "Where the papers appeared."),
}
SHOWN = 14  # terms of a vocabulary on its card
LISTED = 300  # papers on a term's page; the browser shows the rest
TRENDS = 3  # other terms that a term's page names as its most frequent company


def taxonomy(atlas: Atlas) -> dict[str, str]:
    """All pages of the taxonomy by their path in docs/."""
    by_facet = {facet: by_term(atlas, facet) for facet in FACETS}
    pages = {"taxonomy/index.md": taxonomy_index(by_facet)}
    for facet, used in by_facet.items():
        pages[f"taxonomy/{facet}.md"] = venues_page(used) if facet == "venue" else vocabulary_page(facet, used)
        if facet != "venue":
            for term in VOCABULARIES[facet]:
                pages[f"taxonomy/{term_page(facet, term)}"] = term_papers_page(atlas, facet, term, used.get(term, []))
    return pages


def by_term(atlas: Atlas, facet: str) -> dict[str, list[Entry]]:
    """The entries of each term in use, newest first."""
    found: dict[str, list[Entry]] = {}
    for entry in sorted(atlas.catalog.entries, key=lambda entry: (-entry.year, short_name(entry).lower())):
        for term in entry.terms(facet):
            found.setdefault(term, []).append(entry)
    return found


def browse(facet: str, term: str, label: str, up: str) -> str:
    """A link to the browser with one term chosen. The address is of the built site, so it is HTML."""
    return f'<a href="{up}browse/?{facet}={quote(term)}">{text(label)}</a>'


def taxonomy_index(by_facet: Mapping[str, Mapping[str, list[Entry]]]) -> str:
    """Markdown of taxonomy/index.md, from the entries of each term of each vocabulary."""
    cards = []
    for facet, used in by_facet.items():
        title, says = TAXONOMY[facet]
        terms = [term for term in VOCABULARIES[facet] if term in used]
        if facet == "venue":
            terms.sort(key=lambda term: -len(used[term]))
        shown = " ".join(term_link(facet, term, up="../") for term in terms[:SHOWN])
        more = f" [and {len(terms) - SHOWN} more]({facet}.md)" if len(terms) > SHOWN else ""
        cards.append(block("ia-card", f"### [{text(title)}]({facet}.md)\n\n{text(says)}\n\n{shown}{more}"))
    about = "The vocabularies by which papers are sorted."
    says = (
        "Every paper is described in the same closed vocabularies. Each term has a definition and a page of its own. The same "
        "terms filter the [browser](../browse.md) and the command line: `python -m implementations list --access label-only`."
    )
    listed = block("ia-cards ia-cards--two", "\n\n".join(cards))
    return page("Taxonomy", says, [listed], about, hide=("navigation", "toc"))


def vocabulary_page(facet: str, used: Mapping[str, list[Entry]]) -> str:
    """Markdown of taxonomy/<facet>.md: every term with definition, number of papers, first paper."""
    title, says = TAXONOMY[facet]
    rows = []
    for term, definition in VOCABULARIES[facet].items():
        entries = used.get(term, [])
        since = str(min(entry.year for entry in entries)) if entries else ""
        rows.append((term_link(facet, term, up="../"), text(definition), str(len(entries)), since))
    listed = block("ia-terms", table(("Term", "Definition", "Papers", "Since"), rows, "llrr"))
    return page(title, f"{text(says)} All vocabularies: [taxonomy](index.md).", [listed], says)


def venues_page(used: Mapping[str, list[Entry]]) -> str:
    """Markdown of taxonomy/venue.md: the venues in use by kind."""
    title, says = TAXONOMY["venue"]
    about = f"{text(says)} Each number leads to the papers. All vocabularies: [taxonomy](index.md)."
    sections = []
    for kind, venues in KINDS.items():
        rows = [
            (
                f'<span id="{anchor(short)}">{text(short)}</span>',
                text(full) if full != short else "",
                browse("venue", short, f"{len(used[short])} paper{'s' if len(used[short]) > 1 else ''}", "../../"),
            )
            for short, full in venues.items()
            if short in used
        ]
        if rows:
            heading = {"web": "On the web", "thesis": "Theses", "preprint": "Preprints"}.get(kind, f"{kind.capitalize()}s")
            sections.append(f"## {heading}\n\n" + block("ia-terms", table(("Venue", "Full name", "Papers"), rows, "llr")))
    return page(title, about, sections, says)


def term_papers_page(atlas: Atlas, facet: str, term: str, entries: list[Entry]) -> str:
    """Markdown of taxonomy/<facet>/<term>.md."""
    title, _ = TAXONOMY[facet]
    definition = VOCABULARIES[facet][term]
    parts = [
        front_matter(f"{term} ({facet})", hide=["navigation", "toc"], description=definition),
        f'<p class="ia-crumb" markdown="1">[Taxonomy](../index.md) › [{text(title)}](../{facet}.md)</p>',
        f"# {text(term)}\n\n{text(definition)}\n{{ .ia-lead }}",
        cited_text(atlas.histories.get(facet, {}).get(term, ""), atlas, f"taxonomy/{term_page(facet, term)}"),
        census(facet, entries),
    ]
    if entries:
        rows = []
        for entry in entries[:LISTED]:
            name = f"[**{text(short_name(entry))}**](../../papers/{entry.id}.md)"
            full = title_after_name(entry)
            shown = name + (f"<br>{text(full)}" if full != short_name(entry) else "")
            rows.append(
                (
                    f"{shown}<br><small>{text(byline(entry))}</small>",
                    f"{text(entry.venue)} {entry.year}",
                    " ".join(status(atlas, entry)),
                )
            )
        heading = f"## {len(entries)} paper{'s' if len(entries) > 1 else ''}, newest first"
        listed = block("ia-papers", table(("Paper", "Venue", "Here"), rows, empty="&nbsp;"), "section", " data-search-exclude")
        further = browse(facet, term, "Filter these further", "../../../")
        parts += [f"{heading}\n\n{further}", listed]
        if len(entries) > LISTED:
            parts.append(browse(facet, term, f"All {len(entries):,} in the browser", "../../../"))
    else:
        parts.append("No paper of the catalog has this term yet. [Add one](../../contribute.md).")
    return "\n\n".join(part for part in parts if part) + "\n"


def census(facet: str, entries: list[Entry]) -> str:
    """What the catalog says about a term in numbers: first paper, busiest year, the terms it comes with."""
    if not entries:
        return ""
    first = min(entries, key=lambda entry: (entry.year, entry.id))
    busiest, most = Counter(entry.year for entry in entries).most_common(1)[0]
    lines = [
        f"First in the catalog: {link(short_name(first), f'../../papers/{first.id}.md')}, {first.year}. "
        f"Most papers in one year: {number(most)}, in {busiest}."
    ]
    for other in ("access", "approach", "technique"):
        if other == facet:
            continue
        together = Counter(term for entry in entries for term in entry.terms(other)).most_common(TRENDS)
        if together:
            named = ", ".join(f"{term_link(other, term, up='../../')} ({count})" for term, count in together)
            lines.append(f"Most frequent {other}: {named}.")
    return block("ia-note", " ".join(lines))
