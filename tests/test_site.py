"""The site's generator on a small catalog, and a strict build of it: escaping, determinism, links, sizes, no other hosts."""

import base64
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import markdown
import nbformat
import pytest
from PIL import Image

from scripts.catalog import FACETS, load, load_text
from scripts.site import markup, recorded
from scripts.site.atlas import Atlas, read_atlas
from scripts.site.data import scripts
from scripts.site.generate import fill, generate, link_repository
from scripts.site.modules import read_module, read_modules
from scripts.site.notebook_html import clean
from scripts.vocabulary import VOCABULARIES

pytestmark = pytest.mark.xdist_group("site")  # one worker builds it

ROOT = Path(__file__).resolve().parents[1]
REPO = "https://github.com/inversion-atlas/inversion-atlas"

CATALOG = """
- id: alpha_attack
  title: "Alpha: Recovering Things from a Model"
  method: Alpha
  authors: [Ada Quixley, Bo Lindqvist, Cy Marlowe, Di Orta]
  year: 2021
  venue: S&P
  arxiv: "2101.00001"
  code: [https://github.com/example/alpha]
  kind: attack
  setting: classifier
  modality: [image]
  threat_model: {access: white-box, goal: class-representative, knowledge: [public-images, num-classes], adversary: external}
  taxonomy: {approach: optimization, techniques: [gradient-descent, gan-prior]}
  datasets: [MNIST]
  relations: {extends: [beta_root]}
  summary: It moves a code until the target is sure. This is why it works.
  contributions: [A first thing., A second thing.]
  limitations: {generalizability: Only small pictures., practicality: Needs weights., guarantees: None.}
  claims:
    - id: prior-helps
      says: a prior helps
      reported: {dataset: CelebA, metric: attack accuracy, value: 0.28, baseline: 0.07, source: Table 1}
    - id: fewer-steps
      says: few steps are enough
  basis: Sec. 3
  verified: https://arxiv.org/abs/2101.00001
- id: beta_root
  title: A Root of Everything
  authors: [Zed Ömer]
  year: 2015
  venue: CCS
  doi: 10.1145/2810103.2813677
  kind: background
  setting: any
  modality: [any]
  verified: https://doi.org/10.1145/2810103.2813677
"""

MODULE = '''r"""Alpha: moves a code.

Paper: "Alpha: Recovering Things from a Model", Ada Quixley and others, S&P 2021. https://arxiv.org/abs/2101.00001

Idea. A first paragraph with `code` and <b>no</b> markup, and x_1 * x_2 * x_3.

A second paragraph.

Mathematics. With <b>$z_1$</b> and $a < b$ the search is

$$x_1 * x_2 < \\hat y \\|z\\|,$$

costs $ nothing.

**Deviations** (from the paper)
1. The first deviation
   goes on here.
2. The second.
"""

from dataclasses import dataclass

from ..experiment import Claim, Config, Experiment, Run


@dataclass(frozen=True, kw_only=True)
class AlphaConfig(Config):
    steps: int = 10  # of the search; paper: 1000
    lr: float = 0.5  # step


def fewer(method, runs):
    return method["accuracy"] >= runs["slow"]["accuracy"]


EXPERIMENT = Experiment(
    paper="alpha_attack",
    config=AlphaConfig(lr=0.25),
    attack=None,
    knowledge=("public-images", "num-classes"),
    ablations={"no_prior": Run(says="no prior")},
    claims={
        "prior-helps": Claim(
            check=lambda method, runs: method["accuracy"] >= runs["guess"]["accuracy"] + 0.5, ablation="no_prior"
        ),
        "fewer-steps": Claim(check=fewer, ablation="no_prior", not_reproduced="the toy is too easy <script>"),
    },
    paper_scale={"steps": 1000},
)
'''

BASE = """
@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0  # seed of every random draw
"""


def spread(*values: float) -> dict:
    return {"median": sorted(values)[len(values) // 2], "mean": sum(values) / len(values), "std": 0.01, "values": list(values)}


def run(role: str, accuracy: float, says: str = "") -> dict:
    metrics = {"note_restarts": spread(2, 2, 2), "accuracy": spread(*[accuracy] * 3), "distance": spread(3, 4, 5)}
    return {"role": role, "says": says, "metrics": metrics, "queries": 1520, "seconds": 1.5, "peak_memory_mb": 9, "config": {}}


RESULT = {
    "schema": 1,
    "paper": "alpha_attack",
    "setting": "classifier",
    "preset": "quick",
    "toy": True,
    "seeds": [0, 1, 2],
    "headline": "accuracy",
    "metrics_help": {
        "distance": {"says": "mean distance", "unit": "mm", "higher_is_stronger": False},
        "accuracy": {"says": "share that is right", "unit": "", "higher_is_stronger": True},
    },
    "runs": {
        "guess": run("baseline", 0.1, "a guess"), "method": run("method", 0.9), "no_prior": run("ablation", 0.2, "no prior"),
    },
    "claims": {
        "prior-helps": {
            "reproduced": True, "ablation": "no_prior", "ablation_fails": True, "run": "method", "seeds_holding": 3,
            "reason": "",
        },
        "fewer-steps": {
            "reproduced": False, "ablation": "no_prior", "ablation_fails": True, "run": "method", "seeds_holding": 1,
            "reason": "the toy is too easy <script>",
        },
    },
    "samples": [{"private": "her *name* is <b>Eve</b>", "method": "his name | is Eve"}],
    "device": "CPU, 2 cores",
    "recorded": "2025-01-01",
}  # fmt: skip


def png(width: int = 60, height: int = 40) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def notebook(image: bytes, words: str) -> str:

    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    )
    code = nbformat.v4.new_code_cell("print('attack')\nx = 1 < 2", execution_count=1)
    code.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="accuracy 0.93\n"),
        nbformat.v4.new_output("display_data", data={"image/png": base64.b64encode(image).decode(), "text/plain": "<Figure>"}),
    ]
    made.cells = [nbformat.v4.new_markdown_cell(words), code, nbformat.v4.new_markdown_cell("## What to look at\n\nThe end.")]
    for number, cell in enumerate(made.cells):
        cell.id = f"cell-{number}"
    return nbformat.writes(made)


NAVIGATION = """
nav:
  - Home: index.md
  - Browse: browse.md
  - Papers: papers/index.md
  - About: [about.md, scope.md]
"""


def make_project(
    root: Path, notebook_words: str = "# Alpha\n\nA walrus sees [the paper](../papers/alpha_attack.md#claims)."
) -> Path:
    """A small project of the real layout: the real configuration, hand-written pages and hook, its own papers."""
    (root / "implementations" / "classifier").mkdir(parents=True)
    (root / "implementations" / "experiment.py").write_text(BASE)
    (root / "implementations" / "classifier" / "setting.py").write_text('"""Setting: pictures.\n\nMore."""\n')
    (root / "implementations" / "classifier" / "alpha_attack.py").write_text(MODULE)
    (root / "papers.yaml").write_text(CATALOG.lstrip())
    (root / "CONTRIBUTING.md").write_text("# Contributing\n")
    (root / "scripts").symlink_to(ROOT / "scripts")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (root / "mkdocs.yml").write_text(settings[: settings.index("\nnav:")] + NAVIGATION, encoding="utf-8")
    docs = root / "docs"
    docs.mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        if "[@" not in page.read_text(encoding="utf-8"):  # those cite papers of the real catalog
            shutil.copy(page, docs)
    (docs / "scope.md").write_text("# Scope\n\nAs in [@alpha_attack].\n")
    for folder in ("assets", "overrides"):
        shutil.copytree(ROOT / "docs" / folder, docs / folder)
    (docs / "results").mkdir()
    (docs / "results" / "alpha_attack.json").write_text(json.dumps(RESULT))
    (docs / "results" / "alpha_attack.png").write_bytes(png())
    (docs / "notebooks").mkdir()
    (docs / "notebooks" / "alpha_attack.ipynb").write_text(notebook(png(30, 20), notebook_words))
    return root


def build(project: Path) -> subprocess.CompletedProcess:
    """mkdocs build --strict, as a user does it."""
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "mkdocs.yml"]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def site(project) -> Path:
    done = build(project)
    assert done.returncode == 0, done.stdout + done.stderr
    return project / "site"


@pytest.fixture(scope="module")
def atlas(project) -> Atlas:
    return read_atlas(project, project / "docs", REPO)


def rendered(page: str) -> str:
    """A page's HTML with the extensions of mkdocs.yml."""
    body = re.sub(r"\A---\n.*?\n---\n", "", page, flags=re.DOTALL)
    extensions = ["attr_list", "md_in_html", "tables", "sane_lists", "toc", "pymdownx.highlight", "pymdownx.superfences"]
    return markdown.markdown(body, extensions=extensions)


class Elements(HTMLParser):
    """All start tags with their attributes, and all visible text."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.words.append(data)


# --- escaping ------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "</details></div><img src=x onerror=alert(1)>",
    "[click](javascript:alert(1)) ![x](https://evil.example/x.png)",
    "<https://evil.example> &lt;b&gt; &amp; &#60;",
    "*a* _b_ **c** __d__ `e` ~~f~~ ==g== ^h^",
    "| a | b |",
    "# heading {#id .class onclick=x}",
    "- item",
    "+ item",
    "1. item",
    "12) item",
    "> quote",
    "```python",
    "::: note",
    "a\n\n    code\n\n# b",
    "{{ config.site_name }} {% raw %} <!-- atlas:numbers --> ](repo:x)",
    "x\\*y \\<z",
    "\"quoted\" 'single'",
    "[ref]: https://evil.example",
    "\u202eright to left\u202c \x00\x02wzxhzdk:0\x03",
    "$x$ $$y$$ :smile: @me #1",
    "---",
    "a --- b === c",
]


def shown(value: str) -> str:
    """What a reader should see of a value."""
    return " ".join(markup.CONTROL.sub("", value).split())


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("frame", ["{}", "A {} b", "- {}", "# {}", "| h | k |\n|---|---|\n| {} | x |", "[{}](p.md)"])
def test_escaped_text_shows_itself_and_makes_no_markup(value, frame):
    escaped, plain = rendered(frame.format(markup.text(value))), rendered(frame.format("Q"))
    found, expected = Elements(escaped), Elements(plain)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in expected.tags]
    assert " ".join("".join(found.words).split()) == " ".join("".join(expected.words).replace("Q", shown(value)).split())


@pytest.mark.parametrize("value", HOSTILE)
def test_escaped_text_is_safe_in_attributes(value):
    found = Elements(rendered(f"A {markup.badge('label', 'plain', value)} b"))
    assert [tag for tag, _ in found.tags] == ["p", "span"]
    assert dict(found.tags)["span"] == {"class": "ia-badge ia-badge--plain", "title": shown(value)}


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "//evil.example", "ftp://a.b", "https:///x", " "]
)
def test_only_web_addresses_become_links(address):
    with pytest.raises(ValueError, match="not a http"):
        markup.url(address)


def test_addresses_cannot_leave_their_attribute():
    found = Elements(rendered(markup.external("here", 'https://a.example/"onmouseover="x<y>[z](q)')))
    assert [tag for tag, _ in found.tags] == ["p", "a"]
    assert set(found.tags[1][1]) == {"href", "rel"}


@pytest.mark.parametrize("code", ["```\n</code><script>x</script>\n```", "a ``` b\n````python\n", "    \t# x\n\n\n{{ y }}"])
def test_code_blocks_hold_any_code(code):
    found = Elements(rendered("before\n\n" + markup.fence(code, "python") + "\n\nafter"))
    assert "script" not in [tag for tag, _ in found.tags]
    first = code.replace("\t", "    ").strip("\n").splitlines()[0].strip()
    assert first in "".join(found.words)
    assert "".join(found.words).rstrip().endswith("after")


def test_hostile_entry_is_harmless_on_every_page():
    """The catalog refuses much of this; the pages must not rely on it."""
    bad = "<img src=x onerror=alert(1)> **b** [l](https://evil.example) `c` | {.x} </section></details>"
    good = load_text(CATALOG)
    entry = good["alpha_attack"]
    claims = tuple(claim.model_copy(update={"says": bad}) for claim in entry.claims)
    limits = entry.limitations.model_copy(update={"practicality": bad})
    changes = {
        "title": bad, "method": bad, "authors": (bad, bad), "summary": bad, "contributions": (bad,), "datasets": (bad,),
        "basis": bad, "note": bad, "claims": claims, "limitations": limits,
    }  # fmt: skip
    evil = entry.model_copy(update=changes)
    catalog = type(good)([evil, good["beta_root"]])
    pages = generate(Atlas(catalog, bibtex={"alpha_attack": bad}))
    for path in [path for path in pages if path.endswith(".md")]:
        page = pages[path]
        found = Elements(rendered(page))
        for _, attributes in found.tags:
            assert not {"onerror", "onclick"} & set(attributes), path
            assert attributes.get("src") != "x", path
            assert "evil.example" not in attributes.get("href", ""), path
        head = page.split("---\n")[1] if page.startswith("---\n") else ""
        assert "<" not in head, f"{path}: the theme writes titles unescaped"


@pytest.mark.parametrize("title", ["</script><script>alert(1)</script>", "it's \\", "\u2028\u2029", "<!--", "'); alert(1); ('"])
def test_data_scripts_hold_any_text(title):
    """As a browser reads them: one call of JSON.parse on one string."""
    good = load_text(CATALOG)
    entry = good["alpha_attack"].model_copy(update={"title": title, "summary": title})
    for path, code in scripts(Atlas(type(good)([entry, good["beta_root"]]))).items():
        assert "</" not in code, path
        assert not set("\u2028\u2029") & set(code), path
        done = subprocess.run(
            ["node", "-e", code + "console.log(JSON.stringify(globalThis.atlas))"], capture_output=True, text=True, check=True
        )
        found = json.loads(done.stdout)
        assert title in (found["papers"]["papers"][0]["title"] if "papers" in found else found["summaries"][0])


def test_samples_and_reasons_are_escaped(atlas):
    html = rendered(generate(atlas)["papers/alpha_attack.md"])
    assert "her *name* is &lt;b&gt;Eve&lt;/b&gt;" in html.replace("&#42;", "*").replace("&#60;", "&lt;").replace(
        "&#62;", "&gt;"
    )
    assert "script" not in [tag for tag, _ in Elements(html).tags]


# --- what pages say -------------------------------------------------------------------------------------------------------


def words_of(page: str) -> str:
    return " ".join("".join(Elements(rendered(page)).words).split())


def test_generation_is_deterministic(project, atlas):
    again = generate(read_atlas(project, project / "docs", REPO))
    assert generate(atlas) == again
    assert list(generate(atlas)) == list(again)


def test_every_paper_and_vocabulary_has_a_page(atlas):
    pages = generate(atlas)
    assert {f"papers/{paper}.md" for paper in ("alpha_attack", "beta_root")} <= set(pages)
    assert {f"taxonomy/{facet}.md" for facet in FACETS} <= set(pages)


def test_paper_page_shows_facts_numbers_and_code(atlas):
    words = words_of(generate(atlas)["papers/alpha_attack.md"])
    for expected in (
        "Ada Quixley, Bo Lindqvist, Cy Marlowe, Di Orta",
        VOCABULARIES["access"]["white-box"],
        VOCABULARIES["knowledge"]["public-images"],
        "A second thing.",
        "Only small pictures.",
        "attack accuracy 0.28 (baseline 0.07) on CelebA, Table 1",
        "0.900 ± 0.010",
        "distance (mm)",
        "1,520",
        "toy scale",
        "steps 10 instead of 1000",
        "The first deviation goes on here.",
        "python -m implementations run alpha_attack",
        "class AlphaConfig(Config):",
        "seed of every random draw",
        "Builds on",
    ):
        assert expected in words, expected
    assert "restarts" in words
    assert "note_restarts" not in words


def test_formulas_are_left_to_the_typesetter_and_the_rest_is_text(site):
    html = (site / "papers" / "alpha_attack" / "index.html").read_text(encoding="utf-8")
    assert '<span class="arithmatex">\\(z_1\\)</span>' in html
    assert '<div class="arithmatex">\\[x_1 * x_2 &lt; \\hat y \\|z\\|,\\]</div>' in html
    assert "&lt;b&gt;" in html
    assert "costs $ nothing" in html
    assert "vendor/katex/katex.min.js" in html
    assert "vendor/katex" not in (site / "about" / "index.html").read_text(encoding="utf-8")


def test_claims_show_their_verdict_and_the_reason(atlas):
    page = generate(atlas)["papers/alpha_attack.md"]
    first, second = re.findall(r'<div class="ia-claim".*?(?=<div class="ia-claim"|## Measured)', page, flags=re.DOTALL)
    assert "reproduced</span>" in first
    assert "not reproduced" not in first
    assert "not reproduced</span>" in second
    assert "the toy is too easy &#60;script&#62;" in second
    assert "1 of 3 seeds" in second
    assert 'runs["guess"]["accuracy"] + 0.5' in first.replace("'", '"')
    assert "def fewer" in second


def test_page_without_result_says_so(atlas):
    page = generate(dataclasses.replace(atlas, results={}, pictures={}))["papers/alpha_attack.md"]
    assert "not measured yet" in page
    assert "Measured here" not in page
    assert "reproduced</span>" not in page


def test_page_without_implementation_says_so(atlas):
    words = words_of(generate(atlas)["papers/beta_root.md"])
    assert "no implementation here yet" in words
    assert "Built on by" in words
    assert "python -m implementations" not in words
    assert "Threat model" not in words


def test_home_numbers_are_derived(atlas):
    home = fill("<!-- atlas:numbers -->", atlas)
    assert "**2** papers" in home
    assert "**1** that run here" in home
    assert "**1 of 2** claims" in home
    with pytest.raises(ValueError, match="no slot"):
        fill("<!-- atlas:nothing -->", atlas)


def test_repository_links_derive_from_one_address(atlas):
    other = dataclasses.replace(atlas, repo_url="https://github.com/someone/fork")
    pages = "\n".join([*generate(other).values(), link_repository("[x](repo:papers.yaml)", other)])
    assert "inversion-atlas/inversion-atlas" not in pages
    assert "https://github.com/someone/fork/blob/main/papers.yaml" in pages
    assert "https://colab.research.google.com/github/someone/fork/blob/main/docs/notebooks/alpha_attack.ipynb" in pages


# --- readers ----------------------------------------------------------------------------------------------------------------


def test_module_facts(project):
    module = read_modules(project / "implementations")["alpha_attack"]
    assert module.deviations == ("The first deviation goes on here.", "The second.")
    assert module.idea.startswith("A first paragraph")
    assert [(o.name, o.default, o.paper_scale) for o in module.config] == [
        ("seed", "0", ""),
        ("steps", "10", "1000"),
        ("lr", "0.25", ""),
    ]
    assert module.claims["prior-helps"].mentions == ("accuracy", "guess")
    assert module.claims["prior-helps"].check == "method['accuracy'] >= runs['guess']['accuracy'] + 0.5"
    assert module.claims["fewer-steps"].mentions == ("accuracy", "slow")
    assert (module.role, module.setting) == ("attack", "classifier")


def test_reading_modules_imports_no_torch():
    code = "import sys; from scripts.site import hook, modules; from pathlib import Path; "
    code += "modules.read_modules(Path('implementations')); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=60).returncode == 0


def test_real_modules_are_read_whole():
    """Every implementation: idea, deviations, documented fields, and checks whose metrics can be shown."""
    found = read_modules(ROOT / "implementations")
    assert found
    for paper, module in found.items():
        assert module.idea, paper
        assert module.deviations, paper
        assert module.role, paper
        assert all(option.says for option in module.config), paper
        assert all(claim.check and claim.mentions for claim in module.claims.values()), paper


def test_a_module_without_experiment_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no EXPERIMENT"):
        read_module(tmp_path / "a" / "b" / "c.py", '"""x"""\nEXPERIMENT = 1\n')


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": 0, "paper": "a"}', '{"schema": 1, "paper": "b"}', '{"schema": 1, "paper": "a"}']
)
def test_a_broken_result_is_named(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json.*make results ID=a"):
        recorded.read_results(tmp_path)


NUMBERS = [
    (0.93412, "0.934"), (0.0, "0"), (1.0, "1.00"), (12.345, "12.3"), (1520, "1,520"), (1520.0, "1,520"), (3.2e9, "3.20e+09"),
    (1e-5, "1.0e-05"), (True, "True"), (float("nan"), "nan"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), NUMBERS)
def test_numbers(value, expected):
    assert markup.number(value) == expected


# --- notebooks ----------------------------------------------------------------------------------------------------------------


def test_notebook_html_is_cleaned():
    html = """<style>x</style><script src="https://cdn.example/mermaid.js"></script><!-- mathjax -->
    <h1 id="A B">A &amp; B<a class="anchor-link">¶</a></h1>
    <p onclick="x()"><a href="other.ipynb#x">other</a> <a href="gone.md">gone</a> <a href="#a-b">up</a> <a href="#no">no</a></p>
    <div class="highlight-ipynb hl-python"><pre><span></span><span class="k">if</span> x</pre></div>
    <img src="data:image/png;base64,aGVsbG8="><img src="https://evil.example/p.png"><a href="/abs">abs</a>"""
    done = clean(html, lambda path: {"other.ipynb": "../other/"}.get(path))
    assert "<script" not in done.html
    assert "<style" not in done.html
    assert "mathjax" not in done.html
    assert "onclick" not in done.html
    assert 'href="../other/#x"' in done.html
    assert list(done.files.values()) == [b"hello"]
    assert "base64" not in done.html
    assert '<div class="highlight"><pre><code><span class="k">if</span> x</code></pre></div>' in done.html
    assert done.headings == [(1, "a-b", "A & B")]
    assert len(done.problems) == 4
    assert [word for word in ("gone.md", "#no", "evil.example", "/abs") if not any(word in p for p in done.problems)] == []


def test_a_broken_link_in_a_notebook_fails_the_build(tmp_path):
    done = build(make_project(tmp_path, "# Alpha\n\n[gone](../papers/gone.md)"))
    assert done.returncode != 0
    assert "gone.md" in done.stderr


def test_a_broken_link_into_the_repository_fails_the_build(tmp_path):
    project = make_project(tmp_path)
    (project / "CONTRIBUTING.md").unlink()
    done = build(project)
    assert done.returncode != 0
    assert "CONTRIBUTING.md" in done.stderr


def test_a_notebook_half_rendered_by_a_stopped_build_is_rendered_again(tmp_path):
    project = make_project(tmp_path)
    assert build(project).returncode == 0
    (kept,) = (project / ".cache" / "mkdocs-jupyter").glob("*.json")
    whole = kept.read_bytes()
    for part in (b"", whole[: len(whole) // 2]):
        kept.write_bytes(part)
        done = build(project)
        assert done.returncode == 0, done.stderr
        assert kept.read_bytes() == whole


def test_a_broken_catalog_is_reported_without_a_traceback(tmp_path):
    project = make_project(tmp_path)
    (project / "papers.yaml").write_text(CATALOG.replace("venue: CCS", "venue: CVRP"))
    done = build(project)
    assert done.returncode != 0
    assert "did you mean CVPR" in done.stderr
    assert "Traceback" not in done.stderr


# --- the built site -----------------------------------------------------------------------------------------------------------


def html_pages(site: Path) -> dict[Path, Elements]:
    return {path: Elements(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}


LOADS = {
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",), "video": ("src", "poster"),
    "audio": ("src",), "embed": ("src",), "object": ("data",), "use": ("href", "xlink:href"), "image": ("href", "xlink:href"),
}  # fmt: skip
LOADING_RELATIONS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "modulepreload", "manifest"}


def loaded_from_elsewhere(elements: Elements) -> list[str]:
    """Addresses of other hosts that a page makes the browser fetch."""
    found = []
    for tag, attributes in elements.tags:
        for name in LOADS.get(tag, ()):
            if re.match(r"(https?:)?//", attributes.get(name, "")):
                found.append(f"<{tag} {name}={attributes[name]}>")
        loads = tag == "link" and LOADING_RELATIONS & set(attributes.get("rel", "").split())
        if loads and re.match(r"(https?:)?//", attributes.get("href", "")):
            found.append(f"<link {attributes['href']}>")
        if re.search(r"url\(\s*['\"]?(https?:)?//", attributes.get("style", "")):
            found.append(attributes["style"])
    return found


def test_no_page_loads_anything_from_another_host(site):
    pages = html_pages(site)
    assert len(pages) > 15
    assert {str(path): found for path, page in pages.items() if (found := loaded_from_elsewhere(page))} == {}
    for sheet in site.rglob("*.css"):
        outside = re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)'\"]*", sheet.read_text(encoding="utf-8"))
        assert outside == [], sheet


def test_the_scan_finds_what_it_looks_for():
    planted = '<script src="//cdn.example/x.js"></script><link rel="stylesheet" href="https://a.example/a.css"><img src="https://b/x">'
    assert len(loaded_from_elsewhere(Elements(planted))) == 3
    assert (
        loaded_from_elsewhere(Elements('<a href="https://c.example">c</a><link rel="canonical" href="https://d.example">'))
        == []
    )


def test_every_link_and_anchor_of_the_built_site_resolves(site):
    pages = html_pages(site)
    ids = {path: {a["id"] for _, a in page.tags if "id" in a} for path, page in pages.items()}
    broken = []
    for path, page in pages.items():
        here = "/" + path.relative_to(site).as_posix()
        if path.name == "404.html":
            continue  # made for any depth, with absolute addresses of the published site
        for tag, attributes in page.tags:
            address = attributes.get("href") or attributes.get("src") or ""
            parts = urlsplit(address)
            if tag == "link" or parts.scheme or address.startswith("//") or not address:
                continue
            target = urlsplit(urljoin(here, address))
            file = site / unquote(target.path).lstrip("/")
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                broken.append(f"{here}: {address}")
            elif target.fragment and file in ids and unquote(target.fragment) not in ids[file] and target.fragment != "__skip":
                broken.append(f"{here}: {address} (no such anchor)")
    assert broken == []


def test_pages_are_small(site):
    """HTML with own styles and scripts, without the theme's shared files."""
    own = sum(
        path.stat().st_size
        for path in (site / "assets" / "stylesheets").glob("*.css")
        if path.name in ("atlas.css", "notebook.css")
    )
    for path in site.rglob("*.html"):
        assert path.stat().st_size + own < 300_000, path


def test_notebook_page(site):
    folder = site / "notebooks" / "alpha_attack"
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert "<title>Alpha (notebook)" in html
    assert "walrus" in html
    assert 'href="../../papers/alpha_attack/#claims"' in html
    assert 'href="alpha_attack.ipynb" download' in html
    assert len(list(folder.glob("*.png"))) == 1
    assert "mermaid" not in html
    assert "mathjax" not in html.lower()
    assert "require.js" not in html
    assert nbformat.read(folder / "alpha_attack.ipynb", as_version=4).cells[0].source.startswith("# Alpha")


def test_search_index_holds_authors_methods_titles_and_notebooks(site):
    documents = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    text = {doc["location"]: doc["title"] + " " + doc["text"] for doc in documents}
    assert "Quixley" in text["papers/alpha_attack/"]
    assert "Alpha" in text["papers/alpha_attack/"]
    assert any("walrus" in words for place, words in text.items() if place.startswith("notebooks/alpha_attack/"))
    assert [place for place, words in text.items() if "Quixley" in words] == ["papers/alpha_attack/"]
    assert not any("EXPERIMENT" in words for words in text.values())


def test_generated_pages_stay_out_of_the_navigation(site):
    html = (site / "index.html").read_text(encoding="utf-8")
    assert "papers/alpha_attack" in html  # the picture
    navigation = html[html.index("md-nav--primary") : html.index("md-content")]
    assert "alpha_attack" not in navigation


def test_theme_overrides_are_not_published(site):
    assert not (site / "overrides").exists()


def test_real_pages_can_be_generated():
    """The real catalog, whatever it holds now."""
    if not (ROOT / "papers.yaml").exists():
        pytest.fail("papers.yaml is missing")
    atlas = read_atlas(ROOT, ROOT / "docs", REPO)
    pages = generate(atlas)
    assert len(pages) >= len(load(ROOT / "papers.yaml")) + len(FACETS)
