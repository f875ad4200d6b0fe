"""The code hash: rewording changes nothing, anything that could move a number does."""

import textwrap

import pytest

from implementations.common import provenance

BASE = '''
"""A docstring."""
import math

def f(x):
    """What it does."""
    if x:
        y = 1  # why
        z = 2
    return "# no comment" + str(y)
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A docstring."""', '"""Another."""'),
        ("  # why", "  # for a reason"),
        ("\nimport", "\n\n\nimport"),
        ("y = 1", "y  =  (1)"),
        ("f(x)", "f(\n    x,\n)"),
    ],
)
def test_wording_and_spacing_do_not_count(old, new):
    assert provenance.essential(BASE.replace(old, new)) == provenance.essential(BASE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("y = 1", "y = 2"), ("        z = 2", "    z = 2"), ('"# no comment"', '"# comment"'), ("import math", "import cmath")],
)
def test_code_counts(old, new):
    assert old in BASE
    assert provenance.essential(BASE.replace(old, new)) != provenance.essential(BASE)


def test_essential_source_still_has_every_statement():
    kept = provenance.essential(textwrap.dedent(BASE))
    assert "id='z'" in kept
    assert "no comment" in kept
    assert "What it does" not in kept


def test_closure_follows_imports_and_leaves_out_presentation():
    needed = provenance.closure("implementations.classifier.gmi")
    assert "implementations.common.priors" in needed
    assert "implementations.classifier.setting" in needed
    assert "implementations.common.plots" not in needed
    assert provenance.code_hash("implementations.classifier.gmi") != provenance.code_hash("implementations.classifier.mid")


def test_what_only_paper_presets_run_makes_no_recorded_result_stale():
    assert not provenance.PAPER_SCALE & set(provenance.closure("implementations.classifier.setting"))
    large = set(provenance.closure("implementations.classifier.large_victims"))
    assert {"implementations.classifier.large_victims", "implementations.classifier.large_networks"} <= large
