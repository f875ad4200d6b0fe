"""What every method of the Atlas is: a configuration, a run against a setting, claims that are checked on the numbers.

A module of a paper ends with `EXPERIMENT = Experiment(...)`. Everything else is derived from it: the command line, the
contract tests, the recorded result, the notebook and the page.
"""

import ast
import contextlib
import copy
import dataclasses
import functools
import inspect
import resource
import sys
import textwrap
import time
import tokenize
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from .threat_model import ORACLES, Knowledge, Oracle, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metrics = Mapping[str, float]


# --- configuration ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Config:
    """Base of every method's configuration. Each field has a trailing comment: meaning, unit, the paper's value."""

    seed: int = 0  # seed of every random draw of the method

    def generator(self, device: torch.device | str) -> torch.Generator:
        """A fresh generator on `device`, seeded."""
        return torch.Generator(device).manual_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class SettingConfig:
    """Base of every setting's configuration."""

    preset: str = "quick"  # quick: embedded data, seconds on a CPU; paper: the papers' data sets at their scale, on a GPU
    folder: str = ""  # paper preset: the folder that holds the data sets
    seed: int = 0  # seed of the data split and of the target's training

    def __post_init__(self):
        require(self.preset in ("quick", "paper"), f"preset must be quick or paper, not {self.preset!r}")
        require(self.preset == "quick" or bool(self.folder), "the paper preset needs --folder: where the data sets lie")

    def generator(self, device: torch.device | str, purpose: int = 0) -> torch.Generator:
        """A fresh generator on `device`; different purposes give independent streams."""
        return torch.Generator(device).manual_seed(self.seed * 1009 + purpose)


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message where the condition does not hold; for `__post_init__` of configurations."""
    if not condition:
        raise ValueError(message)


@functools.cache
def field_comments(config_type: type) -> dict[str, str]:
    """What each field of a configuration means: the comment at the end of its line, base classes included."""
    found: dict[str, str] = {}
    for base in reversed(config_type.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        source = textwrap.dedent(inspect.getsource(base))
        comments = {
            token.start[0]: token.string.lstrip("# ").strip()
            for token in tokenize.generate_tokens(iter(source.splitlines(keepends=True)).__next__)
            if token.type == tokenize.COMMENT
        }
        for node in ast.parse(source).body[0].body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found[node.target.id] = comments.get(node.end_lineno, "")
    return found


# --- what an attack returns, what a setting is --------------------------------------------------------------------------


@dataclass
class Reconstruction:
    """What an attack rebuilt, in its setting's form, and how it went.

    `data` is what the setting's docstring says. `history` holds curves (a list of numbers a step), `trajectory` a few
    snapshots of `data` on the way, `notes` numbers of the method's own (restarts, divergences, seconds of training a prior).
    """

    data: Any
    history: dict[str, list[float]] = field(default_factory=dict)
    trajectory: list[Any] = field(default_factory=list)
    notes: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """A measured number: what it means, its unit, and whether more of it means a stronger attack."""

    says: str
    unit: str = ""
    higher_is_stronger: bool = True


class Setting(ABC):
    """The standard scenario of one setting: private data, a trained target, knowledge, baselines, metrics.

    `private` holds what is never granted: it is used to train the target, to evaluate and by defenses. What an attacker is
    given is kept elsewhere (`target`, `knowledge`), so that `private` can be permuted without changing any attack.
    """

    name: ClassVar[str]
    config_type: ClassVar[type[SettingConfig]]
    metrics: ClassVar[Mapping[str, Metric]]
    headline: ClassVar[str]
    utility_metrics: ClassVar[Mapping[str, Metric]] = {}

    def __init__(self, config: SettingConfig | None = None, device: torch.device | str = "cpu"):
        self.config = config or self.config_type()
        self.device = torch.device(device)
        self.private: dict[str, Any] = {}

    @functools.cached_property
    @abstractmethod
    def target(self) -> Target:
        """The undefended victim, trained once and cached."""

    @abstractmethod
    def knowledge(self) -> Knowledge:
        """All that an adversary may be assumed to know here; a fresh recorder at each call."""

    @abstractmethod
    def baselines(self) -> dict[str, Callable[[torch.Generator], Reconstruction]]:
        """What can be had without the attack, by name; each takes a generator on the setting's device."""

    @abstractmethod
    def evaluate(self, reconstruction: Reconstruction) -> dict[str, float]:
        """The metrics of a reconstruction, computed with private data and evaluators that no attack sees."""

    def utility(self, target: Target) -> dict[str, float]:
        """What a target is worth to its owner, on data it was not trained on."""
        return {}

    @abstractmethod
    def figure(self, reconstructions: Mapping[str, Reconstruction]) -> "Figure":
        """A picture of private data beside the named reconstructions."""

    def samples(self, reconstructions: Mapping[str, Reconstruction]) -> list[dict[str, str]]:
        """For text: a few rows {"private": ..., name: ...}. Empty where the figure says it all."""
        return []

    def with_target(self, target: Target) -> "Setting":
        """The same scenario around another victim, such as a defended one."""
        other = copy.copy(self)
        other.__dict__["target"] = target
        return other

    def with_private_permuted(self, seed: int = 0) -> "Setting":
        """The same victim and knowledge while all never-granted data changed places. No attack may notice."""
        _ = self.target  # what is trained or computed from private data is so before it is permuted
        other = copy.copy(self)
        generator = torch.Generator("cpu").manual_seed(seed)
        other.private = {}
        for name, value in self.private.items():
            order = torch.randperm(len(value), generator=generator, device="cpu")
            is_tensor = isinstance(value, torch.Tensor)
            other.private[name] = value[order.to(value.device)] if is_tensor else [value[i] for i in order.tolist()]
        return other


# --- experiments and claims ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Run:
    """A further run of an experiment: the same code with other options, or another paper's attack as reference."""

    says: str
    config: Mapping[str, Any] = field(default_factory=dict)  # Config fields that differ from the method's
    grant: Mapping[str, Any] = field(default_factory=dict)  # oracle options that differ
    options: Mapping[str, Any] = field(default_factory=dict)  # SettingConfig fields that differ: another victim
    paper: str = ""  # for references: the other paper's id


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim of the paper as a check on measured numbers.

    `check(method, runs)` gets the metrics of the run it is about and of all runs by name. Given the metrics of the
    ablation in place of the method's it must fail. A claim that does not hold here carries the reason in `not_reproduced`.
    """

    check: Callable[[Metrics, Mapping[str, Metrics]], bool]
    ablation: str
    run: str = "method"
    not_reproduced: str = ""

    def holds(self, runs: Mapping[str, Metrics], of: str | None = None) -> bool:
        """Whether the claim holds of a run (its own unless another is named)."""
        return bool(self.check(runs[of or self.run], runs))


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One paper's method and how it is measured. Exactly one of `attack`, `defend`, `measure` is given."""

    paper: str
    setting: type[Setting]
    config: Config
    attack: Callable[..., Reconstruction] | None = None
    defend: Callable[..., Target] | None = None
    measure: Callable[..., dict[str, float]] | None = None
    knowledge: tuple[str, ...] = ()  # the catalog's terms
    grant: Mapping[str, Any] = field(default_factory=dict)  # oracle options
    options: Mapping[str, Any] = field(default_factory=dict)  # SettingConfig fields that differ from the setting's defaults
    baselines: tuple[str, ...] | None = None  # of the setting's, None for all
    ablations: Mapping[str, Run] = field(default_factory=dict)
    variants: Mapping[str, Run] = field(default_factory=dict)
    references: Mapping[str, Run] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)
    against: tuple[str, ...] = ()  # defenses: the papers whose attacks it is measured against
    smoke: Mapping[str, Any] = field(default_factory=dict)  # Config fields of the smallest run that takes every step
    paper_scale: Mapping[str, Any] = field(default_factory=dict)  # Config fields as in the paper

    def __post_init__(self):
        roles = [role for role in ("attack", "defend", "measure") if getattr(self, role) is not None]
        require(len(roles) == 1, f"{self.paper}: exactly one of attack, defend, measure, not {roles or 'none'}")
        require(bool(self.against) == (self.defend is not None), f"{self.paper}: a defense names attacks in `against`")
        names = [*self.ablations, *self.variants, *self.references]
        require(len(set(names)) == len(names), f"{self.paper}: the names of runs must differ: {names}")
        for name, claim in self.claims.items():
            require(claim.ablation in self.ablations, f"{self.paper}: claim {name} has no ablation {claim.ablation!r}")

    @property
    def role(self) -> str:
        """attack, defend or measure."""
        return next(role for role in ("attack", "defend", "measure") if getattr(self, role) is not None)

    @property
    def access(self) -> str:
        """The access an attack needs, read from the type of its first parameter; empty for the rest."""
        if self.attack is None:
            return ""
        hint = typing.get_type_hints(self.attack)["oracle"]
        return next(access for access, oracle in ORACLES.items() if oracle is hint)

    @property
    def runs(self) -> dict[str, tuple[str, Run]]:
        """All runs by name with their role, baselines apart."""
        found = {"method": ("method", Run(says="the method as published"))}
        for role, group in (("ablation", self.ablations), ("variant", self.variants), ("reference", self.references)):
            found |= {name: (role, run) for name, run in group.items()}
        return found

    def build_setting(self, device: torch.device | str = "cpu", **options: Any) -> Setting:
        """The setting with this experiment's options; keyword options go before them."""
        return self.setting(self.setting.config_type(**{**self.options, **options}), device)

    def observe(self, setting: Setting, run: Run | None = None) -> tuple[Oracle, Knowledge]:
        """What this attack is handed: the oracle it declares and the knowledge it declares, and no more."""
        oracle = setting.target.grant(self.access, **{**self.grant, **(run.grant if run else {})})
        return oracle, setting.knowledge().only(self.knowledge)


# --- measuring -----------------------------------------------------------------------------------------------------------


@dataclass
class Measurement:
    """One run, measured."""

    role: str
    says: str
    metrics: dict[str, float]
    seconds: float = 0.0
    queries: int = 0
    peak_memory_mb: float = 0.0
    reads: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    reconstruction: Reconstruction | None = None


class Clock:
    """Seconds of wall-clock time and the peak of memory around a piece of work."""

    seconds: float = 0.0
    peak_memory_mb: float = 0.0


@contextlib.contextmanager
def clocked(device: torch.device) -> Iterator[Clock]:
    """Measures the block; on CUDA it waits for the device and reads its own peak."""
    clock = Clock()
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    yield clock
    if cuda:
        torch.cuda.synchronize(device)
        clock.peak_memory_mb = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        clock.peak_memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    clock.seconds = time.perf_counter() - start


def run_attack(
    experiment: Experiment, setting: Setting, config: Config, run: Run | None = None, role: str = "method"
) -> Measurement:
    """Grants, attacks, evaluates. Raises if the target changed on the way."""
    before = setting.target.fingerprint()
    oracle, knowledge = experiment.observe(setting, run)
    with clocked(setting.device) as clock:
        reconstruction = experiment.attack(oracle, knowledge, config)
    if setting.target.fingerprint() != before:
        raise RuntimeError(f"{experiment.paper} changed the target that it attacked")
    return Measurement(
        role,
        run.says if run else "",
        {**setting.evaluate(reconstruction), **{f"note_{k}": float(v) for k, v in reconstruction.notes.items()}},
        clock.seconds,
        oracle.queries,
        clock.peak_memory_mb,
        tuple(sorted(knowledge.reads | oracle.reads)),
        dataclasses.asdict(config),
        reconstruction,
    )


def run_baseline(setting: Setting, name: str, seed: int) -> Measurement:
    """One of the setting's baselines, by name."""
    make = setting.baselines()[name]
    generator = torch.Generator(setting.device).manual_seed(seed)
    with clocked(setting.device) as clock:
        reconstruction = make(generator)
    return Measurement(
        "baseline",
        " ".join((make.__doc__ or name).split()),
        setting.evaluate(reconstruction),
        clock.seconds,
        0,
        clock.peak_memory_mb,
        reconstruction=reconstruction,
    )


def run_defended(experiment: Experiment, setting: Setting, target: Target, says: str, role: str, seed: int) -> Measurement:
    """Every attack that a defense is measured against, on one target, with the target's utility."""
    from .registry import find

    metrics = dict(setting.utility(target))
    total = Measurement(role, says, metrics)
    defended = setting.with_target(target)
    for paper in experiment.against:
        attack = find(paper)
        done = run_attack(attack, defended, dataclasses.replace(attack.config, seed=seed))
        metrics |= {f"{paper}.{name}": value for name, value in done.metrics.items()}
        total.seconds += done.seconds
        total.queries += done.queries
        total.peak_memory_mb = max(total.peak_memory_mb, done.peak_memory_mb)
        total.reconstruction = total.reconstruction or done.reconstruction
    return total


def run_named(experiment: Experiment, setting: Setting, config: Config, name: str) -> Measurement:
    """The method, one of its ablations, variants or references, or a baseline, by name."""
    from .registry import find

    if name not in experiment.runs:
        if experiment.defend is not None and name == "undefended":
            return run_defended(experiment, setting, setting.target, "the target without a defense", "baseline", config.seed)
        return run_baseline(setting, name, config.seed)
    role, run = experiment.runs[name]
    if run.options:
        setting = type(setting)(dataclasses.replace(setting.config, **run.options), setting.device)
    if run.paper:
        other = find(run.paper)
        changed = dataclasses.replace(other.config, seed=config.seed, **run.config)
        return run_attack(other, setting, changed, run, role)
    changed = dataclasses.replace(config, **run.config)
    if experiment.attack is not None:
        return run_attack(experiment, setting, changed, run, role)
    if experiment.measure is not None:
        with clocked(setting.device) as clock:
            metrics = experiment.measure(setting, changed)
        return Measurement(role, run.says, metrics, clock.seconds, config=dataclasses.asdict(changed))
    with clocked(setting.device) as clock:
        target = experiment.defend(setting, changed)
    done = run_defended(experiment, setting, target, run.says, role, config.seed)
    done.metrics["defense_seconds"] = clock.seconds
    done.config = dataclasses.asdict(changed)
    return done


def run_names(experiment: Experiment, setting: Setting) -> list[str]:
    """Every run of an experiment in the order of its table: baselines, method, ablations, variants, references."""
    if experiment.attack is not None:
        baselines = list(setting.baselines()) if experiment.baselines is None else list(experiment.baselines)
    else:
        baselines = ["undefended"] if experiment.defend is not None else []
    return [*baselines, *experiment.runs]


def run_experiment(
    experiment: Experiment,
    setting: Setting,
    config: Config | None = None,
    names: Sequence[str] | None = None,
    watch: Callable[[Sequence[str]], Sequence[str]] = lambda names: names,
) -> dict[str, Measurement]:
    """All runs (or those named) with one seed, by name. `watch` wraps the list of names, to show progress."""
    config = config or experiment.config
    chosen = run_names(experiment, setting) if names is None else list(names)
    return {name: run_named(experiment, setting, config, name) for name in watch(chosen)}
