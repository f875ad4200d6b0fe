"""Pages beyond a paper's own: citations, histories, charts, rankings, data, metadata, policy and feed."""

import json
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from implementations.registry import experiments
from scripts.catalog import FACETS, load
from scripts.catalog.catalog import Catalog
from scripts.report import GAPS, primary, report
from scripts.site import charts, citations, data, measured, publish, rankings, taxonomy
from scripts.site.atlas import Atlas, read_atlas, read_histories
from scripts.vocabulary import VOCABULARIES

ROOT = Path(__file__).resolve().parents[1]
REPO = "https://github.com/inversion-atlas/inversion-atlas"


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    """The real project."""
    return read_atlas(ROOT, ROOT / "docs", REPO)


@pytest.fixture(scope="module")
def small() -> Atlas:
    return Atlas(load(Path(__file__).parent / "catalog_valid.yaml"))


# --- citations --------------------------------------------------------------------------------


def test_citation_becomes_a_link_with_a_reference(small):
    page = citations.cite("# A\n\nAs shown [@gmi; @mid].", small, "survey/a.md")
    assert "([GMI 2020](../papers/gmi.md); [" in page
    assert "## References" in page
    assert page.count("../papers/gmi.md") == 2
    assert "[@" not in page


def test_citations_in_code_stay(small):
    page = "Write `[@gmi]`:\n\n```\n[@nobody]\n```\n"
    assert citations.cite(page, small, "a.md") == page


def test_page_without_citations_is_left_alone(small):
    assert citations.cite("# A\n\nmail@example.org [x](y)\n", small, "a.md") == "# A\n\nmail@example.org [x](y)\n"


@pytest.mark.parametrize("text", ["[@gmii]", "a [@gmi; @gmii] b"])
def test_unknown_citation_names_page_key_and_nearest(small, text):
    with pytest.raises(citations.UnknownCitation, match=r"survey/a\.md cites @gmii.*did you mean @gmi"):
        citations.cite(text, small, "survey/a.md")


def test_cited_text_escapes_all_but_citations(small):
    found = citations.cited_text("a <b> *c* [@gmi] [d](e)", small, "taxonomy/kind/attack.md")
    assert "<b>" not in found
    assert "*c*" not in found
    assert "[d]" not in found
    assert "[GMI 2020](../../papers/gmi.md)" in found


def test_every_chapter_cites_what_exists(atlas):
    chapters = sorted((ROOT / "docs" / "survey").glob("*.md"))
    assert len(chapters) >= 15
    for path in chapters:
        page = citations.cite(path.read_text(encoding="utf-8"), atlas, f"survey/{path.name}")
        assert "## References" in page, path
        assert "What to remember" in page, path


# --- taxonomy --------------------------------------------------------------------------------


def test_every_used_term_has_a_page_with_history_and_papers(atlas):
    pages = taxonomy.taxonomy(atlas)
    for facet in FACETS:
        if facet == "venue":
            continue
        used = taxonomy.by_term(atlas, facet)
        for term in VOCABULARIES[facet]:
            page = pages[f"taxonomy/{facet}/{taxonomy.anchor(term)}.md"]
            if term in used:
                assert atlas.histories[facet].get(term), f"{facet}: {term} has no history in docs/histories.yaml"
                assert f"{len(used[term])} paper" in page
            else:
                assert "No paper of the catalog has this term yet" in page


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a", "a mapping of vocabularies"),
        ("kinds: {attack: x}", "'kinds' is no vocabulary"),
        ("kind: {atack: x}", "'atack' is no term"),
        ("kind: {attack: [x]}", "'attack' is no term"),
        ("kind: {", "expected the node content"),
    ],
)
def test_broken_histories_are_named(tmp_path, content, message):
    path = tmp_path / "histories.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=f"(?s)histories.yaml.*{message}"):
        read_histories(path)


# --- charts and rankings --------------------------------------------------------------------------------


def well_formed(drawing: str) -> ElementTree.Element:
    (found,) = re.findall(r"<svg.*?</svg>", drawing, flags=re.DOTALL)
    return ElementTree.fromstring(found)


def test_lineage_links_both_sides(atlas):
    svg = well_formed(charts.lineage(atlas, atlas.catalog["gmi"]))
    targets = {a.get("href") for a in svg.iter("{http://www.w3.org/2000/svg}a")}
    assert "../fredrikson2015_confidence/" in targets, "what it builds on"
    assert "../mid/" in targets, "a defense against it"


def test_lineage_is_empty_without_relations(small):
    lonely = small.catalog["survey2024"].model_copy(update={"relations": type(small.catalog["gmi"].relations)()})
    assert charts.lineage(Atlas(Catalog([lonely])), lonely) == ""


def test_drawings_escape_names(small):
    entry = small.catalog["gmi"].model_copy(update={"method": "<b>&\"'", "title": "</svg><script>"})
    others = [entry, *(e for e in small.catalog if e.id != "gmi")]
    for other in others[1:]:
        drawing = charts.lineage(Atlas(Catalog(others)), other)
        if drawing:
            assert "<script>" not in drawing
            assert "<b>" not in drawing


def test_maps_and_timeline_are_drawn(atlas):
    for page in (charts.timeline(atlas), charts.lineage_map(atlas)):
        for drawing in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
            ElementTree.fromstring(drawing)
    assert str(len([e for e in atlas.catalog if e.year == 2024])) in charts.timeline(atlas)


def test_leaderboards_order_by_headline(atlas):
    page = rankings.leaderboards(atlas)
    gradient = page[page.index("## gradient") :]
    assert gradient.index("papers/dlg.md") < gradient.index("public mean")
    assert "toy scale" in page


def test_methods_in_scenarios_of_their_own_get_tables_of_their_own(atlas):
    page = rankings.leaderboards(atlas)
    classifier = page[page.index("## classifier") :]
    classifier = classifier[: classifier.index("\n## ")]
    common, own = classifier.split("In a scenario of its own, by *success*:")
    assert "papers/gmi.md" in common
    assert "papers/balle2022_informed.md" in own.split("In a scenario of its own")[0]
    assert "papers/gmi.md" not in own


def on_equal_terms(paper, value, rows=None):
    """A record of the leaderboard in which `paper` reaches `value` on all tracks."""

    def spread(mean):
        return {"median": 0.0, "mean": mean, "std": 0.01, "values": [mean] * 3}

    found = {
        name: {"metrics": {"fid": spread(9.0), "accuracy_top1": spread(one)}, "queries": 1200, "seconds": 3.5}
        for name, one in (rows or {paper: value}).items()
    }
    return {
        "paper": paper,
        "terms": {"per_class": 2, "seeds": [0, 1, 2]},
        "headline": "accuracy_top1",
        "metrics_help": {"fid": {"says": "a distance"}, "accuracy_top1": {"says": "a share"}},
        "tracks": {"faces": found, "shifted": found, "digits": found},
    }


def test_leaderboard_on_equal_terms_orders_methods_and_baselines_by_their_means(atlas):
    records = {
        "baselines": on_equal_terms("baselines", 0, {"nearest_public": 0.5, "public_mean": 0.02}),
        "gmi": on_equal_terms("gmi", 0.25),
        "ppa": on_equal_terms("ppa", 0.75),
    }
    page = rankings.leaderboards(replace(atlas, leaderboard=records))
    classifier = page[page.index("## classifier") :]
    classifier = classifier[: classifier.index("\n## ")]
    equal, own = classifier.split("### Measured in a scenario of their own")
    for track in ("**Faces.**", "**Shifted faces.**", "**Digits.**"):
        shown = equal[equal.index(track) :]
        places = [shown.index(name) for name in ("papers/ppa.md", "nearest public", "papers/gmi.md", "public mean")]
        assert places == sorted(places)
    assert "| 0.750 <small>± 0.010" in equal, "means, not medians"
    assert equal.count(">white-box<") == 6, "what each sees here, of two methods on three tracks"
    assert equal.index("accuracy top1</span>") < equal.index("fid</span>"), "the headline comes first"
    assert "papers/xai_mi.md" in own
    assert "papers/ppa.md" not in own, "nobody twice"


def test_access_of_modules_is_that_of_their_oracles(atlas):
    assert {paper: module.access for paper, module in atlas.modules.items()} == {
        paper: experiment.access for paper, experiment in experiments().items()
    }


def test_matrix_shows_every_measured_pair(atlas):
    page = rankings.matrix(atlas)
    pairs = measured.encounters(atlas)
    assert pairs
    for one in pairs:
        assert f"papers/{one.attack}.md" in page
        assert f"papers/{one.defense}.md" in page


def test_encounter_knows_whether_the_defense_helped():
    one = measured.Encounter("a", "d", "s", "accuracy", 0.9, 0.5, "test accuracy", 1.0, 0.9)
    assert one.helps
    assert not replace(one, defended=0.95).helps
    assert replace(one, defended=1.2, undefended=0.3, higher_is_stronger=False).helps


def result(method: float, baselines: dict[str, float], higher: bool = True) -> dict:
    runs = {name: {"role": "baseline", "metrics": {"m": {"median": value}}} for name, value in baselines.items()}
    runs["method"] = {"role": "method", "metrics": {"m": {"median": method, "std": 0.1}}}
    return {"headline": "m", "runs": runs, "metrics_help": {"m": {"higher_is_stronger": higher}}}


@pytest.mark.parametrize(
    ("method", "baselines", "higher", "best", "ahead"),
    [
        (0.5, {"a": 0.1, "b": 0.4}, True, "b", True),
        (0.5, {"a": 0.1, "b": 0.6}, True, "b", False),
        (0.5, {"a": 1.0, "b": 0.6}, False, "b", True),
        (0.5, {}, True, "", False),
    ],
)
def test_headline_is_compared_with_the_strongest_baseline(method, baselines, higher, best, ahead):
    found = measured.headline(result(method, baselines, higher))
    assert (found.baseline_name, found.beats_baseline) == (best, ahead)


def test_a_result_without_headline_has_none():
    assert measured.headline(None) is None
    assert measured.headline({"headline": "x", "runs": {"method": {"metrics": {}}}}) is None


# --- data, report --------------------------------------------------------------------------------


def test_browser_data_decode_to_the_catalog(atlas):
    found = data.papers(atlas)
    assert [row["id"] for row in found["papers"]] == [entry.id for entry in atlas.catalog]
    for row, entry in zip(found["papers"], atlas.catalog, strict=True):
        for facet in FACETS:
            assert [found["terms"][facet][n][0] for n in row.get(facet, [])] == list(entry.terms(facet))
    assert all(json.dumps(row) for row in found["papers"])


def test_report_counts_what_it_lists(atlas):
    gaps = next(part for part in report(atlas) if part.title == "What could be better")
    assert len(gaps.rows) == len(GAPS)
    for row, entries in zip(gaps.rows, gaps.entries, strict=True):
        assert row[1].replace(",", "") == str(len(entries))


@pytest.mark.parametrize(
    ("address", "is_primary"),
    [
        ("https://arxiv.org/abs/1", True),
        ("https://www.usenix.org/x", True),
        ("https://notarxiv.org/abs/1", False),
        ("https://github.com/a/b", False),
    ],
)
def test_primary_pages(address, is_primary):
    assert primary(address) is is_primary


# --- metadata, policy, feed --------------------------------------------------------------------------------


def test_citation_tags_carry_every_author_in_order(small):
    entry = small.catalog["gmi"]
    tags = publish.citation_tags(entry)
    assert [value for name, value in tags if name == "citation_author"] == list(entry.authors)
    assert dict(tags)["citation_conference_title"].startswith("IEEE/CVF Conference")
    assert dict(tags)["citation_doi"] == entry.doi


def test_policy_allows_the_pages_own_inline_scripts_and_no_others():
    page = "<html><head><title>x</title></head><body><script>var a=1</script><script src='a.js'></script></body></html>"
    found = publish.with_policy(page)
    assert found.count("sha256-") == 1
    assert "default-src &#39;none&#39;" in found
    assert "unsafe-eval" not in found
    script = found[found.index("script-src") : found.index("style-src")]
    assert "unsafe-inline" not in script
    assert found.index("Content-Security-Policy") < found.index("<title>")


def test_policy_leaves_data_blocks_out():
    page = '<head></head><script id="__config" type="application/json">{"a":1}</script>'
    assert "sha256-" not in publish.with_policy(page)


def test_mathematics_loads_only_where_there_is_some():
    assert publish.with_mathematics("<head></head><p>x</p>", "../") == "<head></head><p>x</p>"
    page = publish.with_mathematics('<head></head><span class="arithmatex">x</span>', "../")
    assert 'src="../assets/vendor/katex/katex.min.js"' in page


def test_feed_is_sorted_by_the_day_papers_came_in(small):
    seen = {"gmi": "2026-01-02T00:00:00+00:00", "mid": "2026-03-01T00:00:00+00:00", "survey2024": "2025-01-01T00:00:00+00:00"}
    root = ElementTree.fromstring(publish.feed(small, seen, "https://example.org/"))
    space = {"a": "http://www.w3.org/2005/Atom"}
    order = [link.get("href").rstrip("/").rpartition("/")[2] for link in root.findall("a:entry/a:link", space)]
    assert order[:3] == ["mid", "gmi", "survey2024"]
    assert root.findtext("a:updated", namespaces=space) == seen["mid"]


def test_days_come_from_the_history(tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "papers.yaml").write_text("- id: one\n")
    git("add", "."), git("commit", "-qm", "one", "--date", "2026-01-01T00:00:00Z")
    (tmp_path / "papers.yaml").write_text("- id: one\n- id: two\n")
    git("commit", "-qam", "two")
    found = publish.first_seen(tmp_path)
    assert set(found) == {"one", "two"}
    assert found["one"] <= found["two"]
    assert publish.first_seen(tmp_path / "nowhere") == {}
