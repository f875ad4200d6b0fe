"""Starts a paper: python -m scripts.new_paper ID SETTING writes its entry, module, test and notebook.

Everything that is left to do is marked TODO. The contract tests refuse a TODO, so they name what is missing.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template

import nbformat

from implementations.common.cache import write_atomically
from implementations.common.provenance import ROOT
from implementations.registry import NO_SETTING

ENTRY = Template("""
- id: $id
  title: "TODO: the title in the publisher's wording"
  method: TODO
  authors:
    - "TODO: Given Family, in order, one a line"
  year: 2026
  venue: arXiv
  kind: attack
  setting: $setting_term
  modality: [$modality]
  threat_model:
    access: $access
    goal: instance
    knowledge: []
    adversary: external
  taxonomy: {approach: optimization, techniques: []}
  summary: "TODO: 2-4 sentences in your words: what it does and why it works"
  contributions:
    - "TODO"
  limitations:
    generalizability: "TODO"
    practicality: "TODO"
    guarantees: "TODO"
  claims:
    - id: todo-name-the-claim
      says: "TODO: one sentence that a measurement can refute"
  basis: "TODO: sections and tables where these judgements can be checked"
  in_survey: false
  verified: https://example.org/TODO
""")

MODULE = Template('''r"""TODO: what it is in one line.

Paper: "TODO title", TODO authors, TODO venue. https://TODO

Idea. TODO: one paragraph: what the adversary sees, what the method does, why it works.

Mathematics. TODO: the losses and update rules with every symbol named and the equation's number:

$$$$\\hat x = \\arg\\min_x L(x).$$$$

Deviations
1. TODO: what differs from the paper, and why.
"""

from dataclasses import dataclass

from ..experiment import Claim, Config, Experiment, Reconstruction, Run, require
from ..threat_model import Knowledge, $oracle
from .setting import $setting_class


@dataclass(frozen=True, kw_only=True)
class ${camel}Config(Config):
    """TODO: for which scale the defaults are."""

    steps: int = 100  # TODO: meaning, unit, the paper's value with its section
    idea: bool = True  # TODO: the paper's own idea; False is the ablation

    def __post_init__(self):
        require(self.steps >= 1, f"steps must be at least 1, not {self.steps}")


def attack(oracle: $oracle, knowledge: Knowledge, config: ${camel}Config) -> Reconstruction:
    """TODO: shape and range of the result. Cite the equation beside each step; take the device from `oracle.device`."""
    raise NotImplementedError("TODO: $id")


EXPERIMENT = Experiment(
    paper="$id",
    setting=$setting_class,
    config=${camel}Config(),
    attack=attack,
    knowledge=(),  # TODO: the terms that the entry declares and the attack reads
    ablations={"no_idea": Run(says="TODO: the method without the paper's idea", config={"idea": False})},
    claims={
        "todo-name-the-claim": Claim(
            check=lambda method, runs: method["$headline"] >= 2 * runs["no_idea"]["$headline"],  # TODO
            ablation="no_idea",
        ),
    },
    smoke={"steps": 1},
    paper_scale={},  # TODO: the paper's values
)
''')

TEST = Template('''"""Tests of $id: its formulas, its limits, and that breaking it is noticed."""

import pytest

from implementations.$setting.$id import ${camel}Config


def test_loss_by_hand():
    pytest.fail("TODO: a loss worked out by hand on two or three numbers")


def test_limit_reduces_to_the_known_case():
    pytest.fail("TODO: zero weight, zero noise or infinite temperature give the known case")


def test_rejects_impossible_settings():
    with pytest.raises(ValueError, match="steps"):
        ${camel}Config(steps=0)
''')

INSTALL = """# Installs the project where it is missing, as on Colab. Takes about a minute there.
import importlib.util

if importlib.util.find_spec("implementations") is None:
    %pip install -q "inversion-atlas[data,text] @ git+https://github.com/inversion-atlas/inversion-atlas\""""

CELLS: tuple[tuple[str, str], ...] = (
    ("markdown", "# $id\n\nTODO: what the adversary starts from and what this notebook shows, in three sentences."),
    ("code", INSTALL),
    (
        "code",
        "import dataclasses\n\nimport torch\n\nfrom implementations.common.report import frame\n"
        "from implementations.experiment import run_experiment\nfrom implementations.registry import find\n\n"
        'device = "cuda" if torch.cuda.is_available() else "cpu"\n'
        'experiment = find("$id")\nsetting = experiment.build_setting(device)',
    ),
    ("markdown", "## What the adversary sees\n\nTODO: the oracle and the knowledge in words."),
    (
        "code",
        "oracle, knowledge = experiment.observe(setting)\nprint(type(oracle).__name__, "
        '"and knowledge of", ", ".join(sorted(knowledge.terms)) or "nothing else")',
    ),
    ("markdown", "## The attack\n\nTODO: the idea in two sentences."),
    ("code", "rebuilt = experiment.attack(oracle, knowledge, experiment.config)\nsetting.evaluate(rebuilt)"),
    ("markdown", "## Against baselines and without the idea\n\nTODO: what to look at."),
    (
        "code",
        "measured = run_experiment(experiment, setting)\nframe(measured, setting)",
    ),
    (
        "code",
        "figure = setting.figure({name: run.reconstruction for name, run in measured.items() if run.reconstruction})",
    ),
    ("markdown", "## Knobs to turn\n\nTODO: which, and what to expect."),
    (
        "code",
        "fewer = dataclasses.replace(experiment.config, steps=10)\n"
        "setting.evaluate(experiment.attack(*experiment.observe(setting), fewer))",
    ),
    (
        "markdown",
        "## At the paper's scale\n\nWith the data sets in a folder and a GPU, the same code runs with the paper's values:\n\n"
        "```\npython -m implementations run $id --scale paper --device cuda --setting.preset paper --setting.folder DATA\n```",
    ),
)


def settings() -> list[str]:
    """Folders of `implementations` that hold a setting."""
    folders = (ROOT / "implementations").iterdir()
    return sorted(path.name for path in folders if (path / "setting.py").exists() and path.name not in NO_SETTING)


def fill(paper: str, setting: str) -> dict[Path, str]:
    """The four files of a new paper by path; papers.yaml with the entry in its place."""
    import importlib

    from implementations.experiment import Setting

    module = importlib.import_module(f"implementations.{setting}.setting")
    kind = next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Setting) and value.__module__ == module.__name__
    )
    access, oracle, modality = {
        "classifier": ("white-box", "WhiteBox", "image"),
        "gradient": ("gradients", "Gradients", "image"),
        "split": ("features", "Features", "image"),
        "tabular": ("scores", "Scores", "tabular"),
        "graph": ("white-box", "WhiteBox", "graph"),
        "embedding": ("embeddings", "Embeddings", "text"),
        "language_model": ("logprobs", "LogProbs", "text"),
    }.get(setting, ("white-box", "WhiteBox", "any"))
    words = {
        "id": paper,
        "setting": setting,
        "setting_term": setting.replace("_", "-"),
        "setting_class": kind.__name__,
        "headline": kind.headline,
        "camel": "".join(part.capitalize() for part in paper.split("_")),
        "access": access,
        "oracle": oracle,
        "modality": modality,
    }
    notebook = nbformat.v4.new_notebook(
        cells=[
            (nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell)(
                Template(source).substitute(words), id=f"cell-{number:02d}"
            )
            for number, (kind, source) in enumerate(CELLS)
        ],
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "accelerator": "GPU",
            "colab": {"provenance": []},
        },
    )
    catalog = ROOT / "papers.yaml"
    return {
        catalog: inserted(catalog.read_text(encoding="utf-8"), paper, ENTRY.substitute(words).lstrip("\n")),
        ROOT / "implementations" / setting / f"{paper}.py": MODULE.substitute(words),
        ROOT / "tests" / setting / f"test_{paper}.py": TEST.substitute(words),
        ROOT / "docs" / "notebooks" / f"{paper}.ipynb": nbformat.writes(notebook) + "\n",
    }


def inserted(text: str, paper: str, entry: str) -> str:
    """papers.yaml with the entry in its alphabetic place, all else as it was. Raises ValueError if the id is there already."""
    starts = [(match.group(1), match.start()) for match in re.finditer(r"^- id: *(\S+) *(?:#.*)?$", text, re.MULTILINE)]
    if paper in (name for name, _ in starts):
        raise ValueError(f"papers.yaml has an entry {paper!r} already")
    place = next((start for name, start in starts if name > paper), None)
    if place is None:
        return text.rstrip("\n") + "\n\n" + entry
    return text[:place] + entry + "\n" + text[place:]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make new-paper ID=... SETTING=...", description=__doc__)
    parser.add_argument("paper", help="lower_snake_case: the method's name, or author, year and a telling word")
    parser.add_argument("setting", help="the folder of implementations it belongs to")
    options = parser.parse_args(words)
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", options.paper):
        print(f"ID={options.paper!r}: lower_snake_case is expected, such as plg_mi or fredrikson2014_warfarin")
        return 2
    if options.setting not in settings():
        near = difflib.get_close_matches(options.setting, settings(), 1, 0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"SETTING={options.setting!r}: there are {', '.join(settings())}{hint}")
        return 2
    try:
        files = fill(options.paper, options.setting)
    except ValueError as error:
        print(error)
        return 2
    for path in files:
        if path.exists() and path.name != "papers.yaml":
            print(f"{path.relative_to(ROOT)} exists already; nothing was written")
            return 2
    for path, content in files.items():
        write_atomically(path, content)
        print(path.relative_to(ROOT))
    print("Search for TODO in these files. `make check` and `make test-fast` name what is left.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
