"""Runs the papers' notebooks and tells which are stale: python -m scripts.notebooks check | run [ID ...].

A notebook is committed executed. Its metadata keep a hash of its own cells and of the code that it depends on; where either
differs it must be run again (`make notebooks`).
"""

import argparse
import ast
import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import nbformat

from implementations.common.cache import write_atomically
from implementations.common.progress import console
from implementations.common.provenance import ROOT
from implementations.registry import modules
from implementations.results import experiment_hash

FOLDER = ROOT / "docs" / "notebooks"


def path_of(paper: str) -> Path:
    return FOLDER / f"{paper}.ipynb"


def cells_hash(notebook: nbformat.NotebookNode) -> str:
    """Hash of the kinds and sources of all cells."""
    text = "\0".join(f"{cell.cell_type}\0{cell.source}" for cell in notebook.cells)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(paper: str) -> nbformat.NotebookNode:
    """A notebook, checked against the notebook format. Raises ValueError for a file that is none."""
    try:
        notebook = nbformat.read(path_of(paper), as_version=4)
        nbformat.validate(notebook)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path_of(paper)}: no valid notebook ({str(error).splitlines()[0]})") from error
    return notebook


def problems(paper: str) -> str:
    """What is wrong with a paper's notebook, or an empty text."""
    path = path_of(paper)
    if not path.exists():
        return f"{path.relative_to(ROOT)} is missing; make new-paper writes a first version"
    notebook = read(paper)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources = "\n".join(cell.source for cell in notebook.cells)
    where = f"{path.relative_to(ROOT)}: "
    if "TODO" in sources:
        return where + "something is left to do (TODO)"
    if defines_functions(code):
        return where + "defines functions or classes; algorithm code belongs in implementations/"
    if notebook.metadata.get("accelerator") != "GPU":
        return where + 'its metadata lack "accelerator": "GPU", which makes Colab offer one'
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        return where + "a cell ended in an error"
    kept = notebook.metadata.get("atlas", {})
    if kept.get("cells") != cells_hash(notebook):
        return where + f"its cells changed since it was run; run make notebooks ID={paper}"
    if kept.get("code") != experiment_hash(paper):
        return where + f"the code that it depends on changed; run make notebooks ID={paper}"
    if not any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs):
        return where + "shows no picture"
    return ""


def defines_functions(cells: Sequence[nbformat.NotebookNode]) -> bool:
    """Whether any code cell defines a function or a class; lines of shell and magic are passed over."""
    for cell in cells:
        source = re.sub(r"^(\s*)[%!].*$", r"\1pass", cell.source, flags=re.MULTILINE)
        if any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in ast.walk(ast.parse(source))):
            return True
    return False


def execute(paper: str, timeout: int = 900) -> None:
    """Runs a notebook from a clean start in the project's root and writes it back with its outputs and hashes.

    A cell that fails raises CellExecutionError and leaves the file as it was.
    """
    from nbclient import NotebookClient

    notebook = read(paper)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["INVERSION_ATLAS_QUIET"] = "1"
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number:02d}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    notebook.metadata.accelerator = "GPU"
    notebook.metadata.colab = {"provenance": []}
    notebook.metadata.atlas = {"cells": cells_hash(notebook), "code": experiment_hash(paper)}
    nbformat.validate(notebook)
    write_atomically(path_of(paper), nbformat.writes(notebook) + "\n")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.notebooks", description=__doc__)
    parser.add_argument("command", choices=["check", "run"])
    parser.add_argument("papers", nargs="*", help="ids; none means all (check) or all that are stale (run)")
    options = parser.parse_args(words)
    for paper in options.papers:
        if paper not in modules():
            parser.error(f"no implementation of {paper!r}; there are {', '.join(modules())}")
    found = {paper: problems(paper) for paper in (options.papers or modules())}
    if options.command == "check":
        for problem in filter(None, found.values()):
            print(problem)
        return int(any(found.values()))
    for paper in options.papers or [paper for paper, problem in found.items() if problem]:
        console.print(f"running docs/notebooks/{paper}.ipynb", highlight=False)
        execute(paper)
        if problem := problems(paper):
            print(problem)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
