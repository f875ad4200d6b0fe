"""The catalog papers.yaml: its typed model, checker, loader, formatter and JSON Schema."""

from .catalog import FACETS, REVERSE, Catalog
from .checker import check, load, load_text
from .formatter import format_text
from .json_schema import schema, schema_text
from .model import CatalogClaim, Entry, Limitations, Relations, Reported, Taxonomy, ThreatModel
from .problems import CatalogError, Problem

__all__ = [
    "FACETS",
    "REVERSE",
    "Catalog",
    "CatalogClaim",
    "CatalogError",
    "Entry",
    "Limitations",
    "Problem",
    "Relations",
    "Reported",
    "Taxonomy",
    "ThreatModel",
    "check",
    "format_text",
    "load",
    "load_text",
    "schema",
    "schema_text",
]
