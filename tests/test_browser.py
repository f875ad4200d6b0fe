"""The real site in a real browser: search, paths from page to page, clipboard, phone, dark mode, and no request elsewhere."""

import os
import re
from collections import Counter
from pathlib import Path

import bibtexparser
import nbformat
import pytest

from scripts.catalog import Entry
from scripts.site.modules import read_modules

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),  # one worker builds the site
    pytest.mark.skipif(bool(os.environ.get("INVERSION_ATLAS_NO_BROWSER")), reason="INVERSION_ATLAS_NO_BROWSER is set"),
]

ROOT = Path(__file__).resolve().parents[1]
# --- what is looked for -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def paper(catalog) -> Entry:
    """An implemented paper with a method's name and a notebook."""
    for entry in catalog:
        if entry.method and entry.id in read_modules(ROOT / "implementations") and notebook_of(entry).exists():
            return entry
    pytest.fail("no implemented paper with a notebook: the browser tests need one")


def notebook_of(entry: Entry) -> Path:
    return ROOT / "docs" / "notebooks" / f"{entry.id}.ipynb"


def telling_word(words: str, others: str) -> str:
    """The longest word that the other texts do not have."""
    known = set(re.findall(r"[a-z]+", others.lower()))
    found = [word for word in re.findall(r"[A-Za-z]{4,}", words) if word.lower() not in known]
    assert found, "no word tells this text from the others"
    return max(found, key=lambda word: (len(word), word))


def prose_of(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"`[^`]*`|\]\([^)]*\)|https?://\S+", " ", text)


# --- tests --------------------------------------------------------------------------------------------------------------------


def test_search_finds_a_method_and_its_notebook_and_the_way_back(visit, paper):
    visit.open()
    assert visit.page.locator("h1").count() == 1
    hits = visit.search(paper.method)
    assert hits[0] == f"papers/{paper.id}/"
    visit.page.locator(".md-search-result__item a.md-search-result__link").first.click()
    visit.page.wait_for_url(f"**/papers/{paper.id}/**")
    assert paper.title in visit.page.locator("h1").inner_text()
    visit.page.locator(".ia-byline a.ia-button", has_text="Notebook").click()
    visit.page.wait_for_url(f"**/notebooks/{paper.id}/**")
    assert visit.page.locator(".jp-OutputArea-output").count() > 0
    visit.page.locator("a.ia-back").click()
    visit.page.wait_for_url(f"**/papers/{paper.id}/**")
    visit.page.go_back()
    visit.page.wait_for_url(f"**/notebooks/{paper.id}/**")


def test_search_finds_an_author(visit, paper, catalog):
    counts = Counter(author for entry in catalog for author in entry.authors)
    author = min(paper.authors, key=lambda name: (counts[name], -len(name)))
    visit.open()
    hits = visit.search(author)
    assert hits[0] in {f"papers/{entry.id}/" for entry in catalog if author in entry.authors}


def test_search_finds_a_word_of_a_title(visit, paper, catalog):
    others = " ".join(entry.title for entry in catalog if entry.id != paper.id)
    visit.open()
    assert f"papers/{paper.id}/" in visit.search(telling_word(paper.title, others))[:2]


def test_search_finds_the_text_of_a_notebook(visit, paper, catalog):
    notebooks = [path for path in (ROOT / "docs" / "notebooks").glob("*.ipynb") if path != notebook_of(paper)]
    others = " ".join([*map(prose_of, notebooks), *(str(entry.model_dump()) for entry in catalog)])
    others += " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md"))
    others += " ".join(module.idea + " ".join(module.deviations) for module in read_modules(ROOT / "implementations").values())
    visit.open()
    assert f"notebooks/{paper.id}/" in visit.search(telling_word(prose_of(notebook_of(paper)), others))


def test_doors_of_the_home_page_open(visit):
    for name, path in (("Browse", "browse/"), ("Run", "run/"), ("Contribute", "contribute/")):
        visit.open()
        visit.page.locator(".ia-card h3 a", has_text=name).click()
        visit.page.wait_for_url(f"**/{path}")
        assert visit.page.locator("h1").inner_text()


def test_bibtex_is_copied_and_parses(visit, paper):
    visit.open(f"papers/{paper.id}/")
    box = visit.page.locator(".ia-bibtex")
    box.scroll_into_view_if_needed()
    box.locator(".highlight").hover()
    box.locator("button, .md-clipboard").first.click()
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    library = bibtexparser.parse_string(copied)
    assert library.failed_blocks == []
    assert len(library.entries) == 1
    assert library.entries[0].fields_dict["year"].value == str(paper.year)


def test_notebook_downloads(visit, paper):
    visit.open(f"notebooks/{paper.id}/")
    with visit.page.expect_download() as waiting:
        visit.page.locator("a[download]").first.click()
    assert waiting.value.suggested_filename == f"{paper.id}.ipynb"
    loaded = Path(waiting.value.path()).read_text(encoding="utf-8")
    assert loaded == notebook_of(paper).read_text(encoding="utf-8")


def test_source_unfolds(visit, paper):
    visit.open(f"papers/{paper.id}/")
    source = visit.page.locator("details.ia-source")
    assert not source.locator("pre").is_visible()
    source.locator("summary").click()
    assert "EXPERIMENT = Experiment(" in source.locator("pre").inner_text()


def test_dark_mode_toggles_and_pictures_stay_on_white(visit, paper):
    visit.open(f"notebooks/{paper.id}/")
    scheme = "document.body.getAttribute('data-md-color-scheme')"
    ground = "getComputedStyle(document.body).backgroundColor"
    assert visit.page.evaluate(scheme) == "default"
    light = visit.page.evaluate(ground)
    visit.page.locator("form[data-md-component=palette] label:visible").click()
    assert visit.page.evaluate(scheme) == "slate"
    assert visit.page.evaluate(ground) != light
    image = visit.page.locator(".jp-RenderedImage img").first
    assert image.evaluate("image => getComputedStyle(image).backgroundColor") == "rgb(255, 255, 255)"
    visit.open()
    assert visit.page.evaluate(scheme) == "slate", "the choice is remembered"


def test_nothing_scrolls_sideways_on_a_phone(phone, paper, catalog):
    bare = next((entry for entry in catalog if entry.id not in read_modules(ROOT / "implementations")), paper)
    places = ["", "papers/", f"papers/{paper.id}/", f"papers/{bare.id}/", f"notebooks/{paper.id}/", "notebooks/", "taxonomy/"]
    for path in [*places, "taxonomy/knowledge/", "taxonomy/venue/", "run/", "contribute/", "about/", "responsible-use/"]:
        phone.open(path)
        width = phone.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390, f"/{path} is {width} wide"


def test_the_menu_opens_on_a_phone(phone):
    phone.open()
    phone.page.locator("label[for=__drawer].md-header__button").click()
    phone.page.locator(".md-nav--primary a.md-nav__link", has_text="Taxonomy").click()
    phone.page.wait_for_url("**/taxonomy/")


def test_every_page_opens_without_errors(visit, site):
    """A sample over all kinds of pages; the visitor fixture checks requests and errors."""
    pages = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))
    step = max(1, len(pages) // 40)
    for path in pages[::step]:
        visit.open("" if path == "." else f"{path}/")
        assert visit.page.locator("h1").count() == 1, path
