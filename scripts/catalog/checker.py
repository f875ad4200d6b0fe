"""Checks papers.yaml against the model and across entries, and loads it."""

import gc
import os
import re
import types
import typing
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, BeforeValidator, ValidationError

from scripts.vocabulary import VOCABULARIES

from .catalog import Catalog
from .model import ID, Entry, one_or_more, unique
from .problems import MAX_PROBLEMS, CatalogError, Finder, Problem, shown
from .tree import PLAIN_ONLY, Node, parse, read_text

NULL = {"", "~", "null", "Null", "NULL"}
# what every YAML reader takes for the same number: no leading zeros (octal in YAML 1.1), an exponent only behind a fraction
INTEGER = re.compile(r"[-+]?(0|[1-9]\d{0,17})", re.ASCII)
NUMBER = re.compile(r"[-+]?(0|[1-9]\d{0,299})(\.\d+([eE][-+]\d{1,3})?)?", re.ASCII)
TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
Path_ = tuple[str | int, ...]


def load(path: str | os.PathLike[str]) -> Catalog:
    """The catalog in a file. Raises CatalogError with every problem."""
    entries, problems = _read(Path(path))
    if problems:
        raise CatalogError(problems)
    return Catalog(entries)


def check(path: str | os.PathLike[str]) -> list[Problem]:
    """Every problem of a catalog file, by line; an empty list if there is none. Never raises for what the file holds."""
    return _read(Path(path))[1]


def load_text(text: str, file: str = "papers.yaml") -> Catalog:
    """As `load`, from text."""
    entries, problems = _check_text(text, file)
    if problems:
        raise CatalogError(problems)
    return Catalog(entries)


def _read(path: Path) -> tuple[list[Entry], list[Problem]]:
    file = shown_path(path)
    text, problems = read_text(path, file)
    return ([], problems) if text is None else _check_text(text, file)


def shown_path(path: Path) -> str:
    """A path as reports show it: relative where it lies below the working directory."""
    return os.path.relpath(path) if path.is_absolute() and path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def no_collection() -> Iterator[None]:
    """Switches the cycle collector off: it would walk a million new nodes again and again and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check_text(text: str, file: str) -> tuple[list[Entry], list[Problem]]:
    with no_collection():
        entries, found, stopped = _check_tree(text, file)
    last = len(re.findall("\r\n?|\n", text)) + (text[-1:] not in ("", "\r", "\n"))
    last = max(last, 1)  # the parser places what is missing at the end on the line after it
    inside = {replace(problem, line=min(problem.line, last)) for problem in found}
    problems = sorted(inside, key=lambda problem: (problem.line, problem.field, problem.message, problem.found))
    if stopped:
        problems.append(Problem(file, problems[-1].line, "", "", f"more than {MAX_PROBLEMS:,} problems", "fix these first"))
    return entries, problems


def _check_tree(text: str, file: str) -> tuple[list[Entry], list[Problem], bool]:
    """The valid entries, the problems, and whether there are more. The tree is freed on return, before collection resumes."""
    root, problems = parse(text, file)
    if root is None:
        empty = Problem(file, 1, "", "", "nothing", "a list of entries is expected, each beginning with `- id:`")
        return [], problems or [empty], False
    checker = Checker(file, problems)
    entries = checker.entries(root)
    return entries, checker.problems, checker.stopped


# --- shapes: how a field is written -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """How a value is written: text, integer, number, truth, list or map."""

    kind: str
    item: "Shape | None" = None  # of a list
    single: bool = False  # of a list: a lone item may stand without brackets
    once: bool = False  # of a list: items may not repeat
    model: type[BaseModel] | None = None  # of a map

    @property
    def fields(self) -> dict[str, "Shape"]:
        return shapes(self.model) if self.model else {}


ENTRY_SHAPE = Shape("map", model=Entry)


@cache
def shapes(model: type[BaseModel]) -> dict[str, Shape]:
    """The shape of each field of a model, read off its annotations."""
    hints = typing.get_type_hints(model, include_extras=True)
    return {name: shape_of(hints[name]) for name in model.model_fields}


def shape_of(annotation: Any) -> Shape:
    """The shape of a type: strips Annotated and `| None`."""
    notes: list[Any] = []
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation, *more = typing.get_args(annotation)
            notes += more
        elif origin in (typing.Union, types.UnionType):
            (annotation,) = (part for part in typing.get_args(annotation) if part is not type(None))
        else:
            break
    if origin is tuple:
        functions = [getattr(note, "func", None) for note in notes]
        single = any(isinstance(note, BeforeValidator) and note.func is one_or_more for note in notes)
        return Shape("list", shape_of(typing.get_args(annotation)[0]), single, unique in functions)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return Shape("map", model=annotation)
    return Shape({str: "text", int: "integer", float: "number", bool: "truth"}[annotation])


@cache
def homes() -> dict[str, list[str]]:
    """For each field name, the places it belongs, such as threat_model."""
    found: dict[str, list[str]] = {}

    def walk(model: type[BaseModel], place: str) -> None:
        for name, shape in shapes(model).items():
            found.setdefault(name, []).append(place)
            inner = shape.item if shape.kind == "list" else shape
            if inner and inner.model:
                walk(inner.model, f"{place}.{name}" if place else name)

    walk(Entry, "")
    return found


# --- the checker ---------------------------------------------------------------------------------------------------------


class Checker:
    """Collects all problems of one file."""

    def __init__(self, file: str, problems: Iterable[Problem] = ()) -> None:
        self.file = file
        self.problems = list(problems)
        self.finder = Finder()
        self.stopped = False
        self.entry = ""  # the id of the entry at work
        self.bad: set[Path_] = set()  # paths in this entry that are reported already

    def report(self, line: int, path: Path_ | str, found: str, message: str, nearest: str | None = None) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            self.stopped = True
            return
        field = path if isinstance(path, str) else written(path)
        self.problems.append(Problem(self.file, line, self.entry, field, found, message, nearest))

    def entries(self, root: Node) -> list[Entry]:
        """The valid entries; everything else is reported."""
        if root.kind != "list":
            self.report(root.line, "", root.described(), "a list of entries is expected, each beginning with `- id:`")
            return []
        read: list[tuple[str, Node, dict[str, Any]]] = []
        entries = []
        for number, node in enumerate(root.value, 1):
            if self.stopped:
                break
            self.entry = self.name(node, number)
            if node.kind != "map":
                if node.kind != "bad":
                    self.report(node.line, "", node.described(), "an entry is a mapping that begins with `- id:`")
                continue
            self.bad = set()
            value = self.value(node, ENTRY_SHAPE, ())
            read.append((self.entry, node, value))
            self.claim_ids(node, value)
            try:
                entries.append(Entry.model_validate(value))
            except ValidationError as error:
                self.invalid(node, error)
        self.across(read)
        return entries

    def name(self, node: Node, number: int) -> str:
        if node.kind == "map":
            for key, value in node.value:
                if key.kind == "scalar" and key.value == "id" and value.kind == "scalar" and ID.fullmatch(value.value[:80]):
                    return value.value[:80]
        return f"entry {number}"

    # values

    def value(self, node: Node, shape: Shape, path: Path_) -> Any:
        """The Python value of a node. What has the wrong shape is reported, remembered as bad, and None."""
        if node.kind == "bad":
            self.bad.add(path)
            return None
        if shape.kind == "text":
            if node.kind == "scalar" and not (node.plain and node.value in NULL):
                return node.value
            return self.misshapen(node, path, "a text is expected")
        if shape.kind == "map":
            return self.mapping(node, shape, path)
        if shape.kind == "list":
            return self.sequence(node, shape, path)
        if node.kind == "scalar":
            return self.scalar(node, shape.kind, path)
        return self.misshapen(node, path, {"truth": "true or false is expected"}.get(shape.kind, "a number is expected"))

    def misshapen(self, node: Node, path: Path_, message: str, nearest: str | None = None) -> None:
        self.bad.add(path)
        if node.kind == "scalar" and node.plain and node.value in NULL:
            message += "; leave the field out if there is nothing to say"
        self.report(node.line, path, node.described(), message, nearest)

    def mapping(self, node: Node, shape: Shape, path: Path_) -> dict[str, Any] | None:
        fields = shape.fields
        if node.kind != "map":
            return self.misshapen(node, path, f"a mapping is expected, with {', '.join(fields)}")
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, child in node.value:
            if key.kind != "scalar":
                if key.kind != "bad":
                    self.report(key.line, path, f"{key.described()} as a key", "keys are names of fields")
                continue
            name = key.value
            if name in lines:
                self.report(key.line, (*path, name), "the key again", f"each key once; it stands on line {lines[name]} already")
                continue
            lines[name] = key.line
            if name in fields:
                values[name] = self.value(child, fields[name], (*path, name))
            elif name == "<<" and key.plain:
                self.report(key.line, path, "<<", PLAIN_ONLY)
            else:
                self.unknown_key(key, path, fields, lines)
        return values

    def unknown_key(self, key: Node, path: Path_, fields: Mapping[str, Shape], present: Mapping[str, int]) -> None:
        near = self.finder.nearest(key.value, f"key:{','.join(fields)}", fields)
        message = f"allowed: {', '.join(fields)}" if len(fields) <= 12 else "this field does not exist"
        places = [place for place in homes().get(key.value, []) if place]
        if places:
            message, near = f"this field belongs under {' or '.join(places)}", None
        self.report(key.line, path, f"unknown key {shown(key.value)}", message, near)
        if near and near not in present:
            self.bad.add((*path, near))  # a misspelt field is one problem, not also a missing one

    def sequence(self, node: Node, shape: Shape, path: Path_) -> tuple[Any, ...] | None:
        assert shape.item is not None
        if node.kind == "scalar" and shape.single and not (node.plain and node.value in NULL):
            return (node.value,)
        if node.kind != "list":
            near = f"[{node.value}]" if node.kind == "scalar" and len(node.value) <= 80 and node.value.strip() else None
            return self.misshapen(node, path, "a list is expected", near)
        values = []
        seen: dict[str, int] = {}
        for index, child in enumerate(node.value):
            value = self.value(child, shape.item, (*path, index))
            if shape.once and isinstance(value, str):
                if value in seen:
                    message = f"each value once; it stands on line {seen[value]} already"
                    self.report(child.line, (*path, index), shown(value), message)
                    self.bad.add((*path, index))
                    value = None
                else:
                    seen[value] = child.line
            values.append(value)
        return tuple(values)

    def scalar(self, node: Node, kind: str, path: Path_) -> int | float | bool | None:
        text = node.value
        if kind == "truth":
            if node.plain and text in TRUTH:
                return TRUTH[text]
            word = text.strip().lower()
            near = {"yes": "true", "y": "true", "on": "true", "no": "false", "n": "false", "off": "false"}.get(word, word)
            return self.misshapen(node, path, "true or false is expected, without quotes", near if near in TRUTH else None)
        pattern, what = (INTEGER, "a whole number") if kind == "integer" else (NUMBER, "a number such as 0.28 or 1.0e-5")
        if node.plain and pattern.fullmatch(text):
            return int(text) if kind == "integer" else float(text)
        inside = pattern.search(re.sub(r"^0+(?=\d)", "", text[:100]))
        rest = "" if kind == "integer" else " or unit"
        return self.misshapen(node, path, f"{what} is expected, without quotes{rest}", inside.group() if inside else None)

    # the model's own rules

    def invalid(self, node: Node, error: ValidationError) -> None:
        """Reports what the model rejects, at the line of the value."""
        for detail in error.errors(include_url=False):
            context = detail.get("ctx", {})
            path = (*detail["loc"], *context.get("path", ()))
            if any(path[:length] in self.bad for length in range(1, len(path) + 1)):
                continue
            if detail["type"] == "too_short" and detail["input"]:
                continue  # pydantic counts valid items only; the invalid ones are reported by themselves
            if detail["type"] == "missing":
                self.report(find(node, path[:-1]).line, path, "nothing", "this field is required")
                continue
            place = find(node, path)
            given = detail["input"]
            if "path" in context:
                for step in context["path"]:
                    given = given[step]
            found = "nothing" if given is None else shown(given)
            near = context.get("nearest")
            if vocabulary := context.get("vocabulary"):
                near = self.finder.nearest(given, vocabulary, VOCABULARIES[vocabulary])
            rule = "at least one value is expected" if detail["type"] == "too_short" else detail["msg"]
            self.report(place.line, path, found, context.get("allowed", rule), near)

    def claim_ids(self, node: Node, value: Mapping[str, Any]) -> None:
        """Claim ids are unique in an entry; here too, so that it is said even where a claim has another problem."""
        seen: dict[str, int] = {}
        for index, claim in enumerate(value.get("claims") or ()):
            name = claim.get("id") if isinstance(claim, dict) else None
            if name is None:
                continue
            path = ("claims", index, "id")
            line = find(node, path).line
            if name in seen:
                self.report(line, path, shown(name), f"each claim id once; it stands on line {seen[name]} already")
                self.bad.add(path)
            seen.setdefault(name, line)

    # across entries

    def across(self, read: list[tuple[str, Node, dict[str, Any]]]) -> None:
        """Duplicates, order, and relations to other entries; `read` holds the label, node and value of each entry."""
        ids = {value["id"]: node for _, node, value in reversed(read) if value.get("id")}
        previous = ""
        for label, node, value in read:
            self.entry = label
            name = value.get("id")
            if not name:
                continue
            if ids[name] is not node:
                message = f"each id once; it stands on line {ids[name].line} already"
                self.report(find(node, ("id",)).line, ("id",), shown(name), message)
            elif not ID.fullmatch(name[:200]):
                continue  # reported already; it has no place in the order
            elif name < previous:
                message = f"entries are sorted by id: it belongs before {shown(previous)}; `make fmt` sorts"
                self.report(find(node, ("id",)).line, ("id",), shown(name), message)
            previous = name
        for field, same in (("arxiv", str), ("doi", str.lower), ("openreview", str), ("title", normalised)):
            self.twice(read, field, same)
        for label, node, value in read:
            self.entry = label
            for relation, targets in (value.get("relations") or {}).items():
                for index, target in enumerate(targets or ()):
                    path = ("relations", relation, index)
                    if target is None or not ID.fullmatch(target[:200]):
                        continue
                    if target == value.get("id"):
                        self.report(find(node, path).line, path, shown(target), "an entry cannot be related to itself")
                    elif target not in ids:
                        near = self.finder.nearest(target, "id", ids)
                        near = None if near == value.get("id") else near
                        self.report(find(node, path).line, path, shown(target), "an id of the catalog is expected", near)

    def twice(self, read: list[tuple[str, Node, dict[str, Any]]], field: str, same: Callable[[str], str]) -> None:
        """Two entries with the same value of a field are the same paper."""
        seen: dict[str, tuple[str, int]] = {}
        for label, node, value in read:
            if not value.get(field):
                continue
            key, line = same(value[field]), find(node, (field,)).line
            if key in seen:
                self.entry = label
                other, first = seen[key]
                message = f"the same {field} as {other} (line {first}): one paper, one entry"
                self.report(line, (field,), shown(value[field]), message)
            elif key:
                seen[key] = (label, line)


def normalised(title: str) -> str:
    """A title without case, accents, blanks and punctuation, for comparison."""
    return "".join(c for c in unicodedata.normalize("NFKD", title).casefold() if c.isalnum())


def find(node: Node, path: Path_) -> Node:
    """The node at a path, or the nearest above it that exists."""
    for step in path:
        if node.kind == "map":
            child = next((value for key, value in node.value if key.kind == "scalar" and key.value == step), None)
        elif node.kind == "list" and isinstance(step, int) and step < len(node.value):
            child = node.value[step]
        else:
            child = None
        if child is None:
            return node
        node = child
    return node


def written(path: Path_) -> str:
    """A path as text: claims[1].reported.value."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")
