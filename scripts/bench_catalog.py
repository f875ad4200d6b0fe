"""Seconds that the checker and the formatter take for large catalogs: python scripts/bench_catalog.py [ENTRIES]"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts import catalog

SENTENCE = "It searches the latent space of a generator that was trained on public images, case {n}-{k}, and explains why."
ENTRY = """\
- id: paper{n:05d}
  title: "Paper {n}: A Title of the Usual Length for a Paper on Model Inversion Attacks"
  method: M-{n}
  authors: [Ann One, Bob Two, Carla Three, Dan Four, Eve Five, Frank Six]
  year: 2020
  venue: CVPR
  arxiv: "9912.{n:05d}"
  doi: 10.1000/bench.{n:05d}
  url: https://example.org/papers/{n}
  code: [https://github.com/example/paper{n}]
  kind: attack
  setting: classifier
  modality: [image]
  threat_model:
    access: white-box
    goal: class-representative
    knowledge: [public-images, num-classes]
    adversary: external
  taxonomy: {{approach: optimization, techniques: [gan-prior, gradient-descent]}}
  datasets: [MNIST, ChestX-ray8, CelebA]
  metrics: [attack accuracy, feature distance, PSNR]
  relations: {{extends: [paper{other:05d}], compares_with: [paper{third:05d}]}}
  summary: >-
    {s[0]}
    {s[1]}
    {s[2]}
  contributions:
    - {s[3]}
    - {s[4]}
    - {s[5]}
  limitations:
    generalizability: {s[6]}
    practicality: {s[7]}
    guarantees: {s[8]}
  claims:
    - id: prior-beats-pixels
      says: {s[9]}
      reported: {{dataset: CelebA, metric: attack accuracy, value: 0.28, baseline: 0.07, source: Table 1}}
    - id: more-data-help
      says: {s[10]}
      reported: {{dataset: CelebA, metric: attack accuracy, value: 0.31, baseline: 0.28, unit: percent, source: Table 2}}
  basis: Sec. 3; Table 1
  in_survey: true
  verified: https://arxiv.org/abs/9912.{n:05d}
"""


def entries(count: int, full: int = 1) -> str:
    """A valid catalog, about 3,000 characters for each entry at full depth; with `full=4` only every fourth entry is."""
    parts = []
    for n in range(count):
        sentences = [SENTENCE.format(n=n, k=k) for k in range(11)]
        entry = ENTRY.format(n=n, other=(n + 1) % count, third=(n + 7) % count, s=sentences)
        if n % full:
            entry = entry[: entry.index("  contributions:")] + entry[entry.index("  basis:") :].replace("true", "false")
        parts.append(entry)
    return "\n".join(parts)


def cases(count: int) -> Iterator[tuple[str, str]]:
    """The valid catalog, ways to spoil every entry of it, and text that is hostile to parsers."""
    valid = entries(count)
    yield "valid", valid
    yield (
        "unknown term in every entry",
        "".join(line.replace("gan-prior", f"gan-prior{n}") for n, line in enumerate(valid.splitlines(keepends=True))),
    )
    yield "dangling relation in every entry", valid.replace("extends: [paper", "extends: [papr")
    yield "reversed", "\n".join(reversed(valid.split("\n\n")))
    yield "year as text in every entry", valid.replace("year: 2020", 'year: "2020"')
    yield (
        "one title for all",
        "\n".join("  title: One Title" if line.startswith("  title:") else line for line in valid.splitlines()),
    )
    yield "nested 10,000,000 deep", "[" * 10_000_000
    yield "billion laughs", "- a: &a [x]\n" + "".join(f"  b{n}: &b{n} [{'*a, ' * 9}]\n" for n in range(100_000))
    yield "3,000,000 keys", "- " + "\n  ".join(f"k{n}: 1" for n in range(1_500_000))
    yield "9,000,000 values", "- [" + "a," * 9_000_000 + "]"
    yield "one text of 19 MB", '- id: "' + "a" * 19_000_000 + '"'


def seconds(work: Callable[[], object]) -> tuple[float, float, object]:
    """Wall-clock and processor seconds of some work, and its result."""
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - wall, time.process_time() - processor, result


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 5_000
    print(f"{'check':36}{'MB':>6}{'wall s':>9}{'CPU s':>8}{'problems':>10}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "papers.yaml"
        for name, text in cases(count):
            path.write_text(text, encoding="utf-8")
            wall, processor, problems = seconds(lambda: catalog.check(path))
            print(f"{name:36}{os.path.getsize(path) / 1e6:6.1f}{wall:9.2f}{processor:8.2f}{len(problems):10,}")
    text = entries(count)
    wall, processor, _ = seconds(lambda: catalog.format_text(text))
    print(f"{'format':36}{len(text) / 1e6:6.1f}{wall:9.2f}{processor:8.2f}")


if __name__ == "__main__":
    main()
