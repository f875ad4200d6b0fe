"""The JSON Schema of papers.yaml, for editors: fields with descriptions, terms with definitions.

The checker knows more rules than a schema can say.
"""

import json
from typing import Any

from .model import NEEDS_THREAT_MODEL, Entry


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the whole file, exported from the model."""
    entry = _tidied(Entry.model_json_schema(mode="validation"))
    definitions = entry.pop("$defs")
    needs = {"properties": {"kind": {"enum": list(NEEDS_THREAT_MODEL)}}, "required": ["kind"]}
    entry |= {"if": needs, "then": {"required": ["threat_model"]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "papers.yaml of Inversion Atlas",
        "description": "Generated from scripts/catalog/model.py and scripts/vocabulary.py; do not edit.",
        "type": "array",
        "items": {"$ref": "#/$defs/Entry"},
        "$defs": dict(sorted({**definitions, "Entry": entry}.items())),
    }


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _tidied(node: Any) -> Any:
    """Optional fields are left out, never null: null is no allowed value and no default. Generated titles say nothing."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    noise = {"default"} if node.get("default") is None else set()
    noise |= {"title"} if isinstance(node.get("title"), str) else set()
    node = {key: _tidied(value) for key, value in node.items() if key not in noise}
    if {"type": "null"} in node.get("anyOf", ()):
        rest = [option for option in node.pop("anyOf") if option != {"type": "null"}]
        node |= rest[0] if len(rest) == 1 else {"anyOf": rest}
    return node
