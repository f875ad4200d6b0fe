"""The page of one paper."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..catalog import CatalogClaim, Entry
from ..vocabulary import VOCABULARIES
from .atlas import RELATIONS, Atlas, short_name
from .charts import lineage
from .markup import (
    anchor,
    as_given,
    badge,
    block,
    external,
    fence,
    folded,
    formulas,
    front_matter,
    inline_code,
    link,
    measured,
    number,
    paragraphs,
    prose,
    shorten,
    table,
    term_link,
    text,
    url,
)
from .modules import CheckedClaim, Module
from .recorded import is_note, metric_help, metric_names, verdicts

QUESTIONS = {
    "access": (":material-eye-outline: sees", "What is exposed to the adversary."),
    "goal": (":material-target: wants", "What the adversary tries to rebuild."),
    "knowledge": (":material-book-open-page-variant-outline: knows besides", "What the adversary may assume."),
    "adversary": (":material-account-outline: is", "Who the adversary is."),
}
LIMITS = {
    "generalizability": "Does it generalize?",
    "practicality": "Is it practical?",
    "guarantees": "Are there guarantees?",
}
FACTS = {"Setting": "setting", "Modality": "modality", "Approach": "approach", "Techniques": "technique"}
ROLES = {"attack": "attack", "defend": "defense", "measure": "measurement"}
UNCHECKED = "no public page with all of these facts was found; they rest on the source in the note"
TOY = "measured at toy scale: embedded data and small models, seconds on a CPU"


def paper_page(atlas: Atlas, entry: Entry) -> str:
    """Markdown of papers/<id>.md."""
    module, result = atlas.modules.get(entry.id), atlas.results.get(entry.id)
    parts = [
        head(atlas, entry),
        block("ia-byline", byline_block(atlas, entry)),
        paragraphs(entry.summary) if entry.summary else "",
        picture(atlas, entry, result),
        contributions(entry),
        threat_model(entry),
        claims(entry, module, result),
        measurements(entry, result),
        implementation(atlas, entry, module) if module else "",
        limitations(entry),
        related(atlas, entry),
        no_implementation() if module is None else "",
        facts(entry),
        citation(atlas, entry),
        made_from(atlas),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def head(atlas: Atlas, entry: Entry) -> str:
    # what others build on, and what runs here, is found first
    boost = 2 + math.log2(1 + atlas.influence[entry.id]) + 2 * (entry.id in atlas.modules)
    name = f"{entry.method}: {entry.title}" if entry.method else entry.title
    matter = front_matter(
        shorten(name, 110),
        hide=["navigation"],
        description=shorten(entry.summary or entry.title, 200),
        search={"boost": round(boost, 1)},
    )
    method = f'<span class="ia-method">{text(entry.method)}<span class="ia-colon">: </span></span>' if entry.method else ""
    return f"{matter}\n# {method}{text(entry.title)}"


def status(atlas: Atlas, entry: Entry) -> list[str]:
    """Badges: implemented, reproduced."""
    found = []
    if entry.id in atlas.modules:
        found.append(badge("implemented", "good", "runs here, with tests"))
    held, checked = verdicts(atlas.results.get(entry.id))
    if checked:
        kind = "good" if held == checked else "note" if held else "bad"
        label = "reproduced" if held == checked else f"{held} of {checked} claims" if held else "not reproduced"
        found.append(badge(label, kind, f"{held} of {checked} claims hold in our measurement"))
    return found


def byline_block(atlas: Atlas, entry: Entry) -> str:
    kind = [term_link("kind", term, css="") for term in entry.terms("kind")]
    venue = term_link("venue", entry.venue, css="")
    where = " · ".join([f"{venue} {entry.year}", *kind]) + " " + " ".join(status(atlas, entry))
    lines = [f"{text(', '.join(entry.authors))}\n{{ .ia-authors }}", f"{where.strip()}\n{{ .ia-where }}"]
    buttons = [external(label, address, "ia-button") for label, address in paper_links(entry)]
    if entry.id in atlas.notebooks:
        buttons.append(link("Notebook", f"../notebooks/{entry.id}.ipynb", "ia-button"))
        buttons.append(external("Open in Colab", atlas.colab(entry.id), "ia-button ia-button--colab"))
    lines.append(" ".join(buttons) + "\n{ .ia-buttons }" if buttons else "")
    return "\n\n".join(line for line in lines if line)


def paper_links(entry: Entry) -> Iterator[tuple[str, str]]:
    """Labels and addresses of the paper itself and of its authors' code."""
    for label, address in entry.links.items():
        yield ("Publisher" if label == "publisher" else label), address
    for index, address in enumerate(entry.code):
        yield ("Authors' code" if not index else f"Authors' code ({index + 1})"), address


def picture(atlas: Atlas, entry: Entry, result: Mapping[str, Any] | None) -> str:
    if entry.id not in atlas.pictures:
        return ""
    width, height = atlas.pictures[entry.id]
    alt = f"Reconstructions by {short_name(entry)} beside the private data and the baselines"
    caption = "Measured here: private data, baselines and reconstructions"
    size = " at toy scale" if result and result["toy"] else ""
    image = f"![{text(alt)}](../results/{entry.id}.png){{ width={width} height={height} loading=lazy .ia-picture }}"
    return block("ia-figure", f"{image}\n\n{caption}{size}.\n{{ .ia-caption }}")


def contributions(entry: Entry) -> str:
    if not entry.contributions:
        return ""
    return "## What it contributes\n\n" + "\n".join(f"- {text(item)}" for item in entry.contributions)


def threat_model(entry: Entry) -> str:
    rows = []
    for facet, (verb, meaning) in QUESTIONS.items():
        for index, term in enumerate(entry.terms(facet)):
            label = f'<span title="{text(meaning)}">{verb}</span>' if not index else "&nbsp;"
            means = f"<span data-search-exclude>{text(VOCABULARIES[facet].get(term, ''))}</span>"
            rows.append((label, term_link(facet, term), means))
    if not rows:
        return ""
    card = block("ia-threat", table(("The adversary …", "term", "which means"), rows))
    basis = f"\n\nWhere this can be checked: {text(entry.basis.rstrip('.'))}.\n{{ .ia-note }}" if entry.basis else ""
    return f"## Threat model\n\n{card}{basis}"


# --- claims --------------------------------------------------------------------------------------------------------------


def claims(entry: Entry, module: Module | None, result: Mapping[str, Any] | None) -> str:
    if not entry.claims:
        return ""
    parts = ["## Claims"]
    if module is None:
        parts.append("What the paper says. It has no implementation here yet, so nothing was measured.\n{ .ia-note }")
    for claim in entry.claims:
        parts.append(one_claim(entry, claim, module, result))
    if result and result["toy"] and module is not None:
        parts.append(why_different(module, result))
    return "\n\n".join(parts)


def one_claim(entry: Entry, claim: CatalogClaim, module: Module | None, result: Mapping[str, Any] | None) -> str:
    checked = module.claims.get(claim.id) if module else None
    verdict = result["claims"].get(claim.id) if result else None
    short = text(claim.id.replace("-", " "))
    lines = [f'### {text(claim.says)} {{ #claim-{anchor(claim.id)} data-toc-label="{short}" }}']
    if verdict is not None:
        seeds = f"{verdict['seeds_holding']} of {len(result['seeds'])} seeds"
        toy = " " + badge("toy scale", "plain", TOY) if result["toy"] else ""
        if verdict["reproduced"]:
            lines.append(
                f"{badge('reproduced', 'good')}{toy} The check holds on medians over seeds, and on {seeds} taken alone."
            )
        else:
            why = verdict["reason"] or (checked.not_reproduced if checked else "") or "no reason is recorded"
            says = f"The check fails on medians over seeds; {seeds} taken alone pass it."
            lines.append(f"{badge('not reproduced', 'bad')}{toy} {says}\n\n**Why not:** {prose(why)}")
    elif module is not None:
        lines.append(badge("not measured yet", "plain") + " Its check exists; no result is recorded.")
    if told := reported(claim):
        lines.append(told)
    if verdict is not None:
        lines.append(claim_numbers(result, verdict, checked))
    if checked and checked.check:
        broken = "fails" if verdict is None or verdict["ablation_fails"] else "passes too, so this check proves little"
        says = f"What the test asserts of the run `{checked.run}`. Given the numbers of `{checked.ablation}` it {broken}."
        lines.append(folded("The check", f"{prose(says)}\n\n{fence(textwrap.dedent(checked.check), 'python')}"))
    return block("ia-claim", "\n\n".join(lines))


def reported(claim: CatalogClaim) -> str:
    """The paper's own number in a sentence."""
    said = claim.reported
    if said is None:
        return ""
    unit = f" {text(said.unit)}" if said.unit else ""
    baseline = f" (baseline {as_given(said.baseline)}{unit})" if said.baseline is not None else ""
    note = f" {text(said.note)}" if said.note else ""
    place = f"on {text(said.dataset)}, {text(said.source)}"
    return f"The paper reports: {text(said.metric)} **{as_given(said.value)}{unit}**{baseline} {place}.{note}"


def claim_numbers(result: Mapping[str, Any], verdict: Mapping[str, Any], checked: CheckedClaim | None) -> str:
    """Our numbers behind one claim: the run it is about, what it is compared with, baselines, its ablation."""
    runs = result["runs"]
    available = metric_names(result)
    mentions = checked.mentions if checked else ()
    metrics = [metric for metric in mentions if metric in available]
    metrics = metrics or [m for m in available if m.rpartition(".")[2] == result.get("headline")] or available[:1]
    wanted = [verdict["run"], *mentions]
    wanted += [name for name, run in runs.items() if run["role"] == "baseline"]
    wanted.append(verdict["ablation"])
    names = [name for name in dict.fromkeys(wanted) if name in runs and any(m in runs[name]["metrics"] for m in metrics)]
    rows = []
    for name in names:
        run = runs[name]
        label = run_label(name, run)
        rows.append((label, *(measured(run["metrics"].get(metric)) for metric in metrics)))
    head = ("Ours, median ± std over seeds", *(metric_head(result, metric) for metric in metrics))
    return block("ia-scroll", table(head, rows, "l" + "r" * len(metrics)))


def run_label(name: str, run: Mapping[str, Any]) -> str:
    role = run["role"]
    shown = text(name.replace("_", " "))
    label = f"**{shown}**" if role == "method" else shown
    tag = "" if role == "method" else f" <small>{text(role)}</small>"
    says = f"<br><small>{text(run['says'])}</small>" if run["says"] and role != "method" else ""
    return label + tag + says


def metric_head(result: Mapping[str, Any], metric: str) -> str:
    """A column's head: the metric in words, its unit, and a hint that says what it is."""
    owner, _, last = metric.rpartition(".")
    about = metric_help(result, metric)
    name = f"{owner}: {last}" if owner else last
    unit = f" ({about['unit']})" if about.get("unit") else ""
    label = text(name.replace("_", " ") + unit)
    return f'<span title="{text(about["says"])}">{label}</span>' if about.get("says") else label


def why_different(module: Module, result: Mapping[str, Any]) -> str:
    """What sets our numbers apart from the paper's, derived from configuration and module."""
    scale = [option for option in module.config if option.paper_scale and option.paper_scale != option.default]
    knobs = ", ".join(
        f"{inline_code(option.name)} {text(option.default)} instead of {text(option.paper_scale)}" for option in scale[:6]
    )
    lines = ["Why our numbers differ from the paper's: they are measured on small embedded data with small models"]
    lines[0] += f", {len(result['seeds'])} seeds of the method on one target"
    lines[0] += f", with {knobs}" if knobs else ""
    lines[0] += ". They show whether the idea works, not how well it works at the paper's scale."
    if module.deviations:
        lines[0] += " The [deviations](#deviations) list what else was changed."
    return block("ia-note", lines[0])


# --- numbers -------------------------------------------------------------------------------------------------------------


def measurements(entry: Entry, result: Mapping[str, Any] | None) -> str:
    if not result:
        return ""
    runs, metrics = result["runs"], metric_names(result)
    asked = any(run["queries"] for run in runs.values())
    head = ["Run", *(metric_head(result, metric) for metric in metrics), *(["queries"] if asked else []), "seconds"]
    rows = [
        (
            run_label(name, run),
            *(measured(run["metrics"].get(metric)) for metric in metrics),
            *([number(run["queries"])] if asked else []),
            number(run["seconds"]),
        )
        for name, run in runs.items()
    ]
    toy = badge("toy scale", "plain", TOY) + " " if result["toy"] else ""
    about = (
        f"{toy}Setting {inline_code(result['setting'])}, preset {inline_code(result.get('preset', ''))}, "
        f"seeds {text(', '.join(str(seed) for seed in result['seeds']))}; median ± standard deviation; "
        f"{text(result.get('device', ''))}; recorded {text(result.get('recorded', ''))}. "
        f"[All numbers as JSON](../results/{entry.id}.json)."
    )
    parts = [
        "## Measured here",
        about,
        block("ia-scroll ia-runs", table(head, rows, "l" + "r" * (len(head) - 1)), "section", SKIP),
    ]
    if meanings := metric_meanings(result, metrics):
        parts.append(folded("What the metrics mean", meanings))
    if notes := run_notes(result):
        parts.append(folded("Notes of the runs", block("ia-scroll", notes)))
    if samples := sample_table(result):
        parts.append(samples)
    return "\n\n".join(parts)


SKIP = " data-search-exclude"


def metric_meanings(result: Mapping[str, Any], metrics: Sequence[str]) -> str:
    rows = {}
    for metric in metrics:
        about = metric_help(result, metric)
        if about:
            last = metric.rpartition(".")[2]
            sense = "higher" if about.get("higher_is_stronger", True) else "lower"
            rows[last] = (text(last.replace("_", " ")), text(about.get("says", "")), text(about.get("unit", "")), sense)
    return table(("Metric", "Meaning", "Unit", "Stronger attack"), list(rows.values())) if rows else ""


def run_notes(result: Mapping[str, Any]) -> str:
    """What the methods say about their own runs."""
    rows = []
    for name, run in result["runs"].items():
        for metric, value in run["metrics"].items():
            if is_note(metric):
                rows.append(
                    (text(name.replace("_", " ")), text(metric.replace("note_", "").replace("_", " ")), measured(value))
                )
    return table(("Run", "Note", "Value"), rows, "llr") if rows else ""


def sample_table(result: Mapping[str, Any], shown: int = 6) -> str:
    samples = result.get("samples") or []
    if not samples:
        return ""
    columns: dict[str, None] = {}
    for sample in samples:
        columns |= dict.fromkeys(sample)
    head = [text(column.replace("_", " ")) for column in columns]
    rows = [[text(sample.get(column, "")) for column in columns] for sample in samples]
    parts = ["### Samples", block("ia-scroll ia-samples", table(head, rows[:shown]), "section", SKIP)]
    if rows[shown:]:
        parts.append(folded(f"{len(rows) - shown} more", block("ia-scroll ia-samples", table(head, rows[shown:]))))
    return "\n\n".join(parts)


# --- the code ------------------------------------------------------------------------------------------------------------


def no_implementation() -> str:
    says = "This paper has no implementation here yet; the page shows what the catalog holds. [Add one](../contribute.md)."
    return "## Implementation\n\n" + block("ia-note", says)


def implementation(atlas: Atlas, entry: Entry, module: Module) -> str:
    code = external(module.path, atlas.blob(module.path))
    tests = external("its tests", atlas.blob(f"tests/{module.setting}/test_{entry.id}.py"))
    role = ROLES.get(module.role, "method")
    lines = [
        "## Implementation",
        f"One file, {module.lines} lines: {code}, with {tests}. {text(module.headline)}",
        "### Idea\n\n" + paragraphs(module.idea) if module.idea else "",
        "### Mathematics\n\n" + formulas(module.mathematics) if module.mathematics else "",
    ]
    if module.deviations:
        lines.append("### Deviations\n\n" + "\n".join(f"{i}. {prose(item)}" for i, item in enumerate(module.deviations, 1)))
    setting = atlas.settings.get(module.setting, "")
    if setting:
        first = setting.split("\n\n")[0]
        lines.append(f"### Scenario\n\n{prose(' '.join(first.split()))}")
    if module.against:
        others = ", ".join(paper_link(atlas, other) for other in module.against)
        lines.append(f"This {role} is measured against: {others}.")
    lines.append("### Run it\n\n" + fence(f"python -m implementations run {entry.id}", "bash"))
    lines.append(notebook_line(atlas, entry))
    if module.config:
        rows = [(*map(code_or_none, (o.name, o.default, o.paper_scale)), prose(o.says)) for o in module.config]
        content = block("ia-scroll", table(("Field", "Default", "Paper scale", "Meaning"), rows))
        lines.append(folded(f"Configuration: {len(rows)} fields", content))
    lines.append(folded(f"Source: {text(module.path)}", fence(module.source, "python"), "ia-fold ia-source"))
    return "\n\n".join(line for line in lines if line)


def code_or_none(value: str) -> str:
    return inline_code(value) if value else ""


def notebook_line(atlas: Atlas, entry: Entry) -> str:
    if entry.id not in atlas.notebooks:
        return ""
    here = link("Read the notebook", f"../notebooks/{entry.id}.ipynb", "ia-button")
    load = f'<a class="ia-button" href="../../notebooks/{entry.id}/{entry.id}.ipynb" download>Download .ipynb</a>'
    return f"{here} {load} {external('Open in Colab', atlas.colab(entry.id), 'ia-button ia-button--colab')}\n{{ .ia-buttons }}"


def paper_link(atlas: Atlas, paper: str) -> str:
    """A link to another paper's page, or its id where the catalog lacks it."""
    other = atlas.catalog.by_id.get(paper)
    return link(short_name(other), f"{paper}.md") if other else inline_code(paper)


# --- the rest of the facts ---------------------------------------------------------------------------------------------------


def limitations(entry: Entry) -> str:
    if entry.limitations is None:
        return ""
    answers = ((question, getattr(entry.limitations, name)) for name, question in LIMITS.items())
    cards = [block("ia-card", f"### {question}\n\n{paragraphs(answer)}") for question, answer in answers if answer]
    return "## Limitations\n\n" + block("ia-cards", "\n\n".join(cards)) if cards else ""


def related(atlas: Atlas, entry: Entry) -> str:
    rows = []
    for relation, others in atlas.catalog.related(entry.id).items():
        shown = (f"{paper_link(atlas, o.id)} <small>{text(shorten(o.title, 80))}, {o.year}</small>" for o in others)
        rows.append((RELATIONS[relation], "<br>".join(shown)))
    if not rows:
        return ""
    listed = block("ia-related", table(("Relation", "Paper"), rows), "section", SKIP)
    return "\n\n".join(part for part in ("## Related papers", lineage(atlas, entry), listed) if part)


def address_link(address: str) -> str:
    """A link that shows its own address."""
    return f'<a href="{url(address)}" rel="noopener">{text(shorten(address, 70))}</a>'


def facts(entry: Entry) -> str:
    rows = []
    for label, facet in FACTS.items():
        if terms := entry.terms(facet):
            rows.append((label, " ".join(term_link(facet, term) for term in terms)))
    if entry.datasets:
        rows.append(("Data sets", text(", ".join(entry.datasets))))
    if entry.metrics:
        rows.append(("Metrics", text(", ".join(entry.metrics))))
    rows += [(text(label), address_link(address)) for label, address in entry.links.items()]
    checked = address_link(entry.verified) if entry.verified else badge("not checked yet", "note", UNCHECKED)
    rows.append(("Checked against", checked))
    if entry.in_survey:
        rows.append(("In the survey", "yes"))
    if entry.note:
        rows.append(("Note", text(entry.note)))
    rows.append(("Id", inline_code(entry.id)))
    return "## Facts\n\n" + block("ia-facts", table(("Fact", "Value"), rows))


def citation(atlas: Atlas, entry: Entry) -> str:
    bibtex = atlas.bibtex.get(entry.id, "")
    return "## Cite\n\n" + block("ia-bibtex", fence(bibtex, "bibtex"), "section", SKIP) if bibtex else ""


def made_from(atlas: Atlas) -> str:
    source = external("papers.yaml", atlas.blob("papers.yaml"))
    return f"This page is generated from {source}, the module and the recorded result; correct a mistake there.\n{{ .ia-note }}"
