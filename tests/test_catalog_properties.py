"""Mutated, random and generated catalogs: the checker never fails, the formatter never loses anything."""

import contextlib
import copy
import random
from collections import Counter
from pathlib import Path
from typing import Any

import bibtexparser
import pytest
import yaml
from bibtexparser.middlewares import LatexDecodingMiddleware, SeparateCoAuthors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts import catalog
from scripts.bibtex import to_bibtex
from scripts.catalog import Entry
from scripts.catalog.checker import ENTRY_SHAPE, Shape
from scripts.catalog.model import plain_text
from scripts.vocabulary import VOCABULARIES

VALID = (Path(__file__).parent / "catalog_valid.yaml").read_text(encoding="utf-8")
CASES = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
FEW = settings(CASES, max_examples=60)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "papers.yaml"


def checked(path: Path, content: bytes) -> list[catalog.Problem]:
    """Problems of a file, after what holds for any content: they can be printed, lie in the file and decide on loading."""
    path.write_bytes(content)
    problems = catalog.check(path)
    lines = max(1, len(content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")))
    for problem in problems:
        assert 1 <= problem.line <= lines, problem
        assert problem.message
        assert str(problem).isprintable()
    if problems:
        with pytest.raises(catalog.CatalogError):
            catalog.load(path)
    else:
        catalog.load(path)
    return problems


def said(text: str) -> list[Any]:
    """What YAML says according to another reader, every scalar as text; entries in the order of their text."""
    return sorted(normal(yaml.load(text, yaml.CBaseLoader), Shape("list", ENTRY_SHAPE)), key=repr)


def normal(value: Any, shape: Shape) -> Any:
    """A value with a lone term as a list, and mappings without order."""
    if isinstance(value, dict):
        return sorted((name, normal(inner, shape.fields.get(name, Shape("any")))) for name, inner in value.items())
    if isinstance(value, list):
        return [normal(item, shape.item or Shape("any")) for item in value]
    if value in ("", "~", "null", "Null", "NULL"):
        value = "null or empty"
    return [value] if shape.kind == "list" and shape.single else value


def formatted(text: str) -> str | None:
    """The formatted text, after the promises that hold for any text; None where it is refused."""
    try:
        once = catalog.format_text(text)
    except catalog.CatalogError:
        return None
    assert catalog.format_text(once) == once
    assert said(once) == said(text)
    return once


# --- broken catalogs -------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.dates(),
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "gmi", "mid", "<b>", "javascript:x", "a: b", "- a", "# a", "no", "2020", "~", "\n", "é", "x " * 90]
    ),
    st.sampled_from(sorted(term for terms in VOCABULARIES.values() for term in terms)),
)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS, inner, max_size=3), max_leaves=6
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """Paths of everything in nested lists and mappings."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in pairs for place in places(inner, (*path, key)))]


@st.composite
def mutated(draw) -> str:
    """A valid catalog with a few things replaced, removed, renamed, doubled or swapped."""
    entries = copy.deepcopy(yaml.safe_load(VALID))
    for _ in range(draw(st.integers(1, 4))):
        *parents, last = draw(st.sampled_from([place for place in places(entries) if place]))
        holder = entries
        for key in parents:
            holder = holder[key]
        action = draw(st.sampled_from(["replace", "remove", "rename", "double", "swap"]))
        if action == "replace":
            holder[last] = draw(ANYTHING)
        elif action == "remove":
            del holder[last]
        elif isinstance(holder, dict):
            holder[draw(SCALARS) if action == "rename" else draw(st.sampled_from(sorted(Entry.model_fields)))] = holder.pop(
                last
            )
        elif action == "swap":
            random.Random(draw(st.integers(0, 99))).shuffle(holder)
        else:
            holder.append(copy.deepcopy(holder[last]))
    style = draw(st.sampled_from([None, True, False]))
    width = draw(st.sampled_from([20, 80, 1000]))
    return yaml.safe_dump(entries, default_flow_style=style, width=width, allow_unicode=draw(st.booleans()), sort_keys=False)


@CASES
@given(text=mutated())
def test_mutated_catalogs_are_reported_and_formatted(path, text):
    checked(path, text.encode("utf-8", "surrogatepass"))
    formatted(text)


@CASES
@given(data=st.data())
def test_catalogs_with_damaged_text_are_reported_and_formatted(path, data):
    text = VALID
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(len(text), start + 30)))
        text = text[:start] + data.draw(st.text("ab0:-#[]{}'\"|>&*!?,%@\\\n\r\t <é\x00\u2028\ufeff", max_size=6)) + text[end:]
    checked(path, text.encode())
    formatted(text)


@CASES
@given(content=st.binary(max_size=200) | st.text("-?:[]{},#&*!|>'\"%@ab \n", max_size=80).map(str.encode))
def test_random_bytes_are_reported(path, content):
    assert checked(path, content) or yaml.safe_load(content) == []
    with contextlib.suppress(UnicodeDecodeError):
        formatted(content.decode())


@CASES
@given(document=ANYTHING)
def test_random_documents_are_reported(path, document):
    text = yaml.safe_dump(document)
    assert checked(path, text.encode("utf-8", "surrogatepass")) or document == []
    formatted(text)


# --- valid catalogs ------------------------------------------------------------------------------------------------------


def is_plain(text: str) -> bool:
    """Whether the model takes a text."""
    try:
        return bool(plain_text(text))
    except ValueError:
        return False


AWKWARD = [
    "no",
    "1e5",
    "2020-01-01",
    "a: b",
    "a #b",
    "'",
    '"',
    "\\",
    "- a",
    "[a]",
    "{",
    "?",
    "x,y",
    "é",
    "p < 0.05",
    "0x1f",
    "null",
    "a  b",
    "@",
    "%",
]
WORDS = st.lists(st.sampled_from([*AWKWARD, "word", "longer", "averylongwordindeed" * 3]), min_size=1, max_size=40).map(
    " ".join
)
TEXT = st.one_of(WORDS, st.text(st.characters(codec="utf-8", exclude_characters=["\x00"]), min_size=1, max_size=60)).filter(
    is_plain
)
TITLE = TEXT.filter(lambda text: not text.endswith("."))
PERSON = st.sampled_from(["Ann One", "Bob van der Two", "Çelik Öz", "No", "Łukasz Ñ"])
NUMBER = st.integers(-(10**9), 10**9) | st.decimals(-100, 100, places=3).map(float).filter(lambda x: "e" not in repr(x))


def some(vocabulary: str, least: int = 0) -> st.SearchStrategy:
    return st.lists(st.sampled_from(sorted(VOCABULARIES[vocabulary])), min_size=least, max_size=3, unique=True)


def maybe(**fields: st.SearchStrategy) -> st.SearchStrategy:
    """A mapping with any of some fields."""
    return st.fixed_dictionaries({}, optional=fields)


TERMS = {
    "access": some("access", 1) | st.sampled_from(sorted(VOCABULARIES["access"])),
    "goal": some("goal", 1),
    "adversary": some("adversary", 1) | st.just("external"),
}
REPORTED = st.fixed_dictionaries(
    {"dataset": TEXT, "metric": TEXT, "value": NUMBER, "source": TEXT},
    optional={"baseline": NUMBER, "unit": TEXT, "note": TEXT},
)


@st.composite
def valid_entries(draw) -> list[dict[str, Any]]:
    """Entries that keep every rule, in no order."""
    ids = draw(st.lists(st.from_regex(r"\A[a-z][a-z0-9]{0,3}(_[a-z0-9]{1,3})?\Z"), min_size=1, max_size=4, unique=True))
    entries = []
    for number, name in enumerate(ids):
        entry = {
            "id": name,
            "title": f"{name} {number} {draw(TITLE)}",
            "authors": draw(st.lists(PERSON, min_size=1, max_size=9)),
            "year": draw(st.integers(1980, 2025)),
            "venue": draw(st.sampled_from(sorted(VOCABULARIES["venue"]))),
            "kind": "attack",
            "setting": draw(st.sampled_from(sorted(VOCABULARIES["setting"]))),
            "modality": draw(some("modality", 1)),
            "threat_model": draw(st.fixed_dictionaries(TERMS, optional={"knowledge": some("knowledge")})),
            "verified": "https://example.org/a#b",
        }
        others = st.lists(st.sampled_from([i for i in ids if i != name] or ["none"]), unique=True, max_size=2)
        others = others.map(lambda found: [i for i in found if i != "none"])
        entry |= draw(
            maybe(
                method=TEXT,
                arxiv=st.just(f"2411.100{number}0"),
                doi=st.just(f"10.1234/a,b[{number}]#c"),
                taxonomy=st.fixed_dictionaries({"approach": some("approach", 1)}, optional={"techniques": some("technique")}),
                datasets=st.lists(TEXT, unique=True, max_size=4),
                relations=maybe(extends=others, breaks=others),
                summary=TEXT,
                contributions=st.lists(TEXT, unique=True, max_size=3),
                limitations=maybe(practicality=TEXT, guarantees=TEXT),
                claims=st.lists(st.fixed_dictionaries({"says": TEXT}, optional={"reported": REPORTED}), max_size=2),
                in_survey=st.booleans(),
                note=TEXT,
            )
        )
        for index, claim in enumerate(entry.get("claims", ())):
            claim["id"] = f"claim-{index}"
        keys = draw(st.permutations(sorted(entry)))
        entries.append({key: entry[key] for key in keys})
    return entries


def dumped(entries: list[dict[str, Any]], **style: Any) -> str:
    return yaml.safe_dump(entries, sort_keys=False, **style)


@FEW
@given(entries=valid_entries(), flow=st.sampled_from([None, True, False]), unicode=st.booleans())
def test_valid_catalogs_load_and_are_kept_by_the_formatter(path, entries, flow, unicode):
    text = dumped(sorted(entries, key=lambda e: e["id"]), default_flow_style=flow, allow_unicode=unicode)
    assert checked(path, text.encode()) == []
    expected = [Entry.model_validate(entry) for entry in sorted(entries, key=lambda e: e["id"])]
    assert list(catalog.load_text(text).entries) == expected
    result = formatted(dumped(entries, default_flow_style=flow, allow_unicode=unicode))
    assert result is not None
    assert checked(path, result.encode()) == []
    assert list(catalog.load_text(result).entries) == expected
    assert [Entry.model_validate(entry) for entry in yaml.safe_load(result)] == expected, "other readers read the same types"
    assert all(len(line) <= 110 or " " not in line.strip(" -").partition(": ")[2] for line in result.splitlines()) or any(
        mark in result for mark in ('"', "'", "  ", "#", "[", "{", "\xa0")
    )


@FEW
@given(entries=valid_entries(), data=st.data())
def test_formatter_keeps_every_comment(entries, data):
    lines = dumped(entries, default_flow_style=False, width=10**6).splitlines()
    written = []
    for number in sorted(data.draw(st.sets(st.integers(0, len(lines) - 1), max_size=12)), reverse=True):
        comment = f"# comment {number}: [a, 'b"
        written.append(comment)
        if data.draw(st.booleans()):
            lines[number] += f"  {comment}"
        else:
            lines.insert(number, " " * data.draw(st.integers(0, 6)) + comment)
    text = "\n".join(lines) + "\n"
    result = formatted(text)
    assert result is not None
    assert Counter(written) == Counter({c: result.count(c) for c in written})


# quotes and hyphens in a row are left out: TeX joins them to other characters
LATEX = [
    "R&D",
    "50%",
    "$5",
    "a_b",
    "#1",
    "{x}",
    "}",
    "ε-DP",
    "naïve",
    "p < 0.05",
    "Łódź",
    "Größe",
    "GANs",
    "~",
    "\\",
    "x/y",
    "(a)",
    "§ 3",
    "—",
]
FAMILY = ["One", "Tramèr", "Größe", "Núñez", "O'Brien", "Çelik", "Šuster", "Nguyễn", "李"]


@FEW
@given(
    title=st.lists(st.sampled_from(LATEX), min_size=1, max_size=8).map(" ".join),
    authors=st.lists(
        st.sampled_from(["Ann", "Łukasz", "J. Ø.", "Jürgen van der"]).flatmap(
            lambda given: st.sampled_from(FAMILY).map(lambda family: f"{given} {family}")
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_authors_and_titles_survive_bibtex(title, authors):
    entry = catalog.load_text(VALID)["gmi"].model_copy(update={"title": title, "authors": tuple(authors)})
    decoded = [LatexDecodingMiddleware(), SeparateCoAuthors()]
    (found,) = bibtexparser.parse_string(to_bibtex(entry), append_middleware=decoded).entries
    assert (found.key, found["title"], found["author"]) == (entry.id, title, authors)
