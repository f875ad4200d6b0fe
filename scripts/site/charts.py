"""Pictures drawn at build as SVG that follows the page's colours: a paper's lineage, the field's timeline, the lineage map."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import networkx

from ..catalog import Entry
from ..vocabulary import VOCABULARIES
from .atlas import RELATIONS, Atlas, short_name
from .markup import badge, block, page, shorten, text

CHARACTER = 6.6  # pixels of an average character at the font size used
ROW = 34  # pixels between two boxes of a column
BOX = 24  # height of a box


@dataclass(frozen=True)
class Box:
    """A paper in a drawing."""

    entry: Entry
    x: float
    y: float
    width: float


def svg(width: float, height: float, label: str, parts: Iterable[str]) -> str:
    """An inline drawing on one line, so that Markdown leaves it alone."""
    body = "".join(parts)
    return (
        f'<svg class="ia-chart" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'role="group" aria-label="{text(label)}" xmlns="http://www.w3.org/2000/svg">{body}</svg>'
    )


def framed(drawing: str, css: str = "") -> str:
    """A drawing in a box that scrolls; raw HTML, which Markdown leaves as it is."""
    return f'<div class="ia-scroll {css}">{drawing}</div>'


def label_width(entry: Entry) -> float:
    return CHARACTER * len(box_label(entry)) + 16


def box_label(entry: Entry) -> str:
    return f"{shorten(short_name(entry), 28)} {entry.year if entry.method else ''}".strip()


def drawn_box(box: Box, href: str, css: str) -> str:
    """A linked box with a paper's name."""
    title = f"<title>{text(entry_title(box.entry))}</title>"
    rect = f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{BOX}" rx="4"/>'
    words = (
        f'<text x="{box.x + box.width / 2:.0f}" y="{box.y + 16:.0f}" text-anchor="middle">{text(box_label(box.entry))}</text>'
    )
    return f'<a href="{href}" class="ia-node {css}">{title}{rect}{words}</a>'


def entry_title(entry: Entry) -> str:
    return f"{entry.title}, {entry.venue} {entry.year}"


# --- one paper's lineage ------------------------------------------------------------


def lineage(atlas: Atlas, entry: Entry, most: int = 7) -> str:
    """What a paper builds on, to its left, and what came of it, to its right. Empty where nothing is known."""
    related = atlas.catalog.related(entry.id)
    left = [(other, "extends") for other in related.get("extends", ())]
    left += [(other, "defends_against") for other in related.get("defends_against", ())]
    left += [(other, "breaks") for other in related.get("breaks", ())]
    right = [(other, name) for name in ("extended_by", "defended_by", "broken_by") for other in related.get(name, ())]
    if not left and not right:
        return ""
    sides = [unique(left), unique(right)]
    columns = [side[:most] for side in sides]
    hidden = [max(len(side) - most, 0) for side in sides]
    widths = [max((label_width(other) for other, _ in column), default=0) for column in columns]
    own = label_width(entry)
    gap = 150.0
    start = widths[0] + gap if widths[0] else 0.0
    x = [0.0, start, start + own + gap]
    rows = max(len(columns[0]), len(columns[1]), 1)
    height = rows * ROW + 14
    middle = (height - BOX) / 2
    parts = [ARROW]
    me = Box(entry, x[1], middle, own)
    for side, column in enumerate(columns):
        top = (height - (len(column) - 1) * ROW - BOX) / 2
        for index, (other, relation) in enumerate(column):
            box = Box(other, x[0] + widths[0] - label_width(other) if not side else x[2], top + index * ROW, label_width(other))
            ends = (box, me) if not side else (me, box)
            parts.append(edge(ends[0], ends[1], RELATIONS[relation].lower(), relation))
            parts.append(drawn_box(box, f"../{other.id}/", ""))
    parts.append(drawn_box(me, f"../{entry.id}/", "ia-node--own"))
    width = x[2] + widths[1] if columns[1] else x[1] + own
    drawing = svg(width, height, f"Papers that {short_name(entry)} builds on and papers that build on it", parts)
    notes = [f"{count} more {where}" for count, where in zip(hidden, ("to its left", "to its right"), strict=True) if count]
    more = f"\n\nNot drawn: {', '.join(notes)}; all stand in the table.\n{{ .ia-note }}" if notes else ""
    return framed(drawing, "ia-lineage") + more


ARROW = (
    '<defs><marker id="ia-arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0 L8 4 L0 8 z" class="ia-arrowhead"/></marker></defs>'
)


def unique(pairs: Sequence[tuple[Entry, str]]) -> list[tuple[Entry, str]]:
    """Each paper once, oldest first."""
    found = {other.id: (other, relation) for other, relation in reversed(pairs)}
    return sorted(found.values(), key=lambda pair: (pair[0].year, pair[0].id))


def edge(start: Box, end: Box, words: str, relation: str, bow: float = 0) -> str:
    """A curve between two boxes that tells the relation when pointed at; `bow` lifts it over boxes between them."""
    x1, y1 = start.x + start.width, start.y + BOX / 2
    x2, y2 = end.x, end.y + BOX / 2
    bend = (x2 - x1) / 2
    css = {
        "breaks": "ia-edge--bad",
        "broken_by": "ia-edge--bad",
        "defends_against": "ia-edge--good",
        "defended_by": "ia-edge--good",
    }
    curve = f"M{x1:.0f} {y1:.0f} C{x1 + bend:.0f} {y1 - bow:.0f} {x2 - bend:.0f} {y2 - bow:.0f} {x2 - 2:.0f} {y2:.0f}"
    path = f'<path class="ia-edge {css.get(relation, "")}" d="{curve}" marker-end="url(#ia-arrow)"/>'
    return f"<g><title>{text(words)}</title>{path}</g>"


# --- timeline ------------------------------------------------------------


def timeline(atlas: Atlas) -> str:
    """Markdown of timeline.md: papers a year by setting, and the papers that others build on most."""
    says = (
        "Papers of the catalog by year and setting, and below, for each year, the papers that most others of the catalog "
        "extend, break, defend against or compare themselves with."
    )
    about = "How the field grew, and the papers it grew from."
    sections = [bars(atlas), "## Landmarks by year", landmarks(atlas)]
    return page("Timeline", says, sections, about, hide=("navigation", "toc"), searched=False)


def bars(atlas: Atlas) -> str:
    """Stacked bars: papers a year, by setting."""
    settings = [term for term, _ in Counter(entry.setting for entry in atlas.catalog).most_common()]
    years = range(min(entry.year for entry in atlas.catalog), max(entry.year for entry in atlas.catalog) + 1)
    first = max(years[0], 2012)  # the few before stand together
    counts = Counter((max(entry.year, first), entry.setting) for entry in atlas.catalog)
    totals = Counter(max(entry.year, first) for entry in atlas.catalog)
    top, step, bar, left = 220.0, 56.0, 36.0, 10.0
    scale = top / max(totals.values())
    parts = []
    for index, year in enumerate(range(first, years[-1] + 1)):
        y = top + 24
        x = left + index * step
        for number, setting in enumerate(settings):
            size = counts[(year, setting)] * scale
            if size:
                y -= size
                title = f"<title>{year}: {counts[(year, setting)]} {text(setting)}</title>"
                place = f'x="{x:.0f}" y="{y:.1f}" width="{bar:.0f}" height="{size:.1f}"'
                parts.append(f'<rect class="ia-series-{number % 10}" {place}>{title}</rect>')
        parts.append(f'<text x="{x + bar / 2:.0f}" y="{y - 4:.0f}" text-anchor="middle">{totals[year] or ""}</text>')
        name = f"≤{year}" if year == first and first > years[0] else str(year)
        parts.append(f'<text x="{x + bar / 2:.0f}" y="{top + 42:.0f}" text-anchor="middle">{name}</text>')
    width = left + (years[-1] - first + 1) * step
    drawing = svg(width, top + 52, "Papers a year by setting", parts)
    keys = " ".join(
        f'<span class="ia-key"><i class="ia-series-{n % 10}"></i>{text(setting)}</span>' for n, setting in enumerate(settings)
    )
    return f'{framed(drawing)}\n\n<p class="ia-keys">{keys}</p>'


def landmarks(atlas: Atlas, most: int = 6) -> str:
    """For each year the papers that most others refer to."""
    weight = atlas.influence
    lines = []
    for year in sorted({entry.year for entry in atlas.catalog}, reverse=True):
        papers = sorted(
            (e for e in atlas.catalog if e.year == year), key=lambda e: (-weight[e.id], e.id not in atlas.modules, e.id)
        )
        shown = []
        for entry in papers[:most]:
            here = f" {badge('implemented', 'good')}" if entry.id in atlas.modules else ""
            shown.append(f"[**{text(short_name(entry))}**](papers/{entry.id}.md) {text(shorten(entry.title, 90))}{here}")
        rest = len(papers) - len(shown)
        more = f'<br><a href="../browse/?from={year}&to={year}">{rest} more of {year}</a>' if rest else ""
        lines.append(f"### {year}\n\n" + "\n".join(f"- {item}" for item in shown) + more)
    return block("ia-landmarks", "\n\n".join(lines))


# --- lineage map ------------------------------------------------------------


def lineage_map(atlas: Atlas) -> str:
    """Markdown of lineage.md: for each setting, who builds on whom, years from left to right."""
    says = (
        "Which method builds on which: an arrow leads from a paper to one that extends it; green, to a defense against it; "
        "red, to an attack that breaks it. Years run from left to right. Only papers with such a relation are drawn."
    )
    drawings = ((setting, setting_map(atlas, setting)) for setting in VOCABULARIES["setting"])
    sections = [f"## {text(setting)}\n\n" + framed(drawing, "ia-lineage") for setting, drawing in drawings if drawing]
    about = "Which method builds on which, by setting and year."
    return page("Lineage", says, sections, about, hide=("navigation", "toc"), searched=False)


def setting_map(atlas: Atlas, setting: str) -> str:
    """The graph of one setting's papers, a column a year."""
    links = []
    for entry in atlas.catalog:
        for relation in ("extends", "defends_against", "breaks"):
            for target in getattr(entry.relations, relation):
                other = atlas.catalog[target]
                if entry.setting == setting and other.setting == setting:
                    links.append((other, entry, relation))
    if not links:
        return ""
    graph = networkx.DiGraph((a.id, b.id) for a, b, _ in links)
    papers = {e.id: e for a, b, _ in links for e in (a, b)}
    columns: dict[int, list[Entry]] = {}
    for entry in sorted(papers.values(), key=lambda e: (-graph.degree(e.id), e.id)):
        columns.setdefault(entry.year, []).append(entry)
    boxes: dict[str, Box] = {}
    x = 0.0
    order = sorted(columns)
    for year in order:
        column = columns[year]
        if boxes:  # near to what they build on: the mean height of their predecessors
            column.sort(key=lambda e: mean([boxes[p].y for p in graph.predecessors(e.id) if p in boxes]))
        width = max(label_width(entry) for entry in column)
        for index, entry in enumerate(column):
            boxes[entry.id] = Box(entry, x, 24 + index * ROW, width)
        x += width + 60
    height = 24 + max(len(column) for column in columns.values()) * ROW

    def bow(a: Entry, b: Entry) -> float:
        return 20 if order.index(b.year) - order.index(a.year) > 1 else 0

    heads = [f'<text class="ia-year" x="{boxes[columns[year][0].id].x:.0f}" y="14">{year}</text>' for year in order]
    edges = [
        edge(boxes[a.id], boxes[b.id], f"{short_name(b)}: {RELATIONS[r].lower()} {short_name(a)}", r, bow(a, b))
        for a, b, r in links
        if boxes[a.id].x < boxes[b.id].x
    ]
    nodes = [
        drawn_box(box, f"../papers/{paper}/", "ia-node--own" if paper in atlas.modules else "") for paper, box in boxes.items()
    ]
    return svg(x - 60, height, f"Which papers on {setting} build on which", [ARROW, *heads, *edges, *nodes])


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 1e6
