"""Time, memory and sizes of the site's build for catalogs of several sizes: python scripts/bench_site.py [ENTRIES ...]

Each catalog holds the real entries and as many synthetic ones, a quarter of them at full depth as in the real catalog, in a
copy of the project with its real pages, results and notebooks. The build runs in a process of its own; the numbers are printed
and recorded in docs/benchmarks/site.json.
"""

import gzip
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.bench_catalog import entries  # noqa: E402

SIZES = (600, 2_500, 10_000)
RECORD = ROOT / "docs" / "benchmarks" / "site.json"


def project(folder: Path, count: int) -> None:
    """A copy of the project whose catalog also holds `count` synthetic entries."""
    shutil.copy(ROOT / "mkdocs.yml", folder)
    for name in ("scripts", "implementations", "CONTRIBUTING.md", "tests"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", folder / "docs")
    real = (ROOT / "papers.yaml").read_text(encoding="utf-8")
    (folder / "papers.yaml").write_text(real.rstrip("\n") + "\n\n" + entries(count, full=4), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "scripts.catalog", "format", str(folder / "papers.yaml")], cwd=ROOT, check=True,
                   capture_output=True)  # fmt: skip


def measure(count: int) -> dict[str, Any]:
    """Builds once and measures. Raises CalledProcessError, with the build's output, where it fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project(folder, count)
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict"],
            cwd=folder, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
        site = folder / "site"
        pages = list(site.rglob("*.html"))
        index = (site / "search" / "search_index.json").read_bytes()
        largest = max(pages, key=lambda path: path.stat().st_size)
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
        }


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or SIZES
    rows = []
    for count in sorted(sizes):  # the children's peak memory is that of the largest so far
        rows.append(measure(count))
        print(json.dumps(rows[-1]))
    per = [row["seconds"] / row["pages"] for row in rows]
    print(f"milliseconds a page: {', '.join(f'{1000 * value:.1f}' for value in per)}")
    RECORD.parent.mkdir(exist_ok=True)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RECORD.write_text(json.dumps({"command": "make bench-site", "machine": machine, "builds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
