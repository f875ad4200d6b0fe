"""The HTML that mkdocs-jupyter makes of a notebook, made fit for the site.

It comes with half a megabyte of styles, scripts from other hosts, pictures as base64 text and unchecked links. Here styles and
scripts go, pictures become files, code gets the site's own colours, headings the site's own anchors, and links are resolved.
"""

import base64
import hashlib
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Comment

SUFFIXES = {"image/png": "png", "image/jpeg": "jpg", "image/gif": "gif", "image/svg+xml": "svg", "image/webp": "webp"}
LOADING = {"src", "srcset", "poster", "data"}


@dataclass
class Cleaned:
    """A notebook's body, its pictures by file name, its headings (level, id, text) and what is wrong with it."""

    html: str
    files: dict[str, bytes] = field(default_factory=dict)
    headings: list[tuple[int, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def clean(html: str, resolve: Callable[[str], str | None]) -> Cleaned:
    """`resolve` turns a relative link of the notebook into one of its page, or into None where nothing is there."""
    soup = BeautifulSoup(html, "html.parser")
    done = Cleaned("")
    for tag in soup.find_all(["script", "style", "link", "clipboard-copy", "iframe", "object", "embed"]):
        tag.decompose()
    for tag in soup.select(".clipboard-copy-txt, .zeroclipboard-container, .jp-InputPrompt, .jp-OutputPrompt, a.anchor-link"):
        tag.decompose()
    for tag in soup.select(".jp-Collapser, .jp-InputCollapser, .jp-OutputCollapser, .jp-Cell-outputCollapser"):
        tag.decompose()
    for comment in soup.find_all(string=lambda text: isinstance(text, Comment)):
        comment.extract()
    for tag in soup.find_all(True):
        for name in [name for name in tag.attrs if name.startswith("on") or name == "tabindex"]:
            del tag[name]
    code_blocks(soup)
    headings(soup, done)
    pictures(soup, done)
    links(soup, done, resolve)
    done.html = re.sub(r"\n{3,}", "\n\n", str(soup)).strip()
    return done


def code_blocks(soup: BeautifulSoup) -> None:
    """Gives code the structure of the site's own code blocks, so that colours and copy buttons come by themselves."""
    for box in soup.select('div[class*="highlight"]'):
        classes = box.get("class", [])
        if not any(name.startswith("highlight") for name in classes):
            continue
        box["class"] = ["highlight"]
        pre = box.find("pre")
        if pre is not None and pre.find("code") is None:
            code = soup.new_tag("code")
            for child in list(pre.children):
                code.append(child.extract())
            pre.append(code)
            for line in code.find_all("span", recursive=False):
                if not line.get("class") and not line.contents:
                    line.decompose()
    for pre in soup.select(".jp-OutputArea-output pre, .jp-RenderedText pre"):
        pre["tabindex"] = "0"


def headings(soup: BeautifulSoup, done: Cleaned) -> None:
    """Plain anchors and a permalink for each heading."""
    used: dict[str, int] = {}
    for tag in soup.find_all(re.compile(r"^h[1-6]$")):
        words = " ".join(tag.get_text().split())
        name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-") or "section"
        used[name] = used.get(name, 0) + 1
        if used[name] > 1:
            name = f"{name}-{used[name]}"
        tag["id"] = name
        done.headings.append((int(tag.name[1]), name, words))
        permalink = soup.new_tag("a", attrs={"class": "headerlink", "href": f"#{name}", "title": "Permanent link"})
        permalink.string = "¶"
        tag.append(permalink)


def pictures(soup: BeautifulSoup, done: Cleaned) -> None:
    """Pictures become files; a picture or other thing from another host is a problem."""
    for tag in soup.find_all(True):
        for name in LOADING & set(tag.attrs):
            address = str(tag[name])
            if tag.name == "img" and address.startswith("data:"):
                kind, _, content = address.removeprefix("data:").partition(",")
                suffix = SUFFIXES.get(kind.split(";")[0])
                if suffix and kind.endswith(";base64"):
                    raw = base64.b64decode(re.sub(r"\s", "", content))
                    file = f"{hashlib.sha256(raw).hexdigest()[:12]}.{suffix}"
                    done.files[file] = raw
                    tag[name] = file
            elif urlsplit(address).scheme in ("http", "https") or address.startswith("//"):
                done.problems.append(f"loads {address} from another host")
    for number, tag in enumerate(soup.find_all("img"), 1):
        if not tag.get("alt") or "No description" in str(tag["alt"]):
            tag["alt"] = f"Output picture {number}"
        tag["loading"] = "lazy"


def links(soup: BeautifulSoup, done: Cleaned, resolve: Callable[[str], str | None]) -> None:
    """Every link leads somewhere."""
    ids = {tag["id"] for tag in soup.find_all(id=True)}
    for tag in soup.find_all("a", href=True):
        address = str(tag["href"])
        parts = urlsplit(address)
        if parts.scheme in ("http", "https", "mailto"):
            tag["rel"] = "noopener"
        elif parts.scheme or address.startswith("/"):
            done.problems.append(f"links to {address!r}; use a path from the notebook or a http(s) address")
        elif not parts.path:
            if parts.fragment and parts.fragment not in ids:
                done.problems.append(f"links to #{parts.fragment}, which no heading has")
        else:
            found = resolve(unquote(parts.path))
            if found is None:
                done.problems.append(f"links to {address!r}, which does not exist")
            else:
                tag["href"] = found + (f"#{parts.fragment}" if parts.fragment else "")


def join(folder: str, path: str) -> str:
    """A relative path seen from a folder of docs/, normalised."""
    return posixpath.normpath(posixpath.join(folder, path))


def first_heading(done: Cleaned) -> str:
    """The text of the first heading of level 1, or nothing."""
    return next((words for level, _, words in done.headings if level == 1), "")
