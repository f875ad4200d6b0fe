"""First draw and filtering of the paper browser with a large catalog: python scripts/bench_browser.py [ENTRIES]

The catalog is synthetic, at full depth, the browser headless Chromium. Medians over repetitions are printed and recorded in
docs/benchmarks/browser.json.
"""

import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from playwright.sync_api import sync_playwright  # noqa: E402

from scripts.bench_catalog import entries  # noqa: E402
from scripts.catalog import load_text  # noqa: E402
from scripts.site.atlas import Atlas  # noqa: E402
from scripts.site.data import scripts  # noqa: E402

REPEAT = 15
RECORD = ROOT / "docs" / "benchmarks" / "browser.json"
PAGE = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="interactive.css">
<div id="atlas-browser" class="ia-browser" data-base="./"></div>
<script src="papers.js"></script><script src="dom.js"></script>
<script>const began = performance.now();</script><script src="browse.js"></script>
<script>document.body.offsetHeight; globalThis.drawn = performance.now() - began;</script>"""
FILTER = """async () => {
  const box = [...document.querySelectorAll('details[data-facet="kind"] input')][0];
  const began = performance.now();
  box.click();
  document.body.offsetHeight;
  return performance.now() - began;
}"""
TYPE = """async () => {
  const field = document.getElementById('ia-q');
  const began = performance.now();
  field.value = 'paper 1' + Math.floor(9 * Math.random());
  field.dispatchEvent(new Event('input'));
  document.body.offsetHeight;
  return performance.now() - began;
}"""


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_500
    atlas = Atlas(load_text(entries(count)))
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        for asset in ("javascripts/dom.js", "javascripts/browse.js", "stylesheets/interactive.css"):
            shutil.copy(ROOT / "docs" / "assets" / asset, folder)
        (folder / "data").mkdir()
        for path, code in scripts(atlas).items():
            (folder / path).write_text(code, encoding="utf-8")
        shutil.copy(folder / "data" / "papers.js", folder)
        (folder / "index.html").write_text(PAGE, encoding="utf-8")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        draws = []
        for _ in range(REPEAT):
            page.goto(f"file://{folder}/index.html")
            draws.append(page.evaluate("drawn"))
        filters = [page.evaluate(FILTER) for _ in range(2 * REPEAT)]
        page.evaluate(TYPE)
        page.wait_for_function("() => globalThis.atlas.summaries")
        typed = [page.evaluate(TYPE) for _ in range(REPEAT)]
        browser.close()
    row = {
        "command": f"python scripts/bench_browser.py {count}",
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, headless Chromium",
        "papers": count,
        "first draw ms, median": round(statistics.median(draws), 1),
        "filter ms, median": round(statistics.median(filters), 1),
        "filter ms, slowest": round(max(filters), 1),
        "typing ms, median": round(statistics.median(typed), 1),
    }
    print(json.dumps(row))
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    main()
