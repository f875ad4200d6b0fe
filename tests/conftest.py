"""What all tests share: quiet threads, no network, the real caches, and a browser on the real site."""

import http.server
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("INVERSION_ATLAS_QUIET", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

from scripts.catalog import Catalog, load

if os.environ.get("PYTEST_XDIST_WORKER"):
    torch.set_num_threads(1)  # several workers share the cores


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` are skipped where there is no CUDA device, and say so."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA device on this machine")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to open a connection to another host fails the test."""

    def refuse(self, address, *rest):
        raise AssertionError(f"a network connection was attempted: {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


# --- a browser on the real site ------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]
REMEDY = (
    "Chromium is missing: run scripts/install-chromium (Debian: apt-get install chromium), "
    "or set INVERSION_ATLAS_NO_BROWSER=1 to leave the browser tests out."
)
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The real catalog."""
    return load(ROOT / "papers.yaml")


@pytest.fixture(scope="session")
def site_environment(tmp_path_factory) -> dict[str, str]:
    """Variables for building the real site, with rendered notebooks of its own: `make serve` may run beside the tests."""
    rendered = tmp_path_factory.mktemp("rendered-notebooks")
    return os.environ | {"NO_MKDOCS_2_WARNING": "1", "INVERSION_ATLAS_NOTEBOOK_CACHE": str(rendered)}


@pytest.fixture(scope="session")
def site(tmp_path_factory, site_environment) -> Path:
    """The real site, built strictly, once."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=site_environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="session")
def address(site) -> Iterator[str]:
    """The site on a free port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail(REMEDY)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A browser page that remembers what it asked for and what went wrong."""

    page: object
    address: str

    def open(self, path: str = "") -> None:
        self.page.goto(self.address + path, wait_until="load")

    @property
    def path(self) -> str:
        """Where the browser is, from the site's root, without the fragment and the highlighted words."""
        return re.split(r"[?#]", self.page.url.removeprefix(self.address))[0]

    def search(self, words: str) -> list[str]:
        """Types into the search box; the paths of the hits, best first."""
        self.page.locator("[data-md-component=search-query]").click()
        self.page.wait_for_function("() => !/Initializing/.test(document.querySelector('.md-search-result__meta').textContent)")
        self.page.locator("[data-md-component=search-query]").fill("")
        self.page.locator("[data-md-component=search-query]").press_sequentially(words, delay=15)
        hits: list[str] = []
        same = 0
        deadline = time.monotonic() + 20
        while same < 4 and time.monotonic() < deadline:  # hits change while words are typed; these stayed for a second
            self.page.wait_for_timeout(250)
            links = self.page.locator(".md-search-result__item a.md-search-result__link")
            now = links.evaluate_all("links => links.map(link => link.href)")
            same = same + 1 if now and now == hits else 0
            hits = now
        return [re.split(r"[?#]", href.removeprefix(self.address))[0] for href in hits]


@pytest.fixture
def visit(chromium, address) -> Iterator[Visit]:
    """A fresh visitor; at its end nothing was asked of another host and nothing was logged as an error."""
    yield from visitor(chromium, address, viewport={"width": 1280, "height": 900})


@pytest.fixture
def phone(chromium, address) -> Iterator[Visit]:
    yield from visitor(chromium, address, viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)


def visitor(chromium, address: str, **options) -> Iterator[Visit]:
    context = chromium.new_context(color_scheme="light", **options)
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
    page = context.new_page()
    page.set_default_timeout(20_000)
    elsewhere, errors = [], []

    def look(request) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            elsewhere.append(request.url)

    page.on("request", look)
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", lambda response: errors.append(f"{response.status} {response.url}") if response.status >= 400 else None)
    yield Visit(page, address)
    context.close()
    assert elsewhere == []
    assert errors == []
