"""Brings papers into the catalog: python -m scripts.importer FILE.bib | arXiv id | DOI

New papers get an entry in their place, with TODO where only a reader of the paper can say what belongs there; `make check`
names each. Papers that the catalog has already get the fields they lack; a fact that stands there is never overwritten, a
difference is reported. Nothing is written if nothing can be used.
"""

import argparse
import difflib
import re
import sys
import unicodedata
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bibtexparser
import yaml
from bibtexparser.middlewares import LatexDecodingMiddleware, SeparateCoAuthors
from bibtexparser.middlewares.names import parse_single_name_into_parts
from pydantic_core import PydanticCustomError

from scripts.catalog import CatalogError, format_text
from scripts.catalog.checker import find, normalised
from scripts.catalog.files import PAPERS, write_atomically
from scripts.catalog.model import ARXIV, DOI, arxiv_id, doi_name, openreview_id, person, publisher_link, title_text, year_number
from scripts.catalog.tree import MAX_BYTES, Node, parse, read_text
from scripts.venues import VENUE

FACTS = ("title", "authors", "year", "venue", "arxiv", "doi", "openreview", "url")
OPTIONAL = ("arxiv", "doi", "openreview", "url")
TO_FILL = ("kind", "setting", "modality", "summary", "verified")
NO_NAME = re.compile(r"^in:? |\b(proceedings of( the)?|proc\.( of( the)?)?|\d+(st|nd|rd|th)|annual|(19|20)\d\d)\b")
OF_A_TITLE = {"a", "an", "the", "on", "of", "in", "for", "to", "and", "with", "from", "by", "via", "is", "are", "do", "does"}


class ImportFailed(Exception):
    """Nothing was imported; the message says why and what to do."""


@dataclass
class Record:
    """One paper as BibTeX has it: checked facts, and what could not be used."""

    key: str
    facts: dict[str, Any]
    unused: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What an import did, in lines to print."""

    lines: list[str] = field(default_factory=list)
    changed: int = 0


# --- BibTeX to records -----------------------------------------------------------------------------------------------------


def read_records(text: str) -> tuple[list[Record], list[str]]:
    """The records of BibTeX text, and what is wrong with the rest of it."""
    library = bibtexparser.parse_string(text, append_middleware=[LatexDecodingMiddleware(), SeparateCoAuthors()])
    problems = []
    for block in library.failed_blocks:
        line = block.start_line + 1 if block.start_line is not None else 1
        reason = getattr(block.error, "abort_reason", None) or type(block.error).__name__
        problems.append(f"line {line}: not BibTeX, left out: {reason}")
    return [record(entry) for entry in library.entries], problems


def record(entry: bibtexparser.model.Entry) -> Record:
    """The facts of one BibTeX entry that pass the catalog's rules."""
    given = {name.lower(): found.value for name, found in entry.fields_dict.items()}
    made = Record(entry.key, {})

    def use(name: str, value: Any, rule: Callable[[Any], Any]) -> None:
        if value in (None, "", []):
            return
        try:
            made.facts[name] = rule(value)
        except (PydanticCustomError, ValueError) as error:
            message = error.message() if isinstance(error, PydanticCustomError) else str(error)
            made.unused.append(f"{name} {str(value)[:80]!r}: {message}")

    use("title", plain(given.get("title", "")).rstrip("."), title_text)
    use("authors", given.get("author"), lambda names: [person(name) for name in map(given_family, names)])
    use("year", year_of(given), year_number)
    use("arxiv", arxiv_of(given), arxiv_id)
    use("doi", re.sub(r"^(https?://)?(dx\.)?doi\.org/", "", plain(given.get("doi", ""))) or None, doi_name)
    if (doi := made.facts.get("doi", "")).lower().startswith("10.48550/arxiv."):
        made.facts.setdefault("arxiv", doi.rpartition("arxiv.")[2].rpartition("arXiv.")[2])
        del made.facts["doi"]
    url = plain(given.get("url", ""))
    if match := re.search(r"openreview\.net/(?:forum|pdf)\?id=([\w-]+)", url):
        use("openreview", match[1], openreview_id)
    elif url and not re.search(r"arxiv\.org/|doi\.org/", url) and not {"arxiv", "doi"} & set(made.facts):
        use("url", url, publisher_link)
    place = plain(given.get("booktitle") or given.get("journal") or given.get("howpublished") or given.get("school") or "")
    made.facts["venue"] = venue_of(place, made.facts) or "TODO"
    if made.facts["venue"] == "TODO":
        made.unused.append(f"venue {place[:80]!r}: not among the venues of scripts/venues.py; choose one or add it there")
    return made


def plain(value: Any) -> str:
    """A field as one line of text without the braces that protect capitals."""
    return " ".join(str(value).replace("{", "").replace("}", "").split())


def given_family(name: str) -> str:
    """A BibTeX name as "Given Family". Raises ValueError for what stands for unnamed people."""
    if name.lower() in ("others", "et al."):
        raise ValueError("all authors are expected by name")
    parts = parse_single_name_into_parts(plain(name))
    return " ".join([*parts.first, *parts.von, *parts.last, *parts.jr])


def year_of(given: dict[str, Any]) -> int | None:
    match = re.search(r"\b(19|20)\d\d\b", str(given.get("year") or given.get("date") or ""))
    return int(match.group()) if match else None


def arxiv_of(given: dict[str, Any]) -> str | None:
    """The arXiv id in any field where BibTeX files carry one."""
    eprint = plain(given.get("eprint", ""))
    if eprint and "arxiv" in (plain(given.get("archiveprefix", "")) + plain(given.get("eprinttype", "")) + eprint).lower():
        return re.sub(r"^arxiv:|v\d+$", "", eprint, flags=re.IGNORECASE)
    for name in ("eprint", "journal", "url", "doi", "note", "number"):
        words = plain(given.get(name, ""))
        if "arxiv" in words.lower() and (match := ARXIV.search(words)):
            return match.group()
    return eprint if ARXIV.fullmatch(eprint) else None


def venue_of(place: str, facts: dict[str, Any]) -> str | None:
    """The venue term that a BibTeX venue means, or None."""
    if "arxiv" in place.lower() or (not place and "arxiv" in facts):
        return "arXiv"
    short = {name.lower(): name for name in VENUE}
    full = {name.lower(): short for short, name in VENUE.items()}
    bare = " ".join(re.sub(r"[,:]| +(?=\))", " ", NO_NAME.sub(" ", place.lower())).split())
    for words in (place.lower(), bare, *re.findall(r"\(([^)]*)\)", bare)):
        if found := short.get(words.strip()) or full.get(words.strip()):
            return found
    near = difflib.get_close_matches(re.sub(r"\([^)]*\)", "", bare).strip(), full, 1, 0.85)
    return full[near[0]] if near else None


# --- records into the catalog ----------------------------------------------------------------------------------------------


def merge(catalog: str, records: Iterable[Record], file: str = "papers.yaml") -> tuple[str, Report]:
    """The catalog's text with the records in it, and what was done. Raises CatalogError for a catalog that can't be read."""
    root, problems = parse(catalog, file)
    if root is None or problems or root.kind != "list":
        raise CatalogError(problems)
    report = Report()
    known = index(root)
    additions: list[str] = []
    insertions: list[tuple[int, str]] = []
    for found in records:
        report.lines += [f"{found.key}: not used: {reason}" for reason in found.unused]
        lacking = [name for name in ("title", "authors", "year") if name not in found.facts]
        if lacking:
            report.lines.append(f"{found.key}: left out: it has no usable {', '.join(lacking)}")
            continue
        same = next((known[key] for key in keys(found.facts) if key in known), None)
        if same is not None and same.kind == "map":
            insertions += complete(same, found, report)
            continue
        name = new_id(found.facts, {key[1] for key in known if key[0] == "id"})
        for key in (("id", name), *keys(found.facts)):
            known[key] = Node("bad", "", False, 0, 0, 0)  # a second record of the same paper in this import is left out
        if same is not None:
            report.lines.append(f"{found.key}: left out: the same paper stands in this import already")
            continue
        additions.append(new_entry(name, found.facts))
        report.changed += 1
        report.lines.append(f"{found.key}: new entry {name}; left to fill: {', '.join(left(found.facts))}")
    for position, line in sorted(insertions, reverse=True):
        catalog = catalog[:position] + line + catalog[position:]
    if not report.changed:
        return catalog, report
    return format_text("\n\n".join([catalog.rstrip("\n"), *additions]) + "\n", file), report


def keys(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What identifies a paper: its identifiers, then its title."""
    found = [(name, str(facts[name]).lower()) for name in ("arxiv", "doi", "openreview") if facts.get(name)]
    return [*found, ("title", normalised(facts["title"]))]


def index(root: Node) -> dict[tuple[str, str], Node]:
    """The entries of a catalog by id, identifiers and title."""
    known: dict[tuple[str, str], Node] = {}
    for entry in root.value:
        facts = {key.value: value.value for key, value in entry.value if value.kind == "scalar"} if entry.kind == "map" else {}
        if facts.get("title"):
            for key in (("id", facts.get("id", "")), *keys(facts)):
                known.setdefault(key, entry)
    return known


def complete(entry: Node, found: Record, report: Report) -> list[tuple[int, str]]:
    """Lines to insert for the facts that an entry lacks; differences are only reported."""
    anchor = find(entry, ("id",))
    name = anchor.value
    lines = []
    present = {key.value for key, _ in entry.value}
    for fact in FACTS:
        value = found.facts.get(fact)
        if value in (None, "TODO"):
            continue
        if fact in present:
            node = find(entry, (fact,))
            stands = [item.value for item in node.value] if node.kind == "list" else node.value
            if said(stands) != said(value):
                report.lines.append(f"{name}: {fact} stays {shown(stands)}; the import says {shown(value)}")
        elif fact in OPTIONAL:
            lines.append((anchor.end, f"\n  {fact}: {yaml.safe_dump(value, default_style=chr(34)).strip()}"))
            report.lines.append(f"{name}: {fact} {value} added; check it against the page in `verified`")
            report.changed += 1
    if not lines:
        report.lines.append(f"{name}: is in the catalog; nothing to add")
    return lines


def said(value: Any) -> Any:
    """A value for comparison: case, accents and punctuation are taken as equal."""
    return [normalised(item) for item in value] if isinstance(value, list) else normalised(str(value))


def shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else repr(value)


def new_id(facts: dict[str, Any], taken: set[str]) -> str:
    """First author, year and the first telling word of the title, made unique."""
    words = [slug(word) for word in facts["title"].split()]
    telling = next((word for word in words if word and word not in OF_A_TITLE), "paper")
    base = f"{slug(facts['authors'][0].split()[-1]) or 'anonymous'}{facts['year']}_{telling}"
    base = base if base[0].isalpha() else f"paper_{base}"
    candidates = (f"{base}{suffix}" for suffix in ("", *(f"_{number}" for number in range(2, 10_000))))
    return next(name for name in candidates if name not in taken)


def slug(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKD", word).encode("ascii", "ignore").decode().lower())


def new_entry(name: str, facts: dict[str, Any]) -> str:
    """The YAML text of a new entry with TODO where the import can't know."""
    fields = {"id": name, **{fact: facts[fact] for fact in FACTS if fact in facts}}
    fields |= {"kind": "TODO", "setting": "TODO", "modality": ["TODO"]}
    fields |= {"summary": "TODO: what it does and why it works, in your words", "verified": "TODO"}
    return yaml.safe_dump([fields], allow_unicode=True, sort_keys=False, width=10**6).rstrip("\n")


def left(facts: dict[str, Any]) -> list[str]:
    """What a reader of the paper still has to fill in."""
    return [*(["venue"] if facts["venue"] == "TODO" else []), *TO_FILL, "threat_model (of attacks and defenses)"]


# --- where records come from -----------------------------------------------------------------------------------------------

ARXIV_PAGE = "https://arxiv.org/bibtex/{}"
DOI_PAGE = "https://doi.org/{}"


def source_text(source: str) -> str:
    """BibTeX of a file, an arXiv id or a DOI. Raises ImportFailed."""
    bare = re.sub(r"^(arxiv:|https?://(dx\.)?doi\.org/|https?://arxiv\.org/abs/|doi:)", "", source.strip(), flags=re.IGNORECASE)
    if not source.strip():
        raise ImportFailed("say what to import: make import FILE=paper.bib, an arXiv id or a DOI")
    if Path(source).exists():
        text, problems = read_text(Path(source), source)
        if text is None:
            raise ImportFailed("\n".join(str(problem) for problem in problems))
        return text
    if ARXIV.fullmatch(re.sub(r"v\d+$", "", bare)):
        return fetch(ARXIV_PAGE.format(bare))
    if DOI.fullmatch(bare):
        return fetch(DOI_PAGE.format(urllib.parse.quote(bare, safe="/:;()._-")))
    raise ImportFailed(
        f"{source!r} is no file that exists, no arXiv id such as 2411.10023 and no DOI such as 10.1145/2810103.2813677"
    )


def fetch(address: str) -> str:
    """BibTeX from a public page. Raises ImportFailed."""
    request = urllib.request.Request(address, headers={"Accept": "application/x-bibtex", "User-Agent": "inversion-atlas"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read(MAX_BYTES).decode("utf-8", "replace")
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise ImportFailed(f"{address} can't be read ({reason}); save its BibTeX to a file and import that") from error


def main(words: Sequence[str] | None = None) -> int:
    """Imports; returns 0 when something was read, 1 when nothing could be, 2 for a wrong call."""
    parser = argparse.ArgumentParser(prog="make import FILE=...", description="Imports papers into papers.yaml.")
    parser.add_argument("source", metavar="FILE", help="a BibTeX file, an arXiv id or a DOI")
    parser.add_argument("--catalog", type=Path, default=PAPERS, help="the catalog to write (default: papers.yaml)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; write nothing")
    options = parser.parse_args(words)
    try:
        records, problems = read_records(source_text(options.source))
        for problem in problems:
            print(f"{options.source}: {problem}")
        if not records:
            raise ImportFailed(f"{options.source}: no BibTeX entry found")
        text, read_problems = read_text(options.catalog, str(options.catalog))
        if text is None:
            raise CatalogError(read_problems)
        merged, report = merge(text, records, str(options.catalog))
    except (ImportFailed, CatalogError) as error:
        print(error)
        return 1
    print("\n".join(report.lines))
    if report.changed and not options.dry_run:
        write_atomically(options.catalog, merged)
        print(f"{options.catalog}: written. Fill every TODO, then `make check`.")
    else:
        print("Nothing was written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
