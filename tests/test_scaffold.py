"""`make new-paper`: four files, in place, valid up to what is marked TODO; nothing half-written."""

import ast
import shutil

import nbformat
import pytest

from implementations.common.provenance import ROOT
from scripts import catalog, new_paper, notebooks


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """The scaffold writes into a copy of the tree's skeleton."""
    shutil.copy(ROOT / "papers.yaml", tmp_path / "papers.yaml")
    for setting in new_paper.settings():
        (tmp_path / "implementations" / setting).mkdir(parents=True)
        shutil.copy(ROOT / "implementations" / setting / "setting.py", tmp_path / "implementations" / setting / "setting.py")
    monkeypatch.setattr(new_paper, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("setting", new_paper.settings())
def test_four_files(copy, setting, capsys):
    assert new_paper.main(["example2030_method", setting]) == 0
    module = (copy / "implementations" / setting / "example2030_method.py").read_text()
    ast.parse(module)
    ast.parse((copy / "tests" / setting / "test_example2030_method.py").read_text())
    notebook = nbformat.read(copy / "docs" / "notebooks" / "example2030_method.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert "TODO" in module
    assert not notebooks.defines_functions([cell for cell in notebook.cells if cell.cell_type == "code"])
    assert {line for line in capsys.readouterr().out.splitlines() if line.endswith((".py", ".ipynb", ".yaml"))} == {
        "papers.yaml",
        f"implementations/{setting}/example2030_method.py",
        f"tests/{setting}/test_example2030_method.py",
        "docs/notebooks/example2030_method.ipynb",
    }


def test_the_entry_is_a_pure_insertion_that_the_checker_names(copy):
    before = (copy / "papers.yaml").read_text().splitlines()
    new_paper.main(["example2030_method", "classifier"])
    after = (copy / "papers.yaml").read_text().splitlines()
    rest = iter(after)
    assert all(line in rest for line in before), "every old line is still there, in order"
    problems = catalog.check(copy / "papers.yaml")
    assert all(problem.entry == "example2030_method" for problem in problems)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Example", "classifier"], "lower_snake_case"),
        (["example", "clasifier"], "did you mean classifier"),
        (["gmi", "classifier"], "already"),
    ],
)
def test_wrong_words_write_nothing(copy, words, message, capsys):
    before = (copy / "papers.yaml").read_text()
    assert new_paper.main(words) == 2
    assert message in capsys.readouterr().out
    assert (copy / "papers.yaml").read_text() == before
    assert not list(copy.glob("docs/**/*.ipynb"))


def test_an_existing_file_is_left_alone(copy, capsys):
    path = copy / "tests" / "classifier" / "test_example2030_method.py"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert new_paper.main(["example2030_method", "classifier"]) == 2
    assert "nothing was written" in capsys.readouterr().out
    assert path.read_text() == "mine"
    assert not (copy / "implementations" / "classifier" / "example2030_method.py").exists()


def test_insertion_by_hand():
    text = "# head\n\n- id: b\n  x: 1\n\n- id: d\n  x: 2\n"
    assert new_paper.inserted(text, "c", "- id: c\n") == "# head\n\n- id: b\n  x: 1\n\n- id: c\n\n- id: d\n  x: 2\n"
    assert new_paper.inserted(text, "e", "- id: e\n").endswith("  x: 2\n\n- id: e\n")
    with pytest.raises(ValueError, match="already"):
        new_paper.inserted(text, "b", "")
