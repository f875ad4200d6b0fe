"""From the Atlas to the site's pages: {path in docs: Markdown}. Pure: the same input gives the same bytes."""

import re
from collections.abc import Callable

from ..catalog import FACETS
from .atlas import Atlas
from .lists import counted, gallery, notebooks_index, papers_index, taxonomy_index, taxonomy_page
from .paper_page import paper_page

SLOTS: dict[str, Callable[[Atlas], str]] = {
    "numbers": counted,
    "pictures": gallery,
    "repository": lambda atlas: atlas.repo_url,
}
REPOSITORY_LINK = re.compile(r"\]\(repo:([^)\s]*)\)")


def generate(atlas: Atlas) -> dict[str, str]:
    """All generated pages by their path in docs/."""
    pages = {"papers/index.md": papers_index(atlas), "notebooks/index.md": notebooks_index(atlas)}
    pages |= {f"papers/{entry.id}.md": paper_page(atlas, entry) for entry in atlas.catalog}
    pages["taxonomy/index.md"] = taxonomy_index(atlas)
    pages |= {f"taxonomy/{facet}.md": taxonomy_page(atlas, facet) for facet in FACETS}
    return pages


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
