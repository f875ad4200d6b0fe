"""The exports: every entry arrives whole in BibTeX, CSL-JSON, CSV and JSON."""

import csv
import io
import json
from pathlib import Path

import bibtexparser
import pytest

from scripts import catalog, exports
from scripts.catalog.files import PAPERS
from scripts.venues import KINDS, VENUE, VENUE_KIND

SAMPLE = catalog.load(Path(__file__).parent / "catalog_valid.yaml")


@pytest.fixture(scope="module")
def papers():
    return catalog.load(PAPERS)


def test_bibliography_parses_whole(papers):
    library = bibtexparser.parse_string(exports.to_bibliography(papers))
    assert not library.failed_blocks
    assert [entry.key for entry in library.entries] == [entry.id for entry in papers]
    needed = {"article": "journal", "inproceedings": "booktitle", "misc": "howpublished", "phdthesis": "school"}
    for entry in library.entries:
        assert {"title", "author", "year", needed[entry.entry_type]} <= set(entry.fields_dict), entry.key


def test_bibliography_is_ascii_where_tex_has_names(papers):
    text = exports.to_bibliography(papers)
    assert text.count("{") == text.count("}")


def test_csl_has_every_author_split(papers):
    items = json.loads(exports.to_csl(papers))
    assert [item["id"] for item in items] == [entry.id for entry in papers]
    for item, entry in zip(items, papers, strict=True):
        assert len(item["author"]) == len(entry.authors)
        for name, author in zip(item["author"], entry.authors, strict=True):
            parts = [name.get("given"), name.get("non-dropping-particle"), name.get("family"), name.get("literal")]
            assert " ".join(part for part in parts if part) == author
        assert item["issued"] == {"date-parts": [[entry.year]]}
        assert item["type"] in set(exports.CSL_TYPES.values())


def test_particles_and_single_names():
    assert exports.csl_name("Jürgen van der One") == {
        "family": "One",
        "given": "Jürgen",
        "non-dropping-particle": "van der",
    }
    assert exports.csl_name("李") == {"literal": "李"}


def test_csv_rows_are_the_entries(papers):
    rows = list(csv.DictReader(io.StringIO(exports.to_csv(papers))))
    assert [row["id"] for row in rows] == [entry.id for entry in papers]
    for row, entry in zip(rows, papers, strict=True):
        assert row["authors"].split("; ") == list(entry.authors)
        assert row["access"] == "; ".join(entry.terms("access"))
        assert row["year"] == str(entry.year)


@pytest.mark.parametrize("start", ["=", "+", "-", "@"])
def test_csv_cells_are_no_formulas(start):
    entry = SAMPLE["gmi"].model_copy(update={"title": f"{start}SUM(A1)"})
    (row,) = csv.DictReader(io.StringIO(exports.to_csv(catalog.catalog.Catalog([entry]))))
    assert row["title"] == f"'{start}SUM(A1)"


def test_json_round_trips(papers):
    rows = json.loads(exports.to_json(papers))
    again = [catalog.Entry.model_validate_json(json.dumps(row)) for row in rows]
    assert again == list(papers)


def test_files_are_written(tmp_path, capsys):
    assert exports.main([str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(exports.EXPORTS)


def test_each_venue_is_of_one_kind():
    assert sum(len(venues) for venues in KINDS.values()) == len(VENUE) == len(VENUE_KIND)
    assert list(VENUE) == sorted(VENUE, key=str.lower)
