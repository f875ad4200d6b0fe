"""Finds the implementations: every module with an `EXPERIMENT` in a folder of a setting. Nothing is listed by hand."""

import difflib
import importlib
from functools import cache
from pathlib import Path

from .experiment import Experiment

FOLDER = Path(__file__).parent
NO_SETTING = {"common", "__pycache__"}


@cache
def modules() -> dict[str, str]:
    """The dotted module name of every paper, by id, sorted. The file's name is the id."""
    found = {}
    for path in sorted(FOLDER.glob("*/*.py")):
        if path.parent.name in NO_SETTING or path.stem.startswith("_"):
            continue
        if "\nEXPERIMENT = " in path.read_text(encoding="utf-8"):
            found[path.stem] = f"implementations.{path.parent.name}.{path.stem}"
    return dict(sorted(found.items()))


def find(paper: str) -> Experiment:
    """The experiment of a paper. Raises KeyError naming the nearest ids."""
    if paper not in modules():
        near = difflib.get_close_matches(paper, modules(), 3, 0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise KeyError(f"no implementation of {paper!r}{hint}")
    return importlib.import_module(modules()[paper]).EXPERIMENT


def experiments() -> dict[str, Experiment]:
    """Every experiment by id."""
    return {paper: find(paper) for paper in modules()}


def in_setting(setting: str, role: str) -> list[str]:
    """Ids of the methods of one setting and role (attack, defend, measure)."""
    return [paper for paper, found in experiments().items() if found.setting.name == setting and found.role == role]
