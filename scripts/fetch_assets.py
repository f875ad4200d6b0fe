"""Brings the scripts of others that the site serves itself, by version and hash, from npm into docs/assets/vendor/.

They are not committed. Run by `make setup`; does nothing when they are there.
"""

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "docs" / "assets" / "vendor"
KATEX = "katex@0.16.22"
SHA512 = "XCHRdUw4lf3SKBaJe4EvgqIuWwkPSo9XoeO8GjQW94Bp7TWv9hNhzZjZ+OH9yf1UmLygb7DIT5GSFQiyt16zYg=="
WANTED = ("dist/katex.min.js", "dist/katex.min.css", "LICENSE")


def main() -> int:
    """Fetches what is missing. Returns 1, with the remedy, where npm is missing or the package is not the expected one."""
    stamp = VENDOR / "katex" / ".version"
    if stamp.exists() and stamp.read_text() == KATEX:
        return 0
    npm = shutil.which("npm")
    if npm is None:
        print("npm is missing: install Node.js (Debian: apt-get install npm); the site's mathematics needs one package of it")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([npm, "pack", KATEX, "--silent"], cwd=folder, capture_output=True, text=True, check=False)
        packages = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(packages) != 1:
            print(f"npm pack {KATEX} failed: {done.stderr.strip() or done.stdout.strip()}")
            return 1
        found = base64.b64encode(hashlib.sha512(packages[0].read_bytes()).digest()).decode()
        if found != SHA512:
            print(f"{KATEX} has the hash {found}, not the one expected; nothing was installed")
            return 1
        extract(packages[0], VENDOR / "katex")
    stamp.write_text(KATEX)
    return 0


def extract(package: Path, target: Path) -> None:
    """The wanted files and the web fonts of a package, without its folders; replaces what is there."""
    shutil.rmtree(target, ignore_errors=True)
    (target / "fonts").mkdir(parents=True)
    with tarfile.open(package) as archive:
        for member in archive.getmembers():
            name = member.name.removeprefix("package/")
            font = name.startswith("dist/fonts/") and name.endswith(".woff2")
            if member.isfile() and (name in WANTED or font):
                place = target / "fonts" / Path(name).name if font else target / Path(name).name
                place.write_bytes(archive.extractfile(member).read())


if __name__ == "__main__":
    sys.exit(main())
