"""How good the catalog's data are, and what a contributor could improve: python -m scripts.report, and a page of the site."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from scripts.catalog import FACETS, Catalog, Entry
from scripts.catalog.files import ROOT
from scripts.catalog.model import NEEDS_THREAT_MODEL
from scripts.site.atlas import Atlas, read_atlas
from scripts.site.recorded import verdicts

# hosts of publishers, proceedings, preprint servers and their own indexes
PRIMARY = (
    "arxiv.org", "doi.org", "openreview.net", "openaccess.thecvf.com", "ecva.net", "aclanthology.org", "usenix.org",
    "ndss-symposium.org", "ieeexplore.ieee.org", "computer.org", "dl.acm.org", "springer.com", "sciencedirect.com",
    "proceedings.mlr.press", "neurips.cc", "nips.cc", "ojs.aaai.org", "ijcai.org", "petsymposium.org", "jmlr.org",
    "iclr.cc", "dblp.org", "drops.dagstuhl.de", "acsac.org", "aclweb.org", "merl.com", "icml.cc", "aaai.org",
    "isca-speech.org", "iacr.org", "royalsocietypublishing.org", "nature.com", "mdpi.com", "wiley.com", "ceur-ws.org",
    "hal.science", "bmvc2022.mpi-inf.mpg.de", "mlsys.org",
)  # fmt: skip


@dataclass(frozen=True)
class Gap:
    """One thing that could be better: which entries lack it, and how to mend it."""

    name: str
    says: str
    lacks: Callable[[Entry], bool]


GAPS = (
    Gap(
        "not at full depth",
        "Add contributions, limitations, basis and, for attacks and defenses, taxonomy.",
        lambda entry: entry.depth != "full",
    ),
    Gap(
        "judged from the abstract alone",
        "Read the method and the tables, correct threat model and summary, and say in `basis` where.",
        lambda entry: (entry.basis or "").lower().startswith("abstract") and ";" not in (entry.basis or ""),
    ),
    Gap(
        "claims without the paper's figure",
        "Add `reported` with data set, metric, value and table.",
        lambda entry: any(claim.reported is None for claim in entry.claims),
    ),
    Gap(
        "methods without a link to the authors' code",
        "Add the official repository, if there is one.",
        lambda entry: entry.kind in NEEDS_THREAT_MODEL and not entry.code,
    ),
    Gap(
        "without an identifier",
        "Add arXiv id, DOI or OpenReview id, if there is one.",
        lambda entry: not (entry.arxiv or entry.doi or entry.openreview),
    ),
    Gap(
        "checked against a secondary page",
        "Check the facts against the publisher's page or arXiv and name it in `verified`.",
        lambda entry: entry.verified is not None and not primary(entry.verified),
    ),
    Gap(
        "with facts that no page was found for",
        "Find a public page with title, authors, year and venue, and name it in `verified`; `note` says what is open.",
        lambda entry: entry.verified is None,
    ),
    Gap(
        "related to no other paper",
        "Add what it extends, compares with, breaks or defends against.",
        lambda entry: not any(ids for _, ids in entry.relations),
    ),
)


def primary(address: str) -> bool:
    """Whether a page is of a publisher, a proceedings site or a preprint server."""
    host = urlsplit(address).netloc.lower().removeprefix("www.")
    return any(host == known or host.endswith(f".{known}") for known in PRIMARY)


@dataclass(frozen=True)
class Part:
    """One table of the report, in plain texts and numbers; `entries` lists, by row, the entries that it counts."""

    title: str
    says: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    entries: tuple[tuple[Entry, ...], ...] = ()


def report(atlas: Atlas) -> list[Part]:
    """All tables of the report."""
    return [at_a_glance(atlas), gaps(atlas.catalog), coverage(atlas), years(atlas.catalog), *facets(atlas.catalog)]


def share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} %" if total else "–"


def at_a_glance(atlas: Atlas) -> Part:
    catalog = atlas.catalog
    total = len(catalog)
    survey = [entry for entry in catalog if entry.in_survey]
    held = [verdicts(result) for result in atlas.results.values()]
    counts = [
        ("entries", total, ""),
        ("with checked facts and the page they were checked against", sum(bool(e.verified) for e in catalog), total),
        ("with a summary", sum(bool(e.summary) for e in catalog), total),
        ("at full depth", sum(e.depth == "full" for e in catalog), total),
        ("on the survey's own list", len(survey), total),
        ("of these at full depth", sum(e.depth == "full" for e in survey), len(survey)),
        ("implemented here", sum(e.id in atlas.modules for e in catalog), total),
        ("with a measured result", sum(e.id in atlas.results for e in catalog), total),
        ("claims measured", sum(checked for _, checked in held), ""),
        ("claims reproduced", sum(good for good, _ in held), sum(checked for _, checked in held)),
    ]
    rows = tuple((name, f"{count:,}", share(count, whole) if isinstance(whole, int) else "") for name, count, whole in counts)
    return Part("At a glance", "", ("What", "Number", "Share"), rows)


def gaps(catalog: Catalog) -> Part:
    found = [tuple(entry for entry in catalog if gap.lacks(entry)) for gap in GAPS]
    rows = tuple(
        (gap.name, f"{len(entries):,}", share(len(entries), len(catalog)), gap.says)
        for gap, entries in zip(GAPS, found, strict=True)
    )
    says = "Each row is work that a contributor can do from a browser."
    return Part("What could be better", says, ("Entries …", "Number", "Share", "How to mend it"), rows, tuple(found))


def coverage(atlas: Atlas) -> Part:
    """Implemented papers by setting, with the verdicts on their claims."""
    rows = []
    for setting, entries in grouped(atlas.catalog, "setting"):
        methods = [entry for entry in entries if entry.kind in NEEDS_THREAT_MODEL]
        here = [entry for entry in entries if entry.id in atlas.modules]
        held = [verdicts(atlas.results.get(entry.id)) for entry in here]
        good, checked = sum(h for h, _ in held), sum(c for _, c in held)
        rows.append((setting, str(len(methods)), str(len(here)), share(len(here), len(methods)), f"{good} of {checked}"))
    head = ("Setting", "Attacks and defenses", "Implemented", "Share", "Claims reproduced")
    return Part("Implementations", "Methods of each setting, and how many run here.", head, tuple(rows))


def years(catalog: Catalog) -> Part:
    kinds = [kind for kind, _ in grouped(catalog, "kind")]
    rows = []
    for year in sorted({entry.year for entry in catalog}, reverse=True):
        counts = Counter(entry.kind for entry in catalog if entry.year == year)
        rows.append((str(year), str(counts.total()), *(str(counts[kind] or "") for kind in kinds)))
    return Part("By year", "Year at the venue.", ("Year", "All", *kinds), tuple(rows))


def facets(catalog: Catalog) -> Iterable[Part]:
    for facet in FACETS:
        rows = tuple((term, str(len(entries)), share(len(entries), len(catalog))) for term, entries in grouped(catalog, facet))
        yield Part(f"By {facet}", "An entry may have several terms.", (facet.capitalize(), "Entries", "Share"), rows)


def grouped(catalog: Catalog, facet: str) -> list[tuple[str, list[Entry]]]:
    """The terms in use, most used first, each with its entries."""
    found: dict[str, list[Entry]] = {}
    for entry in catalog:
        for term in entry.terms(facet):
            found.setdefault(term, []).append(entry)
    return sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))


def main(words: Sequence[str] | None = None) -> int:
    """Prints the report; `--ids` also prints the entries behind each gap."""
    words = sys.argv[1:] if words is None else words
    atlas = read_atlas(ROOT, ROOT / "docs", "https://example.org")
    console = Console(width=None if sys.stdout.isatty() else 140)
    for part in report(atlas):
        table = Table(*part.head, title=f"{part.title}. {part.says}".strip(), title_justify="left")
        for row in part.rows:
            table.add_row(*row)
        console.print(table)
        if "--ids" in words:
            for row, entries in zip(part.rows, part.entries, strict=False):
                console.print(f"{row[0]}: {' '.join(entry.id for entry in entries)}", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
