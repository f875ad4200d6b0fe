"""What the site tells machines: citation and preview metadata, a content security policy, a feed of new papers."""

import base64
import hashlib
import html
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from ..catalog import Entry
from ..venues import VENUE, VENUE_KIND
from .atlas import Atlas, byline, short_name

NEWEST = 40  # papers in the feed
INLINE_SCRIPT = re.compile(r"<script(?![^>]*\bsrc=)([^>]*)>(.*?)</script>", re.DOTALL | re.IGNORECASE)
DATA_BLOCK = re.compile(r"""type=["']?(application/(ld\+)?json|text/plain)""", re.IGNORECASE)


# --- metadata ------------------------------------------------------------------------------------------


def citation_tags(entry: Entry) -> list[tuple[str, str]]:
    """Highwire and Dublin Core tags, by which reference managers import the paper from its page."""
    place = {
        "journal": "citation_journal_title",
        "conference": "citation_conference_title",
        "workshop": "citation_conference_title",
    }
    kind = VENUE_KIND[entry.venue]
    tags = [("citation_title", entry.title), *(("citation_author", author) for author in entry.authors)]
    tags.append(("citation_publication_date", str(entry.year)))
    if kind in place:
        tags.append((place[kind], VENUE[entry.venue]))
    elif kind == "thesis":
        tags.append(("citation_dissertation_institution", VENUE[entry.venue]))
    tags += [("citation_doi", entry.doi)] if entry.doi else []
    tags += [("citation_arxiv_id", entry.arxiv)] if entry.arxiv else []
    address = next(iter(entry.links.values()), None)
    tags += [("citation_public_url", address)] if address else []
    tags += [("DC.title", entry.title), *(("DC.creator", author) for author in entry.authors), ("DC.date", str(entry.year))]
    tags += [("DC.identifier", f"doi:{entry.doi}")] if entry.doi else []
    return tags


def preview_tags(title: str, description: str, address: str, image: str = "") -> list[tuple[str, str]]:
    """Open Graph tags: what other sites show when somebody shares a page."""
    tags = [("og:type", "article"), ("og:site_name", "Inversion Atlas"), ("og:title", title), ("og:url", address)]
    tags += [("og:description", description)] if description else []
    tags += [("og:image", image)] if image else []
    return [*tags, ("twitter:card", "summary_large_image" if image else "summary")]


# --- mathematics ---------------------------------------------------------------------------------------------------------


def with_mathematics(page: str, root: str) -> str:
    """A page of HTML with the scripts that set its formulas, if it has any; `root` leads to the site's root."""
    if 'class="arithmatex"' not in page:
        return page
    style = f'<link rel="stylesheet" href="{root}assets/vendor/katex/katex.min.css">'
    code = "".join(
        f'<script src="{root}assets/{name}" defer></script>' for name in ("vendor/katex/katex.min.js", "javascripts/math.js")
    )
    return page.replace("</head>", f"{style}{code}</head>", 1)


# --- policy ------------------------------------------------------------------------------------------


def with_policy(page: str) -> str:
    """A page of HTML with a content security policy: nothing from other hosts, no inline script but those it has now."""
    hashes = sorted(
        {
            f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
            for attributes, code in INLINE_SCRIPT.findall(page)
            if code.strip() and not DATA_BLOCK.search(attributes)
        }
    )
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' {' '.join(hashes)}".rstrip(),
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data:",
            "font-src 'self'",
            "connect-src 'self'",
            "worker-src 'self' blob:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    tag = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True).replace("&#x27;", "&#39;")}">'
    return re.sub(r"(<head[^>]*>)", lambda match: match[1] + tag, page, count=1)


# --- feed ------------------------------------------------------------------------------------------


def first_seen(root: Path) -> dict[str, str]:
    """When each entry came into papers.yaml by the repository's history (ISO date and time); empty without a history."""
    command = ["git", "log", "--reverse", "--unified=0", "--format=@%cI", "-p", "--", "papers.yaml"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    found: dict[str, str] = {}
    when = ""
    for line in done.stdout.splitlines():
        if line.startswith("@2"):
            when = line[1:]
        elif match := re.match(r"\+- id: ([a-z0-9_]+)", line):
            found.setdefault(match[1], when)
    return found


def feed(atlas: Atlas, seen: Mapping[str, str], site_url: str) -> str:
    """An Atom feed of the papers that came into the catalog last."""
    dated = [(seen.get(entry.id, f"{entry.year}-01-01T00:00:00Z"), entry) for entry in atlas.catalog]
    dated.sort(key=lambda pair: (pair[0], pair[1].year, pair[1].id), reverse=True)
    newest = dated[:NEWEST]
    updated = newest[0][0] if newest else "1970-01-01T00:00:00Z"
    items = "".join(feed_entry(entry, when, site_url) for when, entry in newest)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">\n'
        f"<title>Inversion Atlas: new papers</title>\n<id>{escape(site_url)}</id>\n<updated>{updated}</updated>\n"
        f'<link href="{escape(site_url)}"/>\n<link rel="self" href="{escape(site_url)}feed.xml"/>\n{items}</feed>\n'
    )


def feed_entry(entry: Entry, when: str, site_url: str) -> str:
    address = f"{site_url}papers/{entry.id}/"
    summary = escape(entry.summary or entry.title)
    return (
        f"<entry><title>{escape(f'{short_name(entry)}: {entry.title}' if entry.method else entry.title)}</title>"
        f'<id>{escape(address)}</id><link href="{escape(address)}"/><updated>{when}</updated>'
        f"<author><name>{escape(byline(entry))}</name></author><summary>{summary}</summary></entry>\n"
    )
