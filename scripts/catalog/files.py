"""Reading, checking and rewriting the catalog's files."""

import os
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAPERS = ROOT / "papers.yaml"
SCHEMA = ROOT / "docs" / "papers.schema.json"


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file's text at once, so that no reader and no crash leaves half of it; its permissions stay."""
    path = path.resolve()  # through a link, not over it
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
