"""What people do on the site, in a real browser: filter and share, compare, export, ask what threatens them; and axe."""

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import bibtexparser
import pytest
from axe_playwright_python.sync_playwright import Axe

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),  # one worker builds the site
    pytest.mark.skipif(bool(os.environ.get("INVERSION_ATLAS_NO_BROWSER")), reason="INVERSION_ATLAS_NO_BROWSER is set"),
]
ROOT = Path(__file__).resolve().parents[1]


def count(visit) -> int:
    """The number of papers that the browser says it found."""
    return int(visit.page.locator(".ia-status strong").inner_text().replace(",", ""))


def open_facet(visit, facet: str):
    box = visit.page.locator(f'details[data-facet="{facet}"]')
    if not box.evaluate("node => node.open"):
        box.locator("summary").click()
    return box


def tick(visit, facet: str, term: str) -> None:
    open_facet(visit, facet).locator(f'input[value="{term}"]').check()


# --- browse ------------------------------------------------------------------------------------------


def test_filters_agree_with_the_catalog_and_survive_sharing(visit, catalog, chromium):
    visit.open("browse/")
    assert count(visit) == len(catalog)
    tick(visit, "kind", "attack")
    tick(visit, "access", "label-only")
    tick(visit, "access", "scores")
    expected = catalog.filter(kind="attack", access=["label-only", "scores"])
    assert count(visit) == len(expected)
    shared = visit.page.url
    names = visit.page.locator("table.ia-results tbody th a").all_inner_texts()
    other = chromium.new_context().new_page()
    other.goto(shared)
    other.wait_for_selector("table.ia-results tbody tr")
    assert other.locator("table.ia-results tbody th a").all_inner_texts() == names
    other.context.close()
    visit.page.go_back()
    assert count(visit) == len(catalog.filter(kind="attack", access="label-only"))
    visit.page.locator(".ia-chips .ia-button", has_text="Clear filters").click()
    assert count(visit) == len(catalog)


def test_counts_say_what_a_click_would_give(visit, catalog):
    visit.open("browse/?kind=attack")
    boxes = open_facet(visit, "setting").locator("label:visible")
    for index in range(3):
        label = boxes.nth(index)
        term, said = label.locator("input").get_attribute("value"), int(label.locator(".ia-count").inner_text())
        assert said == len(catalog.filter(kind="attack", setting=term))


def test_free_text_reaches_summaries_and_authors(visit, catalog):
    visit.open("browse/")
    field = visit.page.locator("#ia-q")
    field.fill("tramer carlini")  # accents and order do not matter
    expected = [e for e in catalog if {"Florian Tramèr", "Nicholas Carlini"} <= set(e.authors)]
    visit.page.wait_for_function(f"() => document.querySelector('.ia-status strong').textContent === '{len(expected)}'")
    word = "boundary"
    field.fill(word)
    visit.page.wait_for_function(
        f"() => atlas.summaries && Number(document.querySelector('.ia-status strong').textContent) >= "
        f"{sum(word in (e.summary or '').lower() for e in catalog)}"
    )
    assert "text=boundary" in visit.page.url


def test_rows_follow_as_the_reader_scrolls_and_sorting_works(visit, catalog):
    visit.open("browse/?sort=oldest")
    first = visit.page.locator("table.ia-results tbody tr").first.locator("td").first.inner_text()
    assert first.endswith(str(min(entry.year for entry in catalog)))
    rows = visit.page.locator("table.ia-results tbody tr")
    for _ in range(400):
        visit.page.mouse.wheel(0, 20_000)
        visit.page.wait_for_timeout(50)
        if rows.count() == len(catalog):
            break
    assert rows.count() == len(catalog)


def test_selection_is_exported_in_every_format(visit, catalog):
    visit.open("browse/?access=label-only")
    expected = {entry.id for entry in catalog.filter(access="label-only")}
    found = {}
    for format_ in ("BibTeX", "CSV", "JSON"):
        with visit.page.expect_download() as waiting:
            visit.page.locator(".ia-export button", has_text=format_).click()
        found[format_] = Path(waiting.value.path()).read_text(encoding="utf-8")
    library = bibtexparser.parse_string(found["BibTeX"])
    assert library.failed_blocks == []
    assert {entry.key for entry in library.entries} == expected
    assert {entry["id"] for entry in json.loads(found["JSON"])} == expected
    assert {line.split(",", 1)[0] for line in found["CSV"].splitlines()[1:]} == expected


def test_papers_are_compared_side_by_side(visit):
    visit.open("browse/?text=inversion&implemented=yes")
    for paper in ("gmi", "brep_mi"):
        visit.page.locator(f'input[data-id="{paper}"]').check()
    visit.page.locator(".ia-tray button", has_text="Show the comparison").click()
    table = visit.page.locator("table.ia-compare")
    assert table.locator("thead th").all_inner_texts() == ["GMI", "BREP-MI"]
    sees = table.locator("tr", has_text="The adversary sees").locator("td").all_inner_texts()
    assert sees == ["white-box", "label-only"]
    assert "accuracy top1" in table.locator("tr", has_text="Measured here").inner_text()
    assert "compare=gmi&compare=brep_mi" in visit.page.url
    visit.page.reload()
    assert visit.page.locator("table.ia-compare thead th").count() == 2


def test_browser_works_by_keyboard_alone(visit, catalog):
    visit.open("browse/")
    visit.page.locator('details[data-facet="kind"] summary').focus()
    visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Space")
    term = visit.page.evaluate("document.activeElement.value")
    assert count(visit) == len(catalog.filter(kind=term))
    visit.page.locator("#ia-q").focus()
    visit.page.keyboard.type("gmi")
    visit.page.wait_for_timeout(300)
    for _ in range(80):
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.closest('table.ia-results th') !== null"):
            break
    visit.page.keyboard.press("Enter")
    visit.page.wait_for_url("**/papers/**")


def test_nonsense_in_the_address_is_ignored(visit, catalog):
    visit.open("browse/?access=nosuch&kind=%3Cscript%3E&from=abc&to=99999&sort=zzz&compare=nobody")
    assert count(visit) == len(catalog)
    assert visit.page.locator("table.ia-compare").count() == 0


# --- threats ------------------------------------------------------------------------------------------


def test_wizard_leads_to_an_attack_and_its_notebook(visit, catalog):
    visit.open("threats/")
    visit.page.get_by_label("The model itself: its weights").check()
    visit.page.get_by_label("image", exact=True).check()
    card = visit.page.locator(".ia-attack", has=visit.page.locator("strong", has_text=re.compile(r"^GMI\b"))).first
    assert "accuracy top1" in card.inner_text()
    assert "MID" in card.inner_text(), "the defense that was measured against it"
    assert card.locator("img").count() == 1
    card.locator("a", has_text="Notebook").click()
    visit.page.wait_for_url("**/notebooks/gmi/**")
    visit.page.go_back()
    assert visit.page.locator("input[value=white-box]").is_checked()


def test_wizard_lists_just_what_is_granted(visit, catalog):
    visit.open("threats/?expose=label-only&data=image&knows=only")
    listed = visit.page.locator(".ia-verdict strong").inner_text()
    free = [
        entry
        for entry in catalog.filter(kind="attack", access="label-only", modality=["image", "any"])
        if not entry.terms("knowledge")
    ]
    assert listed.startswith(f"{len(free)} attack")
    visit.page.get_by_label("Whatever an attack needs").check()
    every = catalog.filter(kind="attack", access="label-only", modality=["image", "any"])
    assert visit.page.locator(".ia-verdict strong").inner_text().startswith(f"{len(every)} attack")


def test_weights_include_scores_and_labels(visit, catalog):
    visit.open("threats/?expose=white-box&data=image")
    said = int(visit.page.locator(".ia-verdict strong").inner_text().split()[0])
    assert said >= len(catalog.filter(kind="attack", access=["white-box", "scores", "label-only"], modality="image"))


# --- pages ------------------------------------------------------------------------------------------


def test_mathematics_is_set(visit):
    visit.open("survey/definition/")
    visit.page.wait_for_selector(".katex")
    assert visit.page.locator(".katex-error").count() == 0


def test_every_chapter_sets_its_mathematics(visit):
    for path in sorted((ROOT / "docs" / "survey").glob("*.md")):
        visit.open(f"survey/{'' if path.stem == 'index' else path.stem + '/'}")
        visit.page.wait_for_timeout(100)
        assert visit.page.locator(".katex-error").count() == 0, path
        assert visit.page.locator("h2", has_text="References").count() == 1, path


def test_chapter_leads_to_a_paper_and_its_lineage(visit):
    visit.open("survey/images/")
    visit.page.locator(".ia-cite a", has_text="GMI 2020").first.click()
    visit.page.wait_for_url("**/papers/gmi/")
    visit.page.locator(".ia-lineage a", has_text="MID 2021").click()
    visit.page.wait_for_url("**/papers/mid/")


def test_missing_page_offers_ways_on(chromium, address):
    page = chromium.new_context().new_page()
    answer = page.goto(address + "no/such/page/")
    assert answer.status == 404
    page.context.close()


def test_pages_open_from_a_folder(chromium, site):
    """Without a server, as far as the browser lets pages: the list is drawn from the site's own scripts."""
    page = chromium.new_context().new_page()
    page.goto(f"file://{site}/browse/index.html")
    page.wait_for_selector("table.ia-results tbody tr")
    page.context.close()


# Builds the real site with two entries whose every text is hostile. The catalog refuses most of it; pages must not rely on it.
HOSTILE = """
import sys
from mkdocs.commands.build import build
from mkdocs.config import load_config
import scripts.site.atlas as atlas

read = atlas.read_atlas

def hostile(*words):
    found = read(*words)
    bad = [
        "<img src=x onerror=pwned()> <script>pwned()</script>",
        "\\"'><svg onload=pwned()> ${pwned()} {{ 7*7 }} {% x %} [l](javascript:pwned()) `c` $x$ :material-eye: </title>",
    ]
    entries = list(found.catalog.entries)
    for text, paper in zip(bad, ("gmi", "mid")):
        number = next(i for i, entry in enumerate(entries) if entry.id == paper)
        entry = entries[number]
        claims = tuple(claim.model_copy(update={"says": text}) for claim in entry.claims)
        limits = entry.limitations.model_copy(update={"practicality": text, "guarantees": text})
        entries[number] = entry.model_copy(update={
            "title": text, "method": text, "authors": (text, text), "summary": text, "contributions": (text,),
            "datasets": (text,), "metrics": (text,), "basis": text, "note": text, "claims": claims, "limitations": limits})
    import dataclasses
    histories = {**found.histories, "access": {**found.histories["access"], "white-box": bad[0] + " [@gmi]"}}
    return dataclasses.replace(found, catalog=type(found.catalog)(entries), histories=histories)

atlas.read_atlas = hostile
build(load_config("mkdocs.yml", site_dir=sys.argv[1]))
"""


HOSTILE_PAGES = (
    "papers/gmi", "papers/mid", "papers/bido", "browse", "threats", "taxonomy/access/white-box", "timeline", "lineage",
    "data-quality", "leaderboards", "matrix", "gallery", "papers", "notebooks", "survey/images", ".",
)  # fmt: skip


def test_hostile_entries_run_nothing(chromium, tmp_path, site_environment):
    command = [sys.executable, "-c", HOSTILE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=site_environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = chromium.new_page()
    page.add_init_script("globalThis.pwned = () => { globalThis.wasPwned = true; };")
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in HOSTILE_PAGES:
        query = "?expose=white-box" if path == "threats" else "?compare=gmi&compare=mid" if path == "browse" else ""
        page.goto(f"file://{tmp_path}/{path}/index.html{query}")
        page.wait_for_timeout(150)
        assert page.evaluate("globalThis.wasPwned") is None, path
        assert page.locator("img[onerror], svg[onload], [href^='javascript:']").count() == 0, path
        assert "49" not in page.title()
    assert dialogs == []
    page.goto(f"file://{tmp_path}/papers/gmi/index.html")
    assert "<script>pwned()</script>" in page.locator("h1").inner_text(), "the text is shown as it is"
    page.close()


def test_pages_are_light_and_the_index_small(site):
    """HTML with the site's own styles, scripts and data, compressed; pictures and the theme's files apart."""

    def size(*paths: Path) -> int:
        return sum(len(gzip.compress(path.read_bytes())) for path in paths)

    styles = size(*(site / "assets" / "stylesheets" / name for name in ("atlas.css", "interactive.css", "notebook.css")))
    for path in site.rglob("index.html"):
        html = path.read_text(encoding="utf-8")
        wanted = [site / name for name in re.findall(r'<script src="(?:\.\./)*((?:data|assets/javascripts)/[\w.]+)"', html)]
        assert size(path, *wanted) + styles <= 300_000, path
    assert size(site / "search" / "search_index.json") <= 1_000_000


PAGES = (
    "", "browse/", "browse/?compare=gmi&compare=mid", "threats/?expose=white-box", "papers/gmi/", "papers/mid/",
    "taxonomy/", "taxonomy/access/label-only/", "notebooks/gmi/", "notebooks/graphmi/", "survey/definition/", "timeline/",
    "lineage/", "leaderboards/", "matrix/", "gallery/", "data-quality/", "papers/", "taxonomy/venue/",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_axe_finds_nothing_serious(chromium, address, scheme, width):
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    serious = []
    for path in PAGES:
        page.goto(address + path, wait_until="load")
        page.wait_for_timeout(200)
        for found in Axe().run(page).response["violations"]:
            if found["impact"] in ("serious", "critical"):
                serious.append((path, found["id"], found["nodes"][0]["html"][:200]))
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"/{path} scrolls sideways"
    context.close()
    assert serious == []


def test_paper_pages_print_without_the_frame(visit):
    visit.open("papers/gmi/")
    visit.page.emulate_media(media="print")
    for part in (".md-header", ".md-tabs", ".md-sidebar", ".ia-buttons"):
        assert not visit.page.locator(part).first.is_visible(), part
    assert visit.page.locator("h1").is_visible()
