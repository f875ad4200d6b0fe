"""The MkDocs hook: hands generated pages over, fills slots, cleans notebooks. Everything else is in the other modules."""

import html
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # the mkdocs command, unlike python -m mkdocs, does not look for packages here
    sys.path.insert(0, str(ROOT))

from mkdocs.exceptions import PluginError  # noqa: E402
from mkdocs.plugins import event_priority  # noqa: E402
from mkdocs.structure.files import File  # noqa: E402
from mkdocs.structure.toc import get_toc  # noqa: E402
from mkdocs.utils import get_relative_url  # noqa: E402

from scripts.catalog import CatalogError  # noqa: E402
from scripts.site.atlas import read_atlas  # noqa: E402
from scripts.site.citations import UnknownCitation, cite  # noqa: E402
from scripts.site.generate import fill, generate, link_repository, repository_paths  # noqa: E402
from scripts.site.incremental import drop_broken, mark, search_entries  # noqa: E402
from scripts.site.lists import notebook_head  # noqa: E402
from scripts.site.notebook_html import clean, first_heading, join  # noqa: E402
from scripts.site.publish import citation_tags, feed, first_seen, preview_tags, with_mathematics, with_policy  # noqa: E402

log = logging.getLogger("mkdocs.hooks.atlas")
state = SimpleNamespace(atlas=None, root=ROOT, pages=())


def is_notebook(page) -> bool:
    return is_notebook_file(page.file)


def is_notebook_file(file) -> bool:
    return file.src_uri.endswith(".ipynb")


def on_config(config):
    state.root = Path(config.config_file_path).resolve().parent
    return config


def on_pre_build(config):
    for path in drop_broken(Path(config.plugins["mkdocs-jupyter"].config["cache_dir"])):
        log.info(f"{path} was half-written; its notebook is rendered again")


@event_priority(100)  # before mkdocs-jupyter, which wraps the files that it finds
def on_files(files, config):
    try:
        state.atlas = read_atlas(state.root, Path(config.docs_dir), config.repo_url)
    except (CatalogError, ValueError) as error:
        raise PluginError(str(error)) from error
    written = [file for file in files if file.is_documentation_page() and not is_notebook_file(file)]
    try:
        contents = generate(state.atlas)
    except UnknownCitation as error:
        raise PluginError(str(error)) from error
    contents["feed.xml"] = feed(state.atlas, first_seen(state.root), config.site_url or "/")
    made = [File.generated(config, path, content=content) for path, content in contents.items()]
    mark(made, written)
    for file in made:
        files.append(file)
    return files


def on_nav(nav, config, files):
    state.pages = {file.url for file in files.documentation_pages()}
    return nav


def on_page_markdown(markdown, page, config, files):
    if is_notebook(page):
        return ""
    for path in repository_paths(markdown):
        if path and not (state.root / path).exists():
            log.warning(f"{page.file.src_uri} links to repo:{path}, which does not exist")
    try:
        cited = markdown if page.file.generated_by else cite(markdown, state.atlas, page.file.src_uri)
    except UnknownCitation as error:
        raise PluginError(str(error)) from error
    return link_repository(fill(cited, state.atlas), state.atlas)


def on_page_content(content, page, config, files):
    if not is_notebook(page):
        return content
    source = page.file.src_uri
    folder, _, name = source.rpartition("/")
    paper = name.removesuffix(".ipynb")

    def resolve(path: str) -> str | None:
        target = files.get_file_from_path(join(folder, path))
        return None if target is None else get_relative_url(target.url, page.url)

    done = clean(content, resolve)
    for problem in done.problems:
        log.warning(f"{source} {problem}")
    for file, content in done.files.items():
        files.append(File.generated(config, f"{folder}/{paper}/{file}", content=content))
    page.toc = get_toc(nested(done.headings))
    page.title = first_heading(done) or paper
    page.meta = {"title": notebook_title(page.title), "hide": ["navigation"], "search": {"boost": 0.5}}
    return notebook_head(state.atlas, paper) + done.html


def on_page_context(context, page, config, nav):
    """Metadata of the page for its head."""
    folder, _, name = page.file.src_uri.partition("/")
    paper = state.atlas.catalog.by_id.get(name.removesuffix(".md")) if folder == "papers" else None
    site = config.site_url or ""
    pictured = paper is not None and paper.id in state.atlas.pictures
    image = f"{site}results/{paper.id}.png" if pictured else f"{site}assets/card.png"
    title, about = html.unescape(str(page.meta.get("title") or page.title)), html.unescape(page.meta.get("description") or "")
    tags = preview_tags(title, about or config.site_description, page.canonical_url or "", image)
    context["atlas_tags"] = [*(citation_tags(paper) if paper else []), *tags]
    return context


@event_priority(100)  # before the search plugin writes its index
def on_post_build(config):
    for plugin in config.plugins.values():
        if hasattr(plugin, "search_index"):
            index = plugin.search_index
            index.entries = search_entries(index.entries, config.site_dir, state.pages)
            plugin.search_index_prev = None  # its own merging assumes that one page changed


def on_post_page(output, page, config):
    return with_policy(with_mathematics(output, get_relative_url("./", page.url)))


def on_post_template(output, template_name, config):
    return with_policy(output) if template_name.endswith(".html") else output


def notebook_title(title: str) -> str:
    """The theme writes titles into HTML unescaped."""
    escaped = title.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{escaped} (notebook)"


def nested(headings):
    """Headings as the tree that MkDocs makes its table of contents from."""
    root: list[dict] = []
    stack: list[tuple[int, list[dict]]] = [(0, root)]
    for level, name, words in headings:
        while stack[-1][0] >= level:
            stack.pop()
        token = {"level": level, "id": name, "name": words, "children": []}
        stack[-1][1].append(token)
        stack.append((level, token["children"]))
    return root
