"""The notebook checker: every kind of problem is named, and running makes it go away."""

import nbformat
import pytest

from scripts import notebooks


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path / "docs" / "notebooks")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    monkeypatch.setattr(notebooks, "experiment_hash", lambda paper: "abc")

    def write(*sources, **metadata):
        cells = [nbformat.v4.new_code_cell(source, id=f"c{i}") for i, source in enumerate(sources)]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"accelerator": "GPU", **metadata})
        path = notebooks.path_of("gmi")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(nbformat.writes(notebook))

    return write


PICTURE = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


def test_a_missing_notebook_is_named(written):
    assert "missing" in notebooks.problems("gmi")


def test_damage_is_named(written):
    written("1")
    notebooks.path_of("gmi").write_text("{")
    with pytest.raises(ValueError, match=r"gmi\.ipynb: no valid notebook"):
        notebooks.problems("gmi")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("# TODO", "left to do"),
        ("def f():\n    pass", "algorithm code"),
        ("if True:\n    %pip install x\nclass A: pass", "algorithm code"),
        ("1 + 1", "cells changed since it was run"),
    ],
)
def test_problems_are_named(written, source, message):
    written(source)
    assert message in notebooks.problems("gmi")


def test_colab_must_offer_a_gpu(written):
    written("1", accelerator="none")
    assert "Colab" in notebooks.problems("gmi")


@pytest.mark.slow
def test_running_makes_it_fresh_and_changes_make_it_stale(written, monkeypatch):
    written(PICTURE)
    notebooks.execute("gmi")
    assert notebooks.problems("gmi") == ""
    monkeypatch.setattr(notebooks, "experiment_hash", lambda paper: "def")
    assert "code that it depends on changed" in notebooks.problems("gmi")


@pytest.mark.slow
def test_every_figure_is_shown_once(written):
    start = "from implementations.common.plots import figure\n_, axes = figure()\n_ = axes.plot([1, 2])"
    written(start, start, start)
    notebooks.execute("gmi")
    shown = [[key for output in cell.outputs for key in output.get("data", {})] for cell in notebooks.read("gmi").cells]
    assert [keys.count("image/png") for keys in shown] == [1, 1, 1]


@pytest.mark.slow
def test_a_failing_cell_leaves_the_file_as_it_was(written):
    written("raise ValueError('no')")
    before = notebooks.path_of("gmi").read_text()
    with pytest.raises(Exception, match="no"):
        notebooks.execute("gmi")
    assert notebooks.path_of("gmi").read_text() == before


def test_a_notebook_without_a_picture_is_named(written):
    written("1")
    notebook = notebooks.read("gmi")
    notebook.metadata.atlas = {"cells": notebooks.cells_hash(notebook), "code": "abc"}
    notebooks.path_of("gmi").write_text(nbformat.writes(notebook))
    assert "no picture" in notebooks.problems("gmi")
