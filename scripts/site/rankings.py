"""Leaderboards, the attack × defense matrix and the gallery: what was measured here, side by side."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from ..vocabulary import VOCABULARIES
from .atlas import Atlas, short_name
from .markup import anchor, badge, block, link, measured, number, page, table, text
from .measured import Encounter, encounters
from .paper_page import TOY, metric_head
from .recorded import metric_help, metric_names, verdicts

COLUMNS = 6  # metrics of a leaderboard
TRACKS = {  # of the leaderboard on equal terms
    "faces": "**Faces.** rendered people, public pictures of other people taken alike.",
    "shifted": "**Shifted faces.** the same victims, but public pictures with other backgrounds, light and poses.",
    "digits": "**Digits.** handwritten 0 to 4, public pictures of 5 to 9 only.",
}


def leaderboards(atlas: Atlas) -> str:
    """Markdown of leaderboards.md: a table a setting."""
    toy = badge("toy scale", "plain", TOY)
    says = (
        "Every attack that runs here, by setting, ordered by its headline metric. Where a paper is about another scenario "
        "(public pictures of another kind, another target, pictures with holes) it was measured in that one; its page says so. "
        f"{toy} All numbers are medians over three seeds of the method, or means where the table says so, on embedded data and "
        "small models. "
        "They compare ideas on one bench and say nothing about the papers' own scale. How to read them: "
        "[about](about.md#numbers)."
    )
    shown = []
    for setting in VOCABULARIES["setting"]:
        results = {
            paper: result
            for paper, result in atlas.results.items()
            if result["setting"].replace("_", "-") == setting and result.get("headline") in result["runs"]["method"]["metrics"]
        }
        if results:
            equal = equal_terms(atlas) if setting == "classifier" else ""
            rest = {paper: result for paper, result in results.items() if not equal or paper not in atlas.leaderboard}
            parts = [f"## {text(setting)} {{ #{anchor(setting)} }}", equal, setting_leaderboards(atlas, rest) if rest else ""]
            shown.append("\n\n".join(part for part in parts if part))
    about = "Every attack measured here, by setting."
    return page("Leaderboards", says, shown or ["Nothing was measured yet."], about)


def equal_terms(atlas: Atlas) -> str:
    """The classifier setting's attacks against the same victims with equally many reconstructions; a table a track."""
    if not atlas.leaderboard:
        return ""
    terms = next(iter(atlas.leaderboard.values()))["terms"]
    parts = [
        "### On equal terms { #equal-terms }",
        f"The same victims and public pictures, {terms['per_class']} reconstructions of each class, all of them evaluated; "
        f"means and spread over {len(terms['seeds'])} seeds. Two evaluators that no attack sees judge who is shown: "
        "*accuracy top1* and *accuracy second*. A method's settings are those of its page, chosen on faces. Queries are "
        "pictures sent through the target, in white-box attacks with their gradients; seconds are without training a prior.",
    ]
    for track, about in TRACKS.items():
        parts += [about, track_table(atlas, track)]
    parts.append("### Measured in a scenario of their own { #own-scenario }")
    return "\n\n".join(parts)


def track_table(atlas: Atlas, track: str) -> str:
    """One track, strongest first; baselines among the methods."""
    example = next(iter(atlas.leaderboard.values()))
    headline = example["headline"]
    rows = [
        (paper, name, row)
        for paper, record in atlas.leaderboard.items()
        for name, row in record["tracks"].get(track, {}).items()
    ]
    names = [name for name in example["metrics_help"] if any(name in row["metrics"] for _, _, row in rows)]
    metrics = sorted(names, key=lambda name: name != headline)
    lines = []
    for paper, name, row in rows:
        sees = f'<span class="ia-nowrap">{text(atlas.modules[paper].access)}</span>' if paper in atlas.modules else ""
        label = f"**{named(atlas, paper)}**" if paper == name else baseline(name)
        value, (_, *cells) = line(label, row, metrics, headline, "mean")
        lines.append((value, (label, sees, *cells)))
    lines.sort(key=lambda pair: pair[0], reverse=True)
    head = ("Method", "sees", *(metric_head(example, metric) for metric in metrics), "queries", "seconds")
    return block("ia-scroll ia-runs", table(head, [row for _, row in lines], "ll" + "r" * (len(head) - 2)))


def setting_leaderboards(atlas: Atlas, results: Mapping[str, Mapping[str, Any]]) -> str:
    """The setting's table, then one for each scenario of its own that some methods need and that has another headline."""
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for paper, result in results.items():
        groups.setdefault(result["headline"], {})[paper] = result
    (_, common), *others = sorted(groups.items(), key=lambda pair: len(pair[1]), reverse=True)
    tables = [leaderboard(atlas, common)]
    for headline, group in others:
        tables += [f"In a scenario of its own, by *{text(headline.replace('_', ' '))}*:", leaderboard(atlas, group)]
    return "\n\n".join(tables)


def leaderboard(atlas: Atlas, results: Mapping[str, Mapping[str, Any]]) -> str:
    """One setting's methods and baselines, strongest first."""
    example = next(iter(results.values()))
    headline = example["headline"]
    higher = metric_help(example, headline).get("higher_is_stronger", True)
    names = list(dict.fromkeys(metric for result in results.values() for metric in metric_names(result)))
    metrics = [metric for metric in names if any(metric in r["runs"]["method"]["metrics"] for r in results.values())][:COLUMNS]
    lines: list[tuple[float, tuple[str, ...]]] = []
    seen: set[str] = set()
    for paper, result in results.items():
        held, checked = verdicts(result)
        label = named(atlas, paper)
        if checked and held < checked:
            label += f" <small>{held} of {checked} claims hold</small>"
        lines.append(line(f"**{label}**", result["runs"]["method"], metrics, headline))
        for name, run in result["runs"].items():
            if run["role"] == "baseline" and headline in run["metrics"] and name not in seen:
                seen.add(name)
                lines.append(line(baseline(name), run, metrics, headline))
    lines.sort(key=lambda pair: pair[0], reverse=higher)
    head = ("Method", *(metric_head(example_of(results, metric), metric) for metric in metrics), "queries", "seconds")
    return block("ia-scroll ia-runs", table(head, [row for _, row in lines], "l" + "r" * (len(head) - 1)))


def named(atlas: Atlas, paper: str) -> str:
    """A link to a paper's page with its short name; the bare id of a result whose paper the catalog lacks."""
    entry = atlas.catalog.by_id.get(paper)
    return link(short_name(entry), f"papers/{paper}.md") if entry else text(paper)


def example_of(results: Mapping[str, Mapping[str, Any]], metric: str) -> Mapping[str, Any]:
    """A result that explains a metric."""
    return next((r for r in results.values() if metric_help(r, metric)), next(iter(results.values())))


def baseline(name: str) -> str:
    """A baseline's name in words, marked as one."""
    return f"{text(name.replace('_', ' '))} <small>baseline</small>"


def line(
    label: str, run: Mapping[str, Any], metrics: list[str], headline: str, centre: str = "median"
) -> tuple[float, tuple[str, ...]]:
    """The headline to sort by, and the cells of one run: medians, or means."""
    cells = tuple(measured(run["metrics"].get(metric), centre) for metric in metrics)
    queries = number(run["queries"]) if run["queries"] else ""
    return run["metrics"][headline][centre], (label, *cells, queries, number(run["seconds"]))


def matrix(atlas: Atlas) -> str:
    """Markdown of matrix.md: what each defense does to each attack, and what it costs."""
    says = (
        "Every defense here returns a model like the one it protects, so that every attack of its "
        "setting runs against it unchanged. Each cell shows what the attack recovers without and with the defense; the first "
        f"row, what the model is worth to its owner. {badge('toy scale', 'plain', TOY)}"
    )
    found = sorted(encounters(atlas), key=lambda one: (one.setting, one.attack, one.defense))
    sections = [
        f"## {text(setting.replace('_', '-'))}\n\n" + setting_matrix(atlas, list(group))
        for setting, group in groupby(found, key=lambda one: one.setting)
    ]
    about = "Which defense helps against which attack, measured."
    return page("Attack × defense", says, sections or ["No defense was measured yet."], about)


def setting_matrix(atlas: Atlas, found: list[Encounter]) -> str:
    attacks, defenses = (list(dict.fromkeys(getattr(one, side) for one in found)) for side in ("attack", "defense"))
    cells = {(one.attack, one.defense): one for one in found}

    def change(before: float, after: float) -> str:
        return f"{number(before)} → {number(after)}"

    worth = {one.defense: one for one in found}
    utility = found[0].utility.replace("_", " ")
    rows = [
        (f"model: {text(utility)}", *(change(worth[d].utility_undefended, worth[d].utility_defended) for d in defenses)),
    ]
    for attack in attacks:
        row = []
        for defense in defenses:
            one = cells.get((attack, defense))
            row.append(
                f"{change(one.undefended, one.defended)} {badge('less', 'good') if one.helps else badge('no less', 'bad')}"
                if one
                else ""
            )
        metric = next(one.metric for one in found if one.attack == attack).replace("_", " ")
        rows.append((f"{named(atlas, attack)}: {text(metric)}", *row))
    head = ("", *(named(atlas, defense) for defense in defenses))
    return block("ia-scroll", table([cell or "&nbsp;" for cell in head], rows, "l" * len(head)))


def gallery_page(atlas: Atlas) -> str:
    """Markdown of gallery.md: every recorded picture."""
    says = (
        "What the methods rebuilt, beside the private data and the baselines. Faces are rendered people who do not exist; "
        f"names and records are invented. {badge('toy scale', 'plain', TOY)}"
    )
    sections = []
    for setting in VOCABULARIES["setting"]:
        cards = []
        for entry in sorted(atlas.catalog, key=lambda entry: (entry.year, entry.id)):
            if entry.setting == setting and entry.id in atlas.pictures and entry.id in atlas.modules:
                width, height = atlas.pictures[entry.id]
                alt = text(f"Reconstructions by {short_name(entry)}")
                image = f"![{alt}](results/{entry.id}.png){{ width={width} height={height} loading=lazy }}"
                where = f"<small>{text(entry.venue)} {entry.year}; sees {text(', '.join(entry.terms('access')))}</small>"
                cards.append(
                    f"- [{image}](papers/{entry.id}.md)\n\n    [**{text(short_name(entry))}**](papers/{entry.id}.md) {where}"
                )
        if cards:
            sections.append(f"## {text(setting)}\n\n" + block("ia-gallery ia-gallery--all", "\n\n".join(cards)))
    about = "What every attack here rebuilt, in pictures."
    return page("Gallery", says, sections, about, hide=("navigation", "toc"), searched=False)
