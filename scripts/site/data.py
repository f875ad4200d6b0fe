"""The data that pages of the site work with in the browser, as scripts: they also load from a folder, without a server."""

import json
from collections.abc import Mapping
from typing import Any

from ..catalog import FACETS, Entry
from ..vocabulary import VOCABULARIES
from .atlas import Atlas, short_name
from .markup import anchor
from .measured import Headline, encounters, headline
from .recorded import verdicts

# what exposing one thing gives an adversary besides
IMPLIED = {
    "white-box": ("scores", "label-only", "explanations", "logprobs", "text", "embeddings"),
    "scores": ("label-only",),
    "logprobs": ("text",),
}


def scripts(atlas: Atlas) -> dict[str, str]:
    """All data files by their path in docs/."""
    return {
        "data/papers.js": script("papers", papers(atlas)),
        "data/summaries.js": script("summaries", [entry.summary or "" for entry in atlas.catalog]),
    }


def script(name: str, value: Any) -> str:
    """A value as a script that stores it in `atlas.<name>`. JSON.parse reads big values several times as fast as a literal."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    text = text.replace("\\", "\\\\").replace("'", "\\'")
    # a line separator ends a line in old scripts, and `</` would end the element if the file were ever put inline
    text = text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("</", "<\\/")
    return f"globalThis.atlas = globalThis.atlas || {{}};\natlas.{name} = JSON.parse('{text}');\n"


def papers(atlas: Atlas) -> dict[str, Any]:
    """What the browser and the threat page need: terms with their definitions, and a row a paper with terms by number."""
    used = {facet: {term for entry in atlas.catalog for term in entry.terms(facet)} for facet in FACETS}
    terms = {facet: [term for term in VOCABULARIES[facet] if term in used[facet]] for facet in FACETS}
    numbers = {facet: {term: index for index, term in enumerate(found)} for facet, found in terms.items()}
    return {
        "terms": {facet: [[term, VOCABULARIES[facet][term], anchor(term)] for term in found] for facet, found in terms.items()},
        "papers": [row(atlas, entry, numbers) for entry in atlas.catalog],
        "implied": IMPLIED,
        "encounters": [
            {
                "attack": one.attack,
                "defense": one.defense,
                "metric": one.metric,
                "values": [one.undefended, one.defended],
                "utility": one.utility,
                "worth": [one.utility_undefended, one.utility_defended],
                "helps": one.helps,
            }
            for one in encounters(atlas)
        ],
    }


def row(atlas: Atlas, entry: Entry, numbers: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """One paper; what is empty is left out."""
    held, checked = verdicts(atlas.results.get(entry.id))
    found: dict[str, Any] = {
        "id": entry.id,
        "name": short_name(entry),
        "title": entry.title,
        "authors": list(entry.authors),
        "year": entry.year,
        "metrics": list(entry.metrics),
        "datasets": list(entry.datasets),
        "code": bool(entry.code),
        "here": entry.id in atlas.modules,
        "claims": [held, checked] if checked else [],
        "notebook": entry.id in atlas.notebooks,
        "picture": list(atlas.pictures.get(entry.id, ())) if entry.id in atlas.modules else [],
        "measured": numbered(headline(atlas.results.get(entry.id))),
        "guards": list(entry.relations.defends_against),
        **{facet: [numbers[facet][term] for term in entry.terms(facet)] for facet in FACETS},
    }
    return {key: value for key, value in found.items() if value not in ([], False, None, {})}


def numbered(found: Headline | None) -> dict[str, Any] | None:
    """A headline as numbers to show."""
    if found is None:
        return None
    shown = {
        "metric": found.metric,
        "unit": found.unit,
        "says": found.says,
        "value": found.value,
        "baseline": found.baseline,
        "against": found.baseline_name,
        "ahead": found.beats_baseline,
    }
    return {key: value for key, value in shown.items() if value not in (None, "")}
