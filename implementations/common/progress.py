"""A progress display that appears on terminals only."""

import os
import sys
from collections.abc import Iterable

from rich.console import Console
from rich.progress import track

console = Console(stderr=True)


def progress(steps: Iterable, description: str, total: int | None = None) -> Iterable:
    """`steps` unchanged, with a bar on stderr where that is a terminal and INVERSION_ATLAS_QUIET is not set."""
    if not sys.stderr.isatty() or os.environ.get("INVERSION_ATLAS_QUIET"):
        return steps
    return track(steps, description=description, total=total, console=console, transient=True)
