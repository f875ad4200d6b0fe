"""The list of all papers, the list of notebooks, and the numbers and pictures of the home page."""

from itertools import groupby

from ..catalog import Entry
from ..vocabulary import VOCABULARIES
from .atlas import Atlas, short_name, title_after_name
from .markup import block, external, link, page, shorten, table, text
from .paper_page import status
from .recorded import verdicts


def papers_index(atlas: Atlas) -> str:
    """Markdown of papers/index.md: every paper on a line, newest first; the page that needs no scripts."""
    ordered = sorted(atlas.catalog.entries, key=lambda entry: (-entry.year, short_name(entry).lower()))
    about = "All papers of the catalog by year."
    says = (
        f"All {len(ordered):,} papers of the catalog, newest first. To filter, sort and compare them, use the "
        "[browser](../browse.md); by threat model and technique they stand in the [taxonomy](../taxonomy/index.md)."
    )
    sections = []
    for year, entries in groupby(ordered, key=lambda entry: entry.year):
        lines = []
        for entry in entries:
            title = title_after_name(entry)
            rest = f" {text(title)}" if title != short_name(entry) else ""
            badges = " ".join(status(atlas, entry)[-1:])
            lines.append(
                f"- [{text(short_name(entry))}]({entry.id}.md){rest} <small>{text(entry.venue)}</small> {badges}".rstrip()
            )
        sections.append(f"## {year}\n\n" + block("ia-list", "\n".join(lines)))
    return page("All papers", says, sections, about, searched=False)


def notebooks_index(atlas: Atlas) -> str:
    """Markdown of notebooks/index.md."""
    rows = []
    for entry in atlas.catalog.entries:
        if entry.id in atlas.notebooks:
            name = f"[**{text(short_name(entry))}**]({entry.id}.ipynb)<br>{text(shorten(entry.title, 90))}"
            load = f'<a class="ia-button" href="{entry.id}/{entry.id}.ipynb" download>Download</a>'
            colab = external("Open in Colab", atlas.colab(entry.id), "ia-button ia-button--colab")
            rows.append((name, link("paper page", f"../papers/{entry.id}.md"), f"{load} {colab}"))
    body = block("ia-papers", table(("Notebook", "About", "Run it"), rows)) if rows else "None is committed yet."
    about = "Notebooks that show each method at work."
    says = (
        "Each notebook imports an implementation and shows what it does: the threat model, one call, the picture, the numbers "
        "against the baselines, one ablation. They are committed executed. On a laptop each takes about a minute."
    )
    return page("Notebooks", says, [body], about, searched=False)


# --- home ----------------------------------------------------------------------------------------------------------------


def counted(atlas: Atlas) -> str:
    """The numbers of the home page."""
    held = sum(verdicts(result)[0] for result in atlas.results.values())
    checked = sum(verdicts(result)[1] for result in atlas.results.values())
    implemented = [entry for entry in atlas.catalog.entries if entry.id in atlas.modules]
    settings = {term for entry in atlas.catalog.entries for term in entry.terms("setting")} - {"any"}
    numbers = [
        (len(atlas.catalog.entries), "paper" if len(atlas.catalog.entries) == 1 else "papers", "browse.md"),
        (len(implemented), "that run here", "browse.md"),
        (len(settings), "setting" if len(settings) == 1 else "settings", "taxonomy/setting.md"),
    ]
    if checked:
        numbers.append((f"{held} of {checked}", "claims reproduced at toy scale", "about.md#claims"))
    cells = "\n".join(f"- [**{value}** {text(label)}]({page})" for value, label, page in numbers)
    return block("ia-numbers", cells)


def gallery(atlas: Atlas, limit: int = 6) -> str:
    """Recorded pictures as cards: one of each setting first, in the vocabulary's order, what was reproduced before the rest."""
    order = list(VOCABULARIES["setting"])

    def place(entry: Entry) -> tuple[int, float, int]:
        held, checked = verdicts(atlas.results.get(entry.id))
        return (order.index(entry.setting), -held / max(checked, 1), -entry.year)

    shown = [entry for entry in atlas.catalog if entry.id in atlas.pictures and entry.id in atlas.modules]
    first, rest, seen = [], [], set()
    for entry in sorted(shown, key=place):
        (rest if entry.setting in seen else first).append(entry)
        seen.add(entry.setting)
    chosen = [*first, *rest][:limit]
    if not chosen:
        return ""
    cards = []
    for entry in chosen:
        width, height = atlas.pictures[entry.id]
        alt = text(f"Reconstructions by {short_name(entry)}")
        image = f"![{alt}](results/{entry.id}.png){{ width={width} height={height} loading=lazy }}"
        about = f"**{text(short_name(entry))}** <small>{text(entry.venue)} {entry.year}</small>"
        sees = ", ".join(text(term) for term in entry.terms("access"))
        cards.append(f"- [{image}](papers/{entry.id}.md)\n\n    [{about}](papers/{entry.id}.md)<br>{sees}")
    return block("ia-gallery", "\n\n".join(cards))


def notebook_head(atlas: Atlas, paper: str) -> str:
    """The line above a notebook, as HTML of the page notebooks/<id>/: what it belongs to, download, Colab."""
    entry = atlas.catalog.by_id.get(paper)
    about = f'<a class="ia-back" href="../../papers/{paper}/">{text(short_name(entry))}: paper page</a>' if entry else ""
    load = f'<a class="ia-button" href="{paper}.ipynb" download>Download .ipynb</a>'
    colab = external("Open in Colab", atlas.colab(paper), "ia-button ia-button--colab")
    return f'<p class="ia-notebook-head ia-buttons">{about} {load} {colab}</p>\n'
