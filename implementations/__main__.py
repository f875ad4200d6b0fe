"""The command line: python -m implementations list | show | run | sweep."""

import argparse
import dataclasses
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.table import Column, Table

from scripts.catalog import Catalog, CatalogError, load
from scripts.site.recorded import read_results, verdicts
from scripts.vocabulary import VOCABULARIES

from .common.provenance import ROOT

console = Console(width=None if sys.stdout.isatty() else 160)  # tables keep their words in files and pipes
FACETS = ("kind", "setting", "modality", "access", "goal", "knowledge", "adversary", "approach", "technique", "venue")


class UsageError(Exception):
    """A wrong word on the command line; the message says what is allowed."""


def nearest(word: str, allowed: Sequence[str], what: str) -> UsageError:
    """The error for an unknown word, with the nearest that exist."""
    near = difflib.get_close_matches(word, allowed, 3, 0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are {', '.join(allowed)}"
    return UsageError(f"no {what} {word!r}{hint}")


def catalog() -> Catalog:
    return load(ROOT / "papers.yaml")


# --- list and show -------------------------------------------------------------------------------------------------------


def add_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="papers, filtered by any facet")
    for facet in FACETS:
        parser.add_argument(f"--{facet}", nargs="+", metavar="TERM", default=[], help=f"any of these terms of `{facet}`")
    parser.add_argument("--year", metavar="YEAR or FROM-TO", help="for example 2020 or 2019-2023")
    parser.add_argument("--text", metavar="WORD", help="in title, authors, method or summary")
    parser.add_argument("--implemented", action="store_true", help="only papers with an implementation here")
    parser.add_argument("--reproduced", action="store_true", help="only papers with a claim reproduced here")
    parser.set_defaults(command=list_papers)


def years(text: str) -> tuple[int, int]:
    """First and last year of `2020` or `2019-2023`."""
    first, _, last = text.partition("-")
    if not (first.isdigit() and (not last or last.isdigit())):
        raise UsageError(f"--year takes a year or a range such as 2019-2023, not {text!r}")
    return int(first), int(last or first)


def list_papers(options: argparse.Namespace) -> int:
    from .registry import modules

    wanted = {}
    for facet in FACETS:
        terms = getattr(options, facet)
        for term in terms:
            if term not in VOCABULARIES[facet]:
                raise nearest(term, list(VOCABULARIES[facet]), f"term of {facet}")
        if terms:
            wanted[facet] = terms
    found = catalog().filter(**wanted)
    if options.year:
        first, last = years(options.year)
        found = [entry for entry in found if first <= entry.year <= last]
    if options.text:
        word = options.text.lower()
        found = [e for e in found if word in " ".join([e.title, e.method or "", e.summary or "", *e.authors]).lower()]
    table = Table("id", "year", "venue", "method or title", "access", "here", box=None, header_style="bold", pad_edge=False)
    shown, results = 0, read_results(ROOT / "docs" / "results")
    for entry in sorted(found, key=lambda entry: (entry.year, entry.id)):
        hold, checked = verdicts(results.get(entry.id))
        here = "" if entry.id not in modules() else f"{hold}/{checked} claims" if checked else "runs"
        if (options.implemented and not here) or (options.reproduced and not hold):
            continue
        access = ", ".join(entry.threat_model.access) if entry.threat_model else ""
        table.add_row(entry.id, str(entry.year), entry.venue, entry.method or entry.title, access, here)
        shown += 1
    console.print(table)
    console.print(f"{shown} papers", style="dim")
    return 0


def show_paper(options: argparse.Namespace) -> int:
    from .registry import find, modules
    from .results import load_result

    entries = catalog()
    if options.paper not in entries.by_id:
        raise nearest(options.paper, list(entries.by_id), "paper")
    entry = entries.by_id[options.paper]
    console.print(f"[bold]{entry.title}[/bold]" if not entry.method else f"[bold]{entry.method}[/bold]  {entry.title}")
    console.print(f"{', '.join(entry.authors)}\n{entry.venue} {entry.year}  {'  '.join(entry.links.values())}", highlight=False)
    facts = {"kind": entry.kind, "setting": entry.setting, "modality": ", ".join(entry.modality)}
    if entry.threat_model:
        facts |= {name: ", ".join(getattr(entry.threat_model, name)) for name in ("access", "goal", "knowledge", "adversary")}
    if entry.taxonomy:
        facts |= {"approach": ", ".join(entry.taxonomy.approach), "techniques": ", ".join(entry.taxonomy.techniques)}
    for name, value in facts.items():
        console.print(f"  {name:11}{value}", highlight=False)
    console.print(f"\n{entry.summary or ''}\n")
    if options.paper not in modules():
        console.print("Not implemented here.", style="dim")
        return 0
    experiment = find(options.paper)
    result = load_result(options.paper)
    console.print(f"implementations/{experiment.setting.name}/{options.paper}.py; configuration:")
    for field in dataclasses.fields(experiment.config):
        console.print(f"  {field.name} = {getattr(experiment.config, field.name)!r}", highlight=False)
    if result is None:
        console.print(f"No result recorded: make results ID={options.paper}")
        return 0
    runs = {
        name: (run["role"], {m: s["median"] for m, s in run["metrics"].items()}, run["queries"], run["seconds"])
        for name, run in result["runs"].items()
    }
    console.print(
        f"\nMedians of {len(result['seeds'])} seeds, {'toy scale' if result['toy'] else 'paper scale'}, {result['device']}:"
    )
    console.print(measured_table(runs, experiment))
    for name, claim in result["claims"].items():
        verdict = "[green]reproduced[/green]" if claim["reproduced"] else f"[red]not reproduced[/red]: {claim['reason']}"
        console.print(f"claim {name}: {verdict}")
    return 0


def measured_table(runs: dict[str, tuple[str, dict[str, float], float, float]], experiment: Any) -> Table:
    """Runs against the setting's metrics, the headline first; defenses show utility and the attacks' headlines."""
    setting = experiment.setting
    if experiment.defend is not None:
        columns = [*setting.utility_metrics, *(f"{paper}.{setting.headline}" for paper in experiment.against)]
    else:
        columns = [setting.headline, *(name for name in setting.metrics if name != setting.headline)][:6]
    table = Table(
        Column("run", no_wrap=True), "role", *columns, "queries", "seconds", box=None, header_style="bold", pad_edge=False
    )
    for name, (role, metrics, queries, seconds) in runs.items():
        numbers = [f"{metrics[column]:.3g}" if column in metrics else "" for column in columns]
        style = "bold" if name == "method" else None
        table.add_row(name, role, *numbers, f"{queries:,.0f}", f"{seconds:.1f}", style=style)
    return table


# --- run -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """What is run and where."""

    device: str = "cpu"  # cpu, cuda, cuda:1, mps
    scale: str = "quick"  # quick: the file's defaults; paper: the paper's values where they differ
    only: tuple[str, ...] = ()  # names of runs (method, a baseline, an ablation ...); none means all
    out: Path = Path("runs")  # folder for the picture and the numbers


def run_paper(paper: str, words: Sequence[str]) -> int:
    """Parses flags made from the method's Config and runs it against its baselines, under torchrun on several GPUs."""
    import tyro

    from .common.large_training import launched, place
    from .registry import find

    experiment = find_paper(paper, find)
    scale = experiment.paper_scale if asks_for_paper_scale(words) else {}
    Options = make_dataclass(
        "Options",
        [
            (
                "method",
                Annotated[type(experiment.config), tyro.conf.arg(name="")],
                dataclasses.replace(experiment.config, **scale),
            ),
            ("run", Annotated[RunOptions, tyro.conf.arg(name="")], RunOptions()),
            ("setting", experiment.setting.config_type, experiment.setting.config_type(**experiment.options)),
        ],
        frozen=True,
    )
    description = (
        sys.modules[experiment.attack.__module__] if experiment.attack else sys.modules[type(experiment.config).__module__]
    ).__doc__
    options = tyro.cli(Options, args=list(words), prog=f"python -m implementations run {paper}", description=description)
    if options.run.scale not in ("quick", "paper"):
        raise nearest(options.run.scale, ["quick", "paper"], "scale")
    with launched(checked_device(options.run.device)) as device:
        setting = experiment.setting(options.setting, device)
        if place()[1] > 1 and hasattr(setting, "prepare"):
            setting.prepare()  # several GPUs train together; what follows needs one
        rank = place()[0]
    return 0 if rank else report_run(experiment, setting, options)


def report_run(experiment: Any, setting: Any, options: Any) -> int:
    """Measures the chosen runs, prints the table, writes picture and numbers."""
    from .common.cache import write_atomically
    from .common.progress import progress
    from .experiment import run_experiment, run_names
    from .results import picture, shown

    paper = experiment.paper
    names = list(options.run.only) or run_names(experiment, setting)
    for name in names:
        if name not in run_names(experiment, setting):
            raise nearest(name, run_names(experiment, setting), "run")
    measured = run_experiment(
        experiment, setting, options.method, names, watch=lambda chosen: progress(chosen, f"{paper} on {options.run.device}")
    )
    console.print(measured_table({n: (m.role, m.metrics, m.queries, m.seconds) for n, m in measured.items()}, experiment))
    target = options.run.out / paper
    numbers = {
        name: {"role": m.role, "metrics": m.metrics, "queries": m.queries, "seconds": m.seconds} for name, m in measured.items()
    }
    write_atomically(target / "numbers.json", json.dumps(numbers, indent=1) + "\n")
    pictures = shown(experiment, measured)
    if pictures:
        write_atomically(target / "picture.png", picture(setting, pictures))
        console.print(f"picture: {target / 'picture.png'}", highlight=False)
    for row in setting.samples(pictures)[:3]:
        console.print("\n".join(f"  {name:22}{text}" for name, text in row.items()), highlight=False)
    console.print(f"numbers: {target / 'numbers.json'}", highlight=False)
    return 0


def asks_for_paper_scale(words: Sequence[str]) -> bool:
    """Whether the flags ask for the paper's values, which other flags may then change."""
    pairs = list(zip(words, [*words[1:], ""], strict=True))
    return ("--scale", "paper") in pairs or "--scale=paper" in words


def checked_device(name: str) -> str:
    """The device's name, if this machine has it."""
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used here: {str(error).splitlines()[0]}") from error
    return name


def find_paper(paper: str, find: Callable[[str], Any]) -> Any:
    """The experiment of a paper, or the error that names the nearest."""
    from .registry import modules

    if paper not in modules():
        raise nearest(paper, list(modules()), "implementation of")
    return find(paper)


# --- sweep ---------------------------------------------------------------------------------------------------------------


def add_sweep(commands: Any) -> None:
    parser = commands.add_parser("sweep", help="attacks x defenses x seeds of one setting, resumed where it stopped")
    parser.add_argument("papers", nargs="+", help="ids of attacks of one setting")
    parser.add_argument("--defense", nargs="+", default=[], metavar="ID", help="defenses of the same setting, beside none")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs/sweep"))
    parser.set_defaults(command=sweep)


def sweep(options: argparse.Namespace) -> int:
    """Measures every (attack, defense, seed) once; finished ones are read from --out."""
    from .common.cache import write_atomically
    from .common.progress import progress
    from .experiment import run_attack
    from .registry import find, modules
    from .results import experiment_hash

    attacks = {paper: find_paper(paper, find) for paper in options.papers}
    defenses = {paper: find_paper(paper, find) for paper in options.defense}
    for paper, found in {**attacks, **defenses}.items():
        if (found.attack is None) != (paper in defenses):
            raise UsageError(f"{paper} is no {'defense' if paper in defenses else 'attack'}")
    settings = {found.setting.name for found in [*attacks.values(), *defenses.values()]}
    if len(settings) > 1:
        raise UsageError(f"a sweep stays in one setting, not {', '.join(sorted(settings))}; see {', '.join(modules())}")
    device = checked_device(options.device)
    jobs = [(attack, defense, seed) for attack in attacks for defense in ["", *defenses] for seed in options.seeds]
    rows: dict[tuple[str, str], list[dict[str, float]]] = {}
    for attack, defense, seed in progress(jobs, "sweep"):
        stamp = experiment_hash(attack) + (experiment_hash(defense) if defense else "")
        path = options.out / f"{attack}--{defense or 'undefended'}--seed{seed}.json"
        done = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if done.get("code_hash") != stamp:
            experiment = attacks[attack]
            setting = experiment.build_setting(device)
            if defense:
                setting = setting.with_target(defenses[defense].defend(setting, defenses[defense].config))
            measured = run_attack(experiment, setting, dataclasses.replace(experiment.config, seed=seed))
            metrics = {**setting.utility(setting.target), **measured.metrics}
            done = {"code_hash": stamp, "metrics": metrics, "queries": measured.queries, "seconds": measured.seconds}
            write_atomically(path, json.dumps(done, indent=1) + "\n")
        rows.setdefault((attack, defense or "undefended"), []).append(done["metrics"])
    setting_type = next(iter(attacks.values())).setting
    measured_somewhere = {name for metrics in rows.values() for one in metrics for name in one}
    columns = [name for name in (*setting_type.utility_metrics, setting_type.headline) if name in measured_somewhere]
    table = Table("attack", "defense", *columns, "seeds", box=None, header_style="bold", pad_edge=False)
    for (attack, defense), metrics in rows.items():
        means = [f"{sum(one[c] for one in metrics) / len(metrics):.3f}" for c in columns]
        table.add_row(attack, defense, *means, str(len(metrics)))
    console.print(table)
    console.print(f"numbers: {options.out}", highlight=False)
    return 0


def main(words: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if words is None else words)
    parser = argparse.ArgumentParser(prog="python -m implementations", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="list | show | run | sweep")
    add_list(commands)
    show = commands.add_parser("show", help="one paper: facts, configuration, what was measured")
    show.add_argument("paper")
    show.set_defaults(command=show_paper)
    run = commands.add_parser(
        "run", help="run one method against its baselines; `run ID --help` shows its flags", add_help=False
    )
    run.add_argument("paper")
    run.set_defaults(command=None)
    add_sweep(commands)
    try:
        if words[:1] == ["run"] and len(words) > 1 and not words[1].startswith("-"):
            return run_paper(words[1], words[2:])
        options = parser.parse_args(words)
        return options.command(options)
    except (UsageError, CatalogError, ValueError, FileNotFoundError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        return 2


if __name__ == "__main__":
    sys.exit(main())
