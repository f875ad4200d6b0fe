"""From the Atlas to the site's files: {path in docs: text}. Pure: the same input gives the same bytes."""

import re
from collections.abc import Callable

from ..exports import EXPORTS
from .atlas import Atlas
from .charts import lineage_map, timeline
from .data import scripts
from .lists import counted, gallery, notebooks_index, papers_index
from .paper_page import paper_page
from .quality import quality_page
from .rankings import gallery_page, leaderboards, matrix
from .taxonomy import taxonomy

SLOTS: dict[str, Callable[[Atlas], str]] = {
    "numbers": counted,
    "pictures": gallery,
    "repository": lambda atlas: atlas.repo_url,
}
PAGES: dict[str, Callable[[Atlas], str]] = {
    "data-quality.md": quality_page,
    "leaderboards.md": leaderboards,
    "matrix.md": matrix,
    "gallery.md": gallery_page,
    "timeline.md": timeline,
    "lineage.md": lineage_map,
}
REPOSITORY_LINK = re.compile(r"\]\(repo:([^)\s]*)\)")


def generate(atlas: Atlas) -> dict[str, str]:
    """All generated pages, data and exports by their path in docs/."""
    pages = {"papers/index.md": papers_index(atlas), "notebooks/index.md": notebooks_index(atlas)}
    pages |= {f"papers/{entry.id}.md": paper_page(atlas, entry) for entry in atlas.catalog}
    pages |= {name: page(atlas) for name, page in PAGES.items()}
    exports = {f"exports/{name}": export(atlas.catalog) for name, export in EXPORTS.items()}
    return pages | taxonomy(atlas) | scripts(atlas) | exports


def fill(markdown: str, atlas: Atlas) -> str:
    """A hand-written page with its `<!-- atlas:name -->` slots filled. Raises ValueError for a slot that does not exist."""

    def filled(match: re.Match[str]) -> str:
        if match.group(1) not in SLOTS:
            raise ValueError(f"no slot atlas:{match.group(1)}; there are {', '.join(SLOTS)}")
        return SLOTS[match.group(1)](atlas)

    return re.sub(r"<!--\s*atlas:([\w-]+)\s*-->", filled, markdown)


def repository_paths(markdown: str) -> list[str]:
    """The paths of a page's `repo:` links, which point into the repository."""
    return REPOSITORY_LINK.findall(markdown)


def link_repository(markdown: str, atlas: Atlas) -> str:
    """A page with its `](repo:path)` links turned into addresses of the repository."""
    return REPOSITORY_LINK.sub(lambda m: f"]({atlas.blob(m.group(1)) if m.group(1) else atlas.repo_url})", markdown)
