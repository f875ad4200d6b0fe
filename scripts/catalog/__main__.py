"""python -m scripts.catalog check [FILE] | format [FILE] [--check] | schema [--check]"""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from .checker import check, shown_path
from .files import PAPERS, SCHEMA, write_atomically
from .formatter import format_text
from .json_schema import schema_text
from .problems import CatalogError, Problem
from .tree import read_text


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command. Returns 0 when all is well, 1 when there are problems or a file is stale."""
    parser = argparse.ArgumentParser(prog="python -m scripts.catalog", description="The catalog papers.yaml.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command, what in (
        ("check", run_check, "report every problem"),
        ("format", run_format, "write it in its one form, sorted"),
    ):
        sub = commands.add_parser(name, help=what)
        sub.add_argument("file", nargs="?", type=Path, default=PAPERS, metavar="FILE")
        sub.set_defaults(command=command, check=False)
    sub.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file would change")
    sub = commands.add_parser("schema", help="write docs/papers.schema.json for editors")
    sub.add_argument("--check", action="store_true", help="write nothing; exit 1 if the file is stale")
    sub.set_defaults(command=run_schema)
    options = parser.parse_args(words)
    try:
        return options.command(options)
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def run_check(options: argparse.Namespace) -> int:
    return reported(check(options.file))


def reported(problems: Iterable[Problem]) -> int:
    """Prints problems and their number; the exit status."""
    problems = list(problems)
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}")
    return 1 if problems else 0


def run_format(options: argparse.Namespace) -> int:
    file = shown_path(options.file)
    text, problems = read_text(options.file, file)
    if text is None:
        return reported(problems)
    try:
        formatted = format_text(text, file)
    except CatalogError as error:
        return reported(error.problems)
    if formatted.encode() == options.file.read_bytes():
        print(f"{file}: formatted")
        return 0
    if options.check:
        print(f"{file}: not formatted; run `make fmt`")
        return 1
    write_atomically(options.file, formatted)
    print(f"{file}: written")
    return 0


def run_schema(options: argparse.Namespace) -> int:
    file = shown_path(SCHEMA)
    text = schema_text()
    if SCHEMA.exists() and SCHEMA.read_bytes() == text.encode():
        print(f"{file}: up to date")
        return 0
    if options.check:
        print(f"{file}: stale; run `python -m scripts.catalog schema`")
        return 1
    write_atomically(SCHEMA, text)
    print(f"{file}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
