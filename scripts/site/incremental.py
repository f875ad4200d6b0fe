"""Rebuilding only what changed: generated files compared with the last build of this process, notebooks rendered before."""

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_last: dict[str, str] = {}  # by destination, so that two sites in one process stay apart
_indexed: dict[str, dict[str, list[dict[str, Any]]]] = {}  # search entries by site and page


def mark(generated: Iterable[File], written: Iterable[File]) -> None:
    """Tells MkDocs which files a dirty build may leave alone: generated ones with the content they had.

    Hand-written pages, which quote numbers of the catalog, are built again whenever anything generated has changed.
    """
    anything = False
    for file in generated:
        content = file.content_bytes
        digest = hashlib.sha256(content).hexdigest()
        changed = _last.get(file.abs_dest_path) != digest or not os.path.exists(file.abs_dest_path)
        _last[file.abs_dest_path] = digest
        anything = anything or changed
        file.is_modified = lambda changed=changed: changed  # type: ignore[method-assign]
    if anything:
        for file in written:
            file.is_modified = lambda: True  # type: ignore[method-assign]


def search_entries(entries: Iterable[dict[str, Any]], site: str, pages: Collection[str]) -> list[dict[str, Any]]:
    """All entries of the search index after a build that rendered some pages: theirs, and those that the others had before."""
    fresh: dict[str, list[dict[str, Any]]] = {}
    for entry in entries:
        fresh.setdefault(entry["location"].partition("#")[0], []).append(entry)
    known = _indexed.setdefault(site, {})
    known.update(fresh)
    for gone in set(known) - set(pages):
        del known[gone]
    return [entry for page in sorted(known) for entry in known[page]]


def drop_broken(cache: Path) -> list[Path]:
    """Deletes rendered notebooks that a build left half-written when it was stopped, which no later build could read."""
    broken = []
    for path in sorted(cache.glob("*.json")):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            path.unlink()
            broken.append(path)
    return broken
