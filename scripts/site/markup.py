"""Markdown and HTML pieces. Whatever comes from the catalog, a result or a module passes through `text` first."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
SPECIAL = re.compile(r"[\\`*_{}\[\]<>#+!|&\"~^=:$@]")
LIST_START = re.compile(r"-|\d+[.)]")


def _reference(match: re.Match[str]) -> str:
    return "".join(f"&#{ord(character)};" for character in match.group())


def text(value: Any) -> str:
    """Plain text as one line of Markdown that shows exactly this text: no markup, link or HTML can come of it.

    White space is collapsed, control characters are dropped. The result is fit for paragraphs, headings, table cells, link
    texts and quoted HTML attributes.
    """
    line = " ".join(CONTROL.sub("", str(value)).split())
    line = SPECIAL.sub(_reference, line)
    if LIST_START.match(line):
        line = f"&#{ord(line[0])};{line[1:]}"
    return line


def inline_code(value: Any) -> str:
    """Text in a typewriter face."""
    return f"<code>{text(value)}</code>"


def prose(value: Any) -> str:
    """Text in which `backquoted` words, and nothing else, are set as code: for docstrings."""
    parts = re.split(r"`([^`\n]+)`", str(value))
    return "".join(inline_code(part) if index % 2 else spaced(part) for index, part in enumerate(parts)).strip()


def spaced(value: str) -> str:
    """`text` that keeps one space at either end where there was one: for parts of a sentence."""
    return (" " if value[:1].isspace() else "") + text(value) + (" " if value[-1:].isspace() and value.strip() else "")


def paragraphs(value: Any) -> str:
    """Text whose blank lines part paragraphs."""
    return "\n\n".join(prose(part) for part in re.split(r"\n\s*\n", str(value).strip()) if part.strip())


def formulas(value: Any) -> str:
    """Paragraphs of text with `$…$` and `$$…$$`: what stands between the signs is left to the page's typesetter, as text."""
    parts = re.split(r"(\$\$.+?\$\$|\$[^$\n]+\$)", " ".join(str(value).split("\r")), flags=re.DOTALL)
    shown = []
    for index, part in enumerate(parts):
        if not index % 2:
            shown.append("\n\n".join(prose(piece) if piece.strip() else "" for piece in re.split(r"\n\s*\n", part)))
            shown[-1] = (" " if part[:1] == " " else "") + shown[-1] + (" " if part[-1:] in (" ", "\n") else "")
        elif part.startswith("$$"):
            shown.append(f"\n\n{' '.join(part.split())}\n\n")
        else:
            shown.append(part)
    return "".join(shown).strip()


def url(address: Any) -> str:
    """A http(s) address, safe inside quotes and Markdown. Raises ValueError for any other."""
    address = str(address)
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"not a http(s) address: {address!r}")
    return quote(address, safe="/:?#@!$&',;=%~.-_+").replace("'", "%27").replace("&", "&amp;")


def external(label: Any, address: Any, css: str = "") -> str:
    """A link to another site."""
    style = f' class="{css}"' if css else ""
    return f'<a href="{url(address)}" rel="noopener"{style}>{text(label)}</a>'


def link(label: Any, page: str, css: str = "") -> str:
    """A link to a source file of this site; MkDocs checks and rewrites it. `page` is ours, such as ../papers/gmi.md#claims."""
    return f"[{text(label)}]({page})" + (f"{{ .{css} }}" if css else "")


def term_page(facet: str, term: str) -> str:
    """The source file of a term's page inside taxonomy/; venues, of which there are many with few papers, share one page."""
    return f"venue.md#{anchor(term)}" if facet == "venue" else f"{facet}/{anchor(term)}.md"


def term_link(facet: str, term: str, up: str = "../", css: str = "ia-term") -> str:
    """A link to a term's page, from a page one folder down (or elsewhere, by `up`)."""
    return link(term, f"{up}taxonomy/{term_page(facet, term)}", css)


def badge(label: str, kind: str, title: str = "") -> str:
    """A small label; `kind` picks the colour: good, bad, plain, note."""
    tip = f' title="{text(title)}"' if title else ""
    return f'<span class="ia-badge ia-badge--{kind}"{tip}>{text(label)}</span>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str = "", empty: str = "–") -> str:
    """A Markdown table of finished cells; `align` has a letter a column, l or r; `empty` stands in cells without content."""
    marks = {"l": ":---", "r": "---:"}
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join(marks[a] for a in (align or "l" * len(head))) + " |"]
    lines += ["| " + " | ".join(cell or empty for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def block(css: str, content: str, tag: str = "div", attributes: str = "") -> str:
    """Markdown content inside an HTML element with a class."""
    return f'<{tag} class="{css}"{attributes} markdown="1">\n\n{content.strip()}\n\n</{tag}>'


def folded(title: str, content: str, css: str = "ia-fold", searched: bool = False) -> str:
    """Content behind a click; kept out of the search index unless `searched`. `title` is finished markup."""
    skip = "" if searched else " data-search-exclude"
    return f'<details class="{css}"{skip} markdown="1">\n<summary>{title}</summary>\n\n{content.strip()}\n\n</details>'


def fence(code: str, language: str = "", title: str = "") -> str:
    """A code block, whatever the code contains."""
    longest = max((len(run) for run in re.findall(r"`+", code)), default=0)
    marks = "`" * max(3, longest + 1)
    name = f' title="{text(title)}"' if title else ""
    clean = CONTROL.sub("", code.replace("\t", "    ")).strip("\n")
    return f"{marks}{language}{name}\n{clean}\n{marks}"


def front_matter(title: str, hide: Sequence[str] = (), description: str = "", search: Mapping[str, Any] | None = None) -> str:
    """The YAML head of a page. The theme puts title and description into HTML unescaped, so they are escaped here."""

    def quoted(value: str) -> str:
        plain = " ".join(CONTROL.sub("", value).split())
        return "'" + html.escape(plain, quote=True).replace("\\", "&#92;").replace("'", "''") + "'"

    lines = ["---", f"title: {quoted(title)}"]
    if description:
        lines.append(f"description: {quoted(description)}")
    if hide:
        lines.append(f"hide: [{', '.join(hide)}]")
    if search:
        lines.append("search: {" + ", ".join(f"{key}: {str(value).lower()}" for key, value in search.items()) + "}")
    return "\n".join([*lines, "---", ""])


def page(
    title: str,
    says: str,
    sections: Iterable[str],
    description: str,
    hide: Sequence[str] = ("navigation",),
    searched: bool = True,
) -> str:
    """A whole page: its head, the title as heading, what it is about (Markdown), and its sections (Markdown)."""
    matter = front_matter(title, hide, description, None if searched else {"exclude": True})
    return "\n\n".join([matter, f"# {text(title)}", says, *sections]) + "\n"


def shorten(value: str, limit: int) -> str:
    """The first words of a text, at most `limit` characters, with an ellipsis where something is left out."""
    line = " ".join(value.split())
    return line if len(line) <= limit else line[: limit - 1].rsplit(" ", 1)[0].rstrip(",;:") + "…"


def anchor(term: str) -> str:
    """The id of a heading, from any text."""
    spelled = term.lower().replace("&", " and ")
    return re.sub(r"[^a-z0-9]+", "-", spelled).strip("-") or "term"


def number(value: Any) -> str:
    """A measured number with about three figures: 0.934, 12.3, 1,520, 3.2e+06."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return text(value)
    if not math.isfinite(value):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) >= 1000:
        value = int(value)
    if isinstance(value, int):
        return f"{value:,}" if abs(value) < 10_000_000 else f"{value:.2e}"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1000:
        return f"{value:,.0f}" if size < 10_000_000 else f"{value:.2e}"
    if size < 0.001:
        return f"{value:.1e}"
    return f"{value:.{3 if size < 1 else 2 if size < 10 else 1}f}"


def as_given(value: float) -> str:
    """A number as somebody else wrote it, without rounding: 0.28, 12, 1,500."""
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.10g}"


def measured(spread: Mapping[str, Any] | None, centre: str = "median") -> str:
    """A median (or mean) over seeds with its spread, such as 0.934 ± 0.012."""
    if not spread:
        return ""
    std = spread.get("std", 0.0)
    several = len(spread.get("values", ())) > 1
    return number(spread[centre]) + (f" <small>± {number(std)}</small>" if several and std else "")
