"""YAML text to a tree of nodes with line numbers, in one pass over the parser's events.

Only plain YAML passes: no anchors, aliases, merge keys, tags, directives or second document. Nothing is resolved: a scalar
stays the author's text with a note whether it was quoted, and the field's type decides how it is read. The pass does not
recurse and stops at a depth and a size limit, so that hostile text cannot exhaust stack or memory.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from .problems import MAX_PROBLEMS, Problem, shown

try:
    from yaml import CSafeLoader as Loader
except ImportError:  # PyYAML without libyaml: the same events, slower
    from yaml import SafeLoader as Loader  # type: ignore[assignment]

MAX_BYTES = 20_000_000
MAX_DEPTH = 12  # the model needs 6
MAX_NODES = 1_500_000  # 5,000 full entries have 600,000
TOO_DEEP = f"nested too deeply: at most {MAX_DEPTH} levels are allowed"
PLAIN_ONLY = "plain YAML only: no anchors, aliases, merge keys, tags or directives; write the value out"
# what YAML forbids, and what its parser takes for a line break where editors do not
FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class Node:
    """A scalar (`value` is text), a list (of nodes), a mapping (of pairs of nodes), or something bad already reported."""

    kind: str  # scalar, list, map or bad
    value: str | list
    plain: bool  # a scalar without quotes and not in block style
    line: int  # from 1
    start: int  # index of the first character
    end: int  # index after the last character

    def described(self) -> str:
        """The node as a report shows it."""
        if self.kind == "scalar":
            readable = self.plain and len(self.value) <= 80 and self.value.isprintable()
            return (self.value or "nothing") if readable else shown(self.value)
        return {"list": "a list", "map": "a mapping"}.get(self.kind, "an alias")


def read_text(path: Path, file: str) -> tuple[str | None, list[Problem]]:
    """The text of a file, or None and why it cannot be read as text of at most MAX_BYTES bytes."""

    def problem(line: int, found: str, message: str) -> Problem:
        return Problem(file, line, "", "", found, message)

    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        return None, [problem(1, error.strerror or type(error).__name__, "a readable file is expected")]
    if size > MAX_BYTES:
        return None, [problem(1, f"{size:,} bytes", f"at most {MAX_BYTES:,} bytes are allowed")]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return None, [problem(1, "UTF-16", "save the file as UTF-8")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return None, [problem(line, f"byte 0x{data[error.start]:02X}", "not UTF-8: save the file as UTF-8")]
    wrong = []
    for match in FORBIDDEN.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        character = f"character U+{ord(match.group()):04X}"
        wrong.append(problem(line, character, "control characters and odd line separators are not allowed: delete it"))
        if len(wrong) >= 100:
            break
    return (None, wrong) if wrong else (text, [])


def parse(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """The root node of YAML text (None where it is broken or empty) and the problems of its syntax."""
    problems: list[Problem] = []
    loader = Loader(text)
    try:
        return _build(loader, file, problems), problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        what = ": ".join(part for part in (error.context, error.problem) if part)
        start = f" (begun on line {error.context_mark.line + 1})" if error.context_mark else ""
        lines = text.splitlines()
        found = shown(lines[line - 1].strip()) if line <= len(lines) else "the end of the file"
        # libyaml has a limit of its own, which brackets can meet before the first of them becomes an event
        message = TOO_DEEP if "nesting depth" in what else f"broken YAML at column {column}: {what}{start}"
        problems.append(Problem(file, line, "", "", found, message))
    except yaml.YAMLError as error:
        problems.append(Problem(file, 1, "", "", "", f"broken YAML: {' '.join(str(error).split())}"))
    finally:
        loader.dispose()
    return None, problems


def _build(loader: Loader, file: str, problems: list[Problem]) -> Node | None:
    """Builds the tree from events; see `parse`. Returns None when a limit stops it."""
    root: Node | None = None
    stack: list[tuple[Node, list]] = []  # open collections, each with its flat list of children
    children: list = []
    count = documents = 0

    def report(event: yaml.Event, found: str, message: str) -> None:
        problems.append(Problem(file, event.start_mark.line + 1, "", "", found, message))

    while True:
        event = loader.get_event()
        kind = type(event)
        if kind is yaml.ScalarEvent:
            start = event.start_mark
            plain = not event.style
            children.append(Node("scalar", event.value, plain, start.line + 1, start.index, event.end_mark.index))
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            start = event.start_mark
            node = Node(
                "map" if kind is yaml.MappingStartEvent else "list", [], False, start.line + 1, start.index, start.index
            )
            children.append(node)
            stack.append((node, children))
            children = []
            if len(stack) > MAX_DEPTH:
                report(event, f"{len(stack)} levels", TOO_DEEP)
                return None
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            node, outer = stack.pop()
            node.value = list(zip(children[::2], children[1::2], strict=True)) if kind is yaml.MappingEndEvent else children
            node.end = event.end_mark.index
            children = outer
            continue
        elif kind is yaml.AliasEvent:
            start = event.start_mark
            children.append(Node("bad", "", False, start.line + 1, start.index, event.end_mark.index))
            report(event, f"*{event.anchor}", PLAIN_ONLY)
        elif kind is yaml.DocumentStartEvent:
            documents += 1
            if documents > 1:
                report(event, "a second document", "one document only: delete the line `---`")
                return root
            if event.version or event.tags:
                report(event, "a directive", PLAIN_ONLY)
            continue
        elif kind is yaml.DocumentEndEvent:
            root = children[0] if children else None
            continue
        elif kind is yaml.StreamEndEvent:
            return root
        else:
            continue
        count += 1
        if len(problems) > MAX_PROBLEMS:
            report(event, f"more than {MAX_PROBLEMS:,} problems", "fix these first")
            return None
        if count > MAX_NODES:
            report(event, f"more than {MAX_NODES:,} values", "this is not a catalog of papers")
            return None
        if kind is yaml.AliasEvent:
            continue
        if event.anchor is not None:
            report(event, f"&{event.anchor}", PLAIN_ONLY)
        if event.tag is not None:
            report(event, event.tag.replace("tag:yaml.org,2002:", "!!"), PLAIN_ONLY)
