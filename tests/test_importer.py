"""The importer: BibTeX to entries, merging that never overwrites, and what it says of input it can't use."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from scripts import catalog, importer

VALID = (Path(__file__).parent / "catalog_valid.yaml").read_text(encoding="utf-8")
NEW = """@inproceedings{x,
  title = {A {GAN} of G{\\"o}del: 50\\% Better},
  author = {van der One, J{\\"u}rgen and Ann Two},
  booktitle = {Proceedings of the 2021 IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  year = {2021}, doi = {https://doi.org/10.1109/ABC.2021.1}, url = {https://arxiv.org/abs/2101.01234v2}
}"""


@pytest.fixture
def papers(tmp_path):
    path = tmp_path / "papers.yaml"
    path.write_text(VALID, encoding="utf-8")
    return path


def imported(papers, bibtex, *options):
    source = papers.parent / "x.bib"
    source.write_text(bibtex, encoding="utf-8")
    return importer.main([str(source), "--catalog", str(papers), *options])


def entries(path):
    return {entry["id"]: entry for entry in yaml.safe_load(path.read_text(encoding="utf-8"))}


def test_new_paper_becomes_an_entry_whose_gaps_the_checker_names(papers, capsys):
    assert imported(papers, NEW) == 0
    found = entries(papers)["one2021_gan"]
    assert found["title"] == "A GAN of Gödel: 50% Better"
    assert found["authors"] == ["Jürgen van der One", "Ann Two"]
    assert (found["year"], found["venue"], found["arxiv"], found["doi"]) == (2021, "CVPR", "2101.01234", "10.1109/ABC.2021.1")
    assert "url" not in found
    problems = catalog.check(papers)
    assert {p.field for p in problems} == {"kind", "setting", "modality[0]", "verified"}
    assert {p.entry for p in problems} == {"one2021_gan"}
    assert "left to fill: kind, setting, modality" in capsys.readouterr().out


def test_nothing_else_in_the_file_changes(papers):
    before = papers.read_text(encoding="utf-8")
    imported(papers, NEW)
    after = papers.read_text(encoding="utf-8")
    start = after.index("- id: one2021_gan")
    end = after.index("\n\n", start) + 2 if "\n\n" in after[start:] else len(after)
    rest = after[:start] + after[end:]
    assert catalog.format_text(rest) == catalog.format_text(before)


def test_checked_facts_are_never_overwritten(papers, capsys):
    entry = catalog.load(papers)["gmi"]
    facts = "author={Wrong Person}, journal={TIFS}, year={1999}, doi={10.1000/other}"
    wrong = f"@article{{y, title={{{entry.title}}}, {facts}}}"
    before = papers.read_bytes()
    assert imported(papers, wrong) == 0
    said = capsys.readouterr().out
    assert papers.read_bytes() == before
    for fact in ("authors stays", "year stays", "venue stays"):
        assert fact in said


@pytest.mark.parametrize("same", ["title", "arxiv"])
def test_lacking_identifier_is_added(papers, same, capsys):
    entry = catalog.load(papers)["gmi"]
    title = entry.title.upper() if same == "title" else "Another wording"
    eprint = f"eprint={{{entry.arxiv}}}, archivePrefix={{arXiv}}," if same == "arxiv" else ""
    lacking = next(name for name in ("openreview", "doi", "url") if getattr(entry, name) is None)
    value = {"openreview": "url={https://openreview.net/forum?id=aBcDeFgH12}", "doi": "doi={10.1000/x}"}[lacking]
    assert imported(papers, f"@misc{{z, title={{{title}}}, author={{Ann One}}, year={{{entry.year}}}, {eprint} {value}}}") == 0
    assert catalog.check(papers) == []
    assert getattr(catalog.load(papers)["gmi"], lacking) in ("aBcDeFgH12", "10.1000/x")
    assert "added; check it" in capsys.readouterr().out


def test_importing_twice_changes_nothing(papers):
    imported(papers, NEW)
    once = papers.read_bytes()
    imported(papers, NEW)
    assert papers.read_bytes() == once


def test_two_records_of_one_paper_make_one_entry(papers):
    imported(papers, NEW + NEW.replace("{x,", "{y,").replace("2101.01234v2", "2101.09999"))
    assert [name for name in entries(papers) if name.startswith("one2021")] == ["one2021_gan"]


def test_dry_run_writes_nothing(papers):
    imported(papers, NEW, "--dry-run")
    assert papers.read_text(encoding="utf-8") == VALID


BAD = {
    "HTML": (NEW.replace("A {GAN}", "A <script>x</script>"), "plain text without HTML"),
    "et al.": (NEW.replace("Ann Two", "others"), "all authors are expected by name"),
    "no year": (NEW.replace("year = {2021},", ""), "no usable year"),
    "impossible year": (NEW.replace("{2021}, doi", "{1066}, doi"), "no usable year"),
    "not BibTeX": ("hello", "no BibTeX entry found"),
    "broken entry": (NEW + "\n@article{q title=}", "left out"),
    "unknown venue": (
        NEW.replace("Conference on Computer Vision and Pattern Recognition (CVPR)", "Gazette"),
        "scripts/venues.py",
    ),
    "bad DOI": (NEW.replace("10.1109/ABC.2021.1", "nonsense"), "a DOI without address"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_said(papers, name, capsys):
    bibtex, message = BAD[name]
    imported(papers, bibtex)
    said = capsys.readouterr()
    assert message in said.out
    assert "Traceback" not in said.err
    assert all(p.entry.startswith("one2021") for p in catalog.check(papers)), "the other entries stay valid"


def test_a_source_that_is_nothing_is_explained(papers, capsys):
    assert importer.main(["nosuch.bib", "--catalog", str(papers)]) == 1
    assert "no file that exists" in capsys.readouterr().out


def test_an_empty_source_and_a_folder_are_explained(papers, tmp_path, capsys):
    assert importer.main(["", "--catalog", str(papers)]) == 1
    assert "say what to import" in capsys.readouterr().out
    assert importer.main([str(tmp_path), "--catalog", str(papers)]) == 1
    assert "a readable file is expected" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00", b"- a: [", b"a: 1"])
def test_unreadable_catalog_is_left_alone(papers, content, capsys):
    papers.write_bytes(content)
    assert imported(papers, NEW) == 1
    assert papers.read_bytes() == content


class Page(BaseHTTPRequestHandler):
    """A stand-in for the pages that give BibTeX for an identifier."""

    def do_GET(self):
        known = self.path == "/2101.01234"
        self.send_response(200 if known else 404)
        self.end_headers()
        self.wfile.write(NEW.encode() if known else b"")

    def log_message(self, *words):
        pass


@pytest.fixture
def page():
    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{{}}"
    server.shutdown()


def test_identifiers_are_fetched(papers, page, monkeypatch):
    monkeypatch.setattr(importer, "ARXIV_PAGE", page)
    assert importer.main(["arXiv:2101.01234", "--catalog", str(papers)]) == 0
    assert "one2021_gan" in entries(papers)


def test_unreachable_identifier_says_what_to_do(papers, page, monkeypatch, capsys):
    monkeypatch.setattr(importer, "DOI_PAGE", page)
    assert importer.main(["10.1000/nothing", "--catalog", str(papers)]) == 1
    assert "save its BibTeX to a file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("place", "venue"),
    [
        ("CVPR", "CVPR"),
        ("In CVPR 2024", "CVPR"),
        ("Proceedings of the 27th ACM SIGSAC Conference on Computer and Communications Security", "CCS"),
        ("IEEE Transactions on Information Forensics and Security", "TIFS"),
        ("30th USENIX Security Symposium (USENIX Security 21)", "USENIX Security"),
        ("arXiv preprint arXiv:2101.01234", "arXiv"),
        ("Advances in Gardening", None),
        ("Findings of the Association for Computational Linguistics: EMNLP 2022", "Findings of EMNLP"),
    ],
)
def test_venues_are_recognised(place, venue):
    assert importer.venue_of(place, {}) == venue
