"""What the site tells of a module, read from its source. Nothing is imported, so that a build does not wait for torch."""

import ast
import re
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from io import StringIO
from pathlib import Path

from ..vocabulary import VOCABULARIES

NO_SETTING = {"common", "__pycache__"}


@dataclass(frozen=True)
class Option:
    """A field of a Config: its name, default and meaning, and its value at the paper's scale where that differs."""

    name: str
    default: str
    says: str
    paper_scale: str = ""


@dataclass(frozen=True)
class CheckedClaim:
    """A claim as its module checks it. `mentions` holds all names in the check: of metrics, runs, or anything else."""

    ablation: str
    run: str
    check: str
    mentions: tuple[str, ...]
    not_reproduced: str = ""


@dataclass(frozen=True)
class Module:
    """One implementation."""

    paper: str
    setting: str  # the folder's name
    path: str  # from the project's root
    source: str
    headline: str  # first paragraph of the docstring
    reference: str  # the paper as the docstring gives it
    idea: str
    mathematics: str
    deviations: tuple[str, ...]
    config: tuple[Option, ...]
    claims: dict[str, CheckedClaim]
    role: str  # attack, defend or measure
    access: str = ""  # the access that an attack is granted here; the paper may have other modes
    baselines: tuple[str, ...] | None = None
    knowledge: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    references: dict[str, str] = field(default_factory=dict)  # run's name -> other paper's id

    @property
    def lines(self) -> int:
        return self.source.count("\n")

    @property
    def name(self) -> str:
        """The dotted name."""
        return self.path.removesuffix(".py").replace("/", ".")


def read_modules(folder: Path) -> dict[str, Module]:
    """Every module with an EXPERIMENT in a folder of a setting, by id, sorted; the rule is that of implementations.registry."""
    found = {}
    for path in sorted(folder.glob("*/*.py")):
        if path.parent.name in NO_SETTING or path.stem.startswith("_"):
            continue
        source = path.read_text(encoding="utf-8")
        if "\nEXPERIMENT = " in source:
            found[path.stem] = read_module(path, source)
    return dict(sorted(found.items()))


def read_settings(folder: Path) -> dict[str, str]:
    """The docstring of each setting.py, by the folder's name."""
    found = {}
    for path in sorted(folder.glob("*/setting.py")):
        found[path.parent.name] = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return found


def read_module(path: Path, source: str) -> Module:
    """The facts of one module. Raises ValueError where it has no `EXPERIMENT = Experiment(...)`."""
    tree = ast.parse(source, filename=str(path))
    call = experiment_call(tree, path)
    options = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    headline, reference, idea, mathematics, deviations = split_docstring(ast.get_docstring(tree) or "")
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return Module(
        paper=path.stem,
        setting=path.parent.name,
        path=f"{path.parent.parent.name}/{path.parent.name}/{path.name}",
        source=source,
        headline=headline,
        reference=reference,
        idea=idea,
        mathematics=mathematics,
        deviations=deviations,
        config=read_config(path, tree, options.get("config"), items(options.get("paper_scale"))),
        claims={name: read_claim(value, functions) for name, value in items(options.get("claims")).items()},
        role=next((role for role in ("attack", "defend", "measure") if role in options), ""),
        access=read_access(functions, options.get("attack")),
        baselines=words(options["baselines"]) if "baselines" in options else None,
        knowledge=words(options.get("knowledge")),
        against=words(options.get("against")),
        references={name: keyword_text(value, "paper") for name, value in items(options.get("references")).items()},
    )


def experiment_call(tree: ast.Module, path: Path) -> ast.Call:
    for node in tree.body:
        named = isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "EXPERIMENT" for t in node.targets)
        if named and isinstance(node.value, ast.Call):
            return node.value
    raise ValueError(f"{path}: no EXPERIMENT = Experiment(...)")


def read_access(functions: dict[str, ast.FunctionDef], attack: ast.expr | None) -> str:
    """The catalog's term for the oracle that an attack takes: `WhiteBox` is white-box."""
    function = functions.get(attack.id) if isinstance(attack, ast.Name) else None
    if function is None or not function.args.args or function.args.args[0].annotation is None:
        return ""
    oracle = ast.unparse(function.args.args[0].annotation).lower()
    return next((term for term in VOCABULARIES["access"] if term.replace("-", "") == oracle), "")


def items(node: ast.expr | None) -> dict[str, ast.expr]:
    """The entries of a dict display or dict(...) call whose keys are literal."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: value for key, value in pairs if isinstance(key, ast.Constant) and isinstance(key.value, str)}
    if isinstance(node, ast.Call):
        return {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
    return {}


def words(node: ast.expr | None) -> tuple[str, ...]:
    """The strings of a literal sequence."""
    if not isinstance(node, ast.Tuple | ast.List):
        return ()
    return tuple(element.value for element in node.elts if isinstance(element, ast.Constant))


def keyword_text(node: ast.expr, name: str) -> str:
    """A literal string keyword of a call, joined where it is written in parts."""
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == name:
                return literal(keyword.value)
    return ""


def literal(node: ast.expr) -> str:
    try:
        return str(ast.literal_eval(node))
    except ValueError:
        return ast.unparse(node)


# --- docstring -----------------------------------------------------------------------------------------------------------


def split_docstring(docstring: str) -> tuple[str, str, str, str, tuple[str, ...]]:
    """First paragraph, reference, idea, mathematics and numbered deviations of a module's docstring."""
    parts: dict[str, list[str]] = {"reference": [], "idea": [], "mathematics": [], "deviations": []}
    first, _, rest = docstring.partition("\n\n")
    current = "idea"
    for line in rest.splitlines():
        if match := re.match(r"\W*(Paper|Idea|Mathematics|Deviations)\b[^\w$]*", line):
            current = match.group(1).lower().replace("paper", "reference")
            line = line[match.end() :]
        elif not line.strip() and current == "reference":
            current = "idea"
        parts[current].append(line)
    idea = "\n".join(parts["idea"]).strip()
    reference = " ".join(" ".join(parts["reference"]).split())
    mathematics = "\n".join(parts["mathematics"]).strip()
    return " ".join(first.split()), reference, idea, mathematics, tuple(numbered(parts["deviations"]))


def numbered(lines: list[str]) -> Iterator[str]:
    """The items of a numbered list, each on one line; what stands before the first is left out."""
    item: list[str] = []
    for line in lines:
        if match := re.match(r"\s*\d+[.)]\s+", line):
            if item:
                yield " ".join(item)
            item = [line[match.end() :].strip()]
        elif line.strip() and item:
            item.append(line.strip())
    if item:
        yield " ".join(item)


# --- configuration -------------------------------------------------------------------------------------------------------


@cache
def parsed(path: Path) -> tuple[ast.Module, dict[int, str]]:
    """A file's syntax tree and its comments by line."""
    source = path.read_text(encoding="utf-8")
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return ast.parse(source), comments


def read_config(path: Path, tree: ast.Module, made: ast.expr | None, scale: dict[str, ast.expr]) -> tuple[Option, ...]:
    """The fields of the Config that EXPERIMENT is given, those of its base classes first."""
    if not isinstance(made, ast.Call) or not isinstance(made.func, ast.Name):
        return ()
    parsed.cache_clear()
    fields = class_fields(path, made.func.id)
    changed = {keyword.arg: ast.unparse(keyword.value) for keyword in made.keywords if keyword.arg}
    return tuple(
        Option(name, changed.get(name, default), says, ast.unparse(scale[name]) if name in scale else "")
        for name, (default, says) in fields.items()
    )


def class_fields(path: Path, name: str) -> dict[str, tuple[str, str]]:
    """Default and comment of each annotated field of a class, through base classes, also imported ones."""
    tree, comments = parsed(path)
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            found: dict[str, tuple[str, str]] = {}
            for base in node.bases:
                if isinstance(base, ast.Name):
                    found |= class_fields(path, base.id)
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    default = ast.unparse(line.value) if line.value else ""
                    lines = range(line.lineno, (line.end_lineno or line.lineno) + 1)
                    found[line.target.id] = (default, " ".join(comments[number] for number in lines if number in comments))
            return found
        if isinstance(node, ast.ImportFrom) and node.level and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    base_folder = path.parents[node.level - 1]
                    return class_fields(base_folder.joinpath(*node.module.split(".")).with_suffix(".py"), alias.name)
    return {}


# --- claims --------------------------------------------------------------------------------------------------------------


def read_claim(node: ast.expr, functions: dict[str, ast.FunctionDef]) -> CheckedClaim:
    """A Claim(...) call. Its check is a lambda, a function of the module, or the answer of one that is called."""
    keywords = {k.arg: k.value for k in node.keywords if k.arg} if isinstance(node, ast.Call) else {}
    check = keywords.get("check")
    parts: list[ast.AST] = []
    shown = ""
    if isinstance(check, ast.Lambda):
        parts, shown = [check.body], ast.unparse(check.body)
    elif isinstance(check, ast.Name) and check.id in functions:
        parts, shown = [functions[check.id]], ast.unparse(functions[check.id])
    elif isinstance(check, ast.Call) and isinstance(check.func, ast.Name) and check.func.id in functions:
        maker = functions[check.func.id]
        parts, shown = [check, maker], f"{ast.unparse(maker)}\n\n\ncheck = {ast.unparse(check)}"
    return CheckedClaim(
        ablation=literal(keywords["ablation"]) if "ablation" in keywords else "",
        run=literal(keywords["run"]) if "run" in keywords else "method",
        check=shown,
        mentions=tuple(dict.fromkeys(name for part in parts for name in names_in(part))),
        not_reproduced=literal(keywords["not_reproduced"]) if "not_reproduced" in keywords else "",
    )


def names_in(node: ast.AST) -> list[str]:
    """The texts written in a piece of code, in the order of the source."""
    texts = [part for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    return [part.value for part in sorted(texts, key=lambda part: (part.lineno, part.col_offset))]
