"""Which code made a number: a hash of a module's source and of all project modules it imports.

Comments, docstrings and layout do not count, so that rewording or reformatting never makes a result stale, while any change
that could move a number does.
"""

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "implementations"
PRESENTATION = {
    "implementations.common.plots",
    "implementations.common.report",
    "implementations.common.progress",
    "implementations.common.provenance",
}
PAPER_SCALE = {  # only the `paper` presets run these, and recorded results are of `quick` ones
    "implementations.classifier.real_data",
    "implementations.classifier.large_victims",
    "implementations.classifier.large_networks",
    "implementations.common.large_training",
    "implementations.common.bounded",
}


def essential(source: str) -> str:
    """The syntax tree of a source as text, without comments, docstrings, layout and positions; equal for equal programs.

    Written out here because `ast.dump` differs between versions of Python.
    """

    def text(node: object) -> str:
        if isinstance(node, ast.AST):
            fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
            return f"{type(node).__name__}({','.join(f'{name}={text(value)}' for name, value in fields)})"
        if isinstance(node, list):
            return f"[{','.join(text(item) for item in node if not is_docstring(item))}]"
        return repr(node)

    def is_docstring(node: object) -> bool:
        return isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)

    return text(ast.parse(source))


def module_path(module: str) -> Path | None:
    """The file of a project module by its dotted name, or None where there is no such file."""
    base = ROOT.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


@cache
def imports(module: str) -> frozenset[str]:
    """The project modules that a project module imports directly."""
    path = module_path(module)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                anchor = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                anchor = anchor[: len(anchor) - node.level + 1]
                base = ".".join([*anchor, base] if base else anchor)
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if name.split(".")[0] == PACKAGE and module_path(name))


def closure(module: str) -> list[str]:
    """The module and every project module it needs, sorted; those that can't move a recorded number are left out."""
    left_out = PRESENTATION if module in PAPER_SCALE else PRESENTATION | PAPER_SCALE
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name not in seen and name not in left_out:
            seen.add(name)
            todo.extend(imports(name))
    return sorted(seen)


@cache
def code_hash(module: str) -> str:
    """First 16 hex digits of the SHA-256 over the essential source of the module and all it needs."""
    digest = hashlib.sha256()
    for name in closure(module):
        digest.update(name.encode() + b"\0" + essential(module_path(name).read_text(encoding="utf-8")).encode() + b"\0")
    return digest.hexdigest()[:16]


def commit() -> str | None:
    """The commit of the working tree, with `+` where files differ from it; None outside git."""

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "--short=12", "HEAD")
    return None if head is None else head + ("+" if git("status", "--porcelain", "--", PACKAGE) else "")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can move a number."""
    names = ("torch", "torchvision", "numpy", "scikit-learn", "transformers", "networkx", "torchmetrics")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
