"""The one way papers.yaml is written: entries by id, keys in the model's order, one field a line, prose folded, comments kept.

Works on the tree of nodes, so it also formats entries that break the model's rules; only YAML that cannot be read, or whose
keys repeat, is refused. The result is parsed again and compared with the original before it is returned.

Full-line comments stay above the entry, key or item below them; indented ones at the end of an entry stay at its end; those
above the first entry, up to the last empty line, and unindented ones at the end of the file stay where they are.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .checker import ENTRY_SHAPE, NULL, Shape, no_collection
from .model import HIDDEN
from .problems import CatalogError, Problem, shown
from .tree import FORBIDDEN, Node, parse

WIDTH = 110
FLOW_MAPS = ("taxonomy", "relations", "reported")  # written on one line where they fit
LONG_ITEM = 70  # characters beyond which items stand on lines of their own
BLOCK_LISTS = ("contributions",)  # one item a line even where they fit
ANY = Shape("any")
# what some YAML reader takes for null, truth, number or date
AMBIGUOUS = re.compile(
    r"~|null|true|false|yes|no|on|off|y|n|[-+]?\.(inf|nan)|[-+]?[.\d][\da-fox_.:+\-tz ]*", re.IGNORECASE | re.ASCII
)
# a plain scalar starts with no indicator, and holds no `: ` and no ` #`; in flow style no brackets and commas either
START = re.compile(r"[^\W_]|\(")
INSIDE = re.compile(r":(?!\S)|(?<!\S)#")
UNPRINTABLE = re.compile(f"{HIDDEN.pattern}|{FORBIDDEN.pattern}")
FLOW_INDICATOR = re.compile(r"[,?\[\]{}]")
SPACE_TO_BREAK_AT = re.compile(r"(?<=\S) (?=\S)")


def format_text(text: str, file: str = "papers.yaml") -> str:
    """The canonical text of a catalog. Raises CatalogError for text that is no readable list without repeated keys."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if match := FORBIDDEN.search(text):
        line = text.count("\n", 0, match.start()) + 1
        found = f"character U+{ord(match.group()):04X}"
        raise CatalogError([Problem(file, line, "", "", found, "control characters are not allowed: delete it")])
    with no_collection():
        return _formatted(text, file)


def _formatted(text: str, file: str) -> str:
    root = _readable(text, file)
    formatted = Formatter(text, root).document()
    again = _readable(formatted, file)
    if _sorted(data(again, Shape("list", ENTRY_SHAPE))) != _sorted(data(root, Shape("list", ENTRY_SHAPE))):
        raise RuntimeError("the formatter would have changed the catalog's data; this is a bug in scripts/catalog/formatter.py")
    return formatted


def _readable(text: str, file: str) -> Node:
    """The root of a list whose mappings have plain, unrepeated keys."""
    root, problems = parse(text, file)
    if root is None and not problems:
        problems = [Problem(file, 1, "", "", "nothing", "a list of entries is expected, each beginning with `- id:`")]
    if root is None or problems:
        raise CatalogError(problems)
    if root.kind != "list":
        raise CatalogError([Problem(file, root.line, "", "", root.described(), "a list of entries is expected")])
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if node.kind == "list":
            nodes += node.value
        elif node.kind == "map":
            names = set()
            for key, value in node.value:
                if key.kind != "scalar" or key.value in names or not 0 < len(key.value) <= 200 or "\n" in key.value:
                    found = shown(key.value) if key.kind == "scalar" else key.described()
                    problems.append(Problem(file, key.line, "", "", f"{found} as a key", "each key is a name, and stands once"))
                names.add(key.value if key.kind == "scalar" else None)
                nodes.append(value)
    if problems:
        raise CatalogError(sorted(problems, key=lambda problem: problem.line))
    return root


def data(node: Node, shape: Shape) -> Any:
    """What a node says, without how it is written: for comparison only."""
    if node.kind == "list":
        return [data(item, shape.item or ANY) for item in node.value]
    if node.kind == "map":
        return {key.value: data(value, shape.fields.get(key.value, ANY)) for key, value in node.value}
    if node.plain and node.value in NULL:
        return None
    if shape.kind == "list" and shape.single:
        return [data(node, shape.item or ANY)]
    if shape.kind != "text" and node.plain and AMBIGUOUS.fullmatch(node.value):
        return ("plain", node.value)
    return node.value


def _sorted(entries: list[Any]) -> list[Any]:
    return sorted(entries, key=lambda entry: repr(sorted(entry.items())) if isinstance(entry, dict) else repr(entry))


@dataclass
class Unit:
    """A list item or a pair of a mapping, with the comments above it and at the end of its line."""

    node: Node  # the item, or the pair's key
    value: Node
    parent: "Unit | None"
    above: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)  # of an entry only
    commented: bool = False  # it, or something in it, has comments


class Formatter:
    """Writes one tree."""

    def __init__(self, text: str, root: Node) -> None:
        self.text = text
        self.root = root
        self.units: list[Unit] = []
        self._collect(root, None)
        self.pair = {id(unit.node): unit for unit in self.units if unit.node is not unit.value}
        self.item = {id(unit.node): unit for unit in self.units if unit.node is unit.value}
        self.header: list[str] = []
        self.footer: list[str] = []
        self._attach()

    def _collect(self, node: Node, parent: Unit | None) -> None:
        """All units in the order of the text."""
        pairs = node.value if node.kind == "map" else [(item, item) for item in node.value] if node.kind == "list" else []
        for name, value in pairs:
            unit = Unit(name, value, parent)
            self.units.append(unit)
            self._collect(value, unit)

    # comments

    def _comments(self) -> Iterator[tuple[int, str]]:
        """Index and text of every comment: whatever follows a # outside of scalars, or in the head of a block scalar."""
        spans = []
        for unit in self.units:
            for node in (unit.node, unit.value) if unit.node is not unit.value else (unit.node,):
                if node.kind == "scalar" and node.end > node.start:
                    spans.append((node.start, node.end))
        position = 0
        for start, end in [*sorted(spans), (len(self.text), len(self.text))]:
            while (index := self.text.find("#", position, start)) >= 0:
                position = self._line_end(index)
                yield index, self.text[index:position].rstrip()
            if self.text[start : start + 1] in ("|", ">"):
                head = self._line_end(start)
                index = self.text.find("#", start, head)
                if index >= 0:
                    yield index, self.text[index:head].rstrip()
            position = max(position, end)

    def _line_end(self, index: int) -> int:
        end = self.text.find("\n", index)
        return len(self.text) if end < 0 else end

    def _attach(self) -> None:
        starts = [unit.node.start for unit in self.units]
        entries = [unit for unit in self.units if unit.parent is None]
        top: list[tuple[int, str]] = []
        for index, comment in self._comments():
            line_start = self.text.rfind("\n", 0, index) + 1
            before = self.text[line_start:index]
            following = bisect_right(starts, index)
            unit = self.units[following] if following < len(self.units) else None
            if not self.units:
                self.header.append(comment)
            elif before.strip(" \t-"):
                self._beside(self.units[following - 1] if following else None, index, comment)
            elif unit is None:
                if before and entries:
                    entries[-1].below.append(comment)
                else:
                    self.footer.append(comment)
            elif unit is self.units[0]:
                top.append((index, comment))
            elif unit.parent is None and before and "-" not in before:
                entries[bisect_right([e.node.start for e in entries], index) - 1].below.append(comment)
            else:
                unit.above.append(comment)
        self._attach_top(top)
        for unit in self.units:
            step: Unit | None = unit if unit.above or unit.beside or unit.below else None
            while step and not step.commented:
                step.commented = True
                step = step.parent

    def _attach_top(self, top: list[tuple[int, str]]) -> None:
        """Comments above the first entry: the header of the file, and after its last empty line those of the entry."""
        end = self.units[0].node.start if self.units else len(self.text)
        gap = max((m.end() for m in re.finditer(r"\n[ \t]*\n", self.text[:end])), default=0)
        last = 0
        for index, comment in top:
            if index < gap or comment.startswith("# yaml-language-server"):
                if self.header and re.search(r"\n[ \t]*\n", self.text[last:index]):
                    self.header.append("")
                self.header.append(comment)
                last = index
            else:
                self.units[0].above.append(comment)

    def _beside(self, unit: Unit | None, index: int, comment: str) -> None:
        if unit is None:
            self.header.append(comment)
            return
        while unit.parent and (value := unit.parent.value).kind != "scalar" and value.end <= index and self._flow(value):
            unit = unit.parent
        unit.beside.append(comment)

    def _flow(self, node: Node) -> bool:
        return self.text[node.start : node.start + 1] in ("[", "{")

    # writing

    def document(self) -> str:
        entries = sorted(self.root.value, key=self._order)
        blocks = ["\n".join(self._items([entry], ENTRY_SHAPE, 0)) for entry in entries]
        if not blocks:
            blocks = ["[]"]
        parts = ["\n".join(self.header), *blocks, "\n".join(self.footer)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _order(self, entry: Node) -> tuple[bool, str]:
        """Entries by id; what has none comes last, as it stood."""
        name = next((v for k, v in entry.value if k.value == "id"), None) if entry.kind == "map" else None
        known = name is not None and name.kind == "scalar" and not (name.plain and name.value in NULL)
        return (not known, name.value if known else "")

    def _pairs(self, node: Node, shape: Shape, indent: int) -> list[str]:
        """The lines of a mapping in block style."""
        order = {name: position for position, name in enumerate(shape.fields)}
        lines: list[str] = []
        for key, value in sorted(node.value, key=lambda pair: order.get(pair[0].value, len(order))):
            unit = self.pair[id(key)]
            lines += [" " * indent + comment for comment in unit.above]
            head = f"{text_scalar(key.value, False)}:"
            first, *rest = self._value(head, value, shape.fields.get(key.value, ANY), indent, key.value)
            lines += [" " * indent + beside(first, unit), *rest]
        return lines

    def _items(self, items: list[Node], shape: Shape, indent: int) -> list[str]:
        """The lines of a list in block style."""
        pad = " " * indent
        lines: list[str] = []
        for item in items:
            unit = self.item[id(item)]
            lines += [pad + comment for comment in unit.above]
            if item.kind == "map" and item.value:
                inner = self._pairs(item, shape, indent + 2)
                # a comment above the first key would separate it from its dash: it goes above the dash
                first = next(number for number, line in enumerate(inner) if not line.lstrip().startswith("#"))
                lines += [pad + line.lstrip() for line in inner[:first]]
                lines += [f"{pad}- {beside(inner[first].lstrip(), unit)}", *inner[first + 1 :]]
            else:
                head, *rest = self._value("-", item, shape, indent, "")
                lines += [pad + beside(head, unit), *rest]
            lines += [f"{pad}  {comment}" for comment in unit.below]
        return lines

    def _value(self, head: str, node: Node, shape: Shape, indent: int, name: str) -> list[str]:
        """The lines of a value behind its key or dash; the first is without indentation."""
        if shape.kind == "list" and shape.single:
            if lone(node) and not self._commented(node):
                node = node.value[0]
            if node.kind == "scalar":
                shape = shape.item or ANY
        if node.kind == "scalar":
            text = scalar(node, shape, False)
            if indent + len(head) + 1 + len(text) <= WIDTH or not foldable(node, shape):
                return [f"{head} {text}"]
            return [f"{head} >-", *folded(node.value, indent + 2)]
        flow = self._on_one_line(node, shape, name)
        if flow is not None and (not node.value or indent + len(head) + 1 + len(flow) <= WIDTH):
            return [f"{head} {flow}"]
        if node.kind == "list":
            return [head, *self._items(node.value, shape.item or ANY, indent + 2)]
        return [head, *self._pairs(node, shape, indent + 2)]

    def _on_one_line(self, node: Node, shape: Shape, name: str) -> str | None:
        """A list or mapping in flow style, or None where block style reads better or comments need lines of their own."""
        if not node.value:
            return "[]" if node.kind == "list" else "{}"
        if self._commented(node):
            return None
        if node.kind == "list":
            if name in BLOCK_LISTS or any(item.kind != "scalar" or len(item.value) > LONG_ITEM for item in node.value):
                return None
            return f"[{', '.join(scalar(item, shape.item or ANY, True) for item in node.value)}]"
        if name not in FLOW_MAPS:
            return None
        order = {field: position for position, field in enumerate(shape.fields)}
        parts = []
        for key, value in sorted(node.value, key=lambda pair: order.get(pair[0].value, len(order))):
            inner = shape.fields.get(key.value, ANY)
            if inner.kind == "list" and inner.single and lone(value):
                value = value.value[0]
            if value.kind == "scalar":
                text = scalar(value, inner.item or ANY if inner.single else inner, True)
            elif (text := self._on_one_line(value, inner, key.value)) is None:
                return None
            parts.append(f"{text_scalar(key.value, True)}: {text}")
        return f"{{{', '.join(parts)}}}"

    def _commented(self, node: Node) -> bool:
        """Whether anything inside a list or mapping has a comment."""
        if node.kind == "map":
            return any(self.pair[id(key)].commented for key, _ in node.value)
        return any(self.item[id(item)].commented for item in node.value)


def lone(node: Node) -> bool:
    """Whether a list holds one text and nothing else."""
    if node.kind != "list" or len(node.value) != 1:
        return False
    (item,) = node.value
    return item.kind == "scalar" and not (item.plain and item.value in NULL)


def beside(line: str, unit: Unit) -> str:
    """A line with the unit's end-of-line comments."""
    return "  ".join([line, *unit.beside])


def scalar(node: Node, shape: Shape, flow: bool) -> str:
    """A scalar without quotes where they are not needed, by any YAML reader, to keep what it says."""
    if node.plain and node.value in NULL:
        return "null"
    if node.plain and shape.kind != "text" and AMBIGUOUS.fullmatch(node.value):
        return node.value
    return text_scalar(node.value, flow)


def text_scalar(text: str, flow: bool) -> str:
    """A text as a scalar."""
    plain = START.match(text) and not INSIDE.search(text) and not AMBIGUOUS.fullmatch(text) and not text.endswith(" ")
    hidden = UNPRINTABLE.search(text)
    if plain and not hidden and not (flow and FLOW_INDICATOR.search(text)):
        return text
    if not hidden and ("\\" in text or '"' in text):
        return "'" + text.replace("'", "''") + "'"
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + UNPRINTABLE.sub(lambda match: escaped(match.group()), text) + '"'


def escaped(character: str) -> str:
    """A character as an escape of a double-quoted scalar."""
    code = ord(character)
    return {"\n": "\\n", "\t": "\\t"}.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def foldable(node: Node, shape: Shape) -> bool:
    """Whether a scalar is a text that `>-` can hold as it is."""
    text = node.value
    number = node.plain and shape.kind != "text" and AMBIGUOUS.fullmatch(text)
    hidden = UNPRINTABLE.search(text)
    return not number and not hidden and text == text.strip() and bool(SPACE_TO_BREAK_AT.search(text))


def folded(text: str, indent: int) -> list[str]:
    """A text in lines of at most WIDTH characters where its blanks allow, broken at single blanks only."""
    lines: list[str] = []
    line = ""
    for word in SPACE_TO_BREAK_AT.split(text):
        if line and indent + len(line) + 1 + len(word) > WIDTH:
            lines.append(" " * indent + line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, " " * indent + line]
