"""The catalog: every rule has an entry that breaks it, and the report names line, field and remedy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import bibtexparser
import jsonschema
import pytest
import yaml
from bibtexparser.middlewares import LatexDecodingMiddleware, SeparateCoAuthors
from pydantic import ValidationError

from scripts import bibtex, catalog
from scripts.catalog import Entry, files
from scripts.catalog.__main__ import main
from scripts.catalog.checker import shapes
from scripts.catalog.problems import MAX_PROBLEMS
from scripts.catalog.tree import MAX_DEPTH, read_text
from scripts.vocabulary import VENUE, VOCABULARIES

VALID = (Path(__file__).parent / "catalog_valid.yaml").read_text(encoding="utf-8")


@pytest.fixture
def write(tmp_path):
    """Writes text or bytes to a file and gives its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "papers.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


# --- a valid catalog -------------------------------------------------------------------------------------------------------


def test_valid_catalog_has_no_problem_and_loads(write):
    assert catalog.check(write(VALID)) == []
    loaded = catalog.load(write(VALID))
    assert [entry.id for entry in loaded] == ["gmi", "mid", "survey2024"]
    gmi = loaded["gmi"]
    assert (gmi.year, gmi.venue, gmi.arxiv, gmi.in_survey) == (2020, "CVPR", "1911.07135", True)
    assert gmi.threat_model.access == ("white-box",)
    assert gmi.threat_model.knowledge == ("public-images", "num-classes")
    assert gmi.taxonomy.approach == ("optimization",)
    assert gmi.claims[0].reported.value == 0.28
    assert gmi.claims[0].reported.unit is None
    assert loaded["mid"].threat_model.access == ("white-box", "scores")
    assert loaded["survey2024"].threat_model is None


def test_derived_links_and_depth(write):
    loaded = catalog.load(write(VALID))
    assert loaded["gmi"].links == {
        "arXiv": "https://arxiv.org/abs/1911.07135",
        "DOI": "https://doi.org/10.1109/CVPR42600.2020.00033",
    }
    assert loaded["survey2024"].links["OpenReview"] == "https://openreview.net/forum?id=rJxtCnN2wB"
    assert [entry.depth for entry in loaded] == ["full", "facts", "facts"]


@pytest.mark.parametrize("field", ["summary", "taxonomy", "contributions", "limitations", "basis"])
def test_an_attack_without_a_judgement_has_facts_only(write, field):
    gmi = catalog.load(write(VALID))["gmi"]
    empty = () if field == "contributions" else None
    assert gmi.model_copy(update={field: empty}).depth == "facts"


def test_doi_is_quoted_in_its_link(write):
    text = VALID.replace("10.1109/CVPR42600.2020.00033", "10.1002/(SICI)1097(1998)17:15/16<1661::AID>3.0.CO;2-2")
    link = catalog.load(write(text))["gmi"].links["DOI"]
    assert link == "https://doi.org/10.1002/(SICI)1097(1998)17:15/16%3C1661::AID%3E3.0.CO;2-2"


def test_filter_takes_any_term_of_a_facet_and_all_facets(write):
    loaded = catalog.load(write(VALID))
    assert [e.id for e in loaded.filter(access="white-box")] == ["gmi", "mid"]
    assert [e.id for e in loaded.filter(access=["scores", "label-only"])] == ["mid"]
    assert [e.id for e in loaded.filter(access="white-box", kind="attack", technique=["gan-prior"])] == ["gmi"]
    assert [e.id for e in loaded.filter(modality=["any", "image"])] == ["gmi", "mid", "survey2024"]
    assert [e.id for e in loaded.filter()] == ["gmi", "mid", "survey2024"]
    with pytest.raises(ValueError, match=r"white_box.*white-box"):
        loaded.filter(access="white_box")
    with pytest.raises(ValueError, match="no facet 'colour'"):
        loaded.filter(colour="red")


def test_related_goes_both_ways(write):
    loaded = catalog.load(write(VALID))
    ids = {name: [e.id for e in entries] for name, entries in loaded.related("gmi").items()}
    assert ids == {"compares_with": ["survey2024"], "defended_by": ["mid"], "surveyed_by": ["survey2024"]}
    assert loaded.nearest("gm1") == "gmi"
    with pytest.raises(KeyError, match="did you mean survey2024"):
        loaded["survey_2024"]


def test_model_is_strict_and_frozen(write):
    gmi = catalog.load(write(VALID))["gmi"]
    with pytest.raises(ValidationError):
        gmi.year = 2021
    values = gmi.model_dump()
    for change in ({"year": "2020"}, {"year": 2020.0}, {"in_survey": 1}, {"colour": "red"}, {"title": 5}):
        with pytest.raises(ValidationError):
            Entry.model_validate({**values, **change})
    assert Entry.model_validate(values) == gmi


def test_every_reportable_field_has_a_shape():
    assert list(shapes(Entry)) == list(Entry.model_fields)


# --- one rule broken at a time -------------------------------------------------------------------------------------------

PROSE = "It searches the latent space of a generator."
# old text, new text, what the reported line contains, field, what the message says, nearest
RULES = {
    "unknown key": ("  method: GMI", "  metod: GMI", "metod", "", "does not exist", "method"),
    "key of another place": ("  basis: Sec. 3", "  access: scores", "  access: scores", "", "belongs under threat_model", None),
    "unknown key inside": (
        "    practicality: It",
        "    practicaly: It",
        "practicaly",
        "limitations",
        "allowed: gen",
        "practicality",
    ),
    "unknown term, few": (
        "access: white-box",
        "access: whitebox",
        "whitebox",
        "threat_model.access[0]",
        "allowed: white",
        "white-box",
    ),
    "unknown term, many": (
        "[gan-prior]",
        "[gan_prior]",
        "gan_prior",
        "taxonomy.techniques[0]",
        "a term of `technique`",
        "gan-prior",
    ),
    "unknown venue": ("venue: CVPR", "venue: CVRP", "CVRP", "venue", "a term of `venue`", "CVPR"),
    "term in capitals": ("kind: attack", "kind: Attack", "kind: Attack", "kind", "allowed: attack, defense", "attack"),
    "term twice": (
        "[public-images, num-classes]",
        "[num-classes, num-classes]",
        "num-classes,",
        "threat_model.knowledge[1]",
        "each value once; it stands on line",
        None,
    ),
    "dangling relation": (
        "compares_with: [survey2024]",
        "compares_with: [survey2042]",
        "2042",
        "relations.compares_with[0]",
        "an id",
        "survey2024",
    ),
    "self relation": (
        "compares_with: [survey2024]",
        "compares_with: [gmi]",
        "compares_with: [gmi]",
        "relations.compares_with[0]",
        "itself",
        None,
    ),
    "relation twice": ("[gmi, mid]", "[gmi, gmi]", "surveys: [gmi", "relations.surveys[1]", "once", None),
    "relation like itself": (
        "compares_with: [survey2024]",
        "compares_with: [gmj]",
        "gmj",
        "relations.compares_with[0]",
        "an id",
        None,
    ),
    "misspelt required key": ("  year: 2020", "  yaer: 2020", "yaer", "", "does not exist", "year"),
    "arXiv before its start": ('"2009.05241"', '"0703.0001"', "0703", "arxiv", "an arXiv id", None),
    "duplicate id": ("- id: mid", "- id: gmi", "- id: gmi#2", "id", "stands on line 3 already", None),
    "duplicate key": ("  method: GMI", "  year: 2019\n  method: GMI", "  year: 2020", "year", "stands on line 5 already", None),
    "same arXiv": ('"2009.05241"', '"1911.07135"', 'arxiv: "1911.07135"#2', "arxiv", "same arxiv as gmi (line 9)", None),
    "same DOI": (
        'arxiv: "2009.05241"',
        "doi: 10.1109/cvpr42600.2020.00033",
        "10.1109/cvpr",
        "doi",
        "same doi as gmi (line 10)",
        None,
    ),
    "same title": (
        "Bounding What Outputs Tell",
        "the secret revealer - inversión of networks",
        "inversión",
        "title",
        "same title as gmi",
        None,
    ),
    "duplicate claim id": (
        "- id: public-data-suffice",
        "- id: prior-beats-pixels",
        "prior-beats-pixels#2",
        "claims[1].id",
        "stands on line 30",
        None,
    ),
    "not sorted": ("- id: survey2024", "- id: a_survey", "- id: a_survey", "id", "it belongs before 'mid'", None),
    "year as text": ("year: 2020", 'year: "2020"', '"2020"', "year", "a whole number is expected, without quotes", "2020"),
    "year as date": ("year: 2020", "year: 2020-06-01", "2020-06-01", "year", "a whole number", "2020"),
    "year in octal": ("year: 2020", "year: 02020", "02020", "year", "a whole number", "2020"),
    "year too early": ("year: 2020", "year: 1979", "1979", "year", "a year from 1980 to", None),
    "year too late": ("year: 2020", "year: 2999", "2999", "year", "a year from 1980 to", None),
    "truth as word": ("in_survey: true", "in_survey: yes", "in_survey", "in_survey", "true or false", "true"),
    "truth as text": ("in_survey: true", 'in_survey: "true"', "in_survey", "in_survey", "without quotes", "true"),
    "number with unit": ("value: 0.28", "value: 28 %", "28 %", "claims[0].reported.value", "without quotes or unit", "28"),
    "number not finite": ("value: 0.28", "value: .nan", ".nan", "claims[0].reported.value", "a number", None),
    "list for text": ("basis: Sec. 3", "basis: [Sec. 3]", "[Sec. 3]", "basis", "a text is expected", None),
    "text for list": ("modality: [image]", "modality: image", "modality: image", "modality", "a list is expected", "[image]"),
    "text for mapping": (
        "    practicality: It needs the weights.",
        "    cheap",
        "cheap",
        "limitations",
        "a mapping is expected, with gen",
        None,
    ),
    "mapping for text": ("basis: Sec. 3", "basis: {a: b}", "{a: b}", "basis", "a text is expected", None),
    "nothing for text": ("basis: Sec. 3", "basis:", "basis:", "basis", "leave the field out", None),
    "null for text": ("basis: Sec. 3", "basis: ~", "basis:", "basis", "leave the field out", None),
    "empty text": ("basis: Sec. 3", 'basis: ""', "basis:", "basis", "some text is expected", None),
    "empty list": ("authors: [Tianhao Wang]", "authors: []", "authors: []", "authors", "at least one", None),
    "empty goal": ("goal: class-representative\n", "goal: []\n", "goal: []", "threat_model.goal", "at least one", None),
    "missing field": ("  venue: CVPR\n", "", "- id: gmi", "venue", "required", None),
    "missing field inside": (", source: Table 1", "", "reported:", "claims[0].reported.source", "required", None),
    "missing threat model": (
        "  threat_model: {access: [white-box, scores], goal: class-representative, adversary: external}\n",
        "",
        "- id: mid",
        "threat_model",
        "the kind `defense` needs a threat model",
        None,
    ),
    "bad id": ("- id: mid", "- id: MID-Defense", "MID-Defense", "id", "lower_snake_case", "mid_defense"),
    "bad claim id": (
        "- id: public-data-suffice",
        "- id: Public_data",
        "Public_data",
        "claims[1].id",
        "kebab-case",
        "public-data",
    ),
    "arXiv with version": ('"2009.05241"', '"2009.05241v2"', "v2", "arxiv", "without version", "2009.05241"),
    "arXiv as address": (
        '"2009.05241"',
        "https://arxiv.org/abs/2009.05241",
        "2009.05241",
        "arxiv",
        "without version or address",
        "2009.05241",
    ),
    "arXiv month 13": ('"2009.05241"', '"2013.05241"', "2013.05241", "arxiv", "an arXiv id", None),
    "arXiv too short": ('"2009.05241"', '"2009.0524"', "2009.0524", "arxiv", "an arXiv id", None),
    "arXiv with other digits": ('"2009.05241"', '"2009.0524٤"', "2009.0524٤", "arxiv", "an arXiv id", None),
    "DOI as address": (
        "doi: 10.1109/",
        "doi: https://doi.org/10.1109/",
        "doi.org",
        "doi",
        "without address",
        "10.1109/CVPR42600.2020.00033",
    ),
    "DOI without suffix": ("10.1109/CVPR42600.2020.00033", "10.1109", "doi:", "doi", "a DOI", None),
    "OpenReview as address": (
        "openreview: rJx",
        "openreview: https://openreview.net/forum?id=rJx",
        "openreview:",
        "openreview",
        "the id",
        "rJxtCnN2wB",
    ),
    "link without scheme": (
        "[https://github.com/AI",
        "[github.com/AI",
        "code:",
        "code[0]",
        "an http://",
        "https://github.com/AI-secure/GMI-Attack",
    ),
    "link with another scheme": (
        "[https://github.com/AI",
        "[ftp://github.com/AI",
        "code:",
        "code[0]",
        "an http:// or https://",
        None,
    ),
    "javascript link": (
        "https://example.org/mid",
        "javascript:alert(1)",
        "javascript",
        "verified",
        "an http:// or https://",
        None,
    ),
    "data link": ("https://example.org/mid", "data:text/html,x", "data:", "verified", "an http:// or https://", None),
    "link with quotes": (
        "https://example.org/mid",
        "https://example.org/'\"onload=x",
        "onload",
        "verified",
        "an http:// or https://",
        None,
    ),
    "javascript hidden in link": (
        "https://example.org/mid",
        "https://example.org/javascript:x",
        "javascript",
        "verified",
        "`javascript:`",
        None,
    ),
    "identifier as address": (
        "  basis: Sec. 3",
        "  url: https://arxiv.org/pdf/1911.07135v2.pdf",
        "  url:",
        "url",
        "use the field `arxiv`",
        "arxiv: 1911.07135",
    ),
    "HTML": (PROSE, "It is <b>bold</b>.", "<b>", "summary", "without HTML", None),
    "HTML, unclosed": (PROSE, "It is <script src=x", "<script", "summary", "without HTML", None),
    "HTML comment": (PROSE, "It is <!-- hidden", "<!--", "summary", "without HTML", None),
    "HTML in a list": ("[MNIST, CelebA]", "[MNIST, '<img src=x onerror=y>']", "<img", "datasets[1]", "without HTML", None),
    "HTML in a name": ("[Tianhao Wang]", "[<i>Wang</i>]", "<i>", "authors[0]", "without HTML", None),
    "entity": (PROSE, "It is &#60;b&#62;.", "&#60;", "summary", "the character itself", None),
    "script in prose": (PROSE, "Click JavaScript :alert(1)", "JavaScript", "summary", "is not allowed", None),
    "data scheme in prose": (PROSE, "See data:text/html;base64", "data:", "summary", "is not allowed", None),
    "control character": (PROSE, '"a\\x07b"', "x07", "summary", "U+0007", None),
    "direction override": (PROSE, "a\u202eb", "\u202e", "summary", "U+202E", None),
    "leading blank": (PROSE, '" a"', '" a"', "summary", "no blanks", "a"),
    "trailing line break": (PROSE, ">\n    a b", "summary", "summary", "no blanks or line breaks", "a b"),
    "two paragraphs": (PROSE, ">-\n    a\n\n    b", "summary", "summary", "one paragraph", None),
    "very long text": (PROSE, "x " * 3000 + "x", "x x", "summary", "at most 5,000 characters", None),
    "full stop in title": ("Outputs Tell", "Outputs Tell.", "Tell.", "title", "no full stop", "Bounding What Outputs Tell"),
    "family name first": ("[Tianhao Wang]", '["Wang, Tianhao"]', "Wang, T", "authors[0]", "without a comma", "Tianhao Wang"),
    "several in one name": (
        "[Tianhao Wang]",
        "[Tianhao Wang and Yuheng Zhang]",
        " and ",
        "authors[0]",
        "one person a list item",
        None,
    ),
    "alias": ("access: white-box", "access: *other", "*other", None, "plain YAML only", None),
    "anchor": ("access: white-box", "access: &other white-box", "&other", None, "plain YAML only", None),
    "tag": ("in_survey: true", "in_survey: !!bool true", "!!bool", None, "plain YAML only", None),
    "python tag": ("in_survey: true", "in_survey: !!python/name:os.system true", "!!python", None, "plain YAML only", None),
    "merge key": ("  method: GMI", "  <<: {method: GMI}", "<<", "", "plain YAML only", None),
    "list as key": ("  method: GMI", "  ? [a]\n  : b", "? [a]", "", "keys are names", None),
    "mapping as key": ("  method: GMI", "  ? {a: b}\n  : b", "? {a: b}", "", "keys are names", None),
    "list item without key": ("- id: mid\n", "- gibberish\n\n- id: mid\n", "gibberish", "", "an entry is a mapping", None),
}


def line_of(text: str, marker: str) -> int:
    """The number of the first line that contains a marker; `marker#2` means the second."""
    marker, _, nth = marker.partition("#") if marker.endswith("#2") else (marker, "", "")
    lines = [number for number, line in enumerate(text.splitlines(), 1) if marker in line]
    return lines[1 if nth else 0]


@pytest.mark.parametrize("rule", RULES)
def test_broken_rule_is_the_one_problem_reported(write, rule):
    old, new, marker, field, says, nearest = RULES[rule]
    assert VALID.count(old) >= 1
    text = VALID.replace(old, new, 1)
    if rule in ("duplicate id", "bad id"):
        text = text.replace("surveys: [gmi, mid]", "surveys: [gmi]").replace("{defends_against: [gmi]}", "{}")
    if rule == "key of another place":
        text = text.replace("  access: scores", "  basis: Sec. 3\n  access: scores")
    if rule == "not sorted":
        text = text.replace("compares_with: [survey2024]", "compares_with: [a_survey]")
    problems = catalog.check(write(text))
    assert [problem.line for problem in problems] == [line_of(text, marker)], "\n".join(map(str, problems))
    (problem,) = problems
    if field is not None:
        assert problem.field == field
    assert says in problem.message
    assert problem.nearest == nearest
    if nearest:
        assert f"did you mean {nearest}?" in str(problem)
    with pytest.raises(catalog.CatalogError) as error:
        catalog.load(write(text))
    assert error.value.problems == problems


LEGAL = {
    "less than": (PROSE, "Significant with p < 0.05 and ε<1, where a<b."),
    "arrow": (PROSE, "x -> y <- z, and 1 << 2."),
    "data in prose": (PROSE, "'Needs no data: it works. Metadata: none.'"),
    "word no": ("method: GMI", "method: no"),
    "date": ("method: GMI", "method: 2020-01-01"),
    "sexagesimal": ("method: GMI", "method: 12:30:45"),
    "number as text": ("method: GMI", "method: 1e5"),
    "old arXiv id": ('"2009.05241"', "cs/0701001"),
    "old arXiv id with class": ('"2009.05241"', "math.GT/0309136"),
    "four-digit arXiv id": ('"2009.05241"', '"0704.0001"'),
    "ampersand": (PROSE, "AT&T; Q&A"),
    "quotes": (PROSE, "'It''s \"quoted\".'"),
    "title with dots": ("Outputs Tell", "Outputs Tell..."),
    "one goal as a list": ("goal: class-representative\n", "goal: [class-representative]\n"),
    "whole number": ("value: 0.28", "value: 28"),
    "negative number": ("value: 0.28", "value: -1.5e-3"),
    "document start": ("# A catalog for tests.", "---"),
    "Windows line ends": ("\n", "\r\n"),
}


@pytest.mark.parametrize("case", LEGAL)
def test_what_looks_wrong_but_is_legal(write, case):
    old, new = LEGAL[case]
    text = VALID.replace(old, new) if case == "Windows line ends" else VALID.replace(old, new, 1)
    assert text != VALID
    assert catalog.check(write(text)) == []


@pytest.mark.parametrize("value", ["no", "2020-01-01", "007", "1911.07130", "12:30:45", "0x1F"])
def test_text_is_kept_as_written(write, value):
    assert catalog.load(write(VALID.replace("method: GMI", f"method: {value}")))["gmi"].method == value


def test_arxiv_id_without_quotes_keeps_its_zero(write):
    assert catalog.load(write(VALID.replace('"1911.07135"', "1911.07130")))["gmi"].arxiv == "1911.07130"


def test_all_problems_are_reported_at_once_by_line(write):
    text = (
        VALID.replace("venue: CVPR", "venue: CVRP")
        .replace("year: 2020", 'year: "2020"')
        .replace("[MNIST, CelebA]", "[MNIST, <b>x</b>]")
        .replace("in_survey: true", "in_survey: maybe")
        .replace("[Tianhao Wang]", "Tianhao Wang")
        .replace("surveys: [gmi, mid]", "surveys: [gmj, mid]")
    )
    problems = catalog.check(write(text))
    assert [p.field for p in problems] == ["year", "venue", "datasets[1]", "in_survey", "authors", "relations.surveys[0]"]
    assert [p.entry for p in problems] == ["gmi"] * 4 + ["mid", "survey2024"]
    assert [p.line for p in problems] == sorted(p.line for p in problems)


# --- files that are no catalog ---------------------------------------------------------------------------------------------

LAUGHS = "- a: &a [x, x]\n" + "".join(f"  b{i}: &b{i} [{', '.join(['*a'] * 9)}]\n" for i in range(30))
FILES = {
    "empty": (b"", 1, "a list of entries is expected"),
    "an empty document": (b"---", 1, "a list of entries is expected"),
    "comment only": (b"# nothing\n", 1, "a list of entries is expected"),
    "null": (b"~", 1, "a list of entries is expected"),
    "text": (b"hello", 1, "a list of entries is expected"),
    "mapping": (b"\nid: gmi\n", 2, "a list of entries is expected"),
    "list of texts": (b"- a\n- b\n", 1, "an entry is a mapping"),
    "list of lists": (b"- [a]\n", 1, "an entry is a mapping"),
    "broken": (b"- id: a\n  title: b: c\n", 2, "broken YAML at column 11"),
    "open quote": (b'- id: a\n  title: "b\n', 2, "unexpected end of stream (begun on line 2)"),
    "tab": (b"- id: a\n\ttitle: b\n", 2, "broken YAML at column 1"),
    "open bracket": (b"- id: [a\n- b", 2, "did not find expected"),
    "bad escape": (b'- id: "\\q"', 1, "unknown escape"),
    "surrogate escape": (b'- id: "\\ud800"', 1, "invalid Unicode"),
    "NUL": (b"- id: a\n- id: \0\n", 2, "control characters"),
    "control character": (b"- id: a\x07\n", 1, "control characters"),
    "line separator": ("- id: a\u2028b\n".encode(), 1, "odd line separators"),
    "latin-1": ("- id: a\n  title: caf\xe9\n".encode("latin-1"), 2, "save the file as UTF-8"),
    "UTF-16": ("- id: a\n".encode("utf-16"), 1, "save the file as UTF-8"),
    "two documents": (b"- id: a\n---\n- id: b\n", 2, "one document only"),
    "directive": (b"%YAML 1.1\n---\n- id: a\n", 1, "plain YAML only"),
    "deep list": (b"[" * 10_000, 1, f"at most {MAX_DEPTH} levels"),
    "deep list, closed": (b"[" * 10_000 + b"]" * 10_000, 1, f"at most {MAX_DEPTH} levels"),
    "deep mapping": (b"{a: " * 100_000, 1, f"at most {MAX_DEPTH} levels"),
    "deep blocks": (b"- " * 10_000, 1, f"at most {MAX_DEPTH} levels"),
    "deep keys": (b"? " * 10_000, 1, f"at most {MAX_DEPTH} levels"),
    "deep indentation": ("\n".join(" " * i + "a:" for i in range(1_000)).encode(), MAX_DEPTH + 1, "levels"),
    "billion laughs": (LAUGHS.encode(), 1, "plain YAML only"),
    "recursive alias": (b"- &a [*a]\n", 1, "plain YAML only"),
    "python object": (b'- !!python/object/apply:os.system ["echo"]\n', 1, "plain YAML only"),
    "huge": (b"#" * 20_000_001, 1, "at most 20,000,000 bytes"),
    "very long text": (b"- id: " + b"a" * 1_000_000, 1, "this field is required"),
    "very long key": (b"- " + b"a" * 1_000_000 + b": b", 1, "broken YAML"),
}


@pytest.mark.parametrize("case", FILES)
def test_file_that_is_no_catalog_gets_a_readable_report(write, case):
    content, line, says = FILES[case]
    path = write(content)
    problems = catalog.check(path)
    assert problems
    assert any(problem.line == line and says in problem.message for problem in problems), "\n".join(map(str, problems))
    assert all(len(str(problem)) < 1_500 and str(problem).isprintable() for problem in problems)
    assert main(["check", str(path)]) == 1


def test_file_that_cannot_be_read_is_a_problem(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        (problem,) = catalog.check(path)
        assert "a readable file is expected" in problem.message


def test_deep_nesting_leaves_the_interpreter_alive(write):
    path = write(b"[" * 5_000_000)
    command = [sys.executable, "-m", "scripts.catalog", "check", path]
    done = subprocess.run(command, cwd=files.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nested too deeply" in done.stdout
    assert done.stderr == ""


def test_number_of_values_is_limited(write, monkeypatch):
    monkeypatch.setattr("scripts.catalog.tree.MAX_NODES", 1_000)
    assert catalog.check(write("- [" + "a," * 900 + "]"))[0].message == "an entry is a mapping that begins with `- id:`"
    (problem,) = catalog.check(write("- [" + "a," * 1_100 + "]"))
    assert (problem.found, problem.message) == ("more than 1,000 values", "this is not a catalog of papers")


def test_report_stops_at_its_limit_and_says_so(write):
    problems = catalog.check(write("- x\n" * (MAX_PROBLEMS + 5)))
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].message == "fix these first"


def test_report_has_no_control_characters(write):
    problems = catalog.check(write('- id: gmi\n  modality: "\\e[31m"\n'))
    assert any("\\x1b[31m" in str(problem) for problem in problems)
    assert not any("\x1b" in str(problem) for problem in problems)


def test_byte_order_mark_is_harmless(write):
    assert catalog.check(write(b"\xef\xbb\xbf" + VALID.encode())) == []


# --- formatter -----------------------------------------------------------------------------------------------------------

UNTIDY = """\
# The header.
# yaml-language-server: $schema=docs/papers.schema.json

# about zeta
- title: 'Zeta: a "method"'   # as printed
  # the id
  id: zeta
  year:    2020 # at last
  authors: ["Ann One",
     # the third
     Bob Two]
  threat_model: {goal: [instance], adversary: [external, insider], access: white-box} # who
  summary: "Prose that goes on and on and on and on and on and on and on and on and on and on and on and on: it folds"  # long
  arxiv: 2001.00010
  contributions: [Short one.]
  claims:
   - says: it is so
     id: c # claim
     reported: {value: 0.5, dataset: 'a, b', metric: acc, source: "Table 1"}
  taxonomy:
    techniques: [ gan-prior ]
    approach:
    - optimization
  method: no
  # left to do
- id: alpha
  title: >-
    folded
    title
  in_survey: false
# the end
"""
TIDY = """\
# The header.
# yaml-language-server: $schema=docs/papers.schema.json

- id: alpha
  title: folded title
  in_survey: false

# about zeta
# the id
- id: zeta
  title: 'Zeta: a "method"'  # as printed
  method: "no"
  authors:
    - Ann One
    # the third
    - Bob Two
  year: 2020  # at last
  arxiv: "2001.00010"
  threat_model:  # who
    access: white-box
    goal: instance
    adversary: [external, insider]
  taxonomy: {approach: optimization, techniques: [gan-prior]}
  summary: >-  # long
    Prose that goes on and on and on and on and on and on and on and on and on and on and on and on: it folds
  contributions:
    - Short one.
  claims:
    - id: c  # claim
      says: it is so
      reported: {dataset: "a, b", metric: acc, value: 0.5, source: Table 1}
  # left to do

# the end
"""


def test_format_has_one_look():
    assert catalog.format_text(UNTIDY) == TIDY
    assert catalog.format_text(TIDY) == TIDY


def test_format_of_a_valid_catalog_is_stable_and_keeps_it(write):
    formatted = catalog.format_text(VALID)
    assert formatted == catalog.format_text(formatted)
    assert catalog.load_text(formatted).entries == catalog.load_text(VALID).entries
    assert "# A catalog for tests." in formatted


def test_formatted_text_means_the_same_to_another_reader():
    odd = VALID
    for value in ("no", "2020-01-01", "12:30", "0x1F", "1_000", "null", "~", "=", ".5", "1e3", "y", "@a", "- b", "a #b"):
        odd = odd.replace("[MNIST, ", f"[MNIST, '{value}', ", 1)
    read = yaml.safe_load(catalog.format_text(odd))
    assert [Entry.model_validate(values) for values in read] == list(catalog.load_text(odd).entries)


@pytest.mark.parametrize(
    ("text", "formatted"),
    [
        ("- datasets: [a, 'what ?', 'b, c', d]\n", '- datasets: [a, "what ?", "b, c", d]\n'),
        ("- id:\n- id: a\n", "- id: a\n\n- id: null\n"),
        ("- threat_model: {goal: [[~]]}\n", "- threat_model:\n    goal:\n      - [null]\n"),
        ("- threat_model: {goal: ~}\n", "- threat_model:\n    goal: null\n"),
        ('- title: "a\\u202eb\\x07"\n', '- title: "a\\u202eb\\x07"\n'),
        ("- [a, {b: c}]\n", "-\n  - a\n  - b: c\n"),
        ("- note: '" + "word " * 30 + "'\n", '- note: "' + "word " * 30 + '"\n'),
        ("- note: '" + "word " * 22 + "  - a'\n", "- note: >-\n    " + "word " * 20 + "word\n    word   - a\n"),
        ("[]  # none", "# none\n\n[]\n"),
    ],
)
def test_format_of_odd_text(text, formatted):
    assert catalog.format_text(text) == formatted
    assert catalog.format_text(formatted) == formatted


@pytest.mark.parametrize("text", ["- id: a\n  id: b\n", "- id: *a\n", "- [", "a: b", "", "- {? [a] : b}", "- id: a\0"])
def test_format_refuses_what_it_cannot_keep(text):
    with pytest.raises(catalog.CatalogError):
        catalog.format_text(text)


# --- schema ----------------------------------------------------------------------------------------------------------------


def test_schema_accepts_a_valid_catalog_and_is_fresh():
    schema = catalog.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(VALID), schema)
    assert json.loads(files.SCHEMA.read_text(encoding="utf-8")) == schema, "run `python -m scripts.catalog schema`"


@pytest.mark.parametrize(
    "change",
    [
        {"colour": "red"},
        {"venue": "Nature"},
        {"year": "2020"},
        {"year": 1979},
        {"authors": []},
        {"arxiv": "https://arxiv.org/abs/1911.07135"},
        {"threat_model": {"access": "x-ray", "goal": "instance", "adversary": "external"}},
        {"method": None},
    ],
)
def test_schema_rejects(change):
    (entry, *_) = yaml.safe_load(VALID)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{**entry, **change}], catalog.schema())
    if change != {"method": None}:  # in Python None says that a field is left out
        with pytest.raises(ValidationError):
            Entry.model_validate({**entry, **change})


def test_schema_asks_attacks_for_their_threat_model():
    entries = yaml.safe_load(VALID)
    del entries[0]["threat_model"]
    with pytest.raises(jsonschema.ValidationError, match="threat_model"):
        jsonschema.validate(entries, catalog.schema())


def test_schema_explains_every_term():
    found = json.dumps(catalog.schema(), ensure_ascii=False)
    for name, terms in VOCABULARIES.items():
        for definition in terms.values():
            assert json.dumps(definition, ensure_ascii=False) in found, (name, definition)


# --- command line --------------------------------------------------------------------------------------------------------


def test_check_prints_problems_and_their_number(write, capsys):
    assert main(["check", str(write(VALID))]) == 0
    assert capsys.readouterr().out == "0 problems\n"
    path = write(VALID.replace("venue: CVPR", "venue: CVRP"))
    assert main(["check", str(path)]) == 1
    line, count = capsys.readouterr().out.splitlines()
    assert line == f"{path}:8: gmi: venue: found 'CVRP'; a term of `venue`; did you mean CVPR?"
    assert count == "1 problem"


def test_format_command_writes_and_checks(write, capsys):
    path = write(UNTIDY)
    os.chmod(path, 0o600)
    assert main(["format", str(path), "--check"]) == 1
    assert path.read_text(encoding="utf-8") == UNTIDY
    assert main(["format", str(path)]) == 0
    assert path.read_text(encoding="utf-8") == TIDY
    assert path.stat().st_mode & 0o777 == 0o600
    assert main(["format", str(path), "--check"]) == 0
    assert list(path.parent.iterdir()) == [path]
    assert main(["format", str(write("- ["))]) == 1
    assert "broken YAML" in capsys.readouterr().out


def test_failed_write_leaves_the_old_file(write, monkeypatch):
    path = write(UNTIDY)

    def fail(source, target):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        main(["format", str(path)])
    assert path.read_text(encoding="utf-8") == UNTIDY
    assert list(path.parent.iterdir()) == [path]


def test_schema_command_writes_and_checks(tmp_path, monkeypatch):
    target = tmp_path / "papers.schema.json"
    monkeypatch.setattr("scripts.catalog.__main__.SCHEMA", target)
    assert main(["schema", "--check"]) == 1
    assert main(["schema"]) == 0
    assert main(["schema", "--check"]) == 0
    target.write_text(target.read_text(encoding="utf-8").replace("GAN", "gan"), encoding="utf-8")
    target.write_text("{}", encoding="utf-8")
    assert main(["schema", "--check"]) == 1


def test_reading_gives_text_or_problems(write):
    assert read_text(write("a"), "f") == ("a", [])
    text, (problem,) = read_text(write(b"\xff"), "f")
    assert (text, problem.found) == (None, "byte 0xFF")


# --- BibTeX ----------------------------------------------------------------------------------------------------------------


def parsed(text: str) -> bibtexparser.model.Entry:
    """The one entry of BibTeX text, decoded, with a list of authors."""
    library = bibtexparser.parse_string(text, append_middleware=[LatexDecodingMiddleware(), SeparateCoAuthors()])
    assert not library.failed_blocks
    (entry,) = library.entries
    return entry


def test_every_entry_survives_bibtex():
    for entry in catalog.load_text(VALID):
        found = parsed(bibtex.to_bibtex(entry))
        assert found.key == entry.id
        assert found["title"] == entry.title
        assert found["author"] == list(entry.authors)
        assert found["year"] == str(entry.year)
        assert found["eprint"] == entry.arxiv
        assert found["archivePrefix"] == "arXiv"


@pytest.mark.parametrize(
    ("venue", "kind", "field"),
    [
        ("CVPR", "inproceedings", "booktitle"),
        ("TIFS", "article", "journal"),
        ("arXiv", "misc", "howpublished"),
        ("S&P", "inproceedings", "booktitle"),
    ],
)
def test_kind_follows_the_venue(venue, kind, field):
    entry = catalog.load_text(VALID)["gmi"].model_copy(update={"venue": venue})
    found = parsed(bibtex.to_bibtex(entry))
    assert (found.entry_type, found[field]) == (kind, VENUE[venue])


@pytest.mark.parametrize(
    "title",
    [
        "R&D at 50% of $5",
        "a_b #1 {x} {",
        "ε-DP: naïve “quotes” — p < 0.05",
        "Łódź, Größe, Çeşme",
        "a back\\slash",
        "GAN ~ DNNs",
    ],
)
def test_special_characters_survive_bibtex(title):
    authors = ("Florian Tramèr", "Łukasz Kaiser", "Jürgen van der Größe", "Ana-María Núñez", "Conan O'Brien", "李 明")
    entry = catalog.load_text(VALID)["gmi"].model_copy(update={"title": title, "authors": authors})
    text = bibtex.to_bibtex(entry)
    found = parsed(text)
    assert found["title"] == title
    assert found["author"] == list(authors)
    assert f"{{{{{title[0]}" in text or title[0] not in "RabG", "the title is braced, so that no style changes its capitals"


def test_lone_brace_keeps_bibtex_balanced():
    text = bibtex.to_bibtex(catalog.load_text(VALID)["gmi"].model_copy(update={"title": "a { b"}))
    assert text.count("{") == text.count("}"), "BibTeX counts escaped braces too"


def test_identifiers_stay_verbatim_in_bibtex():
    entry = catalog.load_text(VALID)["gmi"].model_copy(update={"doi": "10.1000/a_b%3C", "url": "https://a.org/x_y?z=%20&w#1"})
    text = bibtex.to_bibtex(entry)
    assert "{10.1000/a_b%3C}" in text
    assert "{https://a.org/x_y?z=%20&w#1}" in text
