"""The contracts of the Atlas, tested for every implementation that discovery finds. A new paper needs no new code here."""

import ast
import dataclasses
import datetime
import functools
import inspect
import os
import re
import sys

import pytest
import torch
from torch.overrides import TorchFunctionMode

from implementations import registry, results
from implementations.common.provenance import ROOT
from implementations.experiment import Experiment, Metric, Setting, field_comments, run_attack, run_experiment, run_names
from implementations.threat_model import ORACLES
from scripts import catalog, notebooks
from scripts.vocabulary import ACCESS, KNOWLEDGE

PAPERS = list(registry.modules())
EXPERIMENTS = registry.experiments()
ATTACKS = [paper for paper in PAPERS if EXPERIMENTS[paper].role == "attack"]
DEFENSES = [paper for paper in PAPERS if EXPERIMENTS[paper].role == "defend"]
SETTINGS = sorted({experiment.setting for experiment in EXPERIMENTS.values()}, key=lambda setting: setting.name)


def by_setting(papers):
    """Papers as parameters, grouped so that two workers at most hold one setting's trained networks."""
    groups = {paper: f"{EXPERIMENTS[paper].setting.name} {place % 2}" for place, paper in enumerate(PAPERS)}
    return [pytest.param(paper, marks=pytest.mark.xdist_group(groups[paper])) for paper in papers]


def due(papers):
    """The third of the papers whose claims are measured anew this week; all with INVERSION_ATLAS_ALL_CLAIMS=1.

    Recorded results are bound to their code by a hash, so that a change in code asks for a new record at once. What turns
    with the weeks is the check that the same code still gives what was recorded, with newer packages, say.
    """
    if os.environ.get("INVERSION_ATLAS_ALL_CLAIMS"):
        return list(papers)
    week = datetime.datetime.now(datetime.UTC).isocalendar().week
    return [paper for place, paper in enumerate(papers) if place % 3 == week % 3]


@functools.cache
def setting_of(paper: str) -> Setting:
    experiment = EXPERIMENTS[paper]
    return shared_setting(experiment.setting, tuple(sorted(experiment.options.items())))


@functools.cache
def shared_setting(kind: type[Setting], options: tuple) -> Setting:
    return kind(kind.config_type(**dict(options)), "cpu")


@functools.cache
def entries() -> catalog.Catalog:
    return catalog.load(ROOT / "papers.yaml")


def module_of(paper: str):
    registry.find(paper)
    return sys.modules[registry.modules()[paper]]


def source_of(paper: str) -> str:
    return inspect.getsource(module_of(paper))


def smoke(experiment: Experiment, **changes):
    return dataclasses.replace(experiment.config, **{**experiment.smoke, **changes})


def flat_tensors(value) -> list[torch.Tensor]:
    """Every tensor and number in a reconstruction's data, in order."""
    if isinstance(value, torch.Tensor):
        return [value.double() if value.is_floating_point() else value]
    if isinstance(value, dict):
        return [tensor for key in sorted(value) for tensor in flat_tensors(value[key])]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in flat_tensors(item)]
    if dataclasses.is_dataclass(value):
        return [tensor for field in dataclasses.fields(value) for tensor in flat_tensors(getattr(value, field.name))]
    if isinstance(value, str):
        return [torch.tensor(list(value.encode()), dtype=torch.uint8, device="cpu")]
    return [torch.tensor([float(value)], device="cpu")] if isinstance(value, (int, float)) else []


def assert_same(one, two):
    left, right = flat_tensors(one), flat_tensors(two)
    assert left, "the reconstruction holds nothing that can be compared"
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


# --- form ------------------------------------------------------------------------------------------------------------------


def test_discovery_finds_the_methods():
    assert len(PAPERS) >= 11


@pytest.mark.parametrize("paper", PAPERS)
def test_id_is_one_everywhere(paper):
    experiment = EXPERIMENTS[paper]
    entry = entries().by_id[paper]
    assert experiment.paper == paper
    assert entry.setting.replace("-", "_") == registry.modules()[paper].split(".")[1] == experiment.setting.name
    assert entry.depth == "full"


@pytest.mark.parametrize("paper", PAPERS)
def test_docstring_has_paper_idea_mathematics_and_deviations(paper):
    doc = module_of(paper).__doc__
    entry = entries().by_id[paper]
    flat = " ".join(doc.split())
    assert "Paper:" in doc
    assert "Idea." in doc
    assert re.search(r"^Mathematics\. .*?\$\$.+?\$\$", doc, re.MULTILINE | re.DOTALL), "formulas under `Mathematics.`, in $$"
    assert re.search(r"^Deviations\n\s*1\. ", doc, re.MULTILINE), "a numbered list under the line `Deviations`"
    assert entry.title in flat, f"the docstring names the title: {entry.title}"
    for author in entry.authors:
        assert author.split()[-1] in flat, f"the docstring names every author: {author}"
    assert "https://" in doc
    assert "TODO" not in source_of(paper), "something is left to do"


@pytest.mark.parametrize("paper", PAPERS)
def test_length_of_the_file(paper):
    lines = len(source_of(paper).splitlines())
    assert 80 <= lines <= 350, f"{lines} lines: 120 to 330 is the aim"


@pytest.mark.parametrize("paper", PAPERS)
def test_every_config_field_is_documented(paper):
    config = EXPERIMENTS[paper].config
    assert type(config).__dataclass_params__.frozen
    for name, comment in field_comments(type(config)).items():
        assert len(comment) > 10, f"{type(config).__name__}.{name} needs a comment: meaning, unit, the paper's value"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_settings_say_what_they_measure(setting):
    for name, comment in field_comments(setting.config_type).items():
        assert len(comment) > 10, f"{setting.config_type.__name__}.{name} needs a comment"
    assert setting.headline in setting.metrics
    assert all(isinstance(metric, Metric) and len(metric.says) > 10 for metric in setting.metrics.values())
    with pytest.raises(ValueError, match="preset"):
        setting.config_type(preset="huge")
    with pytest.raises(ValueError, match="folder"):
        setting.config_type(preset="paper")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_paper_preset_says_what_to_put_where(setting, tmp_path):
    with pytest.raises((FileNotFoundError, ValueError)) as error:
        _ = setting(setting.config_type(preset="paper", folder=str(tmp_path)), "cpu").target
    assert str(tmp_path) in str(error.value), "the error names the folder"
    assert len(str(error.value).splitlines()) > 1, "the error shows the expected tree"


@pytest.mark.parametrize("paper", PAPERS)
def test_smoke_and_paper_scale_are_configurations(paper):
    experiment = EXPERIMENTS[paper]
    dataclasses.replace(experiment.config, **experiment.smoke)
    dataclasses.replace(experiment.config, **experiment.paper_scale)
    for _, run in experiment.runs.values():
        dataclasses.replace(registry.find(run.paper).config if run.paper else experiment.config, **run.config)


@pytest.mark.parametrize("paper", PAPERS)
def test_an_attack_touches_public_names_only(paper):
    """Oracles and knowledge hide things behind underscores; only `self._x` is a method's own business."""
    for node in ast.walk(ast.parse(source_of(paper))):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            assert isinstance(node.value, ast.Name), f"line {node.lineno}: .{node.attr}"
            assert node.value.id == "self", f"line {node.lineno}: {node.value.id}.{node.attr}"
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            for name in names:
                assert name.split(".")[0] not in {"gc", "inspect", "ctypes", "requests", "urllib", "socket"}, name


# --- catalog, module and result agree ----------------------------------------------------------------------------------------


def test_vocabularies_match_the_oracles():
    assert set(ORACLES) == set(ACCESS)


@pytest.mark.parametrize("paper", ATTACKS)
def test_access_granted_is_access_declared(paper):
    experiment = EXPERIMENTS[paper]
    threat = entries().by_id[paper].threat_model
    assert experiment.access in threat.access
    assert set(experiment.knowledge) <= set(KNOWLEDGE)
    assert set(experiment.knowledge) <= set(threat.knowledge), "the entry declares all that the module uses"


@pytest.mark.parametrize("paper", PAPERS)
def test_claims_of_module_and_catalog_are_the_same(paper):
    claims = EXPERIMENTS[paper].claims
    assert set(claims) == {claim.id for claim in entries().by_id[paper].claims}
    assert claims, "a paper without a claim shows nothing"


@pytest.mark.parametrize("paper", PAPERS)
def test_result_is_fresh_and_complete(paper):
    assert not results.stale(paper), f"{results.stale(paper)}; run make results ID={paper}"
    result = results.load_result(paper)
    assert len(result["seeds"]) >= 3
    assert set(result["claims"]) == set(EXPERIMENTS[paper].claims)
    assert set(EXPERIMENTS[paper].runs) <= set(result["runs"])
    for name, claim in result["claims"].items():
        assert claim["ablation_fails"] or not claim["reproduced"], f"{name} passes without the paper's idea"
        assert claim["reproduced"] or len(claim["reason"]) > 20, f"{name} is not reproduced: the reason is missing"
        assert not (claim["reproduced"] and claim["reason"]), f"{name} is reproduced: remove its not_reproduced"


@pytest.mark.parametrize("paper", PAPERS)
def test_notebook_is_there_executed_and_fresh(paper):
    assert not notebooks.problems(paper), notebooks.problems(paper)


# --- behaviour ---------------------------------------------------------------------------------------------------------------

FACTORIES = {
    getattr(torch, name)
    for name in [
        "zeros",
        "ones",
        "full",
        "empty",
        "tensor",
        "as_tensor",
        "arange",
        "linspace",
        "logspace",
        "eye",
        "rand",
        "randn",
        "randint",
        "randperm",
        "normal",
        "empty_strided",
        "tril_indices",
        "triu_indices",
        "hann_window",
    ]
}


class ExplicitDevices(TorchFunctionMode):
    """Raises when this project's own code makes a tensor without naming a device."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in FACTORIES and kwargs.get("device") is None:
            given = any(isinstance(arg, torch.Tensor) for arg in args)  # torch.normal(mean, std), as_tensor(tensor)
            caller = sys._getframe(1).f_code.co_filename
            if not given and caller.startswith(str(ROOT / "implementations")):
                line = sys._getframe(1).f_lineno
                raise AssertionError(f"{caller}:{line}: torch.{function.__name__} without a device")
        return function(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("paper", by_setting(ATTACKS))
def test_attack_keeps_its_threat_model(paper, no_network):
    """One smoke run under watch: explicit devices, no network, declared knowledge only, target unchanged, finite numbers."""
    experiment, setting = EXPERIMENTS[paper], setting_of(paper)
    _ = setting.target
    for role, run in experiment.runs.values():
        if role == "reference" or run.options:
            continue
        config = dataclasses.replace(smoke(experiment), **{k: v for k, v in run.config.items() if k not in experiment.smoke})
        with ExplicitDevices():
            done = run_attack(experiment, setting, config, run)
        declared = set(entries().by_id[paper].threat_model.knowledge)
        assert set(done.reads) <= declared, f"read but not declared: {set(done.reads) - declared}"
        assert set(setting.metrics) <= set(done.metrics)
        assert all(torch.isfinite(torch.tensor(v, device="cpu")) for v in done.metrics.values()), done.metrics


@pytest.mark.slow
@pytest.mark.parametrize("paper", by_setting(ATTACKS))
def test_same_seed_same_result_and_other_seed_allowed(paper):
    experiment, setting = EXPERIMENTS[paper], setting_of(paper)
    first, second = (experiment.attack(*experiment.observe(setting), smoke(experiment)) for _ in range(2))
    assert_same(first.data, second.data)


@pytest.mark.slow
@pytest.mark.parametrize("paper", by_setting(ATTACKS))
def test_private_data_never_granted_change_nothing(paper):
    experiment, setting = EXPERIMENTS[paper], setting_of(paper)
    other = setting.with_private_permuted(seed=1)
    assert any(
        not torch.equal(a, b) if isinstance(a, torch.Tensor) else a != b
        for a, b in ((setting.private[name], other.private[name]) for name in setting.private)
    ), "permuting changed nothing: this test would be empty"
    first = experiment.attack(*experiment.observe(setting), smoke(experiment))
    second = experiment.attack(*experiment.observe(other), smoke(experiment))
    assert_same(first.data, second.data)


@pytest.mark.slow
@pytest.mark.parametrize("paper", by_setting(ATTACKS))
def test_figure_can_be_drawn(paper):
    experiment, setting = EXPERIMENTS[paper], setting_of(paper)
    rebuilt = experiment.attack(*experiment.observe(setting), smoke(experiment))
    image = results.picture(setting, {"method": rebuilt})
    assert image.startswith(b"\x89PNG")
    assert len(image) > 2000


PAIRS = [
    pytest.param(attack, defense, marks=pytest.mark.xdist_group(f"{EXPERIMENTS[attack].setting.name} 0"))
    for defense in DEFENSES
    for attack in ATTACKS
    if EXPERIMENTS[attack].setting is EXPERIMENTS[defense].setting
]


@pytest.mark.slow
@pytest.mark.parametrize(("attack", "defense"), PAIRS)
def test_every_attack_runs_against_every_defense(attack, defense):
    experiment = EXPERIMENTS[attack]
    setting = shared_setting(experiment.setting, ())
    target = EXPERIMENTS[defense].defend(setting, smoke(EXPERIMENTS[defense]))
    assert target.fingerprint() != setting.target.fingerprint(), "the defense changed nothing"
    done = run_attack(experiment, setting.with_target(target), smoke(experiment))
    assert set(setting.metrics) <= set(done.metrics)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("paper", by_setting(due(PAPERS)))
def test_claims_hold_again_and_fail_for_their_ablations(paper):
    """One recorded seed on which the reproduced claims held, measured anew. Only what the claims need is run."""
    experiment, setting = EXPERIMENTS[paper], setting_of(paper)
    recorded = results.load_result(paper)["claims"]
    needed = needed_runs(experiment, setting)
    config = dataclasses.replace(experiment.config, seed=holding_seed(experiment))
    measured = {name: run.metrics for name, run in run_experiment(experiment, setting, config, needed).items()}
    for name, claim in experiment.claims.items():
        if recorded[name]["reproduced"]:
            assert claim.holds(measured), f"{name} was recorded as reproduced and fails now: {measured}"
            assert not claim.holds(measured, of=claim.ablation), f"{name} passes without the paper's idea"


def holding_seed(experiment: Experiment) -> int:
    """The first recorded seed on which every reproduced claim holds by itself: verdicts are of medians, this test is of one."""
    result = results.load_result(experiment.paper)
    claims = [claim for name, claim in experiment.claims.items() if result["claims"][name]["reproduced"]]
    for place, seed in enumerate(result["seeds"]):
        known = {
            name: {metric: s["values"][place] for metric, s in run["metrics"].items()} for name, run in result["runs"].items()
        }
        if all(claim.holds(known) and not claim.holds(known, of=claim.ablation) for claim in claims):
            return seed
    pytest.fail(f"{experiment.paper}: on no recorded seed do all reproduced claims hold; medians alone are too thin")


class Asked(dict):
    """Metrics by run that remember which runs a check looked at."""

    def __init__(self, known):
        super().__init__(known)
        self.names = set()

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)


def needed_runs(experiment: Experiment, setting: Setting) -> list[str]:
    """The runs that the claims' checks read, found by asking them on the recorded numbers, and their ablations."""
    runs = results.load_result(experiment.paper)["runs"]
    known = {name: {metric: s["median"] for metric, s in run["metrics"].items()} for name, run in runs.items()}
    names = set()
    recorded = results.load_result(experiment.paper)["claims"]
    for claim in (claim for name, claim in experiment.claims.items() if recorded[name]["reproduced"]):
        for of in (claim.run, claim.ablation):
            asked = Asked(known)
            claim.check(asked[of], asked)
            names |= asked.names
    return [name for name in run_names(experiment, setting) if name in names]


@pytest.mark.gpu
@pytest.mark.parametrize("paper", ATTACKS)
def test_attack_runs_on_a_gpu(paper):
    experiment = EXPERIMENTS[paper]
    setting = experiment.build_setting("cuda")
    done = run_attack(experiment, setting, smoke(experiment))
    assert set(setting.metrics) <= set(done.metrics)
