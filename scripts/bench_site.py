"""Time, memory and sizes of the site's build for catalogs of several sizes: python scripts/bench_site.py [ENTRIES ...]

Each catalog holds the real entries and as many synthetic ones, a quarter of them at full depth as in the real catalog, in a
copy of the project with its real pages, results and notebooks. The build runs in a process of its own; the numbers are printed
and recorded in docs/benchmarks/site.json.
"""

import functools
import gzip
import http.server
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import sync_playwright  # noqa: E402

from scripts.bench_catalog import entries  # noqa: E402

SIZES = (600, 2_500, 10_000)
NOTEBOOKS = 130  # in the build of the smallest size, which is done twice: with an empty cache and with a full one
RECORD = ROOT / "docs" / "benchmarks" / "site.json"


def project(folder: Path, count: int, notebooks: int = 0) -> None:
    """A copy of the project whose catalog also holds `count` synthetic entries, with at least `notebooks` notebooks."""
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name in ("scripts", "implementations", "CONTRIBUTING.md", "tests"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", folder / "docs")
    found = sorted((folder / "docs" / "notebooks").glob("*.ipynb"))
    for number in range(notebooks - len(found)):
        shutil.copy(found[number % len(found)], folder / "docs" / "notebooks" / f"paper{number:05d}.ipynb")
    real = (ROOT / "papers.yaml").read_text(encoding="utf-8")
    (folder / "papers.yaml").write_text(real.rstrip("\n") + "\n\n" + entries(count, full=4), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "scripts.catalog", "format", str(folder / "papers.yaml")], cwd=ROOT, check=True,
                   capture_output=True)  # fmt: skip


def build(folder: Path) -> float:
    """Seconds of a strict build. Raises RuntimeError, with the build's output, where it fails."""
    start = time.perf_counter()
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - start


def measure(count: int, notebooks: int = 0) -> dict[str, Any]:
    """Builds and measures; with `notebooks` also again, when their conversions are cached, and a search in Chromium."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, count, notebooks)
        seconds = build(folder)
        more: dict[str, Any] = {"notebooks": notebooks, "seconds again": round(build(folder), 1)} if notebooks else {}
        site = folder / "site"
        pages = list(site.rglob("*.html"))
        index = (site / "search" / "search_index.json").read_bytes()
        largest = max(pages, key=lambda path: path.stat().st_size)
        more |= {"search ms, median": round(statistics.median(searches(site)))} if notebooks else {}
        return {
            "synthetic entries": count,
            "pages": len(pages),
            "seconds": round(seconds, 1),
            "peak MB": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
            "site MB": round(sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6, 1),
            "search index MB, compressed": round(len(gzip.compress(index)) / 1e6, 2),
            "browser data kB, compressed": round(len(gzip.compress((site / "data" / "papers.js").read_bytes())) / 1e3),
            "largest page": str(largest.relative_to(site)),
            "largest page kB, compressed": round(len(gzip.compress(largest.read_bytes())) / 1e3),
            **more,
        }


def searches(site: Path) -> list[float]:
    """Milliseconds from the last letter typed into the search box to the first result, in headless Chromium."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        for words in ("gmi", "label-only", "gradient inversion", "vec2text", "carlini"):
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            box = page.locator("[data-md-component=search-query]")
            box.click()
            page.wait_for_function("() => !/Initializing/.test(document.querySelector('.md-search-result__meta').textContent)")
            box.press_sequentially(words[:-1])
            page.wait_for_timeout(1500)
            page.evaluate("document.querySelector('.md-search-result__list').replaceChildren()")
            start = time.perf_counter()
            box.press_sequentially(words[-1])
            page.wait_for_selector(".md-search-result__item", state="attached")
            found.append(1000 * (time.perf_counter() - start))
        browser.close()
    server.shutdown()
    return found


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or SIZES
    rows = []
    for count in sorted(sizes):  # the children's peak memory is that of the largest so far
        rows.append(measure(count, NOTEBOOKS if count == min(sizes) else 0))
        print(json.dumps(rows[-1]))
    per = [row["seconds"] / row["pages"] for row in rows]
    print(f"milliseconds a page: {', '.join(f'{1000 * value:.1f}' for value in per)}")
    RECORD.parent.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RECORD.write_text(json.dumps({"command": "make bench-site", "machine": machine, "builds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
