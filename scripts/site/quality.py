"""The page on the data's quality, from the tables of scripts/report.py."""

from ..report import Part, report
from .atlas import Atlas, short_name
from .markup import block, external, folded, link, page, table, text


def quality_page(atlas: Atlas) -> str:
    """Markdown of data-quality.md."""
    about = "How complete and how well checked the catalog is, and what a contributor can improve."
    source = external("papers.yaml", atlas.blob("papers.yaml"))
    says = (
        f"{about} Counted when this site was built; `make catalog-report` prints the same. Mend an entry in "
        f"{source}; [Contribute](contribute.md) says how."
    )
    return page("Data quality", says, [section(part) for part in report(atlas)], about, searched=False)


def section(part: Part) -> str:
    """One table, and the entries behind its rows where there are any."""
    align = "l" + "".join("r" if cell_is_number(part, index) else "l" for index in range(1, len(part.head)))
    rows = [tuple(text(cell) for cell in row) for row in part.rows]
    listed = block("ia-scroll", table([text(name) for name in part.head], rows, align, empty="&nbsp;"))
    found = [f"## {text(part.title)}", text(part.says), listed]
    for row, entries in zip(part.rows, part.entries, strict=False):
        if entries:
            names = ", ".join(link(short_name(entry), f"papers/{entry.id}.md") for entry in entries)
            found.append(folded(f"{text(row[0])}: {len(entries)}", names))
    return "\n\n".join(piece for piece in found if piece)


def cell_is_number(part: Part, index: int) -> bool:
    """Whether a column holds counts and shares."""
    return all(row[index][:1].isdigit() or row[index] in ("", "–") for row in part.rows)
